//! The conversation on a socket: connect, subscribe, replay, resume, publish, refresh.

use serde_json::{Value, json};

use crate::support::hub::{Client, PROTOCOL, TestHub, numbers, offset};

#[tokio::test]
async fn a_subscriber_gets_what_is_published_once_and_in_order() {
    let hub = TestHub::start().await;
    let mut client = hub.socket("/ws/real-time", &[PROTOCOL]).await;
    assert_eq!(client.protocol.as_deref(), Some("hub.v1"));
    let connect = json!({
        "type": "connect", "id": "first", "token": hub.token("ada", &["a.**"]), "name": "board",
        "subscribe": [{"sub": "one", "topics": ["a.*"]}], "unknown": "is ignored",
    });
    client.send(connect).await;
    let connected = client.expect("connected").await;
    assert_eq!((&connected["id"], &connected["user"]), (&json!("first"), &json!("ada")));
    let left = connected["expires_in"].as_u64().unwrap();
    assert!((3590..=3600).contains(&left), "{left}");
    assert_eq!((&connected["ping"], &connected["limits"]["frame"]), (&json!(25), &json!(65536)));
    let subscribed = client.expect("subscribed").await;
    assert_eq!((&subscribed["id"], &subscribed["sub"]), (&json!("first"), &json!("one")));
    assert_eq!(subscribed["recovered"], true);
    let live = client.expect("live").await;
    assert_eq!(
        (&live["sub"], offset(&live["position"])),
        (&json!("one"), offset(&subscribed["position"]))
    );

    let events = json!([
        {"topic": "a.b", "type": "made", "source": "me", "id": "1", "key": "k", "data": {"n": 1.50}},
        {"topic": "other.b", "data": 0},
        {"topic": "a.b.c", "data": 0},
        {"topic": "a.c", "time": "2026-11-20T12:00:00Z", "data": null},
    ]);
    let answer = hub.publish(events).await;
    let events = client.events("one", 2).await;
    let first = &events[0];
    assert_eq!(first["offset"], answer["offsets"][0]);
    assert_eq!((&first["topic"], &first["type"]), (&json!("a.b"), &json!("made")));
    assert_eq!(
        (&first["source"], &first["id"], &first["key"]),
        (&json!("me"), &json!("1"), &json!("k"))
    );
    assert_eq!(first["data"], json!({"n": 1.5}));
    assert_eq!(
        (&events[1]["topic"], &events[1]["time"]),
        (&json!("a.c"), &json!("2026-11-20T12:00:00Z"))
    );
    assert_eq!((&events[1]["source"], &events[1]["data"]), (&json!("publisher"), &Value::Null));

    client.send(json!({"type": "unsubscribe", "id": 7, "sub": "one"})).await;
    let unsubscribed = client.expect("unsubscribed").await;
    assert_eq!(unsubscribed, json!({"type": "unsubscribed", "id": 7, "sub": "one"}));
    hub.publish_numbers("a.b", 0..5).await;
    hub.expect_silence(&mut client, "a.c").await;
    client.subscribe(json!({"sub": "one", "topics": ["a.b"]})).await; // the name is free again
}

#[tokio::test]
async fn each_subscription_is_a_stream_of_its_own() {
    let hub = TestHub::start().await;
    let mut client = hub.client("ada", &["**"]).await;
    for (sub, topics) in [("a", json!(["a.*"])), ("all", json!(["a.*", "b.*"]))] {
        client.subscribe(json!({"sub": sub, "topics": topics})).await;
        client.expect("live").await;
    }
    hub.publish_numbers("b.x", 0..3).await;
    assert_eq!(numbers(&client.events("all", 3).await), [0, 1, 2]);
    hub.publish_numbers("a.x", 3..4).await;
    let mut frames = [client.expect("events").await, client.expect("events").await];
    frames.sort_by_key(|frame| frame["sub"].to_string());
    assert_eq!((&frames[0]["sub"], &frames[1]["sub"]), (&json!("a"), &json!("all")));
    assert_eq!(frames[0]["events"], frames[1]["events"]);
}

