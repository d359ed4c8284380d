//! One example of every message both ways, in `tests/protocol`: what clients are tested against.
//!
//! The hub reads and makes exactly these, byte for byte.

use std::{collections::BTreeMap, path::Path};

use pulsehub::{
    position::Position,
    protocol::{
        ClientMessage, ConnectionLimits, ErrorCode, GapReason, Losses, MessageId, Mode, Replay,
        ServerMessage, SubscribedStart,
    },
    telemetry::DroppedPart,
};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    blocks::Mark,
    document::Document,
    hub::{Client, PROTOCOL, TestHub, offset},
};

/// The examples whose names begin with `side`, by the rest of their names.
fn examples(side: &str) -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protocol");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter_map(|path| {
            let name = path.file_stem()?.to_str()?.strip_prefix(side)?.to_owned();
            Some((name, std::fs::read_to_string(path).unwrap().trim_end().to_owned()))
        })
        .collect()
}

fn position(text: &str) -> Position {
    text.parse().unwrap()
}

fn number(id: &MessageId) -> i64 {
    match id {
        MessageId::Number(id) => *id,
        MessageId::Text(text) => panic!("no number: {text}"),
    }
}

#[test]
fn every_message_of_a_client_is_read() {
    let mut examples = examples("client-");
    let mut take = |name: &str| examples.remove(name).unwrap();
    let text = take("connect");
    let Ok(ClientMessage::Connect(id, connect)) = ClientMessage::parse(&text) else { panic!() };
    assert_eq!((number(&id), connect.name.as_deref()), (1, Some("dashboard")));
    assert_eq!(connect.token.unwrap().expose_secret(), "a token");
    assert_eq!(connect.subscribe[0].replay, Some(Replay::Last(50)));

    let text = take("subscribe-all");
    let Ok(ClientMessage::Subscribe(id, all)) = ClientMessage::parse(&text) else { panic!() };
    let topics: Vec<_> = all.topics.iter().map(ToString::to_string).collect();
    assert_eq!((number(&id), &*all.sub, all.mode), (2, "a", Mode::All));
    assert_eq!(topics, ["voicehive.*", "locanext.**"]);
    assert_eq!((all.replay, all.resume), (Some(Replay::SinceAgo(300_000)), None));

    let text = take("subscribe-latest");
    let Ok(ClientMessage::Subscribe(id, latest)) = ClientMessage::parse(&text) else { panic!() };
    assert_eq!(id, MessageId::Text("three".into()));
    assert_eq!((latest.mode, latest.max_hz), (Mode::Latest, Some(10.0)));
    assert_eq!(latest.replay, Some(Replay::Latest));

    let text = take("subscribe-resume");
    let Ok(ClientMessage::Subscribe(_, resume)) = ClientMessage::parse(&text) else { panic!() };
    assert_eq!((resume.replay, resume.resume), (None, Some(position("3f9a:1841"))));

    let text = take("unsubscribe");
    let Ok(ClientMessage::Unsubscribe(id, sub)) = ClientMessage::parse(&text) else { panic!() };
    assert_eq!((number(&id), &*sub), (5, "b"));

    let text = take("refresh");
    let Ok(ClientMessage::Refresh(id, token)) = ClientMessage::parse(&text) else { panic!() };
    assert_eq!((number(&id), token.expose_secret()), (6, "a newer token"));

    let text = take("publish");
    let Ok(ClientMessage::Publish(id, publish)) = ClientMessage::parse(&text) else { panic!() };
    let events: Value = serde_json::from_str(publish.events.get()).unwrap();
    assert_eq!((number(&id), &events[0]["key"]), (7, &json!("c7")));

    assert!(matches!(ClientMessage::parse(&take("pong")), Ok(ClientMessage::Pong)));
    assert!(examples.is_empty(), "not tested: {examples:?}");
}

