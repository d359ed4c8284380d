//! Who may open a socket, with which credentials, and for how long.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use pulsehub::{auth::ApiKeys, store::Store, time::Clock};
use serde_json::{Value, json};

use crate::support::hub::{Client, PROTOCOL, TestHub, numbers};

const PATH: &str = "/ws/real-time";

/// Says `connect` without a token and gives the user the hub takes the client for.
async fn user(client: &mut Client) -> String {
    client.send(json!({"type": "connect", "id": 1})).await;
    client.expect("connected").await["user"].as_str().unwrap().to_owned()
}

/// A session's cookie, as a browser gets it by opening a sign-in link.
async fn session(hub: &TestHub) -> String {
    let code = hub.app().sign_in_code().await.unwrap();
    let request = hub.http().post(hub.url("/api/v1/session")).json(&json!({"code": code}));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

async fn ticket(hub: &TestHub, token: &str) -> String {
    let request = hub.http().post(hub.url("/api/v1/tickets")).bearer_auth(token);
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    answer["ticket"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn credentials_come_in_a_header_a_subprotocol_a_cookie_or_a_ticket() {
    let hub = TestHub::start().await;
    let token = hub.token("ada", &["a.*"]);
    let bearer = format!("Bearer {token}");
    let protocol = format!("hub.v1, base64url.bearer.{}", URL_SAFE_NO_PAD.encode(&token));
    for header in [
        ("authorization", bearer.as_str()),
        ("x-api-key", &token),
        ("sec-websocket-protocol", &protocol),
    ] {
        let is_protocol = header.0 == "sec-websocket-protocol";
        let headers = if is_protocol { vec![header] } else { vec![PROTOCOL, header] };
        let mut client = hub.socket(PATH, &headers).await;
        assert_eq!(user(&mut client).await, "ada", "{}", header.0);
        assert_eq!(client.protocol.as_deref(), Some("hub.v1")); // never the one with the token
    }
    let (_, key) = hub.make_key("machine", &["a.*"]).await;
    let mut client = hub.socket(PATH, &[PROTOCOL, ("x-api-key", &key)]).await;
    assert_eq!(user(&mut client).await, "machine");
    let ticket = ticket(&hub, &token).await;
    let path = format!("{PATH}?ticket={ticket}");
    let mut client = hub.socket(&path, &[PROTOCOL]).await;
    assert_eq!(user(&mut client).await, "ada");
    let mut again = hub.socket(&path, &[PROTOCOL]).await;
    assert_eq!(again.expect_close().await.0, 4401);
    let cookie = session(&hub).await;
    let mut client = hub.socket(PATH, &[PROTOCOL, ("cookie", &cookie)]).await;
    assert_eq!(user(&mut client).await, "admin");
    // An explicit credential goes before the cookie.
    let headers = [PROTOCOL, ("cookie", &cookie), ("authorization", &bearer)];
    assert_eq!(user(&mut hub.socket(PATH, &headers).await).await, "ada");
    let mut client = hub.socket(PATH, &[PROTOCOL, ("cookie", &cookie)]).await;
    assert_eq!(client.connect(&token).await["user"], "ada");
    // The same one twice is one.
    let mut client = hub.socket(PATH, &[PROTOCOL, ("authorization", &bearer)]).await;
    assert_eq!(client.connect(&token).await["user"], "ada");
}

#[tokio::test]
async fn two_credentials_that_differ_are_refused() {
    let hub = TestHub::start().await;
    let (ada, bob) = (hub.token("ada", &["a.*"]), hub.token("bob", &["a.*"]));
    let bearer = format!("Bearer {ada}");
    let headers = [PROTOCOL, ("authorization", &bearer), ("x-api-key", &bob)];
    assert_eq!(hub.socket(PATH, &headers).await.expect_close().await.0, 4400);
    let mut client = hub.socket(PATH, &[PROTOCOL, ("authorization", &bearer)]).await;
    client.send(json!({"type": "connect", "id": 1, "token": bob})).await;
    assert_eq!(client.expect_close().await.0, 4400);
    let path = format!("{PATH}?ticket={}", ticket(&hub, &ada).await);
    let mut client = hub.socket(&path, &[PROTOCOL]).await;
    client.send(json!({"type": "connect", "id": 1, "token": bob})).await;
    assert_eq!(client.expect_close().await.0, 4400);
}

#[tokio::test]
async fn without_good_credentials_nobody_comes_in() {
    let hub = TestHub::start().await;
    let mut client = hub.socket(PATH, &[PROTOCOL]).await;
    client.send(json!({"type": "connect", "id": 1})).await;
    assert_eq!(client.expect_close().await.0, 4401);
    let mut client = hub.socket(PATH, &[PROTOCOL]).await;
    client.send(json!({"type": "connect", "id": 1, "token": "nonsense"})).await;
    assert_eq!(client.expect_close().await.0, 4401);
    let mut client = hub.socket(PATH, &[PROTOCOL, ("x-api-key", "nonsense")]).await;
    assert_eq!(client.expect_close().await.0, 4401);
    let mut client = hub.socket(PATH, &[PROTOCOL, ("cookie", "pulsehub_session=x")]).await;
    assert_eq!(client.expect_close().await.0, 4401);
    let path = format!("{PATH}?token={}", hub.token("ada", &["a.*"]));
    assert_eq!(hub.socket(&path, &[PROTOCOL]).await.expect_close().await.0, 4400);
    hub.metric_becomes("pulsehub_connections", 0.0).await;
    assert_eq!(hub.metric("pulsehub_closes_total{code=\"unauthorized\"}").await, 4.0);
}

#[tokio::test]
async fn a_token_in_the_address_counts_only_where_allowed() {
    let hub = TestHub::with(&[("auth.query_token", "true")]).await;
    let path = format!("{PATH}?token={}", hub.token("ada", &["a.*"]));
    assert_eq!(user(&mut hub.socket(&path, &[PROTOCOL]).await).await, "ada");
}

#[tokio::test]
async fn anybody_may_do_what_anonymous_is_granted_and_no_more() {
    let file = "[auth.anonymous]\nsubscribe = [\"public.**\"]\npublish = []\n";
    let hub = TestHub::with_file(file).await;
    let mut client = hub.socket(PATH, &[PROTOCOL]).await;
    user(&mut client).await;
    client.subscribe(json!({"sub": "s", "topics": ["public.*"]})).await;
    client.expect("live").await;
    let refused = json!(["public.*", "private.*"]);
    client.send(json!({"type": "subscribe", "id": 2, "sub": "t", "topics": refused})).await;
    let error = client.expect_error("forbidden").await;
    assert!(error["message"].as_str().unwrap().contains("private.*"), "{error}");
    client.send(json!({"type": "publish", "id": 3, "events": [{"topic": "public.b"}]})).await;
    client.expect_error("forbidden").await;
    hub.publish_numbers("public.b", 0..1).await;
    assert_eq!(numbers(&client.events("s", 1).await), [0]); // nothing of the refused subscription
    let mut known = hub.socket(PATH, &[PROTOCOL]).await;
    assert_eq!(known.connect(&hub.token("ada", &["a.*"])).await["user"], "ada");
}

#[tokio::test]
async fn pages_of_other_origins_need_to_be_allowed() {
    let hub = TestHub::with(&[("http.allowed_origins", "https://dash.example")]).await;
    let token = hub.token("ada", &["a.*"]);
    let own = format!("http://{}", hub.address());
    for allowed in ["https://dash.example", &own] {
        let mut client = hub.socket(PATH, &[PROTOCOL, ("origin", allowed)]).await;
        client.connect(&token).await;
    }
    for foreign in ["https://evil.example", "null", "https://dash.example.evil.example"] {
        let headers = [PROTOCOL, ("origin", foreign), ("x-api-key", token.as_str())];
        let mut client = hub.socket(PATH, &headers).await;
        assert_eq!(client.expect_close().await.0, 4403, "{foreign}");
    }
    // A session counts for the hub's own pages only, also where the origin is allowed.
    let cookie = session(&hub).await;
    let headers = [PROTOCOL, ("origin", own.as_str()), ("cookie", &cookie)];
    assert_eq!(user(&mut hub.socket(PATH, &headers).await).await, "admin");
    let headers = [PROTOCOL, ("origin", "https://dash.example"), ("cookie", &cookie)];
    let mut client = hub.socket(PATH, &headers).await;
    client.send(json!({"type": "connect", "id": 1})).await;
    assert_eq!(client.expect_close().await.0, 4401);
}

#[tokio::test]
async fn an_expired_token_closes_the_socket_and_a_refresh_extends_it() {
    let hub = TestHub::start().await;
    let short = |name: &str| hub.token_for(name, &["a.*"], None, 1);
    let mut refreshed = hub.socket(PATH, &[PROTOCOL]).await;
    refreshed.connect(&short("ada")).await;
    let refresh = json!({"type": "refresh", "id": "r", "token": hub.token("ada", &["a.*"])});
    refreshed.send(refresh).await;
    let answer = refreshed.expect("refreshed").await;
    assert_eq!(answer["id"], "r");
    assert!(answer["expires_in"].as_u64().unwrap() > 3500, "{answer}");
    let mut client = hub.socket(PATH, &[PROTOCOL]).await;
    client.connect(&short("bob")).await;
    assert_eq!(client.expect_close().await.0, 4440);
    refreshed.still_answers().await; // ada's first token has run out as well by now
    let mut late = hub.socket(PATH, &[PROTOCOL]).await;
    let expired = hub.token_for("bob", &["a.*"], None, 1);
    late.connect(&expired).await;
    assert_eq!(late.expect_close().await.0, 4440);
    let mut late = hub.socket(PATH, &[PROTOCOL]).await;
    late.send(json!({"type": "connect", "id": 1, "token": expired})).await;
    assert_eq!(late.expect_close().await.0, 4440);
}

#[tokio::test]
async fn a_grant_lost_by_refresh_ends_its_subscriptions_at_once() {
    let hub = TestHub::start().await;
    let mut client = hub.client("ada", &["a.*", "b.*"]).await;
    for sub in ["a", "b"] {
        client.subscribe(json!({"sub": sub, "topics": [format!("{sub}.*")]})).await;
        client.expect("live").await;
    }
    let refresh = |token: String| json!({"type": "refresh", "id": 5, "token": token});
    client.send(refresh(hub.token("ada", &["b.*"]))).await;
    client.expect("refreshed").await;
    let ended = client.expect("unsubscribed").await;
    assert_eq!(ended, json!({"type": "unsubscribed", "sub": "a", "code": "forbidden"}));
    hub.publish_numbers("a.b", 0..3).await;
    hub.publish_numbers("b.b", 3..4).await;
    assert_eq!(numbers(&client.events("b", 1).await), [3]); // and nothing of a.*
    client.send(json!({"type": "subscribe", "id": 6, "sub": "a", "topics": ["a.*"]})).await;
    client.expect_error("forbidden").await;
    client.send(refresh(hub.token("bob", &["b.*"]))).await;
    client.expect_error("forbidden").await; // somebody else's
    client.send(refresh("nonsense".into())).await;
    client.expect_error("unauthorized").await;
    // Refused tokens change nothing, and nothing of a.* has come meanwhile.
    hub.publish_numbers("b.b", 4..5).await;
    assert_eq!(numbers(&client.events("b", 1).await), [4]);
}

#[tokio::test]
async fn revoking_a_key_closes_its_sockets_and_no_others() {
    let hub = TestHub::start().await;
    let (id, key) = hub.make_key("machine", &["a.*"]).await;
    let (_, other) = hub.make_key("other", &["a.*"]).await;
    let mut client = hub.socket(PATH, &[PROTOCOL, ("x-api-key", &key)]).await;
    let mut untouched = hub.socket(PATH, &[PROTOCOL, ("x-api-key", &other)]).await;
    user(&mut client).await;
    user(&mut untouched).await;
    let store = Store::open(&hub.data(), Clock::system()).unwrap();
    assert!(ApiKeys::new(&store).revoke(&id).await.unwrap()); // by another process, as the command line does
    assert_eq!(client.expect_close().await.0, 4401);
    untouched.still_answers().await;
    let mut again = hub.socket(PATH, &[PROTOCOL, ("x-api-key", &key)]).await;
    assert_eq!(again.expect_close().await.0, 4401);
}

#[tokio::test]
async fn a_key_revoked_between_a_sockets_upgrade_and_its_connect_closes_it() {
    let hub = TestHub::start().await;
    let (id, key) = hub.make_key("machine", &["a.*"]).await;
    let mut early = hub.socket(PATH, &[PROTOCOL, ("x-api-key", &key)]).await;
    user(&mut early).await;
    // Its key has been looked at, but nobody knows yet that it is here.
    let mut late = hub.socket(PATH, &[PROTOCOL, ("x-api-key", &key)]).await;
    let store = Store::open(&hub.data(), Clock::system()).unwrap();
    assert!(ApiKeys::new(&store).revoke(&id).await.unwrap());
    assert_eq!(early.expect_close().await.0, 4401); // the notice is over
    late.send(json!({"type": "connect", "id": 1})).await;
    assert_eq!(late.expect_close().await.0, 4401);
}

#[tokio::test]
async fn ending_a_session_closes_its_sockets() {
    let hub = TestHub::start().await;
    let cookie = session(&hub).await;
    let mut client = hub.socket(PATH, &[PROTOCOL, ("cookie", &cookie)]).await;
    user(&mut client).await;
    let own = format!("http://{}", hub.address());
    let request = hub.http().delete(hub.url("/api/v1/session"));
    let answer = request.header("cookie", &cookie).header("origin", own).send().await.unwrap();
    assert_eq!(answer.status(), 204);
    assert_eq!(client.expect_close().await.0, 4401);
}