#[tokio::test]
async fn a_replay_comes_before_live_and_is_whole() {
    let hub = TestHub::start().await;
    hub.publish_numbers("a.b", 0..10).await;
    hub.publish_numbers("b.b", 10..20).await;
    let mut client = hub.client("ada", &["**"]).await;
    let replay = async |client: &mut Client, sub: &str, replay: Value| {
        client.subscribe(json!({"sub": sub, "topics": ["a.b"], "replay": replay})).await
    };
    replay(&mut client, "last", json!({"last": 3})).await;
    assert_eq!(numbers(&client.events("last", 3).await), [7, 8, 9]);
    client.expect("live").await;
    replay(&mut client, "more", json!({"last": 1000})).await;
    assert_eq!(client.events("more", 10).await.len(), 10);
    client.expect("live").await;
    replay(&mut client, "none", json!({"last": 0})).await;
    client.expect("live").await;
    replay(&mut client, "since", json!({"since": "5m"})).await;
    assert_eq!(client.events("since", 10).await.len(), 10);
    client.expect("live").await;
    replay(&mut client, "future", json!({"since": "2100-01-01T00:00:00Z"})).await;
    client.expect("live").await;
    for sub in ["last", "more", "none", "since"] {
        client.send(json!({"type": "unsubscribe", "id": 2, "sub": sub})).await;
        client.expect("unsubscribed").await;
    }
    hub.publish_numbers("a.b", 20..21).await;
    assert_eq!(numbers(&client.events("future", 1).await), [20]);
}

#[tokio::test]
async fn a_replay_of_the_latest_has_the_newest_of_each_topic_and_key() {
    let hub = TestHub::start().await;
    hub.publish(json!([
        {"topic": "a.b", "key": "x", "data": {"n": 1}},
        {"topic": "a.b", "key": "y", "data": {"n": 2}},
        {"topic": "a.b", "data": {"n": 3}},
        {"topic": "a.c", "key": "x", "data": {"n": 4}},
        {"topic": "a.b", "key": "x", "data": {"n": 5}},
        {"topic": "a.b", "key": "y", "data": null},
    ]))
    .await;
    let mut client = hub.client("ada", &["**"]).await;
    let replay = json!({"sub": "s", "topics": ["a.*"], "replay": {"latest": true}});
    client.subscribe(replay).await;
    let message = client.expect("events").await;
    let mut found = numbers(message["events"].as_array().unwrap());
    found.sort_unstable();
    assert_eq!(found, [3, 4, 5]);
    client.expect("live").await;
    hub.publish_numbers("a.b", 6..7).await;
    assert_eq!(numbers(&client.events("s", 1).await), [6]);
}

#[tokio::test]
async fn a_resume_goes_on_where_it_stopped() {
    let hub = TestHub::start().await;
    let mut client = hub.client("ada", &["a.*"]).await;
    client.subscribe(json!({"sub": "s", "topics": ["a.*"]})).await;
    client.expect("live").await;
    hub.publish_numbers("a.b", 0..4).await;
    let position = loop {
        let message = client.expect("events").await;
        if message["events"].as_array().unwrap().iter().any(|event| event["data"]["n"] == 3) {
            break message["position"].clone();
        }
    };
    drop(client);
    hub.publish_numbers("a.b", 4..9).await;
    let mut client = hub.client("ada", &["a.*"]).await;
    let resume = json!({"sub": "s", "topics": ["a.*"], "resume": position});
    let subscribed = client.subscribe(resume).await;
    assert_eq!((&subscribed["recovered"], &subscribed["position"]), (&json!(true), &position));
    assert!(offset(&subscribed["head"]) >= offset(&position) + 5, "{subscribed}");
    assert_eq!(numbers(&client.events("s", 5).await), [4, 5, 6, 7, 8]);
    client.expect("live").await;
}

#[tokio::test]
async fn a_position_of_another_history_is_a_gap_said_once() {
    let hub = TestHub::start().await;
    let head = hub.publish_numbers("a.b", 0..4).await;
    let (epoch, last) = head.split_once(':').unwrap();
    let beyond = format!("{epoch}:{}", last.parse::<u64>().unwrap() + 1_000);
    for foreign in ["1:2".to_owned(), beyond] {
        let mut client = hub.client("ada", &["a.*"]).await;
        let resume = json!({"sub": "s", "topics": ["a.*"], "resume": foreign});
        let subscribed = client.subscribe(resume).await;
        assert_eq!(subscribed["recovered"], false);
        let gap = client.expect("gap").await;
        assert_eq!((&gap["sub"], &gap["reason"]), (&json!("s"), &json!("epoch")));
        assert_eq!((&gap["to"], &gap["position"]), (&subscribed["position"], &gap["to"]));
        assert_eq!(offset(&gap["from"]), offset(&json!(foreign)) + 1);
        client.expect("live").await;
        hub.publish_numbers("a.b", 4..5).await;
        assert_eq!(numbers(&client.events("s", 1).await), [4]);
    }
    hub.metric_becomes("pulsehub_gaps_total{reason=\"epoch\"}", 2.0).await;
}

