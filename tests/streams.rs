//! Events without a conversation: simple mode and server-sent events.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    hub::{PROTOCOL, TestHub, offset},
    stream::Stream,
};

#[tokio::test]
async fn simple_mode_sends_bare_payloads_or_events_one_to_a_frame() {
    let hub = TestHub::start().await;
    let token = hub.token("ada", &["a.*"]);
    let key = [("x-api-key", token.as_str())];
    hub.publish_numbers("a.b", 0..5).await;
    let mut data = hub.socket("/ws/real-time?topics=a.*&last=2&format=data", &key).await;
    assert_eq!(data.protocol, None);
    assert_eq!(data.next_json().await, json!({"n": 3}));
    assert_eq!(data.next_json().await, json!({"n": 4}));
    let mut events = hub.socket("/ws/real-time?topics=a.b,a.c&last=1", &key).await;
    let event = events.next_json().await;
    assert_eq!((&event["topic"], &event["data"]), (&json!("a.b"), &json!({"n": 4})));
    // Whatever comes in is nobody's business.
    for message in [Message::text("nonsense"), Message::binary(vec![1, 2, 3])] {
        data.send_raw(message).await;
    }
    hub.publish(json!([{"topic": "a.c", "data": "text"}, {"topic": "b.c", "data": 0}])).await;
    assert_eq!(data.next_json().await, json!("text"));
    assert_eq!(events.next_json().await["data"], "text");
    hub.publish_numbers("a.c", 9..10).await;
    assert_eq!(data.next_json().await, json!({"n": 9}));
}

#[tokio::test]
async fn simple_mode_closes_on_a_gap() {
    let hub = TestHub::start().await;
    let token = hub.token("ada", &["a.*"]);
    let key = [("x-api-key", token.as_str())];
    let head = hub.publish_numbers("a.b", 0..3).await;
    let mut client = hub.socket("/ws/real-time?topics=a.*&resume=1:1", &key).await;
    let (code, reason) = client.expect_close().await;
    assert_eq!(code, 4410);
    assert!(reason.contains("epoch"), "{reason}");
    let good = format!("/ws/real-time?topics=a.*&format=data&resume={head}");
    let mut client = hub.socket(&good, &key).await;
    hub.metric_becomes("pulsehub_subscriptions", 1.0).await; // not the hub's own
    hub.publish_numbers("a.b", 3..4).await;
    assert_eq!(client.next_json().await, json!({"n": 3}));
}

#[tokio::test]
async fn simple_mode_goes_on_behind_the_position_of_an_event() {
    let hub = TestHub::start().await;
    let token = hub.token("ada", &["a.*"]);
    let key = [("x-api-key", token.as_str())];
    let head = hub.publish_numbers("a.b", 0..4).await;
    for parameter in ["after", "resume"] {
        let path = "/ws/real-time?topics=a.*";
        let mut client = hub.socket(&format!("{path}&last=2"), &key).await;
        let position = client.next_json().await["position"].as_str().unwrap().to_owned();
        drop(client);
        // What the address says besides counts for nothing: a program repeats it when it comes back.
        let again = format!("{path}&last=4&{parameter}={position}");
        let mut client = hub.socket(&again, &key).await;
        let event = client.next_json().await;
        assert_eq!(event["data"], json!({"n": 3}));
        assert_eq!(event["position"], head);
        assert_eq!(event["offset"], offset(&event["position"]));
    }
    let bare = format!("/ws/real-time?topics=a.*&after={}", offset(&json!(head)));
    let mut client = hub.socket(&bare, &key).await;
    let (code, reason) = client.expect_close().await;
    assert_eq!(code, 4400);
    assert!(reason.contains("an offset alone"), "{reason}");
}

