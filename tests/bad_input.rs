//! What breaks the protocol closes the socket that sent it, with a reason, and no other.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    DEADLINE,
    hub::{Client, PROTOCOL, TestHub, numbers},
};

/// A socket at which any bytes can be thrown.
struct Raw(TcpStream);

impl Raw {
    /// Opened, and connected as ada.
    async fn open(hub: &TestHub) -> Self {
        let (mut raw, head) = Self::upgrade(hub, "hub.v1").await;
        assert!(head.contains("sec-websocket-protocol: hub.v1\r\n"), "{head}");
        // The example of RFC 6455 section 1.3.
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        let connect = json!({"type": "connect", "id": 1, "token": hub.token("ada", &["a.*"])});
        raw.throw(&masked(0x81, connect.to_string().as_bytes())).await;
        let (opcode, payload) = raw.frame().await;
        assert_eq!(opcode, 0x81);
        assert_eq!(serde_json::from_slice::<Value>(&payload).unwrap()["type"], "connected");
        raw
    }

    /// Opened, offering `protocol`; with the head of the answer in lower case.
    async fn upgrade(hub: &TestHub, protocol: &str) -> (Self, String) {
        let mut stream = TcpStream::connect(hub.address()).await.unwrap();
        let request = format!(
            "GET /ws/real-time HTTP/1.1\r\nhost: {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-protocol: {protocol}\r\n\r\n",
            hub.address()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        (Self(stream), head)
    }

    async fn throw(&mut self, bytes: &[u8]) {
        // The hub may have closed already; what it said shows in `expect_bad_message`.
        let _ = timeout(DEADLINE, self.0.write_all(bytes)).await.unwrap();
    }

    /// The next frame from the hub: its first byte and its payload.
    async fn frame(&mut self) -> (u8, Vec<u8>) {
        let read = async {
            let first = self.0.read_u8().await?;
            let length = match self.0.read_u8().await? {
                126 => self.0.read_u16().await?.into(),
                length => {
                    assert!(length < 126, "masked or very long: {length}");
                    usize::from(length)
                }
            };
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).await?;
            std::io::Result::Ok((first, payload))
        };
        timeout(DEADLINE, read).await.unwrap().expect("cut off without a close frame")
    }

    async fn expect_bad_message(mut self, what: &str) {
        let (first, payload) = self.frame().await;
        assert_eq!(first, 0x88, "{what}");
        let code = u16::from_be_bytes([payload[0], payload[1]]);
        assert_eq!(code, 4400, "{what}: {}", String::from_utf8_lossy(&payload[2..]));
        assert!(payload.len() > 2, "{what}: without a reason");
        assert_eq!(timeout(DEADLINE, self.0.read(&mut [0])).await.unwrap().unwrap(), 0, "{what}");
    }
}

/// A frame as a client sends it.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u16::try_from(payload.len()).unwrap() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
    }
    let mask = [7, 1, 200, 31];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Somebody else, who must not notice.
async fn neighbour(hub: &TestHub) -> Client {
    let mut client = hub.client("bob", &["a.*"]).await;
    client.subscribe(json!({"sub": "s", "topics": ["a.*"]})).await;
    client.expect("live").await;
    client
}

#[tokio::test]
async fn a_frame_that_breaks_the_rules_is_answered_with_a_close_frame() {
    let hub = TestHub::start().await;
    let mut other = neighbour(&hub).await;
    let mut unmasked = vec![0x81, 2];
    unmasked.extend(b"{}");
    let mut endless = masked(0x01, &[b' '; 16_000]);
    (0..5).for_each(|_| endless.extend(masked(0x00, &[b' '; 16_000])));
    // Only its header: the length alone is too much.
    let long = [0x81, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0];
    let frames = [
        ("unmasked", unmasked),
        ("a reserved bit", masked(0xC1, b"{}")),
        ("a reserved opcode", masked(0x83, b"{}")),
        ("fragments without end", endless),
        ("a frame over the limit", long.to_vec()),
        ("a binary frame", masked(0x82, b"{}")),
        ("no UTF-8", masked(0x81, b"{\"type\":\"\xff\xfe\"}")),
        ("a continuation of nothing", masked(0x80, b"{}")),
        ("a ping in fragments", masked(0x09, b"x")),
        ("a long ping", masked(0x89, &[b'x'; 126])),
    ];
    for (n, (what, frame)) in frames.into_iter().enumerate() {
        let mut raw = Raw::open(&hub).await;
        raw.throw(&frame).await;
        raw.expect_bad_message(what).await;
        let n = n as u64;
        hub.publish_numbers("a.b", n..n + 1).await;
        assert_eq!(numbers(&other.events("s", 1).await), [n]);
    }
    assert_eq!(hub.metric("pulsehub_limit_hits_total{limit=\"frame\"}").await, 2.0);
    assert_eq!(hub.metric("pulsehub_closes_total{code=\"bad_message\"}").await, 10.0);
    hub.metric_becomes("pulsehub_connections", 1.0).await;
}

