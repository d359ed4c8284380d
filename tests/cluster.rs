//! Many nodes over one Redis: one order, one promise, through whatever happens to either.

mod chaos;
mod duties;
mod epochs;
mod failover;
mod history;
mod killed;
mod nodes;
mod outside;
mod revocations;
mod servers;
mod trouble;

use pulsehub::{
    auth::{ApiKey, ApiKeys, NewApiKey},
    broker::journal,
    bytesize::ByteSize,
    grants::Grants,
    store::Store,
    time::{Clock, Span},
    topic::TopicPattern,
};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::support::{
    eventually,
    hub::{Client, PROTOCOL, TestHub, offset},
    port::free_port,
    proxy::Proxy,
    redis::{self, RedisServer},
};

/// What a log over Redis goes by that no hub was given settings for.
fn journal() -> journal::JournalConfig {
    journal::JournalConfig {
        sync: journal::Sync::Normal,
        max_age: Span::seconds(3600),
        max_bytes: ByteSize(1 << 30),
        retention: Vec::new(),
        dedupe_window: Span::seconds(120),
        dedupe_ids: 1000,
        latest_keys: 10,
        max_topics: 1000,
        reserve: ByteSize(0),
        recent_bytes: ByteSize(1 << 20),
        queue_bytes: ByteSize(1 << 20),
        queue_timeout: Span::seconds(5),
    }
}

async fn node(redis: &RedisServer) -> TestHub {
    let url = redis.url();
    let flags = [("redis", &*url), ("cluster.timeout", "700ms"), ("socket.ping", "1s")];
    TestHub::with(&flags).await
}

/// A client that follows everything in `t` and is live.
async fn follower(hub: &TestHub) -> Client {
    let mut client = hub.client("c", &["t.*"]).await;
    client.subscribe(json!({"sub": "s", "topics": ["t.*"]})).await;
    assert_eq!(next(&mut client, &["live"]).await["type"], "live");
    client
}

/// The next message of one of these types; those of others are passed over, pings answered.
async fn next(client: &mut Client, types: &[&str]) -> Value {
    loop {
        let message = client.next_json().await;
        if message["type"] == "ping" {
            client.send(json!({"type": "pong"})).await;
        }
        if types.contains(&message["type"].as_str().unwrap()) {
            return message;
        }
    }
}

async fn publish(hub: &TestHub, id: &str) -> reqwest::Response {
    let request = hub.http().post(hub.url("/api/v1/publish"));
    let event = json!({"topic": "t.a", "id": id, "data": id});
    request.bearer_auth(hub.token("p", &["**"])).json(&event).send().await.unwrap()
}

#[tokio::test]
async fn three_hubs_have_one_order_and_a_position_of_one_is_good_on_another() {
    let redis = RedisServer::start().await;
    let hubs = [node(&redis).await, node(&redis).await, node(&redis).await];
    let mut clients = Vec::new();
    for hub in &hubs {
        clients.push(follower(hub).await);
    }
    let ids: Vec<String> = (0..30).map(|n| format!("e{n}")).collect();
    let mut offsets = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let answer = publish(&hubs[n % 3], id).await;
        assert_eq!(answer.status(), 200);
        let answer: serde_json::Value = answer.json().await.unwrap();
        offsets.push(answer["offsets"][0].as_u64().unwrap());
    }
    assert!(offsets.is_sorted(), "{offsets:?}");
    let mut positions = Vec::new();
    for client in &mut clients {
        let mut got = Vec::new();
        let mut middle = json!(null);
        while got.len() < ids.len() {
            let frame = next(client, &["events", "gap"]).await;
            got.extend(
                frame["events"].as_array().unwrap().iter().map(|event| event["data"].clone()),
            );
            if got.len() <= 15 {
                middle = frame["position"].clone();
            }
        }
        assert_eq!(got, ids);
        positions.push(middle);
    }
    // From each node to the next.
    for (n, position) in positions.iter().enumerate() {
        let mut client = hubs[(n + 1) % 3].client("c", &["t.*"]).await;
        let answer =
            client.subscribe(json!({"sub": "s", "topics": ["t.*"], "resume": position})).await;
        assert_eq!((&answer["recovered"], &answer["position"]), (&json!(true), position));
        let mut got = Vec::new();
        while got.last().is_none_or(|last| last < offsets.last().unwrap()) {
            let frame = next(&mut client, &["events", "gap"]).await;
            let events = frame["events"].as_array().unwrap().iter();
            got.extend(events.map(|event| event["offset"].as_u64().unwrap()));
        }
        let rest: Vec<u64> =
            offsets.iter().copied().filter(|one| *one > offset(position)).collect();
        assert_eq!(got, rest);
    }
}