#[test]
fn the_messages_that_protocol_md_shows_are_like_the_examples() {
    let document = Document::read("docs/protocol.md");
    let ours = Mark::RunBy("tests/golden.rs".to_owned());
    let block = document.blocks.iter().find(|block| block.mark == ours).unwrap();
    // What is left out of it stands for an event, or for numbers that nobody reads.
    let text = block.body.replace("{…}", r#"{"topic":"a.b"}"#);
    let messages = text.split(['→', '←']).skip(1).zip(text.chars().filter(|c| "→←".contains(*c)));
    let known: Vec<Value> =
        examples("server-").values().map(|text| serde_json::from_str(text).unwrap()).collect();
    let mut count = 0;
    for (message, arrow) in messages {
        count += 1;
        if arrow == '→' {
            assert!(ClientMessage::parse(message.trim()).is_ok(), "{message}");
            continue;
        }
        let shown: Value = serde_json::from_str(message).unwrap();
        let fields: Vec<_> = shown.as_object().unwrap().keys().collect();
        let is_like = |example: &Value| {
            example["type"] == shown["type"]
                && fields.iter().all(|field| example.get(field).is_some())
        };
        assert!(known.iter().any(is_like), "{message}");
    }
    assert!(count > 15, "{count}");
}

#[test]
fn every_message_of_the_hub_is_made() {
    let id = MessageId::Number;
    let time = || "2026-11-20T12:00:00.123Z".to_owned();
    let limits = ConnectionLimits {
        frame: 65_536,
        subscriptions: 64,
        patterns: 32,
        replay: 10_000,
        batch: 10_000,
        event: 262_144,
        messages_per_second: 50,
    };
    let start = SubscribedStart {
        position: position("3f9a:1841"),
        head: position("3f9a:1900"),
        recovered: true,
        replay_truncated: false,
        max_hz: None,
        is_owing: false,
    };
    let forbidden = ErrorCode::Forbidden;
    let needs_id = "`subscribe` needs an `id`, which the answer repeats";
    let mut dropped = Losses::default();
    dropped.note(DroppedPart::Sample, || "event 0: why".to_owned());
    let no_grant = "no grant to subscribe to private.*";
    let made = [
        (
            "connected",
            ServerMessage::Connected {
                id: &id(1),
                conn: "c7",
                user: "ada",
                expires_in: Some(3540),
                ping: 25,
                head: position("3f9a:1900"),
                time: time(),
                limits,
            },
        ),
        ("subscribed", ServerMessage::Subscribed { id: Some(&id(4)), sub: "c", start }),
        (
            "live",
            ServerMessage::Live { sub: "a", position: position("3f9a:1900"), was_owing: false },
        ),
        (
            "gap",
            ServerMessage::Gap {
                sub: "a",
                from: position("3f9a:1902"),
                to: position("3f9a:1990"),
                reason: GapReason::Retention,
                position: position("3f9a:1990"),
            },
        ),
        ("unsubscribed", ServerMessage::Unsubscribed { id: Some(&id(5)), sub: "b", code: None }),
        (
            "unsubscribed-by-hub",
            ServerMessage::Unsubscribed { id: None, sub: "b", code: Some(forbidden) },
        ),
        ("refreshed", ServerMessage::Refreshed { id: &id(6), expires_in: Some(3600) }),
        (
            "ack",
            ServerMessage::Ack {
                id: &id(7),
                position: position("3f9a:2001"),
                accepted: 1,
                duplicates: 0,
                dropped: &Losses::default(),
            },
        ),
        (
            "ack-dropped",
            ServerMessage::Ack {
                id: &id(8),
                position: position("3f9a:2002"),
                accepted: 1,
                duplicates: 0,
                dropped: &dropped,
            },
        ),
        (
            "ping",
            ServerMessage::Ping {
                time: time(),
                head: position("3f9a:2001"),
                caught_up: vec!["a", "b"],
                stale: false,
            },
        ),
        ("reconnect", ServerMessage::Reconnect { after_ms: 1830 }),
        (
            "error",
            ServerMessage::Error {
                id: Some(&id(2)),
                code: forbidden,
                message: no_grant,
                retryable: forbidden.retryable(),
            },
        ),
        (
            "error-without-id",
            ServerMessage::Error {
                id: None,
                code: ErrorCode::MissingId,
                message: needs_id,
                retryable: false,
            },
        ),
    ];
    let mut examples = examples("server-");
    examples.retain(|name, _| !name.starts_with("events")); // made by the hub below
    for (name, message) in made {
        let frame = message.frame();
        let header = if frame[1] == 126 { 4 } else { 2 };
        let example = examples.remove(name).unwrap();
        assert_eq!(std::str::from_utf8(&frame[header..]).unwrap(), example, "{name}");
    }
    assert!(examples.is_empty(), "not tested: {examples:?}");
}

#[tokio::test]
async fn events_are_framed_like_their_examples() {
    let mut examples = examples("server-events");
    let hub = TestHub::start().await;
    for (name, sub) in [("", "a"), ("-latest", "b")] {
        let example = examples.remove(name).unwrap();
        let mut wanted: Value = serde_json::from_str(&example).unwrap();
        let mut events = wanted["events"].clone();
        for event in events.as_array_mut().unwrap() {
            event.as_object_mut().unwrap().remove("offset");
            event["id"] = json!(format!("{}{name}", event["id"].as_str().unwrap()));
        }
        let mut client = hub.socket("/ws/real-time", &[PROTOCOL]).await;
        client.connect(&hub.token("ada", &["**"])).await;
        let mut subscribe = json!({"sub": sub, "topics": ["voicehive.*"]});
        if name == "-latest" {
            // An older value of the same key, which is passed over.
            let older = json!({"topic": "voicehive.calls", "key": "c7", "data": 1});
            events.as_array_mut().unwrap().insert(0, older);
            subscribe["mode"] = json!("latest");
        }
        client.subscribe(subscribe).await;
        client.expect("live").await;
        let answer = hub.publish(events).await;
        let text = text(&mut client).await;
        // Where the log stands is each hub's own, and so is the id, which is stored only once.
        let found: Value = serde_json::from_str(&text).unwrap();
        let mut expected = example.replace("3f9a:1843", found["position"].as_str().unwrap());
        assert_eq!(offset(&found["position"]), offset(&answer["position"]));
        let wanted = wanted["events"].as_array_mut().unwrap();
        for (event, found) in wanted.iter().zip(found["events"].as_array().unwrap()) {
            let offsets = [event, found].map(|event| format!("\"offset\":{}", event["offset"]));
            expected = expected.replace(&offsets[0], &offsets[1]);
            let ids = [event, found].map(|event| format!("\"id\":{}", event["id"]));
            expected = expected.replace(&ids[0], &ids[1]);
        }
        assert_eq!(text, expected);
    }
    assert!(examples.is_empty(), "not tested: {examples:?}");
}

/// The next message as it came.
async fn text(client: &mut Client) -> String {
    match client.next().await {
        Some(Message::Text(text)) => text.to_string(),
        other => panic!("a text was expected, not {other:?}"),
    }
}
