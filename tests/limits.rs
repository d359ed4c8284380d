//! What one client may ask of the hub, and what happens beyond it; nobody else notices.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use pulsehub::{
    admission::Admission,
    config::Config,
    connections::Connections,
    session::{Now, Session, Terms},
    telemetry::Telemetry,
    topic::OwnTopics,
};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use crate::support::{
    eventually,
    hub::{Client, PROTOCOL, TestHub, numbers},
    process::Home,
};

const PATH: &str = "/ws/real-time";

fn hits(limit: &str) -> String {
    format!("pulsehub_limit_hits_total{{limit=\"{limit}\"}}")
}

/// Before a close after which a client should come back, and not at once.
async fn told_to_come_back(client: &mut Client) {
    let after_ms = client.expect("reconnect").await["after_ms"].as_u64().unwrap();
    assert!((2000..4000).contains(&after_ms), "{after_ms}");
}

#[tokio::test]
async fn who_has_too_many_connections_is_closed_and_the_others_stay() {
    let hub = TestHub::with(&[("limits.connections_per_principal", "2")]).await;
    let mut first = hub.client("ada", &["a.*"]).await;
    let second = hub.client("ada", &["a.*"]).await;
    let mut third = hub.socket(PATH, &[PROTOCOL]).await;
    let connect = json!({"type": "connect", "id": 1, "token": hub.token("ada", &["a.*"])});
    third.send(connect).await;
    told_to_come_back(&mut third).await;
    assert_eq!(third.expect_close().await.0, 4429);
    assert_eq!(hub.metric(&hits("connections_per_principal")).await, 1.0);
    let stream = hub.http().get(hub.url("/sse/real-time?topics=a.*"));
    let refused = stream.bearer_auth(hub.token("ada", &["a.*"])).send().await.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "too_many_connections");
    assert_eq!(hub.metric(&hits("connections_per_principal")).await, 2.0);
    hub.client("bob", &["a.*"]).await;
    first.still_answers().await;
    drop(second);
    hub.metric_becomes("pulsehub_connections", 1.0).await;
    hub.client("ada", &["a.*"]).await; // there is room again
}

#[tokio::test]
async fn one_user_cannot_make_views_without_end() {
    let hub = TestHub::with(&[("limits.views_per_principal", "2")]).await;
    let mut first = hub.client("ada", &["**"]).await;
    let mut second = hub.client("ada", &["**"]).await;
    let sub = |sub: &str, topic: &str| json!({"sub": sub, "topics": [topic]});
    first.subscribe(sub("s", "a.x")).await;
    first.expect("live").await;
    first.subscribe(sub("t", "a.x")).await;
    first.expect("live").await;
    let mut third = sub("u", "a.y");
    third
        .as_object_mut()
        .unwrap()
        .extend([("type".to_owned(), json!("subscribe")), ("id".to_owned(), json!(1))]);
    second.send(third.clone()).await;
    let error = second.expect_error("limit_exceeded").await;
    assert!(error["message"].as_str().unwrap().contains("views_per_principal"), "{error}");
    // What somebody has already is shared, and others have room of their own.
    second.subscribe(sub("s", "a.x")).await;
    second.expect("live").await;
    hub.client("bob", &["**"]).await.subscribe(sub("u", "a.y")).await;
    let token = hub.token("ada", &["**"]);
    let key = [("x-api-key", token.as_str())];
    let mut simple = hub.socket("/ws/real-time?topics=a.y", &key).await;
    assert_eq!(simple.expect_close().await.0, 4429);
    let stream = hub.http().get(hub.url("/sse/real-time?topics=a.y")).bearer_auth(&token);
    let refused = stream.send().await.unwrap();
    assert_eq!(refused.status(), 429);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "too_many_subscriptions");
    assert_eq!(hub.metric(&hits("views_per_principal")).await, 3.0);
    first.send(json!({"type": "unsubscribe", "id": 2, "sub": "t"})).await;
    first.expect("unsubscribed").await;
    second.send(third).await;
    second.expect("subscribed").await;
}