#[tokio::test]
async fn while_redis_is_gone_publishes_are_refused_sockets_stay_and_everything_heals() {
    let mut redis = RedisServer::start().await;
    let hub = node(&redis).await;
    let mut client = follower(&hub).await;
    assert_eq!(publish(&hub, "before").await.status(), 200);
    assert_eq!(next(&mut client, &["events", "gap"]).await["events"][0]["data"], "before");
    let ready = async |path: &str| -> serde_json::Value {
        hub.http().get(hub.url(path)).send().await.unwrap().json().await.unwrap()
    };
    let becomes = async |expected: bool| {
        let is = || async { (ready("/readyz").await["publishing"] == expected).then_some(()) };
        eventually(&format!("publishing {expected}"), is).await;
    };
    becomes(true).await;
    redis.freeze();
    let answer = publish(&hub, "frozen").await;
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    let problem: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(
        (&problem["code"], &problem["ids"]),
        (&json!("outcome_unknown"), &json!(["frozen"]))
    );
    becomes(false).await;
    assert_eq!(ready("/readyz").await["accepting"], true);
    // The pings say so.
    while next(&mut client, &["ping"]).await["stale"] != true {}
    // New ones are accepted.
    drop(follower(&hub).await);
    redis.thaw();
    let healed = || async { (publish(&hub, "after").await.status() == 200).then_some(()) };
    eventually("a publish", healed).await;
    // The frozen Redis may have stored the first of them, or not; no other does it twice.
    let again: serde_json::Value = publish(&hub, "frozen").await.json().await.unwrap();
    assert_eq!(again["accepted"].as_u64().unwrap() + again["duplicates"].as_u64().unwrap(), 1);
    redis.kill();
    let answer = publish(&hub, "dead").await;
    assert_eq!(answer.status(), 503);
    redis.start_again().await;
    let healed = || async { (publish(&hub, "dead").await.status() == 200).then_some(()) };
    eventually("a publish", healed).await;
    let mut got = Vec::new();
    while got.last().is_none_or(|last| last != "dead") {
        let message = next(&mut client, &["events", "gap"]).await;
        assert_eq!(message["type"], "events", "nothing was lost");
        for event in message["events"].as_array().into_iter().flatten() {
            got.push(event["data"].as_str().unwrap().to_owned());
        }
    }
    got.sort();
    assert_eq!(got, ["after", "dead", "frozen"]);
}

