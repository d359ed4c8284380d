//! Every endpoint over a real journal and store, every status it answers.

mod bodies;
mod conversation;
mod publish;
mod reading;
mod remote_write;
mod unread;
mod way_in;

use std::{io::Write as _, sync::Arc};

use axum::body::{Body, Bytes};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::{
    admission::Admission,
    auth::{Authenticator, MintClaims, mint},
    cluster::Node,
    config,
    connections::Connections,
    drain::Drain,
    follow::Feed,
    store::Store,
    topic::{OwnTopics, TopicPattern},
};
use tokio_util::task::TaskTracker;

const NOW: u64 = 1_795_176_000_000;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

struct Server {
    endpoints: server::Answers,
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
            Authenticator::new(&config.auth, &config.secret, &store, clock.clone()).unwrap();
        let broker =
            Broker::open(config.journal, folder.path(), clock.clone(), telemetry.clone()).unwrap();
        let connections = Connections::new(10, telemetry.clone());
        let terms = Arc::new(Terms {
            config: config.socket,
            limits: config.limits,
            telemetry: telemetry.clone(),
            admission: Admission::new(OwnTopics::default(), (&config.limits).into()),
            connections: connections.clone(),
        });
        let feed = Feed::new(broker.clone());
        let series = Series::new(
            config.series,
            Arc::new([]),
            feed.clone(),
            store.clone(),
            clock.clone(),
            telemetry.clone(),
        );
        let projections = Projections::new(
            config::Config::load(None, [], &[]).unwrap().plan().unwrap(),
            series.clone(),
            feed.clone(),
            crate::projections::ProjectionBounds { keys: 10, event: 1000 },
            clock.clone(),
            telemetry.clone(),
        );
        let hub = Hub::new(broker.clone(), config.hub, telemetry.clone());
        let readiness = Readiness::default();
        let drain = Drain::new(connections.clone(), readiness.clone(), config.http.drain.0);
        let node = Node::new("n1".into(), connections.clone(), hub.clone(), drain);
        let state = Arc::new(Services {
            series,
            projections,
            terms,
            tasks: TaskTracker::new(),
            instances: Instances::new(
                config.instances,
                feed,
                store.clone(),
                clock.clone(),
                telemetry.clone(),
            )
            .unwrap(),
            hub,
            broker,
            cluster: Cluster::alone(node),
            access: Access::new(authenticator, &store, clock.clone()),
            attempts: Attempts::default(),
            query_limit: QueryLimit::new(config.limits.questions, telemetry.clone()),
            budgets: Budgets::new(&config.limits, &telemetry),
            telemetry,
            clock,
            readiness,
            settings: HttpSettings {
                is_loopback: config.listen.ip().is_loopback(),
                is_demo: false,
                http: config.http,
                limits: config.limits,
                ingest: config.ingest,
                query_token: config.auth.query_token,
                wrong_sign_ins: config.auth.wrong_sign_ins,
                warnings: Vec::new(),
            },
        });
        Self { endpoints: server::Answers::new(endpoints(state.clone())), state, _folder: folder }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.endpoints.clone().oneshot(request).await.unwrap();
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
    server.state.readiness.published(1, NOW);
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
    let plain = Request::get("/metrics").header("accept", "text/plain;version=0.0.4;q=1,*/*;q=0.1");
    let answer = open.send(plain.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(text.contains("# TYPE pulsehub_cpu_seconds_total counter\n"), "{text}");
    assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
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
async fn connections_are_shown_to_admins_only() {
    let server = Server::new();
    server.get("/api/v1/connections").await.assert_problem(403, "forbidden");
    let request = Request::get("/api/v1/connections");
    let request = request.header("x-api-key", token("root", &[], Some("admin"), 60));
    let answer = server.send(request.body(Body::empty()).unwrap()).await;
    let nobody = json!({"connections": [], "missing_nodes": 0});
    assert_eq!((answer.status.as_u16(), answer.json()), (200, nobody));
}

#[tokio::test]
async fn a_socket_opens_through_the_real_accept_loop() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

    let server = Server::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let settings = &server.state.settings;
    let options = server::Options {
        trusted_proxies: [].into(),
        proxy_protocol: false,
        idle_timeout: std::time::Duration::from_secs(30),
        max_connections: 10,
        max_per_address: 10,
        max_headers: settings.limits.headers,
        header_timeout: settings.http.header_timeout.0,
        write_timeout: settings.http.write_timeout.0,
        drain: settings.http.drain.0,
    };
    let (tasks, stop) = (server.state.tasks.clone(), tokio_util::sync::CancellationToken::new());
    let telemetry = server.state.telemetry.clone();
    let serving =
        server::serve(listener, server.endpoints.clone(), options, telemetry, tasks, stop);
    tokio::spawn(serving);
    let mut request = format!("ws://{address}/ws/real-time").into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", HeaderValue::from_static("hub.v1"));
    headers.insert("x-api-key", token("ada", &["a.**"], None, 60).parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    socket.send(Message::text(r#"{"type":"connect","id":1}"#)).await.unwrap();
    let answer = socket.next().await.unwrap().unwrap().into_text().unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((&answer["type"], &answer["user"]), (&json!("connected"), &json!("ada")));
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
