//! Every endpoint over a real journal and store, every status it answers.

use std::{io::Write as _, sync::Arc};

use axum::body::{Body, Bytes};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::{
    auth::{Authenticator, MintClaims, mint},
    config,
    store::Store,
    topic::TopicPattern,
};
use tokio_util::task::TaskTracker;

const NOW: u64 = 1_795_176_000_000;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

struct Server {
    router: Router,
    state: AppState,
    _folder: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    fn assert_problem(&self, status: u16, code: &str) -> Value {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), status, "{body}");
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        let problem = self.json();
        assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)));
        problem
    }
}

impl Server {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(flags: &[(&str, &str)]) -> Self {
        let flags: Vec<_> = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let variables = [("PULSEHUB_SECRET".into(), SECRET.into())];
        let config = config::Config::load(None, variables, &flags).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (telemetry, clock) = (Telemetry::new(), Clock::manual(NOW));
        let store = Store::open(folder.path(), clock.clone()).unwrap();
        let authenticator =
            Authenticator::new(&config.auth, &config.secret, store.clone(), clock.clone()).unwrap();
        let broker =
            Broker::open(config.journal, folder.path(), clock.clone(), telemetry.clone()).unwrap();
        let terms = Arc::new(Terms {
            config: config.socket,
            limits: config.limits,
            telemetry: telemetry.clone(),
        });
        let state = Arc::new(Services {
            connections: Connections::new(10, telemetry.clone()),
            terms,
            tasks: TaskTracker::new(),
            hub: Hub::new(broker.clone(), config.hub, telemetry.clone()),
            broker,
            access: Access::new(authenticator, store, clock.clone()),
            telemetry,
            clock,
            readiness: Readiness::default(),
            settings: Settings {
                is_loopback: config.listen.ip().is_loopback(),
                http: config.http,
                limits: config.limits,
                query_token: config.auth.query_token,
            },
        });
        Self { router: router(state.clone()), state, _folder: folder }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, uri: &str) -> Answer {
        self.send(request("GET", uri).body(Body::empty()).unwrap()).await
    }

    async fn publish(&self, body: impl Into<Body>) -> Answer {
        self.send(request("POST", "/api/v1/publish").body(body.into()).unwrap()).await
    }

    fn refusals(&self, code: &str) -> bool {
        let label = format!("code=\"{code}\"");
        self.state.telemetry.openmetrics().unwrap().contains(&label)
    }
}

/// A request with a token that may publish to `a.**` and subscribe to `a.**`.
fn request(method: &str, uri: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(uri)
        .header("authorization", format!("Bearer {}", token("ada", &["a.**"], None, 3600)))
}