#[tokio::test]
async fn what_a_socket_lacks_is_told_at_once() {
    let hub = TestHub::with(&[("socket.connect_timeout", "60s")]).await;
    let token = hub.token("ada", &["a.*"]);
    for path in ["/ws/real-time", "/ws/real-time?topics=", "/ws/real-time?last=1"] {
        for headers in [&[("x-api-key", token.as_str())][..], &[]] {
            let mut client = hub.socket(path, headers).await;
            let (code, reason) = client.expect_close().await;
            assert_eq!(code, 4406, "{path}");
            assert!(reason.contains("hub.v1") && reason.contains("?topics="), "{reason}");
        }
    }
}

#[tokio::test]
async fn a_parameter_that_nobody_knows_is_refused_by_its_name() {
    let hub = TestHub::start().await;
    let token = hub.token_for("ada", &["a.*"], Some("admin"), 60);
    let key = ("x-api-key", token.as_str());
    for query in ["topics=a.*&topcis=b", "topics=a.*&topcis", "topcis=a.*"] {
        for headers in [&[key][..], &[key, PROTOCOL]] {
            let mut client = hub.socket(&format!("/ws/real-time?{query}"), headers).await;
            let (code, reason) = client.expect_close().await;
            assert_eq!(code, 4400, "{query}");
            assert!(reason.contains("`topcis`"), "{reason}");
        }
    }
    let mut client = hub.socket("/ws/real-time?topics=a.*&events=typed", &[key]).await;
    assert_eq!(client.expect_close().await.0, 4400);
    for path in [
        "/sse/real-time?topics=a.*&topcis=b",
        "/api/v1/history?topics=a.*&topcis=b",
        "/api/v1/topics?topcis=b",
        "/api/v1/series?topcis=b",
        "/api/v1/series/query?name=a&topcis=b",
        "/api/v1/instances?topcis=b",
        "/api/v1/connections?topcis=b",
    ] {
        let answer = hub.http().get(hub.url(path)).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{path}");
        let problem: Value = answer.json().await.unwrap();
        assert!(problem["detail"].as_str().unwrap().contains("`topcis`"), "{problem}");
    }
}

#[tokio::test]
async fn simple_mode_says_by_close_code_what_it_refuses() {
    let hub = TestHub::start().await;
    let token = hub.token("ada", &["a.*"]);
    let key = [("x-api-key", token.as_str())];
    for (query, headers, code) in [
        ("topics=a.*", &[][..], 4401),
        ("topics=b.*", &key, 4403),
        ("topics=a.*,b.*", &key, 4403),
        ("topics=a..b", &key, 4400),
        ("topics=a.*.*.*.*", &key, 4400),
        ("topics=a.*&format=xml", &key, 4400),
        ("topics=a.*&last=x", &key, 4400),
        ("topics=a.*&last=1&since=5m", &key, 4400),
        ("topics=a.*&last=10001", &key, 4400),
        ("topics=a.*&resume=nonsense", &key, 4400),
    ] {
        let mut client = hub.socket(&format!("/ws/real-time?{query}"), headers).await;
        assert_eq!(client.expect_close().await.0, code, "{query}");
    }
}

#[tokio::test]
async fn a_stream_sends_events_and_goes_on_from_the_last_event_id() {
    let hub = TestHub::start().await;
    let token = hub.token("ada", &["a.*"]);
    hub.publish_numbers("a.b", 0..3).await;
    let mut stream = Stream::open(&hub, "topics=a.*&last=1.0", &token, None).await;
    let headers = stream.headers();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-accel-buffering"], "no");
    assert_eq!(headers["connection"], "close");
    stream.begins().await; // at once
    let (id, kind, data) = stream.event().await;
    assert_eq!((kind, &data["data"]), (None, &json!({"n": 2})));
    assert_eq!(json!(offset(&json!(id))), data["offset"]);
    let event = json!({"topic": "a.b", "type": "call\ndone", "data": "two\nlines"});
    hub.publish(event).await;
    let (id, kind, data) = stream.event().await;
    assert_eq!(kind, None, "a plain message");
    assert_eq!((&data["data"], &data["type"]), (&json!("two\nlines"), &json!("call\ndone")));
    drop(stream);
    hub.publish_numbers("a.b", 3..6).await;
    // The header goes before the query, for the browser repeats the address as it was.
    let (header, after) =
        ("topics=a.*&last=1&after=1:1".to_owned(), format!("topics=a.*&after={id}"));
    let polyfill = format!("topics=a.*&last=1&lastEventId={id}");
    for (query, last) in [(header, Some(&*id)), (after, None), (polyfill, None)] {
        let mut stream = Stream::open(&hub, &query, &token, last).await;
        for n in 3..6 {
            assert_eq!(stream.event().await.2["data"], json!({"n": n}), "{query}");
        }
    }
}

