//! Events without a conversation: simple mode and server-sent events.

use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    DEADLINE,
    hub::{TestHub, offset},
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
    hub.metric_becomes("pulsehub_subscriptions", 2.0).await; // one is the hub's own
    hub.publish_numbers("a.b", 3..4).await;
    assert_eq!(client.next_json().await, json!({"n": 3}));
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

/// A stream of server-sent events, block by block.
struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    async fn open(hub: &TestHub, query: &str, token: &str, last: Option<&str>) -> Self {
        let url = hub.url(&format!("/sse/real-time?{query}"));
        let mut request = hub.http().get(url).bearer_auth(token);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self { response, text: String::new() }
    }

    /// The next block's lines; None at the end of the stream.
    async fn block(&mut self) -> Option<Vec<String>> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let rest = self.text.split_off(end + 2);
                let block = std::mem::replace(&mut self.text, rest);
                return Some(block.trim_end().lines().map(str::to_owned).collect());
            }
            let chunk = timeout(DEADLINE, self.response.chunk()).await.expect("nothing came");
            self.text.push_str(std::str::from_utf8(&chunk.unwrap()?).unwrap());
        }
    }

    /// The next block with data, as id, event name and data.
    async fn event(&mut self) -> (String, Option<String>, Value) {
        loop {
            let block = self.block().await.expect("the stream ended");
            let field = |name: &str| {
                block.iter().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
            };
            if let Some(data) = field("data: ") {
                let data = serde_json::from_str(&data).unwrap();
                return (field("id: ").unwrap(), field("event: "), data);
            }
        }
    }
}

#[tokio::test]
async fn a_stream_sends_events_and_goes_on_from_the_last_event_id() {
    let hub = TestHub::start().await;
    let token = hub.token("ada", &["a.*"]);
    hub.publish_numbers("a.b", 0..3).await;
    let mut stream = Stream::open(&hub, "topics=a.*&last=1.0", &token, None).await;
    let headers = stream.response.headers();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-accel-buffering"], "no");
    let begin = stream.block().await.unwrap();
    assert!(begin.len() == 1 && begin[0].starts_with("id: "), "{begin:?}"); // at once
    let (id, kind, data) = stream.event().await;
    assert_eq!((kind, &data["data"]), (None, &json!({"n": 2})));
    assert_eq!(json!(offset(&json!(id))), data["offset"]);
    let event = json!({"topic": "a.b", "type": "call\ndone", "data": "two\nlines"});
    hub.publish(event).await;
    let (id, kind, data) = stream.event().await;
    assert_eq!(kind.as_deref(), Some("call done"));
    assert_eq!((&data["data"], &data["type"]), (&json!("two\nlines"), &json!("call\ndone")));
    drop(stream);
    hub.publish_numbers("a.b", 3..6).await;
    // The header goes before the query, for the browser repeats the address as it was.
    let mut stream = Stream::open(&hub, "topics=a.*&last=1", &token, Some(&id)).await;
    for n in 3..6 {
        assert_eq!(stream.event().await.2["data"], json!({"n": n}));
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
        let begins = stream.block().await.unwrap();
        assert!(begins.len() == 1 && begins[0].starts_with("id: "), "{begins:?}");
        let first = stream.block().await.unwrap();
        let is_told = first == ["event: hub.replay_truncated", "data: {}"];
        assert_eq!(is_told, is_cut, "{first:?}");
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
async fn a_heartbeat_moves_the_last_event_id_of_a_quiet_stream() {
    let hub = TestHub::with(&[("socket.ping", "1s")]).await;
    let token = hub.token("ada", &["a.*"]);
    let mut stream = Stream::open(&hub, "topics=a.*", &token, None).await;
    let head = hub.publish_numbers("b.b", 0..5).await;
    loop {
        let block = stream.block().await.unwrap();
        let [line] = &block[..] else { panic!("more than an id: {block:?}") };
        let id = line.strip_prefix("id: ").unwrap();
        if offset(&json!(id)) >= offset(&json!(head)) {
            break;
        }
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_token_does() {
    // Nothing else wakes the connection in all the time a test waits.
    let hub = TestHub::with(&[("http.header_timeout", "60s"), ("socket.ping", "60s")]).await;
    let token = hub.token_for("ada", &["a.*"], None, 1);
    let mut stream = Stream::open(&hub, "topics=a.*", &token, None).await;
    stream.block().await.unwrap();
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
