//! What nodes ask each other: how each stands, who subscribes where, and sending clients elsewhere.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use super::{follower, next, node, publish};
use crate::support::{
    eventually,
    hub::{Client, SECRET, TestHub},
    process::{Home, Process},
    redis::RedisServer,
};

const DRAIN: &str = "/api/v1/drain";

fn admin(hub: &TestHub) -> String {
    hub.token_for("root", &["**"], Some("admin"), 600)
}

async fn get(hub: &TestHub, path: &str) -> Value {
    let answer = hub.http().get(hub.url(path)).bearer_auth(admin(hub)).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    answer.json().await.unwrap()
}

async fn drain(through: &TestHub, order: Value) -> Value {
    let request = through.http().post(through.url(DRAIN)).bearer_auth(admin(through));
    let answer = request.json(&order).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{order}");
    answer.json().await.unwrap()
}

async fn undrain(through: &TestHub, node: &str) -> Value {
    let url = through.url(&format!("{DRAIN}?node={node}"));
    let answer = through.http().delete(url).bearer_auth(admin(through)).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

/// What people call the node at this port, once `through` knows of it.
async fn name_of(through: &TestHub, port: u16) -> String {
    let suffix = format!(":{port}");
    let find = || async {
        let all = get(through, "/api/v1/nodes").await;
        let names =
            all["nodes"].as_array().unwrap().iter().map(|one| one["node"].as_str().unwrap());
        names.into_iter().find(|name| name.ends_with(&suffix)).map(str::to_owned)
    };
    eventually("the node's name", find).await
}

async fn is_ready(hub: &TestHub) -> bool {
    hub.http().get(hub.url("/readyz")).send().await.unwrap().status() == 200
}

#[tokio::test]
async fn a_node_that_is_drained_sends_its_clients_to_others_and_takes_them_again_when_told() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let flags = [("redis", &*url), ("http.drain", "1s")];
    let hubs =
        [TestHub::with(&flags).await, TestHub::with(&flags).await, TestHub::with(&flags).await];
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(follower(&hubs[0]).await);
    }
    let mut elsewhere = follower(&hubs[1]).await;
    assert_eq!(publish(&hubs[1], "before").await.status(), 200);
    let mut position = Value::Null;
    for client in clients.iter_mut().chain([&mut elsewhere]) {
        position = next(client, &["events", "gap"]).await["position"].clone();
    }

    let name = name_of(&hubs[2], hubs[0].address().port()).await;
    let answer = drain(&hubs[2], json!({"node": name})).await;
    let standing = json!({"node": name, "answered": true, "state": "draining", "connections": 6});
    assert_eq!(answer, json!({"nodes": [standing], "missing_nodes": 0}));
    assert!(!is_ready(&hubs[0]).await && is_ready(&hubs[1]).await);
    for client in &mut clients {
        let reconnect = next(client, &["reconnect"]).await;
        assert!(reconnect["after_ms"].as_u64().unwrap() < 1000, "{reconnect}");
        assert_eq!(client.expect_close().await.0, 1012);
    }
    // Who comes nevertheless is sent away as well; all else works.
    let mut late = hubs[0].client("late", &["t.*"]).await;
    next(&mut late, &["reconnect"]).await;
    assert_eq!(late.expect_close().await.0, 1012);
    assert_eq!(publish(&hubs[0], "meanwhile").await.status(), 200);
    elsewhere.events("s", 1).await;
    elsewhere.still_answers().await;
    // Whoever was sent away misses nothing.
    let mut again = hubs[1].client("c", &["t.*"]).await;
    let resume = json!({"sub": "s", "topics": ["t.*"], "resume": position});
    assert_eq!(again.subscribe(resume).await["recovered"], true);
    assert_eq!(again.events("s", 1).await[0]["data"], "meanwhile");

    let answer = undrain(&hubs[1], &name).await;
    assert_eq!(answer["nodes"][0]["state"], "serving");
    assert!(is_ready(&hubs[0]).await);
    let mut back = follower(&hubs[0]).await;
    assert_eq!(publish(&hubs[2], "after").await.status(), 200);
    assert_eq!(back.events("s", 1).await[0]["data"], "after");
    // All at once.
    let answer = drain(&hubs[0], json!({"node": "all"})).await;
    let states: Vec<_> =
        answer["nodes"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["draining"; 3], "{answer}");
    for client in [&mut back, &mut elsewhere, &mut again] {
        next(client, &["reconnect"]).await;
    }
    let answer = undrain(&hubs[0], "all").await;
    let states: Vec<_> =
        answer["nodes"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["serving"; 3], "{answer}");
    back = follower(&hubs[0]).await;
    assert_eq!(publish(&hubs[1], "served").await.status(), 200);
    assert_eq!(back.events("s", 1).await[0]["data"], "served");
}

