//! Who published an event: it comes from the credentials, whatever `source` claims.

use pulsehub::{
    auth::{ApiKey, ApiKeys, NewApiKey},
    grants::Grants,
    store::Store,
    time::Clock,
    topic::TopicPattern,
};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::support::{
    hub::{SECRET, TestHub},
    redis::RedisServer,
};

/// What became of one event that says it is alice's.
async fn publish(hub: &TestHub, credential: &str, data: &str) -> (u64, u64) {
    let event = json!({"topic": "a.b", "source": "alice", "id": "1", "data": data});
    let request = hub.http().post(hub.url("/api/v1/publish")).json(&event);
    let request = if credential.is_empty() { request } else { request.bearer_auth(credential) };
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    (answer["offsets"][0].as_u64().unwrap(), answer["accepted"].as_u64().unwrap())
}

async fn history(hub: &TestHub, role: Option<&str>) -> Vec<Value> {
    let token = hub.token_for("reader", &["**"], role, 99);
    let request = hub.http().get(hub.url("/api/v1/history?topics=a.b")).bearer_auth(token);
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    answer["events"].as_array().unwrap().clone()
}

fn token_of(issuer: &str, subject: &str) -> String {
    use jsonwebtoken::{EncodingKey, Header, encode};
    let now = Clock::system().now() / 1000;
    let claims = json!({"sub": subject, "iss": issuer, "exp": now + 99, "publish": ["**"]});
    encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

async fn a_key(store: &Store, name: &str) -> String {
    let publish = vec![TopicPattern::parse("**").unwrap()];
    let grants = Grants { subscribe: Vec::new(), publish };
    let new = NewApiKey { name: name.into(), grants, role: None, expires: None };
    let (key, stored) = ApiKey::make(new, Clock::system().now()).unwrap();
    ApiKeys::new(store).put(stored).await.unwrap();
    key.expose_secret().to_owned()
}

#[tokio::test]
async fn a_forged_source_swallows_nobodys_event_and_a_rotated_key_doubles_none() {
    let hub = TestHub::with_file("[auth.anonymous]\npublish = [\"a.*\"]\nsubscribe = []\n").await;
    let store = Store::open(&hub.data(), Clock::system()).unwrap();
    let (old, new, other) =
        (a_key(&store, "ci").await, a_key(&store, "ci").await, a_key(&store, "alice").await);
    let here = token_of("https://here", "alice");
    let mallory = hub.token("mallory", &["**"]);
    publish(&hub, &mallory, "forged").await;
    let (hers, accepted) = publish(&hub, &here, "hers").await;
    assert_eq!(accepted, 1, "the forgery is another event");
    assert_eq!(publish(&hub, &token_of("https://there", "alice"), "x").await.1, 1);
    assert_eq!(publish(&hub, &other, "x").await.1, 1, "a key is no token");
    let (first, accepted) = publish(&hub, &old, "x").await;
    assert_eq!(accepted, 1);
    assert_eq!(publish(&hub, &new, "x").await, (first, 0), "the same by name");
    let (nobodys, accepted) = publish(&hub, "", "x").await;
    assert_eq!(accepted, 1);
    assert_eq!(publish(&hub, "", "x").await, (nobodys, 0));
    assert_eq!(publish(&hub, &here, "hers").await, (hers, 0));
    // Over a socket as well: the dedupe window is one.
    let mut client = hub.client("mallory", &["**"]).await;
    let event = json!({"topic": "a.b", "source": "alice", "id": "1", "data": 0});
    client.send(json!({"type": "publish", "id": "p", "events": [event]})).await;
    assert_eq!(client.expect("ack").await["duplicates"], 1);

    let events = history(&hub, Some("admin")).await;
    let publishers: Vec<&Value> = events.iter().map(|event| &event["publisher"]).collect();
    let token = |name: &str, issuer: &str| json!({"kind": "token", "name": name, "issuer": issuer});
    let key = |name: &str| json!({"kind": "key", "name": name});
    assert_eq!(
        publishers,
        [
            &token("mallory", ""),
            &token("alice", "https://here"),
            &token("alice", "https://there"),
            &key("alice"),
            &key("ci"),
            &json!({"kind": "anonymous"}),
        ]
    );
    for event in history(&hub, None).await {
        assert!(event.get("publisher").is_none(), "nobody else is told: {event}");
    }
}

#[tokio::test]
async fn on_redis_a_forged_source_swallows_nobodys_event() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let hubs = [TestHub::with(&[("redis", &*url)]).await, TestHub::with(&[("redis", &*url)]).await];
    let (mallory, alice) = (token_of("", "mallory"), token_of("", "alice"));
    assert_eq!(publish(&hubs[0], &mallory, "forged").await.1, 1);
    let (hers, accepted) = publish(&hubs[1], &alice, "hers").await;
    assert_eq!(accepted, 1);
    assert_eq!(publish(&hubs[0], &alice, "hers").await, (hers, 0), "known on every node");
    let events = history(&hubs[0], Some("admin")).await;
    let names: Vec<&Value> = events.iter().map(|event| &event["publisher"]["name"]).collect();
    assert_eq!(names, ["mallory", "alice"]);
}

#[tokio::test]
async fn a_page_could_have_others_publish_without_their_knowing() {
    let hub =
        TestHub::with_file("[auth.anonymous]\npublish = [\"open.*\"]\nsubscribe = []\n").await;
    let http = hub.http();
    let session = json!({"token": hub.token("ada", &["a.*"])});
    let answer = http.post(hub.url("/api/v1/session")).json(&session).send().await.unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let token = hub.token("ada", &["a.*"]);
    let origin = hub.url("");
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let credentials: [(&str, Headers<'_>, bool); 5] = [
        ("a.b", &[("cookie", &cookie), ("origin", &origin)], false),
        ("a.b", &[("authorization", &format!("Bearer {token}")), ("origin", &origin)], true),
        ("a.b", &[("cookie", &cookie), ("x-api-key", &token)], true),
        ("open.b", &[("origin", "https://evil.example")], false),
        ("open.b", &[], true),
    ];
    for (topic, headers, is_meant) in credentials {
        for kind in [
            Some("application/json"),
            Some("text/plain;charset=UTF-8"),
            Some("application/x-www-form-urlencoded"),
            Some("application/x-ndjson"),
            None,
        ] {
            let body = json!({"topic": topic}).to_string();
            let mut request = http.post(hub.url("/api/v1/publish")).body(body);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if let Some(kind) = kind {
                request = request.header("content-type", kind);
            }
            let answer = request.send().await.unwrap();
            let is_taken = is_meant || kind == Some("application/json");
            let status = if is_taken { 200 } else { 415 };
            assert_eq!(answer.status(), status, "{headers:?} {kind:?}");
            if !is_taken {
                let problem: Value = answer.json().await.unwrap();
                assert!(problem["detail"].as_str().unwrap().contains("an API key"), "{problem}");
            }
        }
    }
}