#[tokio::test]
async fn who_sends_too_many_messages_is_closed() {
    let hub = TestHub::with(&FEW_MESSAGES).await;
    let mut other = hub.client("bob", &["a.*"]).await;
    let mut client = hub.client("ada", &["a.*"]).await;
    // Many at once, so that no pause of the machine can spread them over as many seconds.
    for _ in 0..100 {
        if client.try_send(json!({"type": "pong"})).await.is_err() {
            break;
        }
    }
    told_to_come_back(&mut client).await;
    assert_eq!(client.expect_close().await.0, 4429);
    assert_eq!(hub.metric(&hits("messages_per_second")).await, 1.0);
    other.still_answers().await;
}

#[tokio::test]
async fn strangers_had_a_whole_frame_held_for_each_of_their_sockets() {
    let hub = TestHub::start().await;
    let connect = format!("{}{}", " ".repeat(20_000), json!({"type": "connect", "id": 1}));
    let mut stranger = hub.socket(PATH, &[PROTOCOL]).await;
    stranger.send_raw(Message::text(connect.clone())).await;
    assert_eq!(stranger.expect_close().await.0, 4400);
    assert_eq!(hub.metric(&hits("frame")).await, 1.0);
    // Who has shown credentials may say more, with the upgrade or with `connect`.
    let token = hub.token("ada", &["a.*"]);
    let mut known = hub.socket(PATH, &[PROTOCOL, ("x-api-key", &token)]).await;
    known.send_raw(Message::text(connect)).await;
    known.expect("connected").await;
    let mut client = hub.client("ada", &["a.*"]).await;
    let event = json!({"topic": "a.b", "data": "x".repeat(20_000)});
    client.send(json!({"type": "publish", "id": 2, "events": [event]})).await;
    client.expect("ack").await;
}

#[tokio::test]
async fn frames_that_end_no_message_count_as_messages() {
    let hub = TestHub::with(&FEW_MESSAGES).await;
    let mut silent = hub.socket(PATH, &[PROTOCOL]).await;
    let part = |data| Message::Frame(Frame::message("", OpCode::Data(data), false));
    silent.send_raw(part(Data::Text)).await;
    for _ in 0..10 {
        silent.send_raw(part(Data::Continue)).await;
    }
    told_to_come_back(&mut silent).await;
    assert_eq!(silent.expect_close().await.0, 4429);
    assert_eq!(hub.metric(&hits("messages_per_second")).await, 1.0);
}

/// Seven at once.
const FEW_MESSAGES: [(&str, &str); 2] =
    [("limits.messages_per_second", "5"), ("limits.subscriptions", "1")];

#[tokio::test]
async fn a_subscription_over_a_limit_is_an_error_and_counted() {
    let flags = [
        ("limits.subscriptions", "3"),
        ("limits.patterns", "2"),
        ("limits.replay", "10"),
        ("limits.batch", "2"),
        ("limits.event", "1 KiB"),
    ];
    let hub = TestHub::with(&flags).await;
    let mut client = hub.client("ada", &["a.*"]).await;
    let subscribe = |sub: &str, more: Value| {
        let mut message = json!({"type": "subscribe", "id": sub, "sub": sub, "topics": ["a.*"]});
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        message
    };
    client.send(subscribe("x", json!({"topics": ["a.x", "a.y", "a.z"]}))).await;
    client.expect_error("limit_exceeded").await;
    client.send(subscribe("x", json!({"topics": ["a.*.b.*.*.*.**"]}))).await;
    let error = client.expect_error("limit_exceeded").await;
    assert!(error["message"].as_str().unwrap().contains("at most 3 `*`"), "{error}");
    client.send(subscribe("x", json!({"replay": {"last": 11}}))).await;
    client.expect_error("limit_exceeded").await;
    for sub in ["1", "2", "3"] {
        client.send(subscribe(sub, json!({"replay": {"last": 10}}))).await;
        client.expect("subscribed").await;
        client.expect("live").await;
    }
    client.send(subscribe("4", json!({}))).await;
    let error = client.expect_error("limit_exceeded").await;
    assert_eq!((&error["id"], &error["retryable"]), (&json!("4"), &json!(false)));
    client.send(subscribe("3", json!({}))).await;
    client.expect_error("sub_in_use").await;
    client.send(json!({"type": "publish", "id": 1, "events": [{"topic": "a.b"}, {"topic": "a.b"}, {"topic": "a.b"}]})).await;
    client.expect_error("invalid_event").await;
    let long = json!({"topic": "a.b", "data": "x".repeat(2000)});
    client.send(json!({"type": "publish", "id": 1, "events": [long]})).await;
    client.expect_error("invalid_event").await;
    assert_eq!(hub.metric(&hits("patterns")).await, 2.0); // too many, and one too wild
    for limit in ["replay", "subscriptions", "batch", "event"] {
        assert_eq!(hub.metric(&hits(limit)).await, 1.0, "{limit}");
    }
    // Nothing of the refused batches was stored.
    hub.publish_numbers("a.b", 7..8).await;
    for _ in 0..3 {
        let message = client.expect("events").await;
        assert_eq!(numbers(message["events"].as_array().unwrap()), [7], "{message}");
    }
}