#[tokio::test]
async fn a_redis_that_lost_everything_is_told_to_everybody() {
    let mut redis = RedisServer::start().await;
    let hubs = [node(&redis).await, node(&redis).await];
    let mut clients = Vec::new();
    for hub in &hubs {
        clients.push(follower(hub).await);
    }
    assert_eq!(publish(&hubs[0], "one").await.status(), 200);
    let mut position = json!(null);
    for client in &mut clients {
        position = next(client, &["events", "gap"]).await["position"].clone();
    }
    redis.kill();
    redis.fall_back_to(None);
    redis.start_again().await;
    for client in &mut clients {
        let gap = next(client, &["events", "gap"]).await;
        assert_eq!(gap["reason"], "epoch", "{gap}");
        assert!(offset(&gap["from"]) <= offset(&position) + 1, "{gap}");
    }
    let healed = || async { (publish(&hubs[1], "two").await.status() == 200).then_some(()) };
    eventually("a publish", healed).await;
    for client in &mut clients {
        assert_eq!(next(client, &["events", "gap"]).await["events"][0]["data"], "two");
    }
    // Who was away hears of it as well.
    let mut late = hubs[0].client("c", &["t.*"]).await;
    let resume = json!({"sub": "s", "topics": ["t.*"], "resume": position});
    assert_eq!(late.subscribe(resume).await["recovered"], false);
    assert_eq!(next(&mut late, &["events", "gap"]).await["reason"], "epoch");
    assert_eq!(next(&mut late, &["events", "gap"]).await["events"][0]["data"], "two");
}

#[tokio::test]
async fn a_revocation_reaches_every_node() {
    let redis = RedisServer::start().await;
    let hubs = [node(&redis).await, node(&redis).await];
    // As the command line does.
    let store = Store::join(redis.server(), Clock::system()).await.unwrap();
    let subscribe = vec![TopicPattern::parse("t.*").unwrap()];
    let grants = Grants { subscribe, publish: Vec::new() };
    let new = NewApiKey { name: "k".into(), grants, role: None, expires: None };
    let (key, stored) = ApiKey::make(new, Clock::system().now()).unwrap();
    let id = stored.id.clone();
    ApiKeys::new(&store).put(stored).await.unwrap();
    let mut clients = Vec::new();
    for hub in &hubs {
        let mut client = hub.socket("/ws/real-time", &[PROTOCOL]).await;
        client.connect(key.expose_secret()).await;
        clients.push(client);
    }
    assert!(ApiKeys::new(&store).revoke(&id).await.unwrap());
    for client in &mut clients {
        assert_eq!(client.expect_close().await.0, 4401);
    }
}

#[tokio::test]
async fn with_replicas_wanted_an_event_is_stored_when_they_have_it() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let flags = [("redis", &*url), ("cluster.timeout", "500ms"), ("cluster.replicas", "1")];
    let hub = TestHub::with(&flags).await;
    let answer = publish(&hub, "alone").await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "outcome_unknown");
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &redis.port().to_string()]).await;
    let stored = || async {
        let answer = publish(&hub, "alone").await;
        (answer.status() == 200).then_some(answer)
    };
    let answer: Value = eventually("a replica", stored).await.json().await.unwrap();
    assert_eq!(answer["duplicates"], 1, "it was there all the time");
    drop(replica);
}

#[tokio::test]
async fn any_node_tells_who_is_connected_to_all() {
    let redis = RedisServer::start().await;
    let hubs = [node(&redis).await, node(&redis).await, node(&redis).await];
    let mut clients = Vec::new();
    for hub in &hubs {
        clients.push(follower(hub).await);
    }
    for hub in &hubs {
        let admin = hub.token_for("root", &[], Some("admin"), 60);
        let ask = || async {
            let url = hub.url("/api/v1/connections");
            let answer = hub.http().get(url).bearer_auth(&admin).send().await.unwrap();
            let answer: Value = answer.json().await.unwrap();
            let all = answer["connections"].as_array().unwrap();
            assert!(all.iter().all(|one| one["subscriptions"][0]["topics"] == json!(["t.*"])));
            let nodes: std::collections::BTreeSet<_> =
                all.iter().map(|one| one["node"].to_string()).collect();
            (all.len() == 3 && nodes.len() == 3 && answer["missing_nodes"] == 0).then_some(())
        };
        eventually("all nodes' connections", ask).await;

        // And page by page, whatever node has them.
        let (mut names, mut after) = (Vec::new(), None::<String>);
        loop {
            let limit = Some(("limit", "1".to_owned()));
            let query = limit.into_iter().chain(after.map(|after| ("after", after)));
            let url = hub.url("/api/v1/connections");
            let url = reqwest::Url::parse_with_params(&url, query).unwrap();
            let answer = hub.http().get(url).bearer_auth(&admin).send().await.unwrap();
            let page: Value = answer.json().await.unwrap();
            names.push(page["connections"][0]["node"].as_str().unwrap().to_owned());
            after = page["next"].as_str().map(str::to_owned);
            if after.is_none() {
                break;
            }
        }
        assert!(names.is_sorted() && names.len() == 3, "{names:?}");
    }
}

