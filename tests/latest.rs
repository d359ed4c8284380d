//! Mode `latest`: the newest of each key, as often as asked for, and how many were passed over.

use std::{collections::BTreeMap, time::Instant};

use serde_json::{Value, json};

use crate::support::hub::{Client, TestHub, offset};

/// What a screen that shows the newest values has gathered.
#[derive(Default)]
struct Screen {
    values: BTreeMap<String, Value>,
    frames: usize,
    events: u64,
    skipped: u64,
    position: Value,
}

impl Screen {
    async fn take(&mut self, client: &mut Client) {
        let message = client.expect("events").await;
        let events = message["events"].as_array().unwrap();
        self.frames += 1;
        self.events += events.len() as u64;
        self.skipped += message["skipped"].as_u64().unwrap();
        let mut keys = Vec::new();
        for event in events {
            let key = event["key"].as_str().unwrap().to_owned();
            keys.push(key.clone());
            self.values.insert(key, event["data"].clone());
        }
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), events.len(), "one key twice in a frame: {message}");
        self.position = message["position"].clone();
    }

    async fn take_until(&mut self, client: &mut Client, key: &str, value: Value) {
        while self.values.get(key) != Some(&value) {
            self.take(client).await;
        }
    }
}

fn value(key: &str, n: u64) -> Value {
    json!({"topic": "a.b", "key": key, "data": n})
}

#[tokio::test]
async fn a_burst_comes_as_a_few_frames_that_end_with_the_newest_values() {
    let hub = TestHub::start().await;
    let mut client = hub.client("ada", &["**"]).await;
    let latest = json!({"sub": "s", "topics": ["a.*"], "mode": "latest", "max_hz": 1});
    client.subscribe(latest).await;
    client.expect("live").await;
    let mut everything = hub.client("bob", &["**"]).await;
    everything.subscribe(json!({"sub": "s", "topics": ["a.*"]})).await;
    everything.expect("live").await;
    let started = Instant::now();
    for batch in 0..20 {
        let events =
            (0..50).map(|n| batch * 50 + n).map(|n| value(["x", "y", "z"][n as usize % 3], n));
        hub.publish(events.collect::<Vec<_>>().into()).await;
    }
    let mut screen = Screen::default();
    for (key, n) in [("x", 999), ("y", 997), ("z", 998)] {
        screen.take_until(&mut client, key, json!(n)).await;
    }
    // One at once, then one for every second that has passed.
    let most = 2 + started.elapsed().as_secs() as usize;
    assert!(screen.frames <= most, "{} frames in place of {most}", screen.frames);
    assert_eq!(screen.events + screen.skipped, 1000);
    assert_eq!(everything.events("s", 1000).await.len(), 1000); // the mode is one's own
}

#[tokio::test]
async fn a_removal_comes_as_null_and_takes_the_key_out() {
    let hub = TestHub::start().await;
    hub.publish(json!([value("x", 1), value("y", 2)])).await;
    let mut client = hub.client("ada", &["**"]).await;
    let latest = json!({
        "sub": "s", "topics": ["a.*"], "mode": "latest", "max_hz": 60, "replay": {"latest": true},
    });
    client.subscribe(latest.clone()).await;
    let mut screen = Screen::default();
    screen.take(&mut client).await;
    assert_eq!(screen.values, BTreeMap::from([("x".into(), json!(1)), ("y".into(), json!(2))]));
    client.expect("live").await;
    hub.publish(json!({"topic": "a.b", "key": "x", "data": null})).await;
    screen.take_until(&mut client, "x", Value::Null).await;
    let mut later = hub.client("bob", &["**"]).await;
    later.subscribe(latest).await;
    let mut screen = Screen::default();
    screen.take(&mut later).await;
    assert_eq!(screen.values, BTreeMap::from([("y".into(), json!(2))]));
    later.expect("live").await;
}

#[tokio::test]
async fn a_resume_brings_the_keys_that_changed_and_no_gap() {
    let hub = TestHub::start().await;
    let mut client = hub.client("ada", &["**"]).await;
    let latest = json!({"sub": "s", "topics": ["a.*"], "mode": "latest", "max_hz": 60});
    client.subscribe(latest.clone()).await;
    client.expect("live").await;
    hub.publish(json!([value("x", 1), value("y", 2), value("z", 3)])).await;
    let mut screen = Screen::default();
    screen.take_until(&mut client, "z", json!(3)).await;
    drop(client);
    hub.publish(json!([value("x", 4), value("x", 5), value("y", 6), value("x", 7)])).await;
    let mut client = hub.client("ada", &["**"]).await;
    let mut resume = latest;
    resume["resume"] = screen.position.clone();
    let subscribed = client.subscribe(resume).await;
    assert_eq!(subscribed["recovered"], true);
    let mut screen = Screen::default();
    screen.take(&mut client).await;
    assert_eq!(screen.values, BTreeMap::from([("x".into(), json!(7)), ("y".into(), json!(6))]));
    assert_eq!(screen.skipped, 2);
    let live = client.expect("live").await;
    assert!(offset(&live["position"]) >= offset(&screen.position), "{live}");
    hub.publish(value("z", 8)).await;
    screen.take(&mut client).await;
    assert_eq!((screen.values.get("z"), screen.skipped), (Some(&json!(8)), 2));
}