#[tokio::test]
async fn the_limits_told_are_the_defaults_of_the_contract() {
    // One by one, as a client that comes back may: within the messages allowed as well.
    let hub = TestHub::start().await;
    let mut client = hub.client("ada", &["a.*"]).await;
    for sub in 0..64 {
        client.subscribe(json!({"sub": format!("s{sub}"), "topics": ["a.*"]})).await;
        client.expect("live").await;
    }
    client.send(json!({"type": "subscribe", "id": 1, "sub": "s64", "topics": ["a.*"]})).await;
    client.expect_error("limit_exceeded").await;
    let patterns: Vec<_> = (0..33).map(|n| format!("a.t{n}")).collect();
    let mut client = hub.client("ada", &["a.*"]).await;
    client.send(json!({"type": "subscribe", "id": 1, "sub": "s", "topics": patterns})).await;
    client.expect_error("limit_exceeded").await;
    client.subscribe(json!({"sub": "s", "topics": patterns[1..]})).await;
}

#[tokio::test]
async fn who_does_not_say_connect_in_time_is_closed() {
    let hub = TestHub::with(&[("socket.connect_timeout", "100ms")]).await;
    let mut client = hub.socket(PATH, &[PROTOCOL]).await;
    assert_eq!(client.expect_close().await.0, 4408);
    // Credentials with the upgrade are no `connect`.
    let token = hub.token("ada", &["a.*"]);
    let mut client = hub.socket(PATH, &[PROTOCOL, ("x-api-key", &token)]).await;
    assert_eq!(client.expect_close().await.0, 4408);
    // In simple mode there are no messages to wait for.
    let mut simple = hub.socket("/ws/real-time?topics=a.*", &[("x-api-key", &token)]).await;
    hub.metric_becomes("pulsehub_subscriptions", 1.0).await; // not the hub's own
    hub.publish_numbers("a.b", 0..1).await;
    assert_eq!(simple.next_json().await["data"]["n"], 0);
}

#[test]
fn a_socket_that_waits_for_connect_does_not_spin_once_its_ping_is_due() {
    let flags = [("socket.ping", "1s".to_owned()), ("socket.connect_timeout", "5s".to_owned())];
    let config = Config::load(None, [], &flags).unwrap();
    let (config, limits) = (config.socket, config.limits);
    let telemetry = Telemetry::new();
    let admission = Admission::new(OwnTopics::default(), (&limits).into());
    let connections = Connections::new(1, telemetry.clone());
    let terms = Arc::new(Terms { config, limits, telemetry, admission, connections });
    let head = "1:1".parse().unwrap();
    let mut now = Now { instant: Instant::now(), wall: 0, head, stale: false };
    let client = ([127, 0, 0, 1], 9).into();
    let mut session = Session::new(terms, client, Arc::default(), None, None, now);
    now.instant += Duration::from_secs(2);
    assert!(session.tick(now).is_empty());
    assert!(session.next_time() > now.instant);
}