#[tokio::test]
async fn an_unknown_subprotocol_is_not_echoed_and_closes_with_its_code() {
    let hub = TestHub::start().await;
    let (mut raw, head) = Raw::upgrade(&hub, "other.v9").await;
    assert!(!head.contains("sec-websocket-protocol"), "{head}");
    let (first, payload) = raw.frame().await;
    assert_eq!((first, u16::from_be_bytes([payload[0], payload[1]])), (0x88, 4406));
}

#[tokio::test]
async fn a_message_in_fragments_and_a_ping_between_them_are_fine() {
    let hub = TestHub::start().await;
    let mut raw = Raw::open(&hub).await;
    raw.throw(&masked(0x01, br#"{"type":"subscribe","id":2,"#)).await;
    raw.throw(&masked(0x89, b"hello")).await;
    assert_eq!(raw.frame().await, (0x8A, b"hello".to_vec()));
    raw.throw(&masked(0x80, br#""sub":"s","topics":["a.*"]}"#)).await;
    let (opcode, payload) = raw.frame().await;
    assert_eq!(opcode, 0x81);
    assert_eq!(serde_json::from_slice::<Value>(&payload).unwrap()["type"], "subscribed");
}

#[tokio::test]
async fn a_client_that_closes_is_answered_and_forgotten() {
    let hub = TestHub::start().await;
    let mut raw = Raw::open(&hub).await;
    hub.metric_becomes("pulsehub_connections", 1.0).await;
    raw.throw(&masked(0x88, &1000u16.to_be_bytes())).await;
    assert_eq!(raw.frame().await, (0x88, 1000u16.to_be_bytes().to_vec()));
    hub.metric_becomes("pulsehub_connections", 0.0).await;
}

#[tokio::test]
async fn what_is_no_message_closes_the_socket() {
    let hub = TestHub::start().await;
    let mut other = neighbour(&hub).await;
    for text in ["", "{", "[]", "nonsense", "7", r#"{"id":1}"#, r#"{"type":7,"id":1}"#] {
        let mut client = hub.client("ada", &["a.*"]).await;
        client.send_raw(text.into()).await;
        assert_eq!(client.expect_close().await.0, 4400, "{text}");
    }
    // Before `connect` only `connect` is a message.
    for message in [
        json!({"type": "subscribe", "id": 1, "sub": "s", "topics": ["a.*"]}),
        json!({"type": "nonsense", "id": 1}),
        json!({"type": "connect"}),
        json!({"type": "pong"}),
    ] {
        let mut client = hub.socket("/ws/real-time", &[PROTOCOL]).await;
        client.send(message.clone()).await;
        assert_eq!(client.expect_close().await.0, 4400, "{message}");
    }
    hub.publish_numbers("a.b", 0..1).await;
    assert_eq!(numbers(&other.events("s", 1).await), [0]);
}

#[tokio::test]
async fn a_name_of_many_kilobytes_came_back_whole() {
    let hub = TestHub::start().await;
    let name = "x".repeat(15_000);
    let token = hub.token("ada", &["a.*"]);
    for path in ["/api/v1/tickets", "/api/v1/session", "/api/v1/drain"] {
        let request = hub.http().post(hub.url(path)).bearer_auth(&token);
        let answer = request.json(&json!({ name.clone(): 1 })).send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        assert!((400..=403).contains(&status) && text.len() < 1000, "{path}: {status} {text}");
    }
    let path = format!("/api/v1/topics?{name}=1");
    let answer = hub.http().get(hub.url(&path)).bearer_auth(&token).send().await.unwrap();
    let text = answer.text().await.unwrap();
    assert!(text.contains("there is no parameter") && text.len() < 1500, "{text}");
    let mut client = hub.client("ada", &["a.*"]).await;
    for message in [
        json!({"type": name, "id": 1}),
        json!({"type": "subscribe", "id": 1, "sub": "s", "topics": ["a.*"], "mode": name}),
        json!({"type": "subscribe", "id": 1, "sub": "s", "topics": [name]}),
        json!({"type": "subscribe", "id": 1, "sub": "s", "topics": ["a.*"], "resume": name}),
    ] {
        client.send(message).await;
        let error = client.expect("error").await.to_string();
        assert!(error.len() < 600, "{error}");
    }
}

#[tokio::test]
async fn a_message_with_a_mistake_is_an_error_and_the_socket_stays() {
    let hub = TestHub::start().await;
    let mut client = hub.client("ada", &["a.*"]).await;
    client.send(json!({"type": "nonsense", "id": "x"})).await;
    let error = client.expect_error("unknown_type").await;
    assert_eq!((&error["id"], &error["retryable"]), (&json!("x"), &json!(false)));
    client.send(json!({"type": "nonsense"})).await;
    assert_eq!(client.expect_error("unknown_type").await.get("id"), None);
    client.send(json!({"type": "subscribe", "sub": "s", "topics": ["a.*"]})).await;
    assert_eq!(client.expect_error("missing_id").await.get("id"), None);
    client.send(json!({"type": "unsubscribe", "id": {"a": 1}, "sub": "s"})).await;
    client.expect_error("bad_message").await;
    client.send(json!({"type": "connect", "id": 2})).await;
    assert_eq!(client.expect_error("already_connected").await["id"], 2);
    let position = "1:1";
    for wrong in [
        json!({}),
        json!({"topics": "a.*"}),
        json!({"topics": []}),
        json!({"topics": ["a..b"]}),
        json!({"topics": ["**.a"]}),
        json!({"topics": ["a.*"], "replay": {"last": -1}}),
        json!({"topics": ["a.*"], "replay": {"last": 1, "latest": true}}),
        json!({"topics": ["a.*"], "replay": {"since": "yesterday"}}),
        json!({"topics": ["a.*"], "replay": {"last": 1}, "resume": position}),
        json!({"topics": ["a.*"], "resume": "nonsense"}),
        json!({"topics": ["a.*"], "max_hz": 5}),
        json!({"topics": ["a.*"], "mode": "latest", "max_hz": 61}),
        json!({"topics": ["a.*"], "mode": "other"}),
        json!({"topics": ["a.*"], "sub": ""}),
        json!({"topics": ["a.*"], "sub": "x".repeat(65)}),
    ] {
        let mut message = json!({"type": "subscribe", "id": 3, "sub": "s"});
        message.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        client.send(message).await;
        assert_eq!(client.expect_error("bad_message").await["id"], 3, "{wrong}");
    }
    client.subscribe(json!({"sub": "s", "topics": ["a.*"]})).await; // its name was never taken
    client.expect("live").await;
    client.send(json!({"type": "pong", "more": [1, 2]})).await;
    client.still_answers().await;
}

#[tokio::test]
async fn samples_that_become_no_series_are_told_in_the_answer_and_the_others_kept() {
    let hub = TestHub::start().await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let time: Value = serde_json::from_str(&format!("{}.5", now.as_millis())).unwrap();
    let answer = hub
        .publish(
            json!({"topic": "a.b", "type": "samples", "key": "k".repeat(256), "data": {"samples": [
                {"name": "odd.fraction", "value": 1, "time": time},
                {"name": "odd.word", "value": 1, "time": "soon"},
                // All that a sample needs, in the order of its fields.
                ["odd.array", "gauge", null, {}, false, null, 1],
            ]}}),
        )
        .await;
    assert_eq!((&answer["accepted"], &answer["dropped"]["sample"]), (&json!(1), &json!(2)));
    let reasons = answer["dropped"]["reasons"].to_string();
    assert!(reasons.contains("`time` is RFC 3339"), "{answer}");
    assert_eq!(hub.metric("pulsehub_dropped_total{part=\"sample\"}").await, 2.0);
    let mut client = hub.client("ada", &["**"]).await;
    let events = json!([{"topic": "a.b", "type": "samples", "data": {"samples": [7]}}]);
    client.send(json!({"type": "publish", "id": 1, "events": events})).await;
    let ack = client.expect("ack").await;
    assert_eq!((&ack["accepted"], &ack["dropped"]["sample"]), (&json!(1), &json!(1)), "{ack}");
    assert!(ack["dropped"]["reasons"][0].as_str().unwrap().starts_with("event 0: "), "{ack}");
    assert_eq!(hub.metric("pulsehub_dropped_total{part=\"sample\"}").await, 3.0);
    client.send(json!({"type": "publish", "id": 2, "events": [{"topic": "a.b"}]})).await;
    assert_eq!(client.expect("ack").await.get("dropped"), None);
    let ask = async |query: &str| {
        let request = hub.http().get(hub.url(&format!("/api/v1/series?prefix=odd.&{query}")));
        let answer = request.bearer_auth(hub.token("r", &["**"])).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let text = crate::support::eventually("the series", async || {
        let (_, text) = ask("limit=50.0").await;
        text.contains("odd.fraction").then_some(text)
    })
    .await;
    assert!(!text.contains("odd.word") && !text.contains("odd.array"), "{text}");
    let (status, text) = ask("limit=50.5").await;
    assert!(status == 400 && text.contains("`limit` must be a whole number"), "{text}");
}

#[tokio::test]
async fn a_parameter_with_a_typing_error_was_passed_over() {
    let hub = TestHub::start().await;
    let admin = hub.token_for("root", &["**"], Some("admin"), 600);
    for (path, known) in [
        ("history?topics=a.**&", "topics, after, before, since or limit"),
        ("topics?", "prefix, after or limit"),
        ("series?", "prefix, topic, after or limit"),
        ("series/query?name=a&", "name, labels, from, to, step or agg"),
        ("instances?", "app, state, q, sort, after or limit"),
        ("connections?", "after or limit"),
    ] {
        let url = hub.url(&format!("/api/v1/{path}limti=5"));
        let answer = hub.http().get(url).bearer_auth(&admin).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{path}");
        let problem: Value = answer.json().await.unwrap();
        let says = format!("there is no parameter `limti` here, only {known}");
        assert_eq!(problem["detail"], says, "{path}");
    }
    let url = hub.url("/api/v1/topics?limit=1&limit=2");
    let answer = hub.http().get(url).bearer_auth(&admin).send().await.unwrap();
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["detail"], "the parameter `limit` is given twice");
    // Also under another name of its own.
    let url = hub.url("/sse/real-time?topics=a.*&topic=b.*");
    let answer = hub.http().get(url).bearer_auth(&admin).send().await.unwrap();
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["detail"], "the parameter `topics` is given twice");
}

#[tokio::test]
async fn whole_numbers_are_taken_however_they_are_written_and_arrays_are_no_messages() {
    let hub = TestHub::start().await;
    hub.publish_numbers("a.b", 0..3).await;
    let mut client = hub.socket("/ws/real-time", &[PROTOCOL]).await;
    client.send(json!({"type": "connect", "id": 1.0, "token": hub.token("a", &["a.*"])})).await;
    assert_eq!(client.expect("connected").await["id"], 1);
    client.subscribe(json!({"sub": "s", "topics": ["a.*"], "replay": {"last": 2.0}})).await;
    assert_eq!(numbers(&client.events("s", 2).await), [1, 2]);
    client.expect("live").await;
    for last in [json!(2.5), json!(-1), json!([2])] {
        let replay = json!({"last": last});
        let message =
            json!({"type": "subscribe", "id": 2, "sub": "t", "topics": ["a.*"], "replay": replay});
        client.send(message).await;
        client.expect_error("bad_message").await;
    }
    client.send(json!(["pong", null])).await;
    assert_eq!(client.expect_close().await.0, 4400);
    let key = [("x-api-key", &*hub.token("a", &["a.*"]))];
    let mut simple = hub.socket("/ws/real-time?topics=a.*&last=2.0&format=data", &key).await;
    assert_eq!(
        [simple.next_json().await, simple.next_json().await],
        [json!({"n": 1}), json!({"n": 2})]
    );
    let admin = hub.token_for("root", &["**"], Some("admin"), 60);
    let ask = async |request: reqwest::RequestBuilder| {
        let answer = request.bearer_auth(&admin).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let get = async |path: &str| ask(hub.http().get(hub.url(path))).await;
    let (status, page) = get("/api/v1/history?topics=a.*&after=1.0&before=3e0").await;
    assert!(status == 200 && page.matches("\"offset\":").count() == 1, "{page}");
    assert_eq!(get("/api/v1/history?topics=a.*&after=1.5").await.0, 400);
    let columns = get("/api/v1/series/query?name=n&from=1795916376.5&to=1795916976.25").await;
    assert_eq!(columns.0, 200, "{columns:?}");
    assert_eq!(get("/api/v1/series/query?name=n&from=inf").await.0, 400);
    let drain = |body: Value| ask(hub.http().post(hub.url("/api/v1/drain")).json(&body));
    let refused = drain(json!(["nobody", false])).await;
    assert!(refused.0 == 400 && refused.1.contains("an object"), "{refused:?}");
    assert_eq!(drain(json!({"node": "nobody"})).await.0, 404);
}
