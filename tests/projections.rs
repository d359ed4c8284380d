//! Derived values and projections through the wire: what ships, what anybody adds, and who gets it.

use std::time::Instant;

use pulsehub::{config::Config, time::Clock};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    eventually,
    hub::{PROTOCOL, SECRET, TestHub},
    process::Home,
    redis::RedisServer,
};

mod flext;
mod voicehive;

/// The settings of `docs/projections.md`'s fifth customer, as the document has them.
fn fifth_customer() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/projections.md");
    let text = std::fs::read_to_string(path).unwrap();
    let block = text.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(block.lines().filter(|line| !line.is_empty()).count() <= 10, "{block}");
    block.to_owned()
}

/// What a GET answers to somebody who may subscribe to `patterns`.
async fn get(hub: &TestHub, path: &str, patterns: &[&str]) -> (StatusCode, Value) {
    let request = hub.http().get(hub.url(path)).bearer_auth(hub.token("reader", patterns));
    let answer = request.send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

/// Waits until what `path` answers is so; gives it.
async fn becomes(hub: &TestHub, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually(path, async || {
        let (status, value) = get(hub, path, &["**"]).await;
        (status == 200 && is_so(&value)).then_some(value)
    })
    .await
}

/// The payloads of what was published on `topic`, the oldest first.
async fn published(hub: &TestHub, topic: &str) -> Vec<Value> {
    let path = format!("/api/v1/history?topics={topic}&limit=1000");
    let events = get(hub, &path, &["**"]).await.1["events"].as_array().unwrap().clone();
    assert!(events.iter().all(|event| event["type"] == "projection" && event["source"] == "hub"));
    events.into_iter().map(|mut event| event["data"].take()).collect()
}

/// `value` without the member `clock`, which must be a time to the second.
fn without(mut value: Value, clock: &str) -> Value {
    let time = value.as_object_mut().unwrap().remove(clock).unwrap();
    let time = time.as_str().unwrap();
    assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
    value
}

fn order(total: Value) -> Value {
    json!({"topic": "shop.orders", "data": {"total": total, "status": "paid"}})
}

#[tokio::test]
async fn a_fifth_customer_is_ten_lines_of_settings() {
    let hub = TestHub::with_file(&fifth_customer()).await;
    let first = becomes(&hub, "/api/shop/summary", |_| true).await;
    assert_eq!(without(first, "last_updated"), json!({"orders": 0}));
    let path = format!("/api/shop/live?ticket={}", ticket(&hub, &["shop.dashboard"]).await);
    let mut live = hub.socket(&path, &[]).await;
    let mut subscriber = hub.client("s", &["shop.dashboard"]).await;
    let newest = json!({"sub": "s", "topics": ["shop.dashboard"], "replay": {"latest": true}});
    subscriber.subscribe(newest).await;
    subscriber.expect("live").await;
    hub.publish(json!([order(json!(12.5)), order(json!("a lot"))])).await;
    let change = live.next_json().await;
    assert_eq!(without(change.clone(), "last_updated"), json!({"orders": 2}));
    let path = format!("/api/shop/live?ticket={}", ticket(&hub, &["shop.dashboard"]).await);
    assert_eq!(hub.socket(&path, &[]).await.next_json().await, change, "the newest at once");
    let event = &subscriber.events("s", 1).await[0];
    assert_eq!((&event["data"], &event["type"]), (&change, &json!("projection")));
    becomes(&hub, "/api/shop/summary", |value| value["orders"] == 2).await;
}

async fn ticket(hub: &TestHub, patterns: &[&str]) -> String {
    let request = hub.http().post(hub.url("/api/v1/tickets"));
    let answer = request.bearer_auth(hub.token("reader", patterns)).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    answer["ticket"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn whoever_may_subscribe_to_its_topic_may_read_a_projection_and_nobody_else() {
    let hub = TestHub::with_file(&fifth_customer()).await;
    becomes(&hub, "/api/shop/summary", |_| true).await;
    let (status, problem) = get(&hub, "/api/shop/summary", &["shop.orders"]).await;
    assert_eq!(status, 403);
    assert_eq!(problem["missing"], json!(["subscribe shop.dashboard"]));
    let plain = |path| hub.http().get(hub.url(path)).send();
    assert_eq!(plain("/api/shop/summary").await.unwrap().status(), 401);
    assert_eq!(plain("/api/stats/").await.unwrap().status(), 401);
    assert_eq!(plain("/api/shop/live").await.unwrap().status(), 426);
    let post = hub.http().post(hub.url("/api/shop/summary")).send().await.unwrap();
    assert_eq!(post.status(), 405);
    let good = hub.token("reader", &["shop.*"]);
    let foreign = hub.token("reader", &["shop.orders"]);
    for (headers, code) in [
        (vec![], 4401),
        (vec![("x-api-key", foreign.as_str())], 4403),
        (vec![("x-api-key", good.as_str()), PROTOCOL], 4406),
        (vec![("x-api-key", good.as_str()), ("origin", "https://evil.example")], 4403),
    ] {
        let mut socket = hub.socket("/api/shop/live", &headers).await;
        assert_eq!(socket.expect_close().await.0, code, "{headers:?}");
    }
    hub.publish(json!([order(json!(1))])).await;
    let mut socket = hub.socket("/api/shop/live", &[("x-api-key", &good)]).await;
    assert_eq!(socket.next_json().await["orders"], 1);

    let file =
        fifth_customer() + "[auth.anonymous]\nsubscribe = [\"shop.dashboard\"]\npublish = []\n";
    let open = TestHub::with_file(&file).await;
    becomes(&open, "/api/shop/summary", |_| true).await;
    let answer = open.http().get(open.url("/api/shop/summary")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    open.publish(json!([order(json!(1))])).await;
    let mut socket = open.socket("/api/shop/live", &[]).await;
    assert_eq!(socket.next_json().await["orders"], 1);
}

#[tokio::test]
async fn nobody_but_the_hub_publishes_where_a_projection_is_published() {
    let hub = TestHub::with_file(&fifth_customer()).await;
    hub.publish(json!([order(json!(1))])).await;
    eventually("the projection", async || {
        (!published(&hub, "shop.dashboard").await.is_empty()).then_some(())
    })
    .await;
    let forged = json!({"topic": "shop.dashboard", "data": {"orders": 1_000_000}});
    let token = hub.token_for("root", &["**"], Some("admin"), 3600);
    for path in ["/api/v1/publish", "/api/v1/publish?ack=accepted"] {
        let batch = json!([order(json!(1)), forged]);
        let request = hub.http().post(hub.url(path)).bearer_auth(&token).json(&batch);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 403, "{path}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], "reserved_topic");
        assert_eq!(problem["topics"], json!(["shop.dashboard"]));
        assert_eq!(problem["detail"], "nobody but the hub publishes to shop.dashboard");
    }
    let mut client = hub.client("root", &["**"]).await;
    client.send(json!({"type": "publish", "id": 1, "events": [forged]})).await;
    let error = client.expect("error").await;
    assert_eq!(error["code"], "forbidden");
    assert_eq!(error["message"], "nobody but the hub publishes to shop.dashboard");
    // What a batch holds beside it is not stored either; and beside the topic is free.
    assert_eq!(becomes(&hub, "/api/shop/summary", |_| true).await["orders"], 1);
    hub.publish(json!([{"topic": "shop.dashboard.more"}, {"topic": "shop"}])).await;
    assert!(published(&hub, "shop.dashboard").await.iter().all(|value| value["orders"] == 1));
}

#[tokio::test]
async fn what_has_not_changed_is_not_published_again_by_the_clock_or_a_restart() {
    let mut hub = TestHub::with_file(&fifth_customer()).await;
    hub.publish(json!([order(json!(1))])).await;
    becomes(&hub, "/api/shop/summary", |value| value["orders"] == 1).await;
    let all = eventually("the change", async || {
        let all = published(&hub, "shop.dashboard").await;
        all.last().is_some_and(|last| last["orders"] == 1).then_some(all)
    })
    .await;
    hub.stop().await;
    hub.start_again().await;
    becomes(&hub, "/api/shop/summary", |value| value["orders"] == 1).await;
    hub.publish(json!([order(json!(1))])).await;
    let after = eventually("the change after the restart", async || {
        let all = published(&hub, "shop.dashboard").await;
        all.last().is_some_and(|last| last["orders"] == 2).then_some(all)
    })
    .await;
    assert_eq!(after.len(), all.len() + 1, "{after:?}");
}

#[tokio::test]
async fn nothing_is_published_before_anything_has_come() {
    let hub = TestHub::with_file(&fifth_customer()).await;
    for path in ["/api/shop/summary", "/api/dashboard/alerts", "/api/dashboard/metrics"] {
        becomes(&hub, path, |_| true).await;
    }
    hub.publish(json!([order(json!(1))])).await;
    eventually("the first of them", async || {
        (!published(&hub, "shop.dashboard").await.is_empty()).then_some(())
    })
    .await;
    let path = "/api/v1/history?topics=shop.dashboard,voicehive.**,flext.**";
    let events = get(&hub, path, &["**"]).await.1["events"].as_array().unwrap().clone();
    assert_eq!(events.len(), 1, "{events:?}");
}

#[tokio::test]
async fn a_projection_is_published_at_most_so_often_however_fast_events_come() {
    let file = format!("[projections]\nmax_hz = 5\n{}", fifth_customer());
    let hub = TestHub::with_file(&file).await;
    becomes(&hub, "/api/shop/summary", |_| true).await;
    let (started, mut sent) = (Instant::now(), 0);
    while sent < 300 {
        hub.publish(json!([order(json!(1))])).await;
        sent += 1;
    }
    let all = eventually("the last of them", async || {
        let all = published(&hub, "shop.dashboard").await;
        all.last().is_some_and(|last| last["orders"] == sent).then_some(all)
    })
    .await;
    // One at the start, one for each turn there was time for: on a slow machine there may be more of both.
    let most = 3 + started.elapsed().as_millis() / 200;
    assert!((all.len() as u128) <= most, "{} of {sent}, {most}", all.len());
}

/// Each kind of derived value, over the same events.
const ALL_OPS: &str = r#"
    [[derive]]
    name = "t.count"
    topic = "t.*"
    op = "count"
    where = { paid = true }
    [[derive]]
    name = "t.sum"
    topic = "t.*"
    op = "sum"
    field = "n"
    [[derive]]
    name = "t.avg"
    topic = "t.*"
    op = "avg"
    field = "n"
    [[derive]]
    name = "t.ratio"
    topic = "t.*"
    op = "ratio"
    where = { paid = true }
    [[derive]]
    name = "t.last"
    topic = "t.*"
    op = "last"
    field = "n"
    window = "1m"
    [[derive]]
    name = "t.min"
    topic = "t.*"
    op = "min"
    field = "n"
    window = "1m"
    [[derive]]
    name = "t.max"
    topic = "t.*"
    op = "max"
    field = "n"
    window = "1m"
    [[derive]]
    name = "t.rate"
    topic = "t.*"
    op = "rate"
    window = "10s"
    [[derive]]
    name = "t.present"
    topic = "t.*"
    op = "present"
    where = { paid = true }

    [[projection]]
    topic = "ops.all"
    path = "/ops"
    [projection.shape]
    count = { value = "t.count" }
    sum = { value = "t.sum" }
    avg = { value = "t.avg", round = 2 }
    ratio = { value = "t.ratio", round = 1 }
    last = { value = "t.last" }
    min = { value = "t.min" }
    max = { value = "t.max" }
    rate = { value = "t.rate" }
    present = { value = "t.present" }
    newest = { list = "t.*", limit = 3, take = { n = "n", key = "@key", topic = "@topic" } }
"#;

/// A quarter past some minute.
const NOW: u64 = 1_795_176_015_000;

/// A hub whose clock stands.
async fn standing(file: &str) -> (TestHub, Clock) {
    let clock = Clock::manual(NOW);
    (TestHub::with_file_and_clock(file, clock.clone()).await, clock)
}

#[tokio::test]
async fn every_op_is_what_it_says_and_a_window_slides_by_itself() {
    let (mut hub, clock) = standing(ALL_OPS).await;
    let nothing = json!({"count": 0, "sum": 0, "avg": null, "ratio": null, "last": null, "min": null,
                         "max": null, "rate": 0, "present": 0, "newest": []});
    assert_eq!(becomes(&hub, "/ops", |_| true).await, nothing);
    let time = pulsehub::time::rfc3339(NOW);
    let event = |topic: &str, key: Value, data: Value| json!({"topic": topic, "key": key, "time": time, "data": data});
    hub.publish(json!([
        event("t.a", json!("1"), json!({"n": 4, "paid": true})),
        event("t.a", json!("2"), json!({"n": -1.5, "paid": true})),
        event("t.b", json!("1"), json!({"n": 8, "paid": false})),
        event("t.b", json!(null), json!({"n": "many"})),
        event("t.b", json!(null), json!([1, {"n": 2}])),
        event("t.b", json!(null), json!(null)),
        event("u.b", json!(null), json!({"n": 99, "paid": true})),
    ]))
    .await;
    let all = becomes(&hub, "/ops", |value| value["sum"] == 10.5).await;
    let newest = json!([
        {"n": null, "key": null, "topic": "t.b"},
        {"n": null, "key": null, "topic": "t.b"},
        {"n": "many", "key": null, "topic": "t.b"},
    ]);
    let wanted = json!({"count": 2, "sum": 10.5, "avg": 3.5, "ratio": 66.7, "last": 8, "min": -1.5, "max": 8,
                        "rate": 0.6, "present": 2, "newest": newest});
    let all =
        if all == wanted { all } else { becomes(&hub, "/ops", |value| *value == wanted).await };
    hub.publish(json!([event("t.a", json!("1"), json!(null))])).await;
    becomes(&hub, "/ops", |value| value["present"] == 1).await;
    // Nobody publishes anything: the windows alone have ended.
    clock.set(NOW + 120_000);
    let mut later = all;
    for name in ["last", "min", "max"] {
        later[name] = json!(null);
    }
    (later["rate"], later["present"]) = (json!(0), json!(1));
    let is_later = |value: &Value| {
        ["count", "sum", "avg", "ratio", "last", "min", "max", "rate", "present"]
            .iter()
            .all(|name| value[*name] == later[*name])
    };
    becomes(&hub, "/ops", is_later).await;
    eventually("the end of the windows on the topic", async || {
        published(&hub, "ops.all").await.last().is_some_and(is_later).then_some(())
    })
    .await;
    hub.stop().await;
    hub.start_again().await;
    becomes(&hub, "/ops", is_later).await;
}

#[tokio::test]
async fn a_list_began_behind_what_another_of_its_topics_had_lost() {
    let rule = "[journal]\nrecent_bytes = \"0 B\"\n[[journal.retention]]\ntopics = [\"a.short\"]\nmax_age = \"1m\"\n";
    let shape = "shape = { list = \"a.*\", take = { n = \"n\" } }";
    let file = format!("{rule}[[projection]]\ntopic = \"lists\"\npath = \"/lists\"\n{shape}\n");
    let (mut hub, clock) = standing(&file).await;
    // So large that they are read one after the other.
    let large = "x".repeat(250_000);
    let publish = async |topic: &str, n: u32| {
        hub.publish(json!([{"topic": topic, "data": {"n": n, "large": large}}])).await;
    };
    for (topic, n) in [("a.long", 1), ("a.long", 2), ("a.long", 3), ("a.short", 4)] {
        publish(topic, n).await;
    }
    clock.set(NOW + 120_000);
    publish("a.long", 5).await;
    eventually("the trim", async || {
        let path = hub.url("/api/v1/history?topics=a.short");
        let request = hub.http().get(path).bearer_auth(hub.token("ada", &["**"]));
        let page: Value = request.send().await.unwrap().json().await.unwrap();
        page["events"].as_array()?.is_empty().then_some(())
    })
    .await;
    hub.stop().await;
    hub.start_again().await;
    let list = becomes(&hub, "/lists", |list| !list.as_array().unwrap().is_empty()).await;
    assert_eq!(list, json!([{"n": 5}, {"n": 3}, {"n": 2}, {"n": 1}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_has_published_finds_it_in_the_lists_too() {
    let shape = "shape = [{ newest = \"a.**\" }, { list = \"a.**\", limit = 3 }]";
    let file = format!("[[projection]]\ntopic = \"all.a\"\npath = \"/a\"\n{shape}\n");
    let redis = RedisServer::start().await;
    for settings in [file.clone(), format!("redis = \"{}\"\n{file}", redis.url())] {
        let hub = TestHub::with_file(&settings).await;
        becomes(&hub, "/a", |_| true).await;
        for n in 1..=50 {
            // What nobody shows must not be waited for.
            hub.publish(json!([{"topic": "a.a", "data": n}, {"topic": "b.b", "data": n}])).await;
            let all = get(&hub, "/a", &["**"]).await.1;
            assert_eq!((&all[0], &all[1][0]), (&json!(n), &json!(n)), "{settings}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_frame_showed_a_total_of_one_moment_beside_a_sum_of_another() {
    let derive = |name: &str, how: &str| {
        format!("[[derive]]\nname = \"t.{name}\"\ntopic = \"t.a\"\n{how}\n")
    };
    let file = [
        derive("total", "op = \"count\""),
        derive("sum", "op = \"sum\"\nfield = \"one\"\nwindow = \"1h\""),
        derive("last", "op = \"last\"\nfield = \"n\"\nwindow = \"1d\""),
        derive("keys", "op = \"present\"\nwhere = { one = 1 }"),
        "[[projection]]\ntopic = \"whole\"\npath = \"/whole\"\nsocket = \"/whole/live\"\n\
         [projection.shape]\n\
         all = [{ value = \"t.total\" }, { value = \"t.sum\" }, { value = \"t.last\" }, \
                { value = \"t.keys\" }, { newest = \"t.a\", take = \"n\" }]\n\
         chart = { buckets = \"t.total\", as = \"n\", hours = 24 }\n\
         [projections]\nmax_hz = 60\n"
            .to_owned(),
    ]
    .concat();
    let hub = TestHub::with_file(&file).await;
    becomes(&hub, "/whole", |value| value["all"][0] == 0).await;
    const EVENTS: u64 = 600;
    let check = |value: &Value| {
        let rows = value["chart"].as_array().unwrap().iter();
        let charted: u64 = rows.map(|row| row["n"].as_u64().unwrap()).sum();
        let all: Vec<_> = value["all"].as_array().unwrap().iter().map(Value::as_u64).collect();
        let total = all[0].unwrap();
        let wanted =
            if total == 0 { [Some(0), Some(0), None, Some(0), None] } else { [Some(total); 5] };
        assert_eq!((&all[..], charted), (&wanted[..], total), "{value}");
        total
    };
    let publish = async {
        for n in 1..=EVENTS {
            let data = json!({"one": 1, "n": n});
            let event = json!({"topic": "t.a", "key": n.to_string(), "data": data});
            hub.publish(json!([event])).await;
        }
    };
    let ask = async { while check(&get(&hub, "/whole", &["**"]).await.1) < EVENTS {} };
    let token = hub.token("reader", &["whole"]);
    let listen = async {
        let mut socket = hub.socket("/whole/live", &[("x-api-key", &token)]).await;
        while check(&socket.next_json().await) < EVENTS {}
    };
    let all = async { tokio::join!(publish, ask, listen) };
    tokio::time::timeout(3 * crate::support::DEADLINE, all).await.expect("all of it is shown");
}

#[tokio::test]
async fn a_hostile_event_costs_itself_and_nothing_else() {
    let (hub, _) = standing(ALL_OPS).await;
    let time = pulsehub::time::rfc3339(NOW);
    let token = hub.token("p", &["**"]);
    let deep = format!("{}1{}", "[".repeat(90), "]".repeat(90));
    for data in [
        r#"{"n":1e999,"paid":true}"#.to_owned(),
        r#"{"n":-1e308,"paid":"\ud800"}"#.to_owned(),
        format!("{{\"n\":{deep}}}"),
        "\"\\u0000\"".to_owned(),
    ] {
        let body = format!("{{\"topic\":\"t.a\",\"time\":\"{time}\",\"data\":{data}}}");
        let request = hub.http().post(hub.url("/api/v1/publish")).bearer_auth(&token).body(body);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{data}");
    }
    hub.publish(json!([{"topic": "t.a", "time": time, "data": {"n": 3, "paid": true}}])).await;
    let all = becomes(&hub, "/ops", |value| value["last"] == 3).await;
    // The event whose number is too large for any program is paid all the same.
    assert_eq!((&all["count"], &all["sum"], &all["max"]), (&json!(2), &json!(3), &json!(3)));
}

#[tokio::test]
async fn more_present_keys_than_are_kept_are_counted_and_told() {
    let hub = TestHub::with_file(&format!(
        "{ALL_OPS}\n[journal]\nlatest_keys = 5\n[instances]\nmax = 5\n"
    ))
    .await;
    becomes(&hub, "/ops", |_| true).await;
    let paid = |key: usize| json!({"topic": "t.a", "key": key.to_string(), "data": {"paid": true}});
    hub.publish((0..8).map(paid).collect()).await;
    becomes(&hub, "/ops", |value| value["present"] == 5).await;
    assert!(hub.metric("pulsehub_limit_hits_total{limit=\"latest_keys\"}").await >= 3.0);
}

#[tokio::test]
async fn a_projection_that_is_too_large_is_answered_but_not_published() {
    let file = r#"
        [limits]
        event = "2 KiB"
        [[projection]]
        topic = "big.list"
        path = "/big"
        shape = { list = "big.events" }
        [[projection]]
        topic = "big.two"
        path = "/two"
        shape = [{ newest = "big.events" }, { list = "big.events" }]
    "#;
    let hub = TestHub::with_file(file).await;
    becomes(&hub, "/big", |value| *value == json!([])).await;
    let event = json!({"topic": "big.events", "data": "x".repeat(1500)});
    hub.publish(json!([event])).await;
    let whole = becomes(&hub, "/two", |value| value[0] != json!(null)).await;
    assert_eq!(whole[1].as_array().unwrap().len(), 1);
    hub.metric_becomes("pulsehub_limit_hits_total{limit=\"event\"}", 1.0).await;
    eventually("the one that fits on the topic", async || {
        (published(&hub, "big.list").await.last()?.as_array()?.len() == 1).then_some(())
    })
    .await;
    assert!(published(&hub, "big.two").await.is_empty());
    // A list has room for as much as an event may have, and forgets the oldest.
    hub.publish(json!([event, {"topic": "big.events", "data": "last"}])).await;
    let list = becomes(&hub, "/big", |value| value[0] == "last").await;
    assert_eq!(list.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_projection_whose_topic_has_no_room_costs_no_other() {
    no_room_for_the_second("").await;
}

#[tokio::test]
async fn a_projection_whose_topic_has_no_room_costs_no_other_in_redis_either() {
    let redis = RedisServer::start().await;
    no_room_for_the_second(&format!("redis = \"{}\"\n", redis.url())).await;
}

/// Two projections that change with the same events, and room for the events' topic and one more.
async fn no_room_for_the_second(above: &str) {
    let file = r#"
        [journal]
        max_topics = 2
        [[projection]]
        topic = "room.one"
        path = "/one"
        shape = { newest = "room.events" }
        [[projection]]
        topic = "room.two"
        path = "/two"
        shape = { newest = "room.events" }
    "#;
    let hub = TestHub::with_file(&format!("{above}{file}")).await;
    becomes(&hub, "/one", |_| true).await;
    for round in 1..=3 {
        hub.publish(json!([{"topic": "room.events", "data": round}])).await;
        becomes(&hub, "/two", |value| *value == round).await;
        eventually("the one that has room", async || {
            let events = [published(&hub, "room.one").await, published(&hub, "room.two").await];
            assert!(events.iter().any(Vec::is_empty), "{events:?}");
            (*events.concat().last()? == round).then_some(())
        })
        .await;
    }
    hub.metric_becomes_at_least("pulsehub_limit_hits_total{limit=\"topics\"}", 1.0).await;
}

#[tokio::test]
async fn two_nodes_answer_alike_publish_once_and_one_goes_on_when_the_other_ends() {
    let redis = RedisServer::start().await;
    let file = format!("redis = \"{}\"\n{}", redis.url(), fifth_customer());
    let mut nodes = [TestHub::with_file(&file).await, TestHub::with_file(&file).await];
    for (sent, node) in (1..).zip([0, 1, 0, 1]) {
        nodes[node].publish(json!([order(json!(1))])).await;
        for hub in &nodes {
            becomes(hub, "/api/shop/summary", |value| value["orders"] == sent).await;
        }
        eventually("the change on the topic", async || {
            let all = published(&nodes[0], "shop.dashboard").await;
            (all.last()?["orders"] == sent).then_some(())
        })
        .await;
    }
    nodes[0].stop().await;
    let hub = &nodes[1];
    hub.publish(json!([order(json!(1))])).await;
    becomes(hub, "/api/shop/summary", |value| value["orders"] == 5).await;
    let all = eventually("the change after one has ended", async || {
        let all = published(hub, "shop.dashboard").await;
        (all.last()?["orders"] == 5).then_some(all)
    })
    .await;
    let counts: Vec<_> = all.iter().map(|value| value["orders"].as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 2, 3, 4, 5], "each once, in order");
    nodes[0].start_again().await;
    becomes(&nodes[0], "/api/shop/summary", |value| value["orders"] == 5).await;
}

#[tokio::test]
async fn when_the_node_that_publishes_is_killed_another_goes_on_and_nothing_is_published_twice() {
    let redis = RedisServer::start().await;
    let file = format!("redis = \"{}\"\n{}", redis.url(), fifth_customer());
    let publisher = Home::new(&file).with_variable("PULSEHUB_SECRET", SECRET).start().await;
    let lease = ["HGET", "{pulsehub}:lease:projections", "token"];
    let first: u64 =
        eventually("the publisher's lease", async || redis.ask::<Option<u64>>(&lease).await).await;
    let hub = TestHub::with_file(&file).await;
    let mut counts = hub.client("counts", &["shop.dashboard"]).await;
    counts.subscribe(json!({"sub": "s", "topics": ["shop.dashboard"]})).await;
    counts.expect("live").await;
    for _ in 0..3 {
        hub.publish(json!([order(json!(1))])).await;
        counts.events("s", 1).await;
    }
    publisher.kill();
    // It changes while nobody publishes it, and for the last time.
    for _ in 0..5 {
        hub.publish(json!([order(json!(1))])).await;
    }
    let all = eventually("what it has become", async || {
        let all = published(&hub, "shop.dashboard").await;
        (all.last()?["orders"] == 8).then_some(all)
    })
    .await;
    assert!(redis.ask::<u64>(&lease).await > first, "another has the lease");
    let counts: Vec<_> = all.iter().map(|value| value["orders"].as_u64().unwrap()).collect();
    assert!(counts.is_sorted_by(|before, after| before < after), "none twice: {counts:?}");
    assert_eq!(counts[..3], [1, 2, 3]);
}

#[tokio::test]
async fn the_files_that_come_with_the_hub_can_be_left_out() {
    let hub = TestHub::with(&[("projections.shipped", "flext")]).await;
    assert_eq!(get(&hub, "/api/stats/", &["**"]).await.0, 503);
    let (status, _) = get(&hub, "/api/dashboard/health", &["**"]).await;
    assert_eq!(status, 404);
    let none = Config::load(None, [], &[("projections.shipped", String::new())]).unwrap();
    assert!(none.plan().unwrap().projections().is_empty());
}
