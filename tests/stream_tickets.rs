//! Tickets of streams: good as often as a stream breaks, for streams of its topics alone, and no longer than who made them.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{hub::TestHub, stream::Stream};

const PATH: &str = "/api/v1/tickets";

/// Asks with a token or an API key; the status and the answer.
async fn ask(
    hub: &TestHub,
    method: Method,
    path: &str,
    key: &str,
    body: Value,
) -> (StatusCode, Value) {
    let request = hub.http().request(method, hub.url(path)).header("x-api-key", key);
    let answer = request.json(&body).send().await.unwrap();
    let status = answer.status();
    (status, answer.json().await.unwrap_or_default())
}

/// A ticket for streams of `topics`.
async fn ticket(hub: &TestHub, key: &str, topics: &[&str]) -> String {
    let (status, answer) = ask(hub, Method::POST, PATH, key, json!({"topics": topics})).await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!(answer["topics"], json!(topics));
    answer["ticket"].as_str().unwrap().to_owned()
}

async fn status(hub: &TestHub, query: &str) -> StatusCode {
    let url = hub.url(&format!("/sse/real-time?{query}"));
    hub.http().get(url).send().await.unwrap().status()
}

#[tokio::test]
async fn a_streams_ticket_opens_it_as_often_as_it_breaks_and_nothing_else() {
    let hub = TestHub::start().await;
    let token = hub.token("ada", &["a.*", "b.*"]);
    let ticket = ticket(&hub, &token, &["a.*"]).await;
    assert!(ticket.starts_with("phs_"), "{ticket}");
    for n in 0..3 {
        let query = format!("topics=a.*&ticket={ticket}");
        let mut stream = Stream::without_headers(&hub, &query).await;
        hub.publish_numbers("a.b", n..n + 1).await;
        assert_eq!(stream.event().await.2["data"], json!({"n": n}));
    }
    assert_eq!(status(&hub, &format!("topics=a.b&ticket={ticket}")).await, 200);
    for other in ["b.*", "a.*,b.*", "**", "a.**"] {
        assert_eq!(status(&hub, &format!("topics={other}&ticket={ticket}")).await, 403, "{other}");
    }
    for query in ["topics=a.*&", ""] {
        let path = format!("/ws/real-time?{query}ticket={ticket}");
        let mut socket = hub.socket(&path, &[]).await;
        let (code, reason) = socket.expect_close().await;
        assert_eq!(code, 4401);
        assert!(reason.contains("streams"), "{reason}");
    }
    for (method, path, body) in [
        (Method::GET, "/api/v1/history?topics=a.*", json!(null)),
        (Method::POST, "/api/v1/publish", json!({"topic": "a.b"})),
        (Method::POST, PATH, json!({"topics": ["a.*"]})),
        (Method::POST, "/api/v1/session", json!({"token": ticket})),
    ] {
        let (status, answer) = ask(&hub, method, path, &ticket, body).await;
        assert_eq!(status, 401, "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_streams_ticket_ends_with_the_credentials_that_made_it() {
    let hub = TestHub::with(&[("socket.ping", "60s")]).await;
    // A key that is revoked.
    let (id, key) = hub.make_key("machine", &["a.*"]).await;
    let by_key = format!("topics=a.*&ticket={}", ticket(&hub, &key, &["a.*"]).await);
    let mut stream = Stream::without_headers(&hub, &by_key).await;
    stream.begins().await;
    hub.revoke_key(&id).await;
    assert_eq!(stream.block().await, None);
    assert_eq!(status(&hub, &by_key).await, 401);

    // A session that is ended.
    let http = hub.http();
    let token = hub.token("ada", &["a.*"]);
    let request = http.post(hub.url("/api/v1/session")).json(&json!({"token": token}));
    let answer = request.send().await.unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let of_page = |method, path: &str| {
        let request = http.request(method, hub.url(path)).header("cookie", &cookie);
        request.header("sec-fetch-site", "same-origin")
    };
    let request = of_page(Method::POST, PATH).json(&json!({"topics": ["a.*"]}));
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    let by_session = format!("topics=a.*&ticket={}", answer["ticket"].as_str().unwrap());
    let mut stream = Stream::without_headers(&hub, &by_session).await;
    stream.begins().await;
    assert_eq!(of_page(Method::DELETE, "/api/v1/session").send().await.unwrap().status(), 204);
    assert_eq!(stream.block().await, None);
    assert_eq!(status(&hub, &by_session).await, 401);

    // A token that runs out.
    let token = hub.token_for("ada", &["a.*"], None, 2);
    let (_, answer) = ask(&hub, Method::POST, PATH, &token, json!({"topics": ["a.*"]})).await;
    assert!(answer["expires_in"].as_u64().unwrap() <= 2, "{answer}");
    let by_token = format!("topics=a.*&ticket={}", answer["ticket"].as_str().unwrap());
    let mut stream = Stream::without_headers(&hub, &by_token).await;
    stream.begins().await;
    assert_eq!(stream.block().await, None);
    assert_eq!(status(&hub, &by_token).await, 401);
}

#[tokio::test]
async fn a_streams_ticket_that_is_taken_back_ends_its_streams() {
    let hub = TestHub::with(&[("socket.ping", "60s")]).await;
    let token = hub.token("ada", &["a.*"]);
    let (first, second) =
        (ticket(&hub, &token, &["a.*"]).await, ticket(&hub, &token, &["a.*"]).await);
    let open = async |ticket: &str| {
        let mut stream =
            Stream::without_headers(&hub, &format!("topics=a.*&ticket={ticket}")).await;
        stream.begins().await;
        stream
    };
    let (mut ended, mut other) = (open(&first).await, open(&second).await);
    for _ in 0..2 {
        let (status, _) = ask(&hub, Method::DELETE, PATH, &token, json!({"ticket": first})).await;
        assert_eq!(status, 204);
    }
    assert_eq!(ended.block().await, None);
    assert_eq!(status(&hub, &format!("topics=a.*&ticket={first}")).await, 401);
    hub.publish_numbers("a.b", 0..1).await;
    assert_eq!(other.event().await.2["data"], json!({"n": 0}));
}

#[tokio::test]
async fn a_streams_ticket_is_refused_where_it_would_give_too_much() {
    let hub = TestHub::with_file(
        "[auth]\npasses_per_principal = 2\n[auth.anonymous]\nsubscribe = [\"open.*\"]\npublish = []\n",
    )
    .await;
    let token = hub.token("ada", &["a.*"]);
    let many: Vec<String> = (0..1000).map(|n| format!("a.t{n}")).collect();
    for (topics, status, code) in [
        (json!([]), 400, "bad_request"),
        (json!(many), 400, "bad_request"),
        (json!(["a.*", "b.*"]), 403, "forbidden"),
        (json!(["**"]), 403, "forbidden"),
        (json!(["a..b"]), 400, "invalid_json"),
        (json!("a.*"), 400, "invalid_json"),
    ] {
        let (answered, problem) =
            ask(&hub, Method::POST, PATH, &token, json!({"topics": topics})).await;
        assert_eq!((answered.as_u16(), &problem["code"]), (status, &json!(code)), "{problem}");
    }
    let body = json!({"topics": ["a.*"], "expires_in": 60});
    let (status, problem) = ask(&hub, Method::POST, PATH, &token, body).await;
    assert_eq!(status, 400, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("expires_in"), "{problem}");
    let anonymous = hub.http().post(hub.url(PATH)).json(&json!({"topics": ["open.*"]}));
    assert_eq!(anonymous.send().await.unwrap().status(), 400);
    for _ in 0..2 {
        ticket(&hub, &token, &["a.*"]).await;
    }
    let (status, problem) = ask(&hub, Method::POST, PATH, &token, json!({"topics": ["a.*"]})).await;
    assert_eq!((status.as_u16(), &problem["code"]), (429, &json!("too_many_passes")));
}

#[tokio::test]
async fn an_empty_object_was_no_request_for_a_ticket() {
    let hub = TestHub::start().await;
    let token = hub.token("ada", &["a.*"]);
    let (status, answer) = ask(&hub, Method::POST, PATH, &token, json!({})).await;
    assert_eq!(status, 201, "{answer}");
    assert!(!answer["ticket"].as_str().unwrap().starts_with("phs_"), "{answer}");
    assert_eq!((&answer["expires_in"], answer.get("topics")), (&json!(30), None));
}
