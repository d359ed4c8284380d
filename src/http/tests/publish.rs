//! Publishing: what is taken, what is refused, and how that is said.

use super::*;

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
    assert_eq!(answer.headers[header::ACCEPT_ENCODING], "gzip, zstd, snappy");
    for kind in ["text/csv", "multipart/form-data; boundary=x", "application/octet-stream"] {
        let answer = send(&[("content-type", kind)], event.to_vec()).await;
        let problem = answer.assert_problem(415, "unsupported_content_type");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("application/json"), "{detail}");
    }
}

#[tokio::test]
async fn json_is_json_whatever_a_program_says_of_it() {
    let server = Server::new();
    let post = async |kind: Option<&str>, body: &str| {
        let mut request = request("POST", "/api/v1/publish");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        server.send(request.body(body.to_owned().into()).unwrap()).await
    };
    let (one, two) = (r#"{"topic":"a.b"}"#, "{\"topic\":\"a.b\"}\n{\"topic\":\"a.c\"}\n");
    for kind in [
        None,
        Some(""),
        Some("application/json"),
        Some("text/plain"),
        Some("Text/Plain;charset=UTF-8"),
        Some("application/x-www-form-urlencoded"),
        Some("application/x-ndjson"),
        Some("application/ndjson"),
        Some("application/jsonl"),
    ] {
        assert_eq!(post(kind, one).await.json()["accepted"], 1, "{kind:?}");
        assert_eq!(post(kind, two).await.json()["accepted"], 2, "{kind:?}");
    }
    for (kind, body) in [
        (None, "hello"),
        (Some("text/plain"), "a.b 17"),
        (Some("application/x-www-form-urlencoded"), "topic=a.b&data=17"),
    ] {
        let problem = post(kind, body).await.assert_problem(400, "invalid_json");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("as a JSON object"), "{detail}");
    }
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
    let problem = server.publish(r#"[{"topic":"c"},{"topic":"b"},{"topic":"c"}]"#).await;
    let problem = problem.assert_problem(403, "forbidden");
    assert_eq!(problem["missing"], json!(["publish b", "publish c"]));
    let problem = server.publish(r#"[{"topic":"b"},{"topic":"hub.x"}]"#).await;
    let problem = problem.assert_problem(403, "reserved_topic");
    assert_eq!(problem["topics"], json!(["hub.x"]));
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