#[tokio::test]
async fn a_redis_that_would_break_promises_is_refused_with_what_to_do() {
    let refusal = async |url: &str| {
        let server = redis::server(url);
        let keys = pulsehub::redis::Keys::new("pulsehub");
        let checked = pulsehub::redis::check(&server, &keys).await;
        checked.map(|warnings| warnings.join("; ")).map_err(|error| error.to_string())
    };
    let plain = RedisServer::with(&[]).await;
    let weak = refusal(&plain.url()).await.unwrap();
    assert!(weak.contains("appendonly yes"), "{weak}");
    let good = RedisServer::start().await;
    assert_eq!(refusal(&good.url()).await.unwrap(), "");
    let lazy = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "no"]).await;
    let weak = refusal(&lazy.url()).await.unwrap();
    assert!(weak.contains("appendfsync no"), "{weak}");
    good.ask::<()>(&["CONFIG", "SET", "client-output-buffer-limit", "normal 1mb 0 0"]).await;
    let weak = refusal(&good.url()).await.unwrap();
    assert!(weak.contains("client-output-buffer-limit"), "{weak}");
    let locked = RedisServer::with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let locked = locked.await;
    let error = refusal(&locked.url()).await.unwrap_err();
    assert!(error.contains("noeviction"), "{error}");
    let wrong = format!("redis://:wrong@127.0.0.1:{}", plain.port());
    plain.ask::<()>(&["CONFIG", "SET", "requirepass", "right"]).await;
    let error = refusal(&wrong).await.unwrap_err();
    assert!(error.contains("password") && !error.contains("wrong"), "{error}");
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", "1"]).await;
    let error = refusal(&replica.url()).await.unwrap_err();
    assert!(error.contains("is a replica"), "{error}");
    let foreign = RedisServer::start().await;
    for (key, value) in [("{pulsehub}:log", "a list"), ("{pulsehub}:meta", "a text")] {
        foreign.ask::<()>(&["SET", key, value]).await;
        let error = refusal(&foreign.url()).await.unwrap_err();
        assert!(error.contains(key) && error.contains("cluster.prefix"), "{error}");
        foreign.ask::<()>(&["DEL", key]).await;
    }
    foreign.ask::<()>(&["HSET", "{pulsehub}:meta", "version", "99"]).await;
    let error = refusal(&foreign.url()).await.unwrap_err();
    assert!(error.contains("version 99") && error.contains("cluster.prefix"), "{error}");
    // Left to itself it takes the port 10,000 above its own, which may be somebody's.
    let bus = free_port().to_string();
    let sharded = RedisServer::with(&["--cluster-enabled", "yes", "--cluster-port", &bus]).await;
    let error = refusal(&sharded.url()).await.unwrap_err();
    assert!(error.contains("not sharded"), "{error}");
    // A real one that says it were older than any that can be installed today.
    let old = Proxy::disguising(good.port(), b"redis_version:7.", b"redis_version:6.").await;
    let error = refusal(&old.url()).await.unwrap_err();
    assert!(error.contains("\"6.") && error.contains("too old: use Redis 7"), "{error}");
    let nobody = refusal("redis://127.0.0.1:1").await.unwrap_err();
    assert!(nobody.contains("cannot be reached") && nobody.contains("Start it"), "{nobody}");
}