#[tokio::test]
async fn topics_do_not_share_their_keys_and_no_key_is_one_too() {
    let hub = TestHub::start().await;
    hub.publish(json!([
        {"topic": "a.b", "key": "x", "data": 1},
        {"topic": "a.c", "key": "x", "data": 2},
        {"topic": "a.b", "data": 3},
        {"topic": "a.b", "data": 4},
    ]))
    .await;
    let mut client = hub.client("ada", &["**"]).await;
    let latest = json!({"sub": "s", "topics": ["a.*"], "mode": "latest", "replay": {"last": 100}});
    client.subscribe(latest).await;
    let message = client.expect("events").await;
    let data: Vec<_> =
        message["events"].as_array().unwrap().iter().map(|event| &event["data"]).collect();
    assert_eq!((data, &message["skipped"]), (vec![&json!(1), &json!(2), &json!(4)], &json!(1)));
}

#[tokio::test]
async fn a_rate_is_rounded_down_to_a_step_and_the_answer_says_to_which() {
    let hub = TestHub::start().await;
    hub.metric_becomes("pulsehub_views", 1.0).await; // the hub's own
    let mut clients = Vec::new();
    for (asked, given) in [(5.1, 5.0), (7.3, 5.0), (9.99, 5.0), (60.0, 60.0), (0.013, 0.01)] {
        let mut client = hub.client("ada", &["**"]).await;
        let latest = json!({"sub": "s", "topics": ["a.*"], "mode": "latest", "max_hz": asked});
        assert_eq!(client.subscribe(latest).await["max_hz"], json!(given));
        client.expect("live").await;
        clients.push(client);
    }
    hub.metric_becomes("pulsehub_views", 4.0).await;
    let all = clients[0].subscribe(json!({"sub": "t", "topics": ["a.*"]})).await;
    assert_eq!(all.get("max_hz"), None);
}

#[tokio::test]
async fn views_without_number_share_one_budget_and_lose_nothing() {
    const SUBS: usize = 30;
    let hub = TestHub::with(&[("hub.tail_bytes", "64 KiB")]).await;
    let mut client = hub.client("ada", &["**"]).await;
    for n in 0..SUBS {
        let sub = format!("s{n}");
        client
            .subscribe(json!({"sub": sub, "topics": ["a.*"], "mode": "latest", "max_hz": 60}))
            .await;
        client.expect("live").await;
    }
    for round in 0..3 {
        let data = |key: usize| json!({"round": round, "key": key, "fill": "x".repeat(400)});
        let events = (0..100)
            .map(|key| json!({"topic": "a.b", "key": format!("k{key}"), "data": data(key)}));
        hub.publish(events.collect::<Vec<_>>().into()).await;
    }
    let mut newest: BTreeMap<(String, String), u64> = BTreeMap::new();
    while newest.values().filter(|round| **round == 2).count() < SUBS * 100 {
        let message = client.expect("events").await;
        for event in message["events"].as_array().unwrap() {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let round = event["data"]["round"].as_u64().unwrap();
            newest.insert((text(&message["sub"]), text(&event["key"])), round);
        }
    }
    let held = hub.metric("pulsehub_view_bytes").await;
    assert!(held <= f64::from(64 << 10), "{held} bytes are held");
    assert!(hub.metric("pulsehub_limit_hits_total{limit=\"tail_bytes\"}").await >= 1.0);
}

#[tokio::test]
async fn values_within_their_share_were_shrunk_again_and_again_because_of_the_frames_made_of_them()
{
    // Half of it is for values: these have about 28 KB, and one frame of half of them 11 KB.
    let hub = TestHub::with(&[("hub.tail_bytes", "64 KiB")]).await;
    let mut client = hub.client("ada", &["**"]).await;
    for topic in ["a.b", "a.c"] {
        client.subscribe(json!({"sub": topic, "topics": [topic], "mode": "latest"})).await;
        client.expect("live").await;
    }
    for topic in ["a.b", "a.c", "a.b", "a.c"] {
        let event =
            |key: u32| json!({"topic": topic, "key": format!("k{key}"), "data": "x".repeat(900)});
        hub.publish((0..10).map(event).collect::<Vec<_>>().into()).await;
        // Whoever has the frame has had it made.
        let message = client.expect("events").await;
        assert_eq!(message["sub"], topic);
        assert_eq!(message["events"].as_array().unwrap().len(), 10);
    }
    assert_eq!(hub.metric("pulsehub_limit_hits_total{limit=\"tail_bytes\"}").await, 0.0);
}