#[tokio::test]
async fn a_hub_without_others_is_a_node_as_well() {
    let hub = TestHub::with(&[("http.drain", "100ms")]).await;
    let all = get(&hub, "/api/v1/nodes").await;
    let name = all["nodes"][0]["node"].as_str().unwrap();
    let standing = json!({"node": name, "answered": true, "state": "serving", "connections": 0});
    assert_eq!(all, json!({"nodes": [standing], "missing_nodes": 0}));
    let mut client = follower(&hub).await;
    assert_eq!(drain(&hub, json!({"node": name})).await["nodes"][0]["state"], "draining");
    assert_eq!(client.expect_close().await.0, 1012);
    // A stream of events is not refused, which would end it for good: it is told to come back.
    let stream = hub.http().get(hub.url("/sse/real-time?topics=t.*")).bearer_auth(admin(&hub));
    let stream = stream.send().await.unwrap();
    assert_eq!(stream.status(), 200);
    assert!(stream.text().await.unwrap().contains("retry: "));
    assert_eq!(undrain(&hub, name).await["nodes"][0]["state"], "serving");
    follower(&hub).await.still_answers().await;
}

#[tokio::test]
async fn only_admins_ask_for_a_drain_and_only_of_nodes_that_there_are() {
    let hub = TestHub::start().await;
    let post = async |token: &str, body: Value| {
        let request = hub.http().post(hub.url(DRAIN)).bearer_auth(token).json(&body);
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap()["code"].clone())
    };
    let (root, ada) = (admin(&hub), hub.token("ada", &["**"]));
    assert_eq!(post(&ada, json!({"node": "all"})).await, (403, json!("forbidden")));
    assert_eq!(post(&root, json!({"node": "nobody"})).await, (404, json!("not_found")));
    for body in [json!({}), json!({"node": 1}), json!({"node": "all", "stopp": true}), json!([])] {
        assert_eq!(post(&root, body).await, (400, json!("invalid_json")));
    }
    let nodes = hub.http().get(hub.url("/api/v1/nodes")).bearer_auth(&ada).send().await.unwrap();
    assert_eq!(nodes.status(), 403);
    for (path, token, status) in
        [(DRAIN, &root, 400), ("/api/v1/drain?node=nobody", &root, 404), (DRAIN, &ada, 403)]
    {
        let answer = hub.http().delete(hub.url(path)).bearer_auth(token).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }
    assert!(is_ready(&hub).await);
}

#[tokio::test]
async fn a_topic_has_the_subscribers_of_all_nodes() {
    let redis = RedisServer::start().await;
    let hubs = [node(&redis).await, node(&redis).await, node(&redis).await];
    let mut clients = Vec::new();
    for (at, hub) in hubs.iter().enumerate() {
        for _ in 0..=at {
            clients.push(follower(hub).await);
        }
    }
    assert_eq!(publish(&hubs[0], "one").await.status(), 200);
    for hub in &hubs {
        let counted = || async {
            let page = get(hub, "/api/v1/topics?prefix=t.").await;
            let told = (&page["topics"][0]["subscribers"], &page["missing_nodes"]);
            (told == (&json!(6), &json!(0))).then_some(())
        };
        eventually("six subscribers", counted).await;
    }
}