fn token(name: &str, patterns: &[&str], role: Option<&str>, seconds: u64) -> String {
    let patterns: Vec<_> = patterns.iter().map(|text| TopicPattern::parse(text).unwrap()).collect();
    let claims = MintClaims {
        sub: name.to_owned(),
        subscribe: patterns.clone(),
        publish: patterns,
        role: role.map(str::to_owned),
        ttl: crate::time::Span::seconds(seconds),
    };
    let config = config::Config::load(None, [], &[]).unwrap().auth;
    let token = mint(&config, &SecretString::from(SECRET), &claims, NOW).unwrap();
    token.expose_secret().to_owned()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_publish_is_answered_with_its_offsets_and_a_retry_with_the_first() {
    let server = Server::new();
    let batch = r#"[{"topic":"a.b","id":"1"},{"topic":"a.c","id":"2","data":[1, 2]}]"#;
    let first = server.publish(batch).await;
    assert_eq!(first.status, StatusCode::OK);
    let position = server.state.broker.head().to_string();
    let expected = json!({"accepted": 2, "duplicates": 0, "position": position, "offsets": [1, 2]});
    assert_eq!(first.json(), expected);
    let again = server.publish(r#"{"topic":"a.c","id":"2"}"#).await.json();
    assert_eq!((&again["duplicates"], &again["offsets"]), (&json!(1), &json!([2])));
    let uri = "/api/v1/publish?ack=accepted";
    let early = server.send(request("POST", uri).body(r#"{"topic":"a"}"#.into()).unwrap()).await;
    early.assert_problem(403, "forbidden");
    let body = r#"{"topic":"a.x"}"#;
    let early = server.send(request("POST", uri).body(body.into()).unwrap()).await;
    assert_eq!((early.status, early.json()), (StatusCode::ACCEPTED, json!({"accepted": 1})));
    let odd = request("POST", "/api/v1/publish?ack=maybe").body(Body::empty()).unwrap();
    server.send(odd).await.assert_problem(400, "bad_request");
}

#[tokio::test]
async fn a_body_may_be_lines_gzip_or_zstd_and_nothing_else() {
    let server = Server::new();
    let send = async |headers: &[(&str, &str)], body: Vec<u8>| {
        let mut request = request("POST", "/api/v1/publish");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        server.send(request.body(body.into()).unwrap()).await
    };
    let event = br#"{"topic":"a.b"}"#;
    let lines = [&event[..], event].join(&b'\n');
    let answer = send(&[("content-type", "application/x-ndjson; charset=utf-8")], lines).await;
    assert_eq!(answer.json()["accepted"], 2);
    let zipped = gzip(event);
    assert_eq!(send(&[("content-encoding", "gzip")], zipped.clone()).await.status, 200);
    let zstd = zstd::encode_all(&event[..], 1).unwrap();
    assert_eq!(send(&[("content-encoding", "zstd")], zstd.clone()).await.status, 200);
    assert_eq!(send(&[("content-encoding", "identity")], event.to_vec()).await.status, 200);
    for (coding, whole) in [("gzip", zipped), ("zstd", zstd)] {
        let cut = whole[..whole.len() - 5].to_vec();
        send(&[("content-encoding", coding)], cut).await.assert_problem(400, "bad_body");
    }
    let answer = send(&[("content-encoding", "br")], event.to_vec()).await;
    answer.assert_problem(415, "unsupported_encoding");
    assert_eq!(answer.headers[header::ACCEPT_ENCODING], "gzip, zstd");
    let answer = send(&[("content-type", "text/plain")], event.to_vec()).await;
    answer.assert_problem(415, "unsupported_content_type");
}

#[tokio::test]
async fn what_cannot_be_taken_is_named() {
    let server = Server::new();
    let problem = server.publish("{\"topic\":\n!}").await.assert_problem(400, "invalid_json");
    assert_eq!((&problem["line"], &problem["column"]), (&json!(2), &json!(1)));
    server.publish(vec![b'"', 0xff, b'"']).await.assert_problem(400, "invalid_json");
    server.publish("[]").await.assert_problem(422, "empty_batch");
    let problem = server.publish(r#"[{"topic":"a.b"},{"topic":"a..b","id":7}]"#).await;
    let problem = problem.assert_problem(422, "invalid_event");
    let items = problem["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[0]["index"], &items[0]["field"]), (2, &json!(1), &json!("id")));
    assert_eq!(server.state.broker.head().offset, 0, "a batch is atomic");
    let problem = server.publish(r#"[{"topic":"b"},{"topic":"hub.x"}]"#).await;
    let problem = problem.assert_problem(403, "forbidden");
    assert_eq!(problem["missing"], json!(["publish b", "publish hub.x"]));
    assert!(server.refusals("invalid_event") && server.refusals("forbidden"));
    assert!(!server.refusals("unauthorized"));
}

#[tokio::test]
async fn the_limits_of_a_body_hold_after_decompression() {
    let limits = [("limits.body", "4 KiB"), ("limits.event", "1 KiB"), ("limits.batch", "3")];
    let server = Server::with(&limits);
    let spaced = format!("{}{}", r#"{"topic":"a.b"}"#, " ".repeat(5000));
    server.publish(spaced.clone()).await.assert_problem(413, "body_too_large");
    let bomb = request("POST", "/api/v1/publish").header("content-encoding", "gzip");
    let bomb = bomb.body(gzip(spaced.as_bytes()).into()).unwrap();
    let problem = server.send(bomb).await.assert_problem(413, "body_too_large");
    assert_eq!(problem["limit"], json!({"name": "body", "allowed": 4096}));
    let large = format!(r#"{{"topic":"a.b","data":"{}"}}"#, "x".repeat(1024));
    server.publish(large).await.assert_problem(413, "event_too_large");
    let many = format!("[{}]", [r#"{"topic":"a.b"}"#; 4].join(","));
    server.publish(many).await.assert_problem(413, "batch_too_large");
    let metrics = server.state.telemetry.openmetrics().unwrap();
    for (limit, hits) in [("body", 2), ("event", 1), ("batch", 1)] {
        let line = format!("limit_hits_total{{limit=\"{limit}\"}} {hits}");
        assert!(metrics.contains(&line), "{line}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = Server::with(&[("http.body_timeout", "20ms")]);
    let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
    let answer = server.publish(Body::from_stream(never)).await;
    answer.assert_problem(408, "body_timeout");
}

#[tokio::test]
async fn nobody_comes_in_without_good_credentials() {
    let server = Server::new();
    let with = async |name: &str, value: &str| {
        let request = Request::post("/api/v1/tickets").header(name, value);
        server.send(request.body(Body::empty()).unwrap()).await
    };
    let answer = with("accept", "*/*").await;
    answer.assert_problem(401, "unauthorized");
    assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer realm=\"pulsehub\"");
    let answer = with("authorization", "Bearer nonsense").await;
    answer.assert_problem(401, "unauthorized");
    let challenge = answer.headers[header::WWW_AUTHENTICATE].to_str().unwrap();
    assert!(challenge.contains("invalid_token"), "{challenge}");
    with("authorization", "Basic YTpi").await.assert_problem(401, "unauthorized");
    let short = token("ada", &[], None, 60);
    assert_eq!(with("x-api-key", &short).await.status, StatusCode::CREATED);
    server.state.clock.set(NOW + 60_000);
    with("x-api-key", &short).await.assert_problem(401, "token_expired");
    let both = request("POST", "/api/v1/tickets").header("x-api-key", "other");
    server.send(both.body(Body::empty()).unwrap()).await.assert_problem(400, "credentials_differ");
}

#[tokio::test]
async fn a_ticket_lets_in_once() {
    let server = Server::new();
    let answer = server.send(request("POST", "/api/v1/tickets").body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status, &answer.json()["expires_in"]), (StatusCode::CREATED, &json!(30)));
    let ticket = answer.json()["ticket"].as_str().unwrap().to_owned();
    let upgrade = Request::get(format!("/ws/real-time?ticket={ticket}")).body(()).unwrap();
    let credential = credentials::gather_upgrade(&upgrade.into_parts().0, false).unwrap().unwrap();
    let principal = server.state.access.authenticate(&credential).await.unwrap();
    assert_eq!(&*principal.name, "ada");
    assert!(server.state.access.authenticate(&credential).await.is_err());
}

#[tokio::test]
async fn a_session_begins_with_a_code_and_ends() {
    let server = Server::new();
    // Good for longer than a session, which else would end with it.
    let admin = token("root", &["a.**"], Some("admin"), 24 * 3600);
    let credential = crate::access::Credential::Token(admin.into());
    let principal = server.state.access.authenticate(&credential).await.unwrap();
    let code = server.state.access.issue_link(&principal).await.unwrap();
    let body = json!({"code": code.expose_secret()}).to_string();
    let plain = || Request::builder().uri("/api/v1/session").header("host", "hub.example");
    let sign_in = |body: String| {
        let request = plain().method("POST").header("content-type", "application/json");
        server.send(request.body(body.into()).unwrap())
    };
    let untyped = plain().method("POST").body(body.clone().into()).unwrap();
    server.send(untyped).await.assert_problem(415, "unsupported_content_type");
    sign_in("{\"code\":".into()).await.assert_problem(400, "invalid_json");
    let answer = sign_in(body.clone()).await;
    assert_eq!(answer.json(), json!({"user": "root", "admin": true, "expires_in": 43200}));
    let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap();
    for part in ["pulsehub_session=", "HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "{cookie}");
    sign_in(body).await.assert_problem(401, "unauthorized");

    let cookie = cookie.split(';').next().unwrap();
    let with = |method: &str, origin: Option<&str>| {
        let request = plain().method(method).header("cookie", cookie);
        let request = match origin {
            Some(origin) => request.header("origin", origin),
            None => request,
        };
        server.send(request.body(Body::empty()).unwrap())
    };
    assert_eq!(with("GET", None).await.json()["user"], "root");
    with("DELETE", Some("https://evil.example")).await.assert_problem(403, "cross_origin");
    with("DELETE", None).await.assert_problem(403, "cross_origin");
    let answer = with("DELETE", Some("https://hub.example")).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(answer.headers[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    with("GET", None).await.assert_problem(401, "unauthorized");
}

#[tokio::test]
async fn history_pages_both_ways() {
    let server = Server::new();
    let events = |topic: &str, numbers: std::ops::Range<u32>| {
        let lines: Vec<_> =
            numbers.map(|n| format!(r#"{{"topic":"{topic}","data":{n}}}"#)).collect();
        format!("[{}]", lines.join(","))
    };
    server.publish(events("a.b", 0..5)).await;
    server.publish(events("a.other", 0..3)).await;
    server.state.clock.set(NOW + 60_000);
    server.publish(events("a.b", 5..10)).await;
    let page = async |query: &str| {
        let answer = server.get(&format!("/api/v1/history?topics=a.b&{query}")).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        answer.json()
    };
    let numbers = |page: &Value| -> Vec<u64> {
        let events = page["events"].as_array().unwrap();
        events.iter().map(|event| event["data"].as_u64().unwrap()).collect()
    };
    let newest = page("limit=4").await;
    assert_eq!(numbers(&newest), [6, 7, 8, 9]);
    assert_eq!(newest["position"], server.state.broker.head().to_string());
    assert_eq!(newest["next"], newest["position"]);
    assert_eq!(newest.get("trimmed_through"), None);
    let first = newest["first"].as_str().unwrap();
    let older = page(&format!("limit=4&before={first}")).await;
    assert_eq!(numbers(&older), [2, 3, 4, 5]);
    let oldest = page(&format!("limit=4&before={}", older["first"].as_str().unwrap())).await;
    assert_eq!(numbers(&oldest), [0, 1]);

    let forward = page("limit=4&after=0").await;
    assert_eq!(numbers(&forward), [0, 1, 2, 3]);
    let next = page(&format!("limit=100&after={}", forward["next"].as_str().unwrap())).await;
    assert_eq!(numbers(&next), [4, 5, 6, 7, 8, 9]);
    let end = page(&format!("after={}", next["next"].as_str().unwrap())).await;
    assert_eq!((numbers(&end), &end["next"]), (vec![], &next["next"]));
    assert_eq!(numbers(&page("since=30s").await), [5, 6, 7, 8, 9]);
    assert_eq!(numbers(&page("since=2m&before=3").await), [0, 1]);
    let both = server.get("/api/v1/history?topics=a.b&topics=a.other,a.x&limit=100").await.json();
    assert_eq!(both["events"].as_array().unwrap().len(), 13);
}

#[tokio::test]
async fn a_page_of_history_is_bounded_in_bytes_and_loses_nothing() {
    let server = Server::with(&[("limits.body", "4 KiB"), ("limits.event", "2 KiB")]);
    for n in 0..10 {
        let data = "x".repeat(1000);
        server.publish(format!(r#"{{"topic":"a.b","id":"{n}","data":"{data}"}}"#)).await;
    }
    let ids = |page: &Value| -> Vec<u64> {
        let events = page["events"].as_array().unwrap();
        events.iter().map(|event| event["offset"].as_u64().unwrap()).collect()
    };
    let (mut seen, mut after) = (Vec::new(), "0".to_owned());
    while seen.len() < 10 {
        let page = server.get(&format!("/api/v1/history?topics=a.b&after={after}")).await.json();
        assert!((1..4).contains(&ids(&page).len()));
        seen.extend(ids(&page));
        after = page["next"].as_str().unwrap().to_owned();
    }
    assert_eq!(seen, (1..=10).collect::<Vec<_>>());
    let (mut seen, mut before) = (Vec::new(), "11".to_owned());
    while seen.len() < 10 {
        let page = server.get(&format!("/api/v1/history?topics=a.b&before={before}")).await.json();
        seen.splice(0..0, ids(&page));
        before = page["first"].as_str().unwrap().to_owned();
    }
    assert_eq!(seen, (1..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn history_says_what_retention_took_and_refuses_what_it_cannot_answer() {
    let server = Server::with(&[("journal.max_age", "1m"), ("journal.recent_bytes", "0 B")]);
    server.publish(r#"[{"topic":"a.b"},{"topic":"a.b"}]"#).await;
    server.state.clock.set(NOW + 90_000);
    server.publish(r#"{"topic":"a.b"}"#).await;
    server.state.broker.maintain().await;
    let page = server.get("/api/v1/history?topics=a.b&after=0").await.json();
    assert!(page["trimmed_through"].is_string(), "{page}");
    let trimmed: crate::position::Position =
        page["trimmed_through"].as_str().unwrap().parse().unwrap();
    assert_eq!((page["events"].as_array().unwrap().len(), trimmed.offset), (1, 2));
    let refused = async |query: &str, status, code: &str| {
        let answer = server.get(&format!("/api/v1/history?{query}")).await;
        answer.assert_problem(status, code)
    };
    refused("", 400, "bad_request").await;
    refused("topics=a..b", 400, "bad_request").await;
    refused("topics=a.b&limit=0", 400, "bad_request").await;
    refused("topics=a.b&limit=10001", 400, "bad_request").await;
    refused("topics=a.b&since=yesterday", 400, "bad_request").await;
    refused("topics=a.b&after=x", 400, "bad_request").await;
    let problem = refused("topics=a.b,b", 403, "forbidden").await;
    assert_eq!(problem["missing"], json!(["subscribe b"]));
    let problem = refused("topics=a.b&after=1:2", 410, "epoch_changed").await;
    assert_eq!(problem["head"], server.state.broker.head().to_string());
}

#[tokio::test]
async fn topics_are_those_one_may_read() {
    let server = Server::new();
    let all = token("all", &["**"], None, 3600);
    let publish = Request::post("/api/v1/publish").header("x-api-key", &all);
    let batch =
        r#"[{"topic":"a.c"},{"topic":"b"},{"topic":"a.b"},{"topic":"a.b"},{"topic":"a.z"}]"#;
    server.send(publish.body(batch.into()).unwrap()).await;
    let page = server.get("/api/v1/topics?limit=2").await.json();
    let names = |page: &Value| -> Vec<String> {
        let topics = page["topics"].as_array().unwrap();
        topics.iter().map(|topic| topic["topic"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((names(&page), &page["next"]), (vec!["a.b".into(), "a.c".into()], &json!("a.c")));
    let entry = &page["topics"][0];
    assert_eq!(
        (&entry["events"], &entry["last_received"]),
        (&json!(2), &json!("2026-11-20T12:00:00.000Z"))
    );
    let rest = server.get("/api/v1/topics?limit=2&after=a.c").await.json();
    assert_eq!((names(&rest), rest.get("next")), (vec!["a.z".into()], None));
    assert_eq!(names(&server.get("/api/v1/topics?prefix=a.z").await.json()), ["a.z"]);
    server.get("/api/v1/topics?limit=x").await.assert_problem(400, "bad_request");
}

#[tokio::test]
async fn readiness_tells_serving_from_publishing() {
    let server = Server::new();
    assert_eq!(server.get("/healthz").await.status, 200);
    let answer = server.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["accepting"], false);
    server.state.readiness.accept(true);
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["publishing"]), (200, &json!(false)));
    assert_eq!(server.get("/readyz/publishing").await.status, 503);
    server.state.readiness.seen(1, NOW);
    let answer = server.get("/readyz/publishing").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({"accepting": true, "publishing": true}));
}

#[tokio::test]
async fn metrics_are_open_where_only_this_machine_can_read_them() {
    let open = Server::new();
    let answer = open.send(Request::get("/metrics").body(Body::empty()).unwrap()).await;
    assert!(
        answer.headers[header::CONTENT_TYPE]
            .to_str()
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    assert!(answer.body.ends_with(b"# EOF\n"));
    let closed = Server::with(&[("listen", "0.0.0.0:0")]);
    let get = async |token: Option<String>| {
        let mut request = Request::get("/metrics");
        if let Some(token) = token {
            request = request.header("x-api-key", token);
        }
        closed.send(request.body(Body::empty()).unwrap()).await
    };
    get(None).await.assert_problem(401, "unauthorized");
    get(Some(token("ada", &["**"], None, 60))).await.assert_problem(403, "forbidden");
    assert_eq!(get(Some(token("ada", &["hub.*"], None, 60))).await.status, 200);
    assert_eq!(get(Some(token("ada", &[], Some("admin"), 60))).await.status, 200);
    let public = Server::with(&[("listen", "0.0.0.0:0"), ("http.public_metrics", "true")]);
    let answer = public.send(Request::get("/metrics").body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let server = Server::new();
    server.get("/nowhere").await.assert_problem(404, "not_found");
    let answer = server.get("/api/v1/publish").await;
    answer.assert_problem(405, "method_not_allowed");
    assert_eq!(answer.headers[header::ALLOW], "POST");
    server.state.broker.close().await;
    let answer = server.publish(r#"{"topic":"a.b"}"#).await;
    answer.assert_problem(503, "shutting_down");
    assert_eq!(answer.headers[header::RETRY_AFTER], "1");
}

#[tokio::test]
async fn a_panic_is_a_problem() {
    async fn broken() {
        panic!("on purpose");
    }
    let router: Router =
        Router::new().route("/", get(broken)).layer(CatchPanicLayer::custom(error::panicked));
    let response = router.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
}

#[tokio::test]
async fn a_request_has_an_id_and_foreign_origins_are_allowed_by_name_only() {
    let server = Server::with(&[("http.allowed_origins", "https://dash.example")]);
    let with = async |name: &str, value: &str| {
        let request = Request::get("/healthz").header(name, value);
        server.send(request.body(Body::empty()).unwrap()).await.headers
    };
    assert_eq!(with("x-request-id", "abc-1").await["x-request-id"], "abc-1");
    let made = with("x-request-id", "not a word").await;
    assert_eq!(made["x-request-id"].len(), 36);
    assert_eq!(made[header::CACHE_CONTROL], "no-store");
    let allowed = with("origin", "https://dash.example").await;
    assert_eq!(allowed[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://dash.example");
    let refused = with("origin", "https://evil.example").await;
    assert!(!refused.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
}