#[tokio::test]
async fn who_does_not_answer_a_ping_is_closed() {
    let hub = TestHub::with(&[("socket.ping", "1s"), ("socket.pong_timeout", "100ms")]).await;
    let mut client = hub.client("ada", &["a.*"]).await;
    client.next_json().await; // the ping
    assert_eq!(client.expect_close().await.0, 4408);
    assert_eq!(hub.metric("pulsehub_closes_total{code=\"timeout\"}").await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_costs_no_memory_and_disturbs_nobody() {
    // A process of its own: what the tests beside it, its clients and their sockets take is not its.
    let home = Home::new(
        "[socket]\nwrite_timeout = \"1s\"\n[hub]\ntail_bytes = \"1 MiB\"\n\
         [journal]\nsync = \"normal\"\nrecent_bytes = \"1 MiB\"\n",
    );
    let hub = home.start().await;
    let token = home.token("all", "a.*");
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let publish = async |event: Value| {
        let request = http.post(format!("http://{}/api/v1/publish", hub.address()));
        let answer = request.bearer_auth(&token).json(&event).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    };
    let metric = async |line: &str| {
        let request = http.get(format!("http://{}/metrics", hub.address()));
        let text = request.send().await.unwrap().text().await.unwrap();
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0.0, |value| value.parse::<f64>().unwrap())
    };
    let becomes = async |line: &str, wanted: f64| {
        eventually(line, async || (metric(line).await == wanted).then_some(())).await;
    };
    let mut clients = Vec::new();
    for name in ["slow", "fast"] {
        let mut client = Client::open(hub.address(), PATH, &[PROTOCOL]).await.unwrap();
        client.connect(&home.token(name, "a.*")).await;
        client.subscribe(json!({"sub": "s", "topics": ["a.*"]})).await;
        client.expect("live").await;
        clients.push(client);
    }
    let [stuck, reader] = &mut clients[..] else { unreachable!() };
    let before = memory(hub.id());
    let load = "x".repeat(200_000);
    for n in 0..400 {
        publish(json!({"topic": "a.b", "data": {"n": n, "load": load}})).await;
        assert_eq!(numbers(&reader.events("s", 1).await), [n]);
    }
    let grown = memory(hub.id()).saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more after 80 MB that somebody did not read");
    becomes("pulsehub_closes_total{code=\"too_slow\"}", 1.0).await;
    assert_eq!(metric(&hits("write_timeout")).await, 1.0);
    becomes("pulsehub_connections", 1.0).await;
    while let Some(Message::Text(_)) = stuck.next().await {} // what was under way, then the end
    publish(json!({"topic": "a.b", "data": {"n": 400}})).await;
    assert_eq!(numbers(&reader.events("s", 1).await), [400]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_who_began_with_the_newest_values_and_read_none_held_all_of_them() {
    // A process of its own: what the tests beside it, its clients and their sockets take is not its.
    let home = Home::new("[journal]\nsync = \"normal\"\nrecent_bytes = \"1 MiB\"\n");
    let hub = home.start().await;
    let token = home.token("all", "a.*");
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let load = "x".repeat(200_000);
    for batch in 0..4 {
        let event = |n| json!({"topic": format!("a.{batch}-{n}"), "data": load});
        let request = http.post(format!("http://{}/api/v1/publish", hub.address()));
        let events = (0..20).map(event).collect::<Vec<_>>();
        let answer = request.bearer_auth(&token).json(&events).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    let mut clients = Vec::new();
    let mut join = async |n: usize| {
        let mut client = Client::open(hub.address(), PATH, &[PROTOCOL]).await.unwrap();
        client.connect(&token).await;
        let newest = json!({"sub": n.to_string(), "topics": ["a.*"], "replay": {"latest": true}});
        client.subscribe(newest).await;
        clients.push(client);
    };
    join(0).await;
    let before = memory(hub.id());
    for n in 1..=10 {
        join(n).await;
    }
    let grown = memory(hub.id()).saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more for 10 times 16 MB that nobody read");
    let reader = &mut clients[10];
    assert_eq!(reader.events("10", 80).await.len(), 80, "and who reads gets all of them");
    reader.expect("live").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_was_framed_for_all_views_at_once_whatever_room_they_have() {
    const SUBSCRIPTIONS: usize = 60;
    let home = Home::new("[journal]\nsync = \"normal\"\n[hub]\ntail_bytes = \"4 MiB\"\n");
    let hub = home.start().await;
    let token = home.token("all", "a.*");
    let mut clients = Vec::new();
    for n in 0..16 {
        let mut client = Client::open(hub.address(), PATH, &[PROTOCOL]).await.unwrap();
        client.connect(&token).await;
        for m in 0..SUBSCRIPTIONS {
            client.subscribe(json!({"sub": format!("{n}-{m}"), "topics": ["a.*"]})).await;
            client.expect("live").await;
        }
        clients.push(client);
    }
    let before = status(hub.id(), "VmHWM:");
    let load = "x".repeat(250_000);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.post(format!("http://{}/api/v1/publish", hub.address()));
    let request = request.bearer_auth(&token).json(&json!({"topic": "a.b", "data": load}));
    assert_eq!(request.send().await.unwrap().status(), 200);
    // Of the last of them frames would be made last.
    let mut missing: BTreeSet<_> = (0..SUBSCRIPTIONS).map(|m| format!("15-{m}")).collect();
    while !missing.is_empty() {
        let events = clients[15].expect("events").await;
        assert!(missing.remove(events["sub"].as_str().unwrap()), "one came twice");
    }
    let grown = status(hub.id(), "VmHWM:").saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more for an event that 960 views match");
}

/// Resident bytes of a process.
fn memory(process: u32) -> usize {
    status(process, "VmRSS:")
}

/// What the system says of a process's memory, in bytes.
fn status(process: u32, field: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap() << 10
}

#[tokio::test]
async fn one_used_up_what_another_of_the_same_name_may_have() {
    let hub = TestHub::with(&[
        ("limits.views_per_principal", "1"),
        ("limits.connections_per_principal", "1"),
        ("auth.passes_per_principal", "1"),
    ])
    .await;
    // A token's subject and an API key have the same name, and are two.
    let token = hub.token("ada", &["a.*"]);
    let (_, key) = hub.make_key("ada", &["a.*"]).await;
    let ticket = async |secret: &str| {
        let asked = hub.http().post(hub.url("/api/v1/tickets")).bearer_auth(secret).send().await;
        asked.unwrap().status().as_u16()
    };
    let watch = async |secret: &str| {
        let mut socket = hub.socket(PATH, &[PROTOCOL]).await;
        socket.send(json!({"type": "connect", "id": 1, "token": secret})).await;
        socket.expect("connected").await;
        socket
    };
    assert_eq!([ticket(&token).await, ticket(&token).await, ticket(&key).await], [201, 429, 201]);
    let mut first = watch(&token).await;
    let mut other = watch(&key).await;
    first.subscribe(json!({"sub": "s", "topics": ["a.x"]})).await;
    other.subscribe(json!({"sub": "s", "topics": ["a.y"]})).await;
    for limit in ["views_per_principal", "connections_per_principal"] {
        assert_eq!(hub.metric(&hits(limit)).await, 0.0);
    }
    // Nor does one go on where the other was.
    first.expect("live").await;
    first.send(json!({"type": "refresh", "id": 9, "token": key})).await;
    first.expect_error("forbidden").await;
}

#[tokio::test]
async fn tickets_of_one_user_are_bounded_and_told_to_come_later() {
    let hub = TestHub::with(&[("auth.passes_per_principal", "2")]).await;
    let ask = async |name: &str| {
        let token = hub.token(name, &["a.*"]);
        hub.http().post(hub.url("/api/v1/tickets")).bearer_auth(token).send().await.unwrap()
    };
    assert_eq!(
        (ask("eve").await.status(), ask("eve").await.status()),
        (201.try_into().unwrap(), 201.try_into().unwrap())
    );
    let refused = ask("eve").await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "30");
    let problem: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(
        (&problem["code"], &problem["retryable"]),
        (&"too_many_passes".into(), &true.into())
    );
    assert_eq!(hub.metric(&hits("passes_per_principal")).await, 1.0);
    assert_eq!(ask("bob").await.status(), 201);
}
