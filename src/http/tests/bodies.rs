//! Bodies: what they may hold, before and after it is known who sends them.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{FutureExt as _, StreamExt as _, future, stream};

use super::*;
use crate::http::body::{self, Payer};

/// A body of which `first` comes and the rest never.
fn stalled(first: impl Into<Bytes>) -> Body {
    let first = future::ready(Ok::<_, std::io::Error>(first.into()));
    Body::from_stream(stream::once(first).chain(stream::pending()))
}

fn of(name: &str, body: Body) -> Request<Body> {
    let token = token(name, &["a.**"], None, 3600);
    Request::post("/api/v1/publish").header("x-api-key", token).body(body).unwrap()
}

fn json_post(path: &str) -> http::request::Builder {
    Request::post(path).header("content-type", "application/json")
}

#[tokio::test]
async fn a_gzip_body_of_several_members_kept_only_the_first() {
    let server = Server::new();
    let lines = [&br#"{"topic":"a.b"}"#[..], b"\n", br#"{"topic":"a.c"}"#];
    let gzipped: Vec<_> = lines.iter().flat_map(|line| gzip(line)).collect();
    let zstd: Vec<_> = lines.iter().flat_map(|line| zstd::encode_all(*line, 1).unwrap()).collect();
    for (coding, whole) in [("GZIP", gzipped), ("zstd", zstd)] {
        let send = |body: Vec<u8>| {
            let request = request("POST", "/api/v1/publish").header("content-encoding", coding);
            let request = request.header("content-type", "application/x-ndjson");
            server.send(request.body(body.into()).unwrap())
        };
        assert_eq!(send(whole.clone()).await.json()["accepted"], 2, "{coding}");
        let garbage = [&whole[..], b"\n{}"].concat();
        send(garbage).await.assert_problem(400, "bad_body");
    }
    assert_eq!(server.state.budgets.bodies.held(), 0);
}

#[tokio::test]
async fn credentials_are_checked_before_any_body_is_read() {
    let server = Server::with(&[("http.body_timeout", "20ms")]);
    // The route table itself, so that no route is forgotten.
    let table = include_str!("../../http.rs");
    let posts = table.lines().filter(|line| line.contains(".route(\"") && line.contains("post("));
    let paths: Vec<_> = posts.filter_map(|line| line.split('"').nth(1)).collect();
    assert!(paths.len() >= 10, "{paths:?}");
    for path in paths.into_iter().filter(|path| *path != "/api/v1/session") {
        let path = path.replace(['{', '}'], "");
        let answer = server.send(json_post(&path).body(stalled("[")).unwrap()).await;
        answer.assert_problem(401, "unauthorized");
    }
}

#[tokio::test]
async fn where_little_is_needed_little_is_taken() {
    let server = Server::new();
    let admin = token("root", &["**"], Some("admin"), 60);
    for path in [
        "/api/v1/session",
        "/api/v1/drain",
        "/api/v1/register",
        "/api/v1/validate",
        "/api/v1/heartbeat",
    ] {
        let large = json!({"token": "x".repeat(16 << 10)}).to_string();
        let request = json_post(path);
        let request = match path {
            "/api/v1/session" => request,
            _ => request.header("x-api-key", &admin),
        };
        let problem = server.send(request.body(large.into()).unwrap()).await;
        let problem = problem.assert_problem(413, "body_too_large");
        assert_eq!(problem["limit"], json!({"name": "small_body", "allowed": 16384}), "{path}");
    }
}

#[tokio::test]
async fn bodies_that_do_not_end_hold_no_more_than_their_budget() {
    let limits = [("limits.body", "4 KiB"), ("limits.event", "1 KiB"), ("limits.bodies", "8 KiB")];
    let server = Server::with(&limits);
    let send = |name: &str| Box::pin(server.send(of(name, stalled(vec![b' '; 3000]))));
    // One user has a share, here as much as one body; all together have the whole.
    let (mut first, mut second) = (send("ada"), send("bob"));
    assert!((&mut first).now_or_never().is_none());
    let refused = send("ada").await;
    refused.assert_problem(429, "too_many_bytes");
    assert!(refused.headers.contains_key(header::RETRY_AFTER));
    assert!((&mut second).now_or_never().is_none());
    send("carol").await.assert_problem(503, "overloaded");
    assert_eq!(server.state.budgets.bodies.held(), 6000);
    drop((first, second));
    assert_eq!(server.state.budgets.bodies.held(), 0);
    let metrics = server.state.telemetry.openmetrics().unwrap();
    assert!(metrics.contains("limit_hits_total{limit=\"bodies\"} 2"), "{metrics}");
}

#[tokio::test]
async fn what_a_coded_body_becomes_was_charged_to_nobody() {
    let limits = [("limits.body", "4 KiB"), ("limits.event", "1 KiB"), ("limits.bodies", "8 KiB")];
    let server = Server::with(&limits);
    let mut first = Box::pin(server.send(of("ada", stalled(vec![b' '; 3000]))));
    assert!((&mut first).now_or_never().is_none());
    let coded = gzip(&[b' '; 3000]);
    assert!(coded.len() < 100);
    let mut second = of("ada", coded.into());
    second.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
    server.send(second).await.assert_problem(429, "too_many_bytes");
    assert_eq!(server.state.budgets.bodies.held(), 3000);
}

#[tokio::test]
async fn who_signs_in_without_end_holds_a_budget_of_its_own() {
    let server = Server::with(&[("limits.stranger_bodies", "16 KiB")]);
    let send = |bytes: usize| {
        let request = json_post("/api/v1/session").body(stalled(vec![b' '; bytes])).unwrap();
        Box::pin(server.send(request))
    };
    let mut first = send(10_000);
    assert!((&mut first).now_or_never().is_none());
    send(10_000).await.assert_problem(429, "too_many_bytes");
    // Nobody else notices.
    assert_eq!(server.publish(r#"{"topic":"a.b"}"#).await.status, 200);
    assert_eq!(server.state.budgets.stranger_bodies.held(), 10_000);
}

#[tokio::test]
async fn a_body_of_single_bytes_let_nobody_else_go_on() {
    let (server, taken) = (Server::new(), Arc::new(AtomicUsize::new(0)));
    let count = taken.clone();
    let bytes = stream::repeat_with(move || {
        count.fetch_add(1, Ordering::Relaxed);
        Ok::<_, std::io::Error>(Bytes::from_static(b" "))
    });
    let (headers, body) = (http::HeaderMap::new(), Body::from_stream(bytes));
    let reading = body::read_small(&headers, body, &server.state, Payer::Stranger(None));
    assert!(reading.now_or_never().is_none());
    assert!(taken.load(Ordering::Relaxed) < 1000);
}
