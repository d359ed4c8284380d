//! The registry of instances: states by an injected clock, over restarts, and on many nodes.

use pulsehub::time::Clock;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    eventually,
    hub::{Client, PROTOCOL, TestHub},
    redis::RedisServer,
};

const HOUR: u64 = 3_600_000;
/// When the tests' clocks begin.
const START: u64 = 1_780_000_000_000;

/// A request of somebody who may publish to `tt`, read the registry, and change it as admin.
async fn send(hub: &TestHub, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
    let token =
        hub.token_for("a", &["tt.**", "other.**", "hub.instances.*"], Some("admin"), 9999999);
    let request = hub.http().request(method, hub.url(path)).bearer_auth(token);
    let request = if body.is_null() { request } else { request.json(&body) };
    let answer = request.send().await.unwrap();
    let status = answer.status();
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
}

async fn register(hub: &TestHub, id: &str, version: &str) -> (StatusCode, Value) {
    let body = json!({"app_identifier": "tt", "instance_id": id, "version": version,
        "system_metadata": {"hostname": format!("host-{id}")}});
    send(hub, Method::POST, "/api/v1/register", body).await
}

async fn beat(hub: &TestHub, id: &str) -> Value {
    let body = json!({"app_identifier": "tt", "instance_id": id});
    let (status, answer) = send(hub, Method::POST, "/api/v1/heartbeat", body).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn list(hub: &TestHub, query: &str) -> Value {
    let path = format!("/api/v1/instances{query}");
    let (status, answer) = send(hub, Method::GET, &path, Value::Null).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

fn ids(answer: &Value) -> Vec<&str> {
    let instances = answer["instances"].as_array().unwrap();
    instances.iter().map(|instance| instance["instance_id"].as_str().unwrap()).collect()
}

/// Waits until the registry has this instance in this state.
async fn becomes(hub: &TestHub, id: &str, state: &str) -> Value {
    eventually(&format!("{id} is {state}"), async || {
        let answer = list(hub, &format!("?q={id}&state={state}")).await;
        answer["instances"].get(0).cloned()
    })
    .await
}

/// Somebody who follows all that is told of `tt`.
async fn follower(hub: &TestHub) -> Client {
    let mut client = hub.client("f", &["hub.instances.*"]).await;
    client.subscribe(json!({"sub": "i", "topics": ["hub.instances.tt"]})).await;
    client.expect("live").await;
    client
}

async fn told(client: &mut Client, kinds: &[&str]) -> Vec<Value> {
    let events = client.events("i", kinds.len()).await;
    let found: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(found, kinds);
    events
}

#[tokio::test]
async fn silence_is_told_once_and_its_end_too() {
    let clock = Clock::manual(START);
    let mut hub = TestHub::with_clock(&[], clock.clone()).await;
    let mut client = follower(&hub).await;
    let (status, answer) = register(&hub, "one", "1.0").await;
    assert_eq!((status.as_u16(), &answer["state"]), (201, &json!("pending")), "{answer}");
    beat(&hub, "one").await;
    told(&mut client, &["instance.registered", "instance.up"]).await;

    clock.set(START + HOUR + HOUR / 20 + 1);
    let late = told(&mut client, &["instance.late"]).await;
    assert_eq!(
        (&late[0]["data"]["state"], &late[0]["data"]["previous"]),
        (&json!("late"), &json!("up"))
    );
    assert_eq!(late[0]["key"], "one");
    clock.set(START + 3 * HOUR);
    told(&mut client, &["instance.down"]).await;
    let down = becomes(&hub, "one", "down").await;
    assert_eq!(down["registration"]["version"], "1.0");

    // A restart in the middle: what was told is known, and not told again.
    hub.stop().await;
    hub.start_again().await;
    assert_eq!(
        list(&hub, "").await["counts"],
        json!({"pending": 0, "up": 0, "late": 0, "down": 1})
    );
    hub.metric_becomes("pulsehub_instances{state=\"down\"}", 1.0).await;
    let mut client = follower(&hub).await;
    clock.set(START + 4 * HOUR);
    assert_eq!(beat(&hub, "one").await["state"], "up");
    let up = told(&mut client, &["instance.up"]).await;
    assert_eq!(up[0]["data"]["previous"], "down");
    // Another learns its rhythm: a minute.
    let mut now = START + 4 * HOUR;
    register(&hub, "two", "1.0").await;
    for _ in 0..4 {
        beat(&hub, "two").await;
        now += 60_000;
        clock.set(now);
    }
    assert_eq!(beat(&hub, "two").await["interval_s"], 60);
    clock.set(now + 64_000);
    becomes(&hub, "two", "late").await;
    let mut kinds = vec!["instance.registered", "instance.up"];
    kinds.extend(["instance.heartbeat"; 4]);
    kinds.push("instance.late");
    told(&mut client, &kinds).await;
}

#[tokio::test]
async fn the_time_when_the_hub_was_down_is_nobodys_silence() {
    let clock = Clock::manual(START);
    let mut hub = TestHub::with_clock(&[], clock.clone()).await;
    register(&hub, "one", "1.0").await;
    beat(&hub, "one").await;
    hub.stop().await;
    clock.set(START + 10 * HOUR);
    hub.start_again().await;
    let mut client = follower(&hub).await;
    // Late by what the hub has listened to, and not down by what it has not.
    clock.set(START + 11 * HOUR + HOUR / 20 + 1);
    told(&mut client, &["instance.late"]).await;
    assert_eq!(
        becomes(&hub, "one", "late").await["last_seen"],
        list(&hub, "").await["instances"][0]["last_seen"]
    );
}

#[tokio::test]
async fn data_are_a_sign_of_life_that_is_told_when_it_says_something_new() {
    let clock = Clock::manual(START);
    let hub = TestHub::with_clock(&[], clock.clone()).await;
    let mut client = follower(&hub).await;
    let data = async || {
        let body = json!({"app_identifier": "tt", "instance_id": "one", "data": [{"key": "a"}]});
        let (status, answer) = send(&hub, Method::POST, "/api/v1/data", body).await;
        assert_eq!((status.as_u16(), &answer["accepted"]), (200, &json!(1)), "{answer}");
    };
    data().await;
    data().await;
    clock.set(START + HOUR / 4);
    data().await;
    clock.set(START + 3 * HOUR);
    told(&mut client, &["instance.up", "instance.data", "instance.down"]).await;
    // The registry follows the log by itself, and a client may hear of it earlier.
    becomes(&hub, "one", "down").await;
    data().await;
    let up = told(&mut client, &["instance.up"]).await;
    assert_eq!(up[0]["data"]["registration"], Value::Null);
}

#[tokio::test]
async fn the_registry_is_filtered_sorted_and_paged_by_who_may_read_it() {
    let clock = Clock::manual(START);
    let hub = TestHub::with_clock(&[], clock.clone()).await;
    for n in 0..5 {
        clock.set(START + (n ^ 1) * 1000);
        register(&hub, &format!("i{n}"), &format!("{}.0", 9 - n)).await;
    }
    beat(&hub, "i2").await;
    let other = json!({"app_identifier": "other", "instance_id": "i0"});
    assert_eq!(send(&hub, Method::POST, "/api/v1/register", other).await.0, 201);

    let all = list(&hub, "").await;
    assert_eq!(ids(&all), ["i0", "i0", "i1", "i2", "i3", "i4"], "by application, then by name");
    assert_eq!(all["counts"], json!({"pending": 5, "up": 1, "late": 0, "down": 0}));
    assert!(all.get("next").is_none());
    assert_eq!(ids(&list(&hub, "?app=tt&sort=version").await), ["i4", "i3", "i2", "i1", "i0"]);
    assert_eq!(ids(&list(&hub, "?app=tt&sort=-host").await), ["i4", "i3", "i2", "i1", "i0"]);
    assert_eq!(ids(&list(&hub, "?app=tt&sort=first_seen").await), ["i1", "i0", "i3", "i2", "i4"]);
    assert_eq!(ids(&list(&hub, "?state=up,late").await), ["i2"]);
    assert_eq!(ids(&list(&hub, "?q=HOST-i3").await), ["i3"]);
    for sort in ["app", "-last_seen", "state", "-version"] {
        let (mut pages, mut after) = (Vec::new(), String::new());
        loop {
            let page = list(&hub, &format!("?sort={sort}&limit=4{after}")).await;
            pages.extend(ids(&page).into_iter().map(str::to_owned));
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        assert_eq!(pages, ids(&list(&hub, &format!("?sort={sort}")).await), "{sort}");
        assert_eq!(pages.len(), 6);
    }
    for odd in ["?limit=0", "?limit=x", "?sort=luck", "?state=dead", "?after=x"] {
        let (status, problem) =
            send(&hub, Method::GET, &format!("/api/v1/instances{odd}"), Value::Null).await;
        assert_eq!((status.as_u16(), &problem["code"]), (400, &json!("bad_request")), "{odd}");
    }
    let request = hub.http().get(hub.url("/api/v1/instances"));
    let reader = hub.token_for("r", &["**", "hub.instances.other"], None, 99);
    let answer: Value = request.bearer_auth(reader).send().await.unwrap().json().await.unwrap();
    assert_eq!(ids(&answer), ["i0"]);
    assert_eq!(answer["counts"]["pending"], 1);
}

#[tokio::test]
async fn an_application_that_may_not_be_read_is_refused_by_name_and_not_shown_as_empty() {
    let hub = TestHub::start().await;
    let request = hub.http().get(hub.url("/api/v1/instances?app=tt"));
    let reader = hub.token_for("r", &["**"], None, 99); // which does not reach into hub.**
    let answer = request.bearer_auth(reader).send().await.unwrap();
    assert_eq!(answer.status(), 403);
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["missing"], json!(["subscribe hub.instances.tt"]));
    let odd = send(&hub, Method::GET, "/api/v1/instances?app=a.b", Value::Null).await;
    assert_eq!((odd.0.as_u16(), &odd.1["code"]), (400, &json!("bad_request")));
}

#[tokio::test]
async fn a_key_of_its_own_speaks_for_one_instance_and_ends_with_the_next_or_with_it() {
    let hub = TestHub::start().await;
    for id in ["one", "two"] {
        register(&hub, id, "1").await;
    }
    let rotate = async || {
        let path = "/api/v1/instances/tt/one/key";
        let (status, answer) = send(&hub, Method::POST, path, Value::Null).await;
        assert_eq!(status, 201, "{answer}");
        answer["key"].as_str().unwrap().to_owned()
    };
    let with = async |key: &str, path: &str, body: Value| {
        let request = hub.http().post(hub.url(path)).header("x-api-key", key);
        request.json(&body).send().await.unwrap().status().as_u16()
    };
    let beats = async |key: &str, id: &str| {
        with(key, "/api/v1/heartbeat", json!({"instance_id": id})).await
    };
    let key = rotate().await;
    assert!(!list(&hub, "").await.to_string().contains(&key), "shown this once");
    assert_eq!(beats(&key, "one").await, 200);
    assert_eq!(beats(&key, "two").await, 404, "of which it can see nothing");
    for id in ["two", "new"] {
        let named = json!({"app_identifier": "tt", "instance_id": id, "data": [{"key": "a"}]});
        for path in ["/api/v1/heartbeat", "/api/v1/register", "/api/v1/data"] {
            assert_eq!(with(&key, path, named.clone()).await, 403, "{path}");
        }
    }
    let data = json!({"app_identifier": "tt", "instance_id": "one", "data": [{"key": "a"}]});
    assert_eq!(with(&key, "/api/v1/data", data).await, 200);
    // Where one names the source and the key oneself, one could name another instance.
    for topic in ["tt.metrics", "tt.usage.a", "tt.instances", "hub.instances.tt"] {
        for name in ["one", "two"] {
            let event = json!({"topic": topic, "source": name, "key": name});
            assert_eq!(with(&key, "/api/v1/publish", event.clone()).await, 403, "{event}");
        }
    }
    assert_eq!(with(&key, "/api/tt/events", json!({"event_type": "x", "data": {}})).await, 403);
    let mut socket = hub.socket("/ws/real-time", &[PROTOCOL]).await;
    socket.connect(&key).await;
    let events = json!([{"topic": "tt.usage.a", "source": "two", "key": "two"}]);
    socket.send(json!({"type": "publish", "id": 2, "events": events})).await;
    socket.expect_error("forbidden").await;

    let next = rotate().await;
    assert_eq!((beats(&key, "one").await, beats(&next, "one").await), (401, 200));
    let (status, _) = send(&hub, Method::DELETE, "/api/v1/instances/tt/one", Value::Null).await;
    assert_eq!(status, 204);
    assert_eq!(ids(&list(&hub, "").await), ["two"]);
    assert_eq!(beats(&next, "one").await, 401);
    for (method, path) in [
        (Method::DELETE, "/api/v1/instances/tt/one"),
        (Method::POST, "/api/v1/instances/tt/one/key"),
    ] {
        let (status, problem) = send(&hub, method.clone(), path, Value::Null).await;
        assert_eq!((status.as_u16(), &problem["code"]), (404, &json!("unknown_instance")));
        let anybody = hub.token("p", &["**", "hub.**"]);
        let request = hub.http().request(method, hub.url(path)).bearer_auth(anybody);
        assert_eq!(request.send().await.unwrap().status(), 403);
    }
}

/// Rotates the key of one instance many times at once, through these nodes in turn.
async fn rotate_at_once(hubs: &[&TestHub], rounds: usize) {
    register(hubs[0], "one", "1").await;
    for hub in hubs {
        becomes(hub, "one", "pending").await;
    }
    let beats = async |key: &str| {
        let request = hubs[0].http().post(hubs[0].url("/api/v1/heartbeat"));
        let request = request.header("x-api-key", key).json(&json!({"instance_id": "one"}));
        request.send().await.unwrap().status().as_u16()
    };
    for round in 0..rounds {
        let path = "/api/v1/instances/tt/one/key";
        let rotations = (0..8).map(|n| send(hubs[n % hubs.len()], Method::POST, path, Value::Null));
        let (mut shown, mut good) = (Vec::new(), Vec::new());
        for (status, answer) in futures_util::future::join_all(rotations).await {
            match status.as_u16() {
                201 => shown.push(answer["key"].as_str().unwrap().to_owned()),
                409 => assert_eq!(answer["code"], "superseded"),
                _ => panic!("{status}: {answer}"),
            }
        }
        for key in &shown {
            match beats(key).await {
                200 => good.push(key),
                401 => {}
                status => panic!("{status}"),
            }
        }
        assert_eq!(good.len(), 1, "round {round}: of {} keys that were shown", shown.len());
        // And it is the one that the registry names, on every node.
        let id = good[0].split('_').nth(1).unwrap();
        for hub in hubs {
            eventually("the registry names the good key", async || {
                let known = list(hub, "?q=one").await["instances"][0]["key"]["id"].clone();
                (known == id).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn of_many_keys_made_at_once_one_is_good_and_the_instance_is_not_left_without() {
    let clock = Clock::manual(START); // which stands still, so that all are made at the same time
    rotate_at_once(&[&TestHub::with_clock(&[], clock).await], 5).await;
}

#[tokio::test]
async fn of_many_keys_made_at_once_on_two_nodes_one_is_good() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let flags = [("redis", &*url)];
    let (one, two) = (Clock::manual(START), Clock::manual(START - 5000));
    let hubs = [TestHub::with_clock(&flags, one).await, TestHub::with_clock(&flags, two).await];
    rotate_at_once(&[&hubs[0], &hubs[1]], 5).await;
}

#[tokio::test]
async fn a_forgotten_instance_stays_away_whatever_was_under_way_and_comes_back_as_a_new_one() {
    let clock = Clock::manual(START);
    let mut hub = TestHub::with_clock(&[], clock.clone()).await;
    forget_at_once(&[&hub], &clock).await;
    let before = list(&hub, "").await["instances"].clone();
    hub.stop().await;
    hub.start_again().await;
    assert_eq!(list(&hub, "").await["instances"], before);
    come_back(&hub, &clock).await;
}

#[tokio::test]
async fn an_instance_forgotten_on_one_node_stays_away_on_all() {
    let redis = RedisServer::start().await;
    let (url, clock) = (redis.url(), Clock::manual(START));
    let flags = [("redis", &*url)];
    let mut one = TestHub::with_clock(&flags, clock.clone()).await;
    let two = TestHub::with_clock(&flags, clock.clone()).await;
    forget_at_once(&[&one, &two], &clock).await;
    let before = list(&two, "").await["instances"].clone();
    eventually("both know the same", async || {
        (list(&one, "").await["instances"] == before).then_some(())
    })
    .await;
    one.stop().await;
    one.start_again().await;
    assert_eq!(list(&one, "").await["instances"], before);
    come_back(&one, &clock).await;
}

/// Forgets instances while all sorts of things are written about them through these nodes.
async fn forget_at_once(hubs: &[&TestHub], clock: &Clock) {
    const COUNT: u64 = 12;
    let key_of = |n: u64| format!("/api/v1/instances/tt/i{n}/key");
    let node = |n: u64| hubs[n as usize % hubs.len()];
    for n in 0..COUNT {
        register(hubs[0], &format!("i{n}"), "1").await;
        if n % 2 == 0 {
            assert_eq!(send(hubs[0], Method::POST, &key_of(n), Value::Null).await.0, 201);
        }
    }
    clock.set(START + 1000);
    let (mut shown, mut forgotten) = (Vec::new(), Vec::new());
    for n in 0..COUNT {
        let (id, one, two) = (format!("i{n}"), node(n), node(n + 1));
        let path = format!("/api/v1/instances/tt/{id}");
        let (told, key, ..) = tokio::join!(
            send(one, Method::DELETE, &path, Value::Null),
            async {
                if n % 3 == 0 {
                    send(two, Method::POST, &key_of(n), Value::Null).await
                } else {
                    Default::default()
                }
            },
            async {
                if n % 3 == 0 {
                    return;
                }
                // As long as it has a key of its own, the shared one does not speak for it.
                let body = json!({"app_identifier": "tt", "instance_id": id});
                let (status, _) = send(two, Method::POST, "/api/v1/heartbeat", body).await;
                assert!(status == 200 || n % 2 == 0 && status == 403, "{status}");
            },
        );
        assert_eq!(told.0, 204, "{}", told.1);
        forgotten.push(id);
        shown.extend(key.1["key"].as_str().map(str::to_owned));
    }
    for hub in hubs {
        eventually("nothing is left of what was forgotten", async || {
            let listed = list(hub, "").await;
            let all = listed["instances"].as_array().unwrap();
            let is_new = |one: &Value| one["first_seen"] == "2026-05-28T20:26:41.000Z";
            (all.iter().all(|one| is_new(one) && one["key"].is_null())).then_some(())
        })
        .await;
    }
    for key in shown {
        let request = hubs[0].http().post(hubs[0].url("/api/v1/heartbeat"));
        let request = request.header("x-api-key", key).json(&json!({"instance_id": "i0"}));
        assert_eq!(request.send().await.unwrap().status(), 401, "a key of nobody");
    }
}

/// What was forgotten registers anew, long after.
async fn come_back(hub: &TestHub, clock: &Clock) {
    clock.set(START + 2 * 86_400_000);
    let (_, answer) = send(hub, Method::DELETE, "/api/v1/instances/tt/i1", Value::Null).await;
    assert!(answer.is_null() || answer["code"] == "unknown_instance", "{answer}");
    let (status, answer) = register(hub, "i1", "2").await;
    assert_eq!((status.as_u16(), &answer["state"]), (201, &json!("pending")), "{answer}");
    let known = becomes(hub, "i1", "pending").await;
    assert_eq!((&known["first_seen"], &known["key"]), (&known["last_seen"], &Value::Null));
    assert_eq!(known["registration"]["version"], "2");
}

#[tokio::test]
async fn a_full_registry_refuses_instances_but_not_their_data_and_forgets_the_silent() {
    let clock = Clock::manual(START);
    let flags = [("instances.max", "2"), ("instances.forget_after", "2d")];
    let hub = TestHub::with_clock(&flags, clock.clone()).await;
    let mut client = follower(&hub).await;
    for id in ["one", "two"] {
        assert_eq!(register(&hub, id, "1").await.0, 201);
    }
    let (status, problem) = register(&hub, "three", "1").await;
    assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("too_many_instances")));
    assert_eq!(problem["limit"], json!({"name": "instances", "allowed": 2}));
    assert_eq!(register(&hub, "two", "2").await.0, 200, "one that is known may");
    let body = json!({"app_identifier": "tt", "instance_id": "three", "data": [{"key": "a"}]});
    let (status, answer) = send(&hub, Method::POST, "/api/v1/data", body).await;
    assert_eq!((status.as_u16(), &answer["accepted"]), (200, &json!(1)));
    assert_eq!(answer["dropped"]["instance"], 1, "{answer}");
    hub.metric_becomes("pulsehub_limit_hits_total{limit=\"instances\"}", 2.0).await;
    told(&mut client, &["instance.registered"; 3]).await;
    let (status, _) = send(&hub, Method::POST, "/api/v1/instances/tt/two/key", Value::Null).await;
    assert_eq!(status, 201);
    told(&mut client, &["instance.key"]).await;
    clock.set(START + 49 * HOUR);
    let events = client.events("i", 2).await;
    let mut kinds: Vec<_> = events.iter().map(|event| (&event["key"], &event["type"])).collect();
    kinds.sort_by_key(|(key, _)| key.to_string());
    let forgotten = (&json!("one"), &json!("instance.forgotten"));
    assert_eq!(kinds, [forgotten, (&json!("two"), &json!("instance.down"))]);
    eventually("there is room", async || {
        (register(&hub, "three", "1").await.0 == 201).then_some(())
    })
    .await;
}

#[tokio::test]
async fn many_nodes_have_one_registry_and_tell_of_silence_once() {
    let redis = RedisServer::start().await;
    let clock = Clock::manual(START);
    let url = redis.url();
    let flags = [("redis", &*url), ("cluster.timeout", "2s")];
    let mut one = TestHub::with_clock(&flags, clock.clone()).await;
    let two = TestHub::with_clock(&flags, clock.clone()).await;
    let mut client = follower(&two).await;
    register(&one, "a", "1").await;
    becomes(&two, "a", "pending").await;
    beat(&two, "a").await;
    assert_eq!(becomes(&one, "a", "up").await["registration"]["version"], "1");
    told(&mut client, &["instance.registered", "instance.up"]).await;

    // Whoever has the lease, it passes on when that node ends.
    clock.set(START + HOUR + HOUR / 2);
    told(&mut client, &["instance.late"]).await;
    one.stop().await;
    clock.set(START + 3 * HOUR);
    told(&mut client, &["instance.down"]).await;
    one.start_again().await;
    assert_eq!(list(&one, "").await["instances"], list(&two, "").await["instances"]);
    for _ in 0..5 {
        tokio::join!(register(&one, "a", "2"), beat(&two, "a"));
    }
    // Written by two at once: in the end everybody knows all of it, and so does who reads it anew.
    let mut hubs = [one, two];
    for hub in &hubs {
        let known = eventually("all heartbeats and the version", async || {
            let known = becomes(hub, "a", "up").await;
            (known["registration"]["version"] == "2").then_some(known)
        })
        .await;
        assert!(known["heartbeats"].as_u64().unwrap() >= 2, "{known}");
    }
    for hub in &mut hubs {
        hub.stop().await;
    }
    let [one, _] = &mut hubs;
    one.start_again().await;
    assert_eq!(becomes(one, "a", "up").await["registration"]["version"], "2");
}

#[tokio::test]
async fn a_key_of_its_own_locks_the_shared_key_out_of_an_instance() {
    let hub = TestHub::start().await;
    register(&hub, "one", "1").await;
    register(&hub, "two", "1").await;
    let path = "/api/v1/instances/tt/one/key";
    let (_, answer) = send(&hub, Method::POST, path, Value::Null).await;
    let own = answer["key"].as_str().unwrap().to_owned();
    let body =
        |id: &str| json!({"app_identifier": "tt", "instance_id": id, "data": [{"key": "a"}]});
    for path in ["/api/v1/register", "/api/v1/heartbeat", "/api/v1/data"] {
        let (status, problem) = send(&hub, Method::POST, path, body("one")).await;
        assert_eq!((status.as_u16(), &problem["code"]), (403, &json!("forbidden")), "{path}");
        let request = hub.http().post(hub.url(path)).header("x-api-key", &own).json(&body("one"));
        assert_eq!(request.send().await.unwrap().status(), 200, "{path}");
        // Who has none goes on with the shared one.
        assert!(send(&hub, Method::POST, path, body("two")).await.0.is_success(), "{path}");
    }
    // One that was forgotten is anybody's again.
    send(&hub, Method::DELETE, "/api/v1/instances/tt/one", Value::Null).await;
    assert!(send(&hub, Method::POST, "/api/v1/register", body("one")).await.0.is_success());
}