#[tokio::test]
async fn what_is_no_longer_kept_is_a_gap() {
    let clock = pulsehub::time::Clock::manual(1_800_000_000_000);
    let flags = [("journal.max_age", "1h"), ("journal.recent_bytes", "0 B")];
    let hub = TestHub::with_clock(&flags, clock.clone()).await;
    let head = hub.publish_numbers("a.b", 0..4).await;
    let (epoch, last) = head.split_once(':').unwrap();
    let last: u64 = last.parse().unwrap();
    clock.set(1_800_000_000_000 + 2 * 3_600_000);
    hub.publish_numbers("a.b", 4..6).await;
    crate::support::eventually("the trim", async || {
        let history = hub.url("/api/v1/history?topics=a.b&limit=100");
        let request = hub.http().get(history).bearer_auth(hub.token("ada", &["a.*"]));
        let page: Value = request.send().await.unwrap().json().await.unwrap();
        (page["events"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    let mut client = hub.client("ada", &["a.*"]).await;
    let from = format!("{epoch}:{}", last - 2);
    let subscribed = client.subscribe(json!({"sub": "s", "topics": ["a.*"], "resume": from})).await;
    assert_eq!(subscribed["recovered"], false);
    let gap = client.expect("gap").await;
    assert_eq!((&gap["reason"], offset(&gap["from"])), (&json!("retention"), last - 1));
    assert!(offset(&gap["to"]) >= last && gap["to"] == gap["position"], "{gap}");
    assert_eq!(numbers(&client.events("s", 2).await), [4, 5]);
    client.expect("live").await;
}

#[tokio::test]
async fn a_replay_began_behind_what_another_topic_had_lost_and_said_nothing() {
    const NOW: u64 = 1_800_000_000_000;
    let clock = pulsehub::time::Clock::manual(NOW);
    let rule = "[[journal.retention]]\ntopics = [\"a.short\"]\nmax_age = \"1m\"\n";
    let hub = TestHub::with_file_and_clock(rule, clock.clone()).await;
    hub.publish_numbers("a.long", 0..3).await;
    hub.publish_numbers("a.short", 3..4).await;
    clock.set(NOW + 2 * 60_000);
    hub.publish_numbers("a.long", 4..6).await;
    crate::support::eventually("the trim", async || {
        let history = hub.url("/api/v1/history?topics=a.short&limit=100");
        let request = hub.http().get(history).bearer_auth(hub.token("ada", &["a.*"]));
        let page: Value = request.send().await.unwrap().json().await.unwrap();
        page["events"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    let mut client = hub.client("ada", &["a.*"]).await;
    let subscribe = json!({"sub": "all", "topics": ["a.*"], "replay": {"last": 2}});
    assert_eq!(client.subscribe(subscribe).await.get("replay_truncated"), None);
    assert_eq!(numbers(&client.events("all", 2).await), [4, 5]);
    client.expect("live").await;
    let since = json!({"sub": "short", "topics": ["a.short"], "replay": {"since": "1h"}});
    assert_eq!(client.subscribe(since).await.get("replay_truncated"), None, "nothing is kept");
    client.expect("live").await;
    for (sub, replay) in [("last", json!({"last": 3})), ("since", json!({"since": "1h"}))] {
        let subscribe = json!({"sub": sub, "topics": ["a.*"], "replay": replay});
        let subscribed = client.subscribe(subscribe).await;
        assert_eq!(subscribed["replay_truncated"], true, "{subscribed}");
        assert_eq!(numbers(&client.events(sub, 2).await), [4, 5]);
        client.expect("live").await;
    }
}

#[tokio::test]
async fn a_ping_moves_a_quiet_subscription() {
    let hub = TestHub::with(&[("socket.ping", "1s")]).await;
    let mut client = hub.client("ada", &["**"]).await;
    for sub in ["quiet", "busy"] {
        client.subscribe(json!({"sub": sub, "topics": [format!("{sub}.*")]})).await;
        client.expect("live").await;
    }
    let head = hub.publish_numbers("busy.b", 0..3).await;
    client.events("busy", 3).await;
    let ping = loop {
        let ping = client.expect("ping").await;
        client.send(json!({"type": "pong"})).await;
        if offset(&ping["head"]) >= offset(&json!(head)) {
            break ping;
        }
    };
    assert_eq!((&ping["caught_up"], &ping["stale"]), (&json!(["quiet", "busy"]), &json!(false)));
    let again = client.expect("ping").await; // the pong was heard: the socket stands
    client.send(json!({"type": "pong"})).await;
    let resume = json!({"sub": "more", "topics": ["quiet.*"], "resume": again["head"]});
    assert_eq!(client.subscribe(resume).await["recovered"], true);
}

#[tokio::test]
async fn commands_may_come_before_connected() {
    let hub = TestHub::start().await;
    hub.publish_numbers("a.b", 0..2).await;
    let mut client = hub.socket("/ws/real-time", &[PROTOCOL]).await;
    let token = hub.token("ada", &["a.*"]);
    client.send(json!({"type": "connect", "id": 1, "token": token})).await;
    let subscribe = json!({
        "type": "subscribe", "id": 2, "sub": "s", "topics": ["a.*"], "replay": {"last": 2},
    });
    client.send(subscribe).await;
    let publish = json!({"topic": "a.b", "data": {"n": 2}});
    client.send(json!({"type": "publish", "id": 3, "events": [publish]})).await;
    assert_eq!(client.expect("connected").await["id"], 1);
    assert_eq!(client.expect("subscribed").await["id"], 2);
    let mut seen = (Vec::new(), false);
    while seen.0.len() < 3 || !seen.1 {
        let message = client.next_json().await;
        match message["type"].as_str().unwrap() {
            "events" => seen.0.extend(numbers(message["events"].as_array().unwrap())),
            "ack" => seen.1 = true,
            kind => assert_eq!(kind, "live"),
        }
    }
    assert_eq!(seen.0, [0, 1, 2]);
}

#[tokio::test]
async fn events_published_on_a_socket_are_stored_and_acknowledged() {
    let hub = TestHub::start().await;
    let mut client = hub.client("ada", &["a.*"]).await;
    let event = json!({"topic": "a.b", "id": "e1", "data": 1});
    let publish = |events: Value| json!({"type": "publish", "id": "p", "events": events});
    client.send(publish(json!([event, {"topic": "a.c"}]))).await;
    let ack = client.expect("ack").await;
    assert_eq!(
        (&ack["id"], &ack["accepted"], &ack["duplicates"]),
        (&json!("p"), &json!(2), &json!(0))
    );
    client.send(publish(json!([event]))).await;
    let again = client.expect("ack").await;
    assert_eq!((&again["accepted"], &again["duplicates"]), (&json!(0), &json!(1)));
    assert_eq!(offset(&again["position"]), offset(&ack["position"]) - 1);
    client.send(publish(json!([{"topic": "a.c"}, {"topic": "b.c"}]))).await;
    let refused = client.expect_error("forbidden").await;
    assert!(refused["message"].as_str().unwrap().contains("b.c"), "{refused}");
    client.send(publish(json!([{"topic": "a.c"}, {"topic": "a..c"}]))).await;
    client.expect_error("invalid_event").await;
    client.send(publish(json!("nothing"))).await;
    client.expect_error("invalid_event").await;
    let mut reader = hub.client("bob", &["a.*"]).await;
    let all = json!({"sub": "s", "topics": ["a.*"], "replay": {"last": 100}});
    reader.subscribe(all).await;
    assert_eq!(reader.events("s", 2).await[0]["source"], "ada"); // and nothing of what was refused
    reader.expect("live").await;
}

#[tokio::test]
async fn a_replay_of_the_last_looks_back_only_so_far_and_says_so() {
    let hub =
        TestHub::with(&[("hub.replay_bytes", "1 MiB"), ("journal.recent_bytes", "1 KiB")]).await;
    // Too large to be merged with others: a block is looked through whole.
    let fill = "x".repeat(70 << 10);
    for n in 0..40 {
        hub.publish(json!({"topic": "a.b", "data": {"n": n, "fill": fill}})).await;
    }
    let mut client = hub.client("ada", &["**"]).await;
    let few = json!({"sub": "few", "topics": ["a.*"], "replay": {"last": 3}});
    let subscribed = client.subscribe(few).await;
    assert_eq!(subscribed.get("replay_truncated"), None, "{subscribed}");
    assert_eq!(client.events("few", 3).await.len(), 3);
    client.expect("live").await;
    let many = json!({"sub": "many", "topics": ["a.*"], "replay": {"last": 39}});
    let subscribed = client.subscribe(many).await;
    assert_eq!(
        (&subscribed["replay_truncated"], &subscribed["recovered"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(hub.metric("pulsehub_limit_hits_total{limit=\"replay_bytes\"}").await, 1.0);
    let mut numbers = Vec::new();
    while numbers.last() != Some(&39) {
        let message = client.expect("events").await;
        let events = message["events"].as_array().unwrap();
        numbers.extend(events.iter().map(|event| event["data"]["n"].as_u64().unwrap()));
    }
    assert!(numbers.len() >= 10 && numbers.len() < 39, "{numbers:?}");
    let first = 40 - numbers.len() as u64;
    assert_eq!(numbers, (first..40).collect::<Vec<_>>(), "nothing is left out between");
}
