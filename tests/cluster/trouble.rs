//! What may become of a Redis while hubs run on it, short of losing anything.

use pulsehub::{broker::Broker, telemetry::Telemetry, time::Clock};
use serde_json::{Value, json};

use super::{follower, journal, next, node, publish};
use crate::support::{
    admitted, event, eventually,
    hub::{TestHub, offset},
    process::Home,
    proxy::Proxy,
    redis::RedisServer,
};

async fn is_stored_again(hub: &TestHub, id: &str) {
    let stored = || async { (publish(hub, id).await.status() == 200).then_some(()) };
    eventually("a publish", stored).await;
}

/// Nothing of it was stored, the publisher may come again, and in the end it is stored.
async fn assert_refused(hub: &TestHub, id: &str) {
    let refused = || async {
        let answer = publish(hub, id).await;
        // What was on its way when it happened may have come through.
        (answer.status() == 503).then_some(answer)
    };
    let answer = eventually("a refusal", refused).await;
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "unavailable");
}

#[tokio::test]
async fn a_redis_that_takes_no_more_is_told_to_publishers_and_to_nobody_else() {
    let redis = RedisServer::start().await;
    let hub = node(&redis).await;
    let mut client = follower(&hub).await;
    // Full, and rather refusing than forgetting.
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    assert_refused(&hub, "full").await;
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    is_stored_again(&hub, "room").await;
    // The master no more, as after a failover that did not tell us.
    redis.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    assert_refused(&hub, "read only").await;
    redis.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    is_stored_again(&hub, "writable").await;
    // It has another history now, but all of the old one: nobody is told of a gap.
    for wanted in ["room", "writable"] {
        let message = next(&mut client, &["events", "gap"]).await;
        assert_eq!(message["events"][0]["data"], wanted, "{message}");
    }
}

#[tokio::test]
async fn a_first_replica_that_attaches_gives_nobody_a_gap() {
    let redis = RedisServer::start().await;
    let hub = node(&redis).await;
    let mut client = follower(&hub).await;
    assert_eq!(publish(&hub, "before").await.status(), 200);
    let history = async || -> String {
        let info: String = redis.ask(&["INFO", "replication"]).await;
        info.lines().find(|line| line.starts_with("master_replid:")).unwrap().to_owned()
    };
    let before = history().await;
    let port = redis.port().to_string();
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]).await;
    let attached = || async {
        let replicas: u64 = redis.ask(&["WAIT", "1", "100"]).await;
        (replicas == 1).then_some(())
    };
    eventually("the replica", attached).await;
    assert_ne!(history().await, before, "then this test shows nothing");
    is_stored_again(&hub, "after").await;
    for wanted in ["before", "after"] {
        let message = next(&mut client, &["events", "gap"]).await;
        assert_eq!(message["events"][0]["data"], wanted, "{message}");
    }
    drop(replica);
}

#[tokio::test]
async fn what_retention_took_while_a_node_was_away_is_a_gap() {
    let redis = RedisServer::start().await;
    let way = Proxy::to(redis.port()).await;
    let url = way.url();
    let hub = TestHub::with(&[("redis", &*url), ("cluster.timeout", "700ms")]).await;
    let mut client = follower(&hub).await;
    let clock = Clock::manual(Clock::system().now());
    let other = Broker::join(journal(), redis.server(), clock.clone(), Telemetry::new());
    let other = other.await.unwrap();
    let publish = async |id: &str| {
        let events = vec![event("t.a", "s", id, None, &format!("{id:?}"))];
        other.publish(admitted(events)).await.unwrap().position.offset
    };
    publish("seen").await;
    assert_eq!(next(&mut client, &["events", "gap"]).await["events"][0]["data"], "seen");
    way.lead_to(1);
    let first = publish("missed").await;
    let last = publish("missed too").await;
    clock.set(clock.now() + 2 * 3_600_000);
    other.maintain().await;
    publish("kept").await;
    way.lead_to(redis.port());
    let gap = next(&mut client, &["events", "gap"]).await;
    assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!("retention")), "{gap}");
    assert!(offset(&gap["from"]) <= first && offset(&gap["to"]) >= last, "{gap}");
    let message = next(&mut client, &["events", "gap"]).await;
    assert_eq!(message["events"][0]["data"], "kept", "{message}");
    other.close().await;
}

#[tokio::test]
async fn what_weakens_the_promise_is_told_in_readyz() {
    let redis = RedisServer::with(&[]).await;
    let hub = node(&redis).await;
    let ready = hub.http().get(hub.url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 200);
    let ready: Value = ready.json().await.unwrap();
    assert!(ready["warnings"][0].as_str().unwrap().contains("appendonly yes"), "{ready}");
}

#[tokio::test]
async fn without_a_configured_secret_all_nodes_make_one_together() {
    let redis = RedisServer::start().await;
    let home = Home::new(&format!("redis = \"{}\"\n", redis.url()));
    let (one, two) = tokio::join!(home.start(), home.start());
    let token = home.token("ada", "t.*");
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for hub in [&one, &two] {
        let request = http.post(format!("http://{}/api/v1/publish", hub.address()));
        let request = request.bearer_auth(&token).json(&json!({"topic": "t.a", "data": 1}));
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let log = one.log() + &two.log();
    let secret: String = redis.ask(&["HGET", "{pulsehub}:store", "secret"]).await;
    assert!(secret.len() >= 32 && !log.contains(&secret), "{log}");
}

#[tokio::test]
async fn the_largest_batch_is_stored_whole_or_refused_with_all_its_ids_and_a_larger_one_not_at_all()
{
    const MOST: usize = 10_000;
    let redis = RedisServer::start().await;
    let url = redis.url();
    let patient = TestHub::with(&[("redis", &*url), ("cluster.timeout", "20s")]).await;
    let hasty = node(&redis).await;
    let ids: Vec<String> = (0..=MOST).map(|n| format!("e{n}")).collect();
    let send = async |hub: &TestHub, ids: &[String]| {
        // As many arguments for each as there can be.
        let event =
            |id: &String| json!({"topic": format!("t.{id}"), "id": id, "key": id, "data": 1});
        let events: Vec<Value> = ids.iter().map(event).collect();
        let request = hub.http().post(hub.url("/api/v1/publish"));
        let request = request.bearer_auth(hub.token("p", &["**"])).json(&events);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let topics = async || -> u64 {
        let all: Vec<String> = redis.ask(&["HKEYS", "{pulsehub}:topics"]).await;
        all.iter().filter(|topic| topic.starts_with("t.")).count() as u64
    };
    let (status, problem) = send(&patient, &ids).await;
    assert_eq!((status, &problem["code"]), (413, &json!("batch_too_large")), "{problem}");
    assert_eq!(topics().await, 0);
    redis.freeze();
    let (status, problem) = send(&hasty, &ids[..MOST]).await;
    assert_eq!((status, &problem["code"]), (503, &json!("outcome_unknown")));
    assert_eq!(problem["ids"], json!(ids[..MOST]));
    redis.thaw();
    let (status, answer) = send(&patient, &ids[..MOST]).await;
    assert_eq!(status, 200, "{answer}");
    let number = |name: &str| answer[name].as_u64().unwrap();
    assert_eq!(number("accepted") + number("duplicates"), MOST as u64);
    let offsets = answer["offsets"].as_array().unwrap().iter();
    let offsets: Vec<u64> = offsets.map(|offset| offset.as_u64().unwrap()).collect();
    let whole = (offsets[0]..).take(MOST).collect::<Vec<_>>();
    assert!(offsets == whole && topics().await == MOST as u64, "{} offsets", offsets.len());
}
