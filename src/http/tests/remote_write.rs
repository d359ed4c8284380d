//! Remote write: what is stored, what is refused, and how a sender that gives up on every status below 500 is told.

use prost::Message as _;

use super::*;
use crate::ingest::remote_write::tests::{TimeSeries, WriteRequest, series};

fn snappy(series: Vec<TimeSeries>) -> Vec<u8> {
    let body = WriteRequest { series, metadata: Vec::new() }.encode_to_vec();
    snap::raw::Encoder::new().compress_vec(&body).unwrap()
}

async fn write(server: &Server, publisher: &str, body: Vec<u8>) -> Answer {
    let request = Request::post("/api/v1/write")
        .header("authorization", format!("Bearer {}", token(publisher, &["a.**"], None, 3600)))
        .header("content-type", "application/x-protobuf")
        .header("content-encoding", "snappy");
    server.send(request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn samples_are_stored_once_however_often_they_are_sent() {
    let server = Server::new();
    let now = server.state.clock.now().cast_signed();
    let up = series(&[("__name__", "up"), ("instance", "x:1"), ("job", "x")], &[(now, 1.0)]);
    let body = snappy(vec![up]);
    for _ in 0..2 {
        assert_eq!(write(&server, "a", body.clone()).await.status, StatusCode::NO_CONTENT);
    }
    let page = server.get("/api/v1/history?topics=a.samples").await.json();
    let [event] = &page["events"].as_array().unwrap()[..] else { panic!("{page}") };
    assert_eq!((&event["type"], &event["key"]), (&json!("samples"), &json!("x/x:1")));
    assert_eq!(event["data"]["rows"], json!([["up", {}, 1.0]]));
}

#[tokio::test]
async fn what_cannot_be_stored_is_named_and_the_rest_is() {
    let server = Server::new();
    let now = server.state.clock.now().cast_signed();
    let good = series(&[("__name__", "good")], &[(now, 1.0)]);
    let old = series(&[("__name__", "old")], &[(0, 1.0)]);
    let labels: Vec<_> = (0..60).map(|n| format!("l{n}")).collect();
    let labels = labels.iter().map(|name| (&**name, "v")).chain([("__name__", "wide")]);
    let wide = series(&labels.collect::<Vec<_>>(), &[(now, 1.0)]);
    let answer = write(&server, "a", snappy(vec![good, old, wide])).await;
    let problem = answer.assert_problem(400, "samples_refused");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.starts_with("2 refused, 1 stored: old{}: the time"), "{detail}");
    assert!(detail.contains("labels"), "{detail}");
    assert_eq!(problem["dropped"]["sample"], 2);
    let page = server.get("/api/v1/history?topics=a.samples").await.json();
    assert_eq!(page["events"].as_array().unwrap().len(), 1);
    // All of it, where the topic is not theirs.
    let good = series(&[("__name__", "good")], &[(now, 1.0)]);
    let answer = write(&server, "b", snappy(vec![good])).await;
    let problem = answer.assert_problem(400, "samples_refused");
    let wanted = "1 refused, 0 stored: no grant to publish to b.samples";
    assert_eq!(problem["detail"], wanted);
}

#[tokio::test]
async fn what_may_be_sent_again_is_no_4xx_and_what_is_no_remote_write_is_told_so() {
    let server = Server::new();
    let now = server.state.clock.now().cast_signed();
    let good = || snappy(vec![series(&[("__name__", "good")], &[(now, 1.0)])]);
    write(&server, "a", b"nonsense".to_vec()).await.assert_problem(400, "bad_body");
    let text = snap::raw::Encoder::new().compress_vec(b"{}").unwrap();
    write(&server, "a", text).await.assert_problem(400, "bad_body");
    let two = request("POST", "/prometheus/api/v1/write")
        .header("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
        .header("content-encoding", "snappy");
    let answer = server.send(two.body(good().into()).unwrap()).await;
    let problem = answer.assert_problem(415, "unsupported_content_type");
    assert!(problem["detail"].as_str().unwrap().contains("remote write 1.0"), "{problem}");
    let problem = Problem::over_limit(Limit::BodyTimeout, 1).for_who_gives_up().into_response();
    assert_eq!(problem.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(problem.headers().contains_key(header::RETRY_AFTER));
    let problem = Problem::bad_body("x").for_who_gives_up().into_response();
    assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_topic_without_room_cost_the_samples_of_all_others() {
    let flags = [("journal.max_topics", "2"), ("ingest.remote_write.topic", "a.{job}")];
    let server = Server::with(&flags);
    let now = server.state.clock.now().cast_signed();
    let of = |job| series(&[("__name__", "up"), ("job", job)], &[(now, 1.0)]);
    assert_eq!(write(&server, "a", snappy(vec![of("x")])).await.status, StatusCode::NO_CONTENT);
    let answer = write(&server, "a", snappy(vec![of("x"), of("y"), of("z")])).await;
    let problem = answer.assert_problem(400, "samples_refused");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("1 refused, 2 stored: a.z: the log holds no more topics"),
        "{detail}"
    );
    assert_eq!(server.get("/api/v1/history?topics=a.y").await.json()["events"][0]["key"], "y");
}