#[tokio::test]
async fn a_stream_has_the_form_that_it_is_asked_for() {
    let hub = TestHub::start().await;
    let token = hub.token("ada", &["a.*"]);
    let event = |kind: Value| json!({"topic": "a.b", "type": kind, "data": [1]});
    let kinds = [json!("call\ndone"), json!("error"), json!("hub.gap"), json!(null)];
    hub.publish(json!(kinds.map(event))).await;
    let names = |typed: [&str; 3]| typed.map(|name| Some(name.to_owned()));
    for (query, expected) in [
        ("last=4", [const { None }; 3]),
        ("last=4&events=plain&format=event", [const { None }; 3]),
        ("last=4&events=typed", names(["call done", "_error", "_hub.gap"])),
        ("last=4&events=typed&format=data", names(["call done", "_error", "_hub.gap"])),
    ] {
        let mut stream = Stream::open(&hub, &format!("topics=a.*&{query}"), &token, None).await;
        for expected in expected.into_iter().chain([None]) {
            let (_, kind, data) = stream.event().await;
            let payload = if query.contains("format=data") { &data } else { &data["data"] };
            assert_eq!((kind, payload), (expected, &json!([1])), "{query}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_was_lost_before_its_first_event_goes_on_where_it_began() {
    let hub = TestHub::start().await;
    let token = hub.token("ada", &["a.*"]);
    // Newest values come before the position: here there are none.
    for (query, topic) in [("topics=a.b", "a.b"), ("topics=a.c&latest=1", "a.c")] {
        let mut stream = Stream::open(&hub, query, &token, None).await;
        let position = stream.begins().await;
        drop(stream);
        hub.publish_numbers(topic, 0..2).await;
        let mut stream = Stream::open(&hub, query, &token, Some(&position)).await;
        assert_eq!(stream.begins().await, position);
        for n in 0..2 {
            assert_eq!(stream.event().await.2["data"], json!({"n": n}), "{query}");
        }
    }
}

#[tokio::test]
async fn a_stream_says_that_a_replay_was_cut_short() {
    let hub =
        TestHub::with(&[("hub.replay_bytes", "1 MiB"), ("journal.recent_bytes", "1 KiB")]).await;
    // Too large to be merged with others: a block is looked through whole.
    let fill = "x".repeat(70 << 10);
    for _ in 0..40 {
        hub.publish(json!({"topic": "a.b", "data": fill})).await;
    }
    let token = hub.token("ada", &["a.*"]);
    for (last, is_cut) in [(3, false), (39, true)] {
        let mut stream = Stream::open(&hub, &format!("topics=a.*&last={last}"), &token, None).await;
        let first = stream.block().await.unwrap();
        let is_told = first == ["event: hub.replay_truncated", "data: {}"];
        assert_eq!(is_told, is_cut, "{first:?}");
        if is_told {
            stream.begins().await;
        }
        stream.event().await;
    }
    assert_eq!(hub.metric("pulsehub_limit_hits_total{limit=\"replay_bytes\"}").await, 1.0);
}

#[tokio::test]
async fn a_stream_says_a_gap_and_goes_on() {
    let hub = TestHub::start().await;
    let head = hub.publish_numbers("a.b", 0..3).await;
    let token = hub.token("ada", &["a.*"]);
    let mut stream = Stream::open(&hub, "topics=a.*", &token, Some("1:1")).await;
    // Nothing to resume from before the gap was said: who loses the stream here is told of it again.
    assert_eq!(stream.block().await.unwrap(), [":"]);
    let (id, kind, data) = stream.event().await;
    assert_eq!((kind.as_deref(), &data["reason"]), (Some("hub.gap"), &json!("epoch")));
    assert_eq!((&data["from"], &data["to"]), (&json!("1:2"), &json!(id)));
    assert!(offset(&json!(id)) >= offset(&json!(head)), "{id}");
    hub.publish_numbers("a.b", 3..4).await;
    assert_eq!(stream.event().await.2["data"], json!({"n": 3}));
}

#[tokio::test]
async fn latest_0_meant_on() {
    let hub = TestHub::start().await;
    let token = hub.token("ada", &["a.*"]);
    hub.publish_numbers("a.b", 0..1).await;
    for (off, on) in [("0", "1"), ("false", "true")] {
        // Off, it goes with `last`; on, the newest value comes.
        let off = format!("topics=a.*&last=1&latest={off}");
        for query in [off, format!("topics=a.*&latest={on}")] {
            let mut stream = Stream::open(&hub, &query, &token, None).await;
            assert_eq!(stream.event().await.2["data"], json!({"n": 0}), "{query}");
        }
    }
}

#[tokio::test]
async fn a_heartbeat_is_a_comment_that_ends_no_block() {
    let hub = TestHub::with(&[("socket.ping", "1s")]).await;
    let token = hub.token("ada", &["a.*"]);
    let mut stream = Stream::open(&hub, "topics=a.*", &token, None).await;
    let position = stream.begins().await;
    for _ in 0..2 {
        assert_eq!(stream.block().await.unwrap(), [":"]);
    }
    assert_eq!(stream.unread(), "", "an empty line would be a block to some libraries");
    hub.publish_numbers("a.b", 0..1).await;
    let (id, ..) = stream.event().await;
    assert!(offset(&json!(id)) > offset(&json!(position)));
}

#[tokio::test]
async fn a_stream_ends_when_its_token_does() {
    // Nothing else wakes the connection in all the time a test waits.
    let hub = TestHub::with(&[("http.header_timeout", "60s"), ("socket.ping", "60s")]).await;
    let token = hub.token_for("ada", &["a.*"], None, 1);
    let mut stream = Stream::open(&hub, "topics=a.*", &token, None).await;
    stream.begins().await;
    assert_eq!(stream.block().await, None);
}

#[tokio::test]
async fn what_a_stream_refuses_it_refuses_by_status() {
    let hub = TestHub::start().await;
    let token = hub.token("ada", &["a.*"]);
    for (query, token, status) in [
        ("topics=a.*", None, 401),
        ("topics=a.*", Some("nonsense"), 401),
        ("topics=b.*", Some(&*token), 403),
        ("topics=", Some(&*token), 400),
        ("topics=a.*&last=10001", Some(&*token), 400),
        ("topics=a.*&latest=yes", Some(&*token), 400),
        ("topics=a.*&latest=", Some(&*token), 400),
        ("topics=a.*&format=xml", Some(&*token), 400),
        ("topics=a.*&events=all", Some(&*token), 400),
        ("topics=a.*&last=1&latest=true", Some(&*token), 400),
    ] {
        let mut request = hub.http().get(hub.url(&format!("/sse/real-time?{query}")));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{query}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
    let request = hub.http().get(hub.url("/sse/real-time?topics=a.*")).bearer_auth(&token);
    let answer = request.header("origin", "https://evil.example").send().await.unwrap();
    assert_eq!(answer.status(), 403);
    hub.metric_becomes("pulsehub_connections", 0.0).await;
}