fn home(redis: &RedisServer) -> Home {
    let url = redis.url();
    Home::new(&format!("redis = \"{url}\"\nsecret = \"{SECRET}\"\n[http]\ndrain = \"500ms\"\n"))
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_counted_and_named() {
    let redis = RedisServer::start().await;
    let hub = node(&redis).await;
    let home = home(&redis);
    let hung = home.start().await;
    assert_eq!(publish(&hub, "one").await.status(), 200);
    let name = name_of(&hub, hung.address().port()).await;
    hung.freeze();
    assert_eq!(get(&hub, "/api/v1/topics").await["missing_nodes"], 1);
    assert_eq!(get(&hub, "/api/v1/connections").await["missing_nodes"], 1);
    let answer = drain(&hub, json!({"node": name})).await;
    let silent = json!({"node": name, "answered": false});
    assert_eq!(answer, json!({"nodes": [silent], "missing_nodes": 1}));
    hung.thaw();
}

/// What Redis is asked while all nodes are asked how they stand, and the answer.
async fn overheard(redis: &RedisServer, through: &TestHub) -> (String, Value) {
    let stream = TcpStream::connect(("127.0.0.1", redis.port())).await.unwrap();
    let mut lines = BufReader::new(stream);
    lines.write_all(b"MONITOR\r\n").await.unwrap();
    let answer = get(through, "/api/v1/nodes").await;
    redis.ask::<()>(&["ECHO", "that was all"]).await;
    let mut said = String::new();
    while !said.contains("that was all") {
        assert!(lines.read_line(&mut said).await.unwrap() > 0, "{said}");
    }
    (said, answer)
}

#[tokio::test]
async fn a_node_that_died_is_told_and_named_but_not_waited_for() {
    let redis = RedisServer::start().await;
    let hub = node(&redis).await;
    let home = home(&redis);
    let dies = home.start().await;
    let name = name_of(&hub, dies.address().port()).await;
    let waits = |said: &str| {
        said.lines().any(|line| line.contains("BLPOP") && line.contains("{pulsehub}:reply:"))
    };
    let (said, answer) = overheard(&redis, &hub).await;
    assert!(waits(&said) && answer["missing_nodes"] == 0, "{answer} {said}");
    let ids: BTreeSet<String> = redis.ask(&["ZRANGE", "{pulsehub}:nodes", "0", "-1"]).await;
    dies.kill();
    // As after a few hellos of the other: the list is in their order.
    let alive = async || {
        let newest: Vec<String> = redis.ask(&["ZRANGE", "{pulsehub}:nodes", "-1", "-1"]).await;
        let dead = ids.iter().find(|id| **id != newest[0]).unwrap().clone();
        let hello: f64 = redis.ask(&["ZSCORE", "{pulsehub}:nodes", &newest[0]]).await;
        let last: f64 = redis.ask(&["ZSCORE", "{pulsehub}:nodes", &dead]).await;
        (hello - last > 1000.0).then_some(dead)
    };
    let dead = eventually("a hello of the other", alive).await;
    redis.ask::<()>(&["ZINCRBY", "{pulsehub}:nodes", "-5000", &dead]).await;
    let (said, answer) = overheard(&redis, &hub).await;
    let silent = json!({"node": name, "answered": false});
    assert!(answer["missing_nodes"] == 1, "{answer}");
    assert!(answer["nodes"].as_array().unwrap().contains(&silent), "{answer}");
    assert!(said.contains(&format!("{{pulsehub}}:ask:{dead}")) && !waits(&said), "{said}");
    assert_eq!(get(&hub, "/api/v1/connections").await["missing_nodes"], 1);
}

#[tokio::test]
async fn a_node_that_died_and_was_started_again_is_not_missing() {
    let redis = RedisServer::start().await;
    let (hub, again) = (node(&redis).await, node(&redis).await);
    let name = name_of(&hub, again.address().port()).await;
    // What a crash leaves behind: an id that says hello no more, under the name that is in use again.
    let nodes = "{pulsehub}:nodes";
    let newest: Vec<String> = redis.ask(&["ZRANGE", nodes, "-1", "-1", "WITHSCORES"]).await;
    let late = newest[1].parse::<f64>().unwrap() - 5000.0;
    redis.ask::<u64>(&["ZADD", nodes, &late.to_string(), "dead"]).await;
    redis.ask::<()>(&["SET", "{pulsehub}:name:dead", &name, "EX", "60"]).await;
    let answer = drain(&hub, json!({"node": name})).await;
    let standing = json!({"node": name, "answered": true, "state": "draining", "connections": 0});
    assert_eq!(answer, json!({"nodes": [standing], "missing_nodes": 0}));
    // It is no other node to itself either.
    assert_eq!(get(&again, "/api/v1/nodes").await["missing_nodes"], 0);
    redis.ask::<()>(&["SET", "{pulsehub}:name:dead", "gone", "EX", "60"]).await;
    assert_eq!(
        get(&again, "/api/v1/nodes").await["missing_nodes"],
        1,
        "the other was known all the time"
    );
}

#[tokio::test]
async fn a_node_told_to_stop_ends_when_everybody_was_told() {
    let redis = RedisServer::start().await;
    let home = home(&redis);
    let (mut leaving, stays) = (home.start().await, home.start().await);
    let token = home.token("c", "t.*");
    let mut client = subscribe(&leaving, &token).await;
    let name = home.run_at(&stays, "nodes", &[]).await;
    let suffix = format!(":{}\t", leaving.address().port());
    let line = name.lines().find(|line| line.contains(&suffix)).unwrap();
    assert!(line.ends_with("\tserving\t1 connection"), "{line}");
    let name = line.split('\t').next().unwrap();
    let said = home.run_at(&stays, "drain", &["--node", name, "--stop"]).await;
    assert_eq!(said.trim(), format!("{name}\tstopping\t1 connection"));
    next(&mut client, &["reconnect"]).await;
    assert_eq!(client.expect_close().await.0, 1012);
    assert_eq!(leaving.ends().await, Some(0), "{}", leaving.log());
    // It said goodbye: nobody waits for its answers.
    let left = home.run_at(&stays, "nodes", &[]).await;
    assert_eq!(left.lines().count(), 1, "{left}");
    // Without others to go to, somebody who waits is told to wait.
    let mut client = subscribe(&stays, &token).await;
    let name = left.split('\t').next().unwrap();
    home.run_at(&stays, "drain", &["--node", name, "--wait", "20s"]).await;
    assert_eq!(client.expect_close().await.0, 1012);
    let said = home.run_at(&stays, "drain", &["--node", name, "--undo"]).await;
    assert_eq!(said.trim(), format!("{name}\tserving\t0 connections"));
}

async fn subscribe(node: &Process, token: &str) -> Client {
    let path = "/ws/real-time";
    let mut client =
        Client::open(node.address(), path, &[crate::support::hub::PROTOCOL]).await.unwrap();
    client.connect(token).await;
    client.subscribe(json!({"sub": "s", "topics": ["t.*"]})).await;
    client
}
