//! What the hub publishes by itself: the machine it runs on, and a FLEXT daemon that it asks over gRPC.

use std::{collections::BTreeSet, net::TcpListener};

use pulsehub::{
    sources::flext_proto::{ComponentHealth, Execution, ExecutionUpdate, Status},
    time::Clock,
};
use serde_json::{Value, json};

use crate::support::{
    eventually,
    flext::{FakeDaemon, Mood},
    hub::TestHub,
    redis::RedisServer,
};

/// Settings with a source that asks the daemon at `url` ten times a second.
fn settings(url: &str) -> String {
    format!(
        "[[source]]\nname = \"main\"\nkind = \"flext-grpc\"\naddress = \"{url}\"\n\
         interval = \"100ms\"\ntimeout = \"300ms\"\ntoken = \"let me in\"\n"
    )
}

/// The events of a topic, oldest first.
async fn events(hub: &TestHub, topic: &str) -> Vec<Value> {
    let url = hub.url(&format!("/api/v1/history?topics={topic}&limit=1000"));
    let token = hub.token_for("reader", &["**"], Some("admin"), 3600);
    let answer = hub.http().get(url).bearer_auth(token).send().await.unwrap();
    let mut page: Value = answer.json().await.unwrap();
    page["events"].as_array_mut().expect("a page of events").drain(..).collect()
}

/// The newest event of a topic, once `condition` holds for it.
async fn newest(hub: &TestHub, topic: &str, condition: impl Fn(&Value) -> bool) -> Value {
    eventually(topic, async || {
        let newest = events(hub, topic).await.pop()?;
        condition(&newest["data"]).then_some(newest)
    })
    .await
}

/// Waits until the daemon was asked `more` times from now on.
async fn asked(daemon: &FakeDaemon, more: u64) {
    let wanted = daemon.state().asked + more;
    eventually("more questions", async || (daemon.state().asked >= wanted).then_some(())).await;
}

fn execution(id: &str, status: Status) -> Execution {
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    Execution {
        id: id.into(),
        pipeline_id: "crm-to-lake".into(),
        status: status.into(),
        started_at: at(1_800_000_000),
        finished_at: at(1_800_000_090).filter(|_| status == Status::Success),
        ..Execution::default()
    }
}

#[tokio::test]
async fn what_a_daemon_says_is_published_when_it_changes() {
    let daemon = FakeDaemon::start();
    daemon.state().executions = vec![execution("e1", Status::Success)];
    let component = ComponentHealth { healthy: true, message: "ok".into(), ..Default::default() };
    daemon.state().health.components.insert("database".into(), component);
    let hub = TestHub::with_file(&settings(&daemon.url())).await;

    let source = newest(&hub, "flext.source", |_| true).await;
    assert_eq!((&source["key"], &source["type"]), (&json!("main"), &json!("flext.source")));
    assert_eq!((&source["data"]["ok"], &source["data"]["error"]), (&json!(true), &Value::Null));
    let stats = newest(&hub, "flext.stats", |_| true).await;
    assert_eq!((&stats["type"], &stats["source"]), (&json!("metrics"), &json!("main")));
    assert_eq!(stats["data"]["metrics"]["success_rate"], 98.5);
    let health = newest(&hub, "flext.health", |_| true).await;
    assert_eq!(health["data"]["components"]["database"]["message"], "ok");
    let done = newest(&hub, "flext.executions", |_| true).await;
    assert_eq!(done["key"], "e1");
    let wanted = json!({
        "id": "e1", "pipeline_name": "crm-to-lake", "status": "success",
        "started_at": "2027-01-15T08:00:00.000Z", "finished_at": "2027-01-15T08:01:30.000Z",
        "duration": 90.0, "error": null, "metadata": {}, "records_processed": 0,
        "triggered_by": null, "update": null, "updates": 0,
    });
    assert_eq!(done["data"], wanted);
    assert_eq!(daemon.state().authorization.as_deref(), Some("Bearer let me in"));

    daemon.state().stats.cpu_usage = 77.0;
    daemon.state().executions.insert(0, execution("e2", Status::Pending));
    newest(&hub, "flext.stats", |data| data["metrics"]["cpu_usage"] == 77.0).await;
    newest(&hub, "flext.executions", |data| data["id"] == "e2").await;
    asked(&daemon, 3).await;
    let counts = ["flext.health", "flext.executions", "flext.source"];
    for (topic, count) in counts.into_iter().zip([1, 2, 1]) {
        assert_eq!(events(&hub, topic).await.len(), count, "{topic} did not change");
    }
    assert_eq!(daemon.state().askers.len(), 1, "one connection is used again and again");
}

#[tokio::test]
async fn nobody_else_publishes_where_a_source_does() {
    let daemon = FakeDaemon::start();
    let hub = TestHub::with_file(&settings(&daemon.url())).await;
    let free = TestHub::start().await;
    for topic in ["flext.stats", "flext.health", "flext.executions", "flext.source"] {
        let events = json!([{"topic": topic, "key": "main", "data": {"ok": true}}]);
        let request = hub.http().post(hub.url("/api/v1/publish")).json(&events);
        let answer = request.bearer_auth(hub.token("flext", &["**"])).send().await.unwrap();
        assert_eq!(answer.status(), 403, "{topic}");
        assert_eq!(answer.json::<Value>().await.unwrap()["code"], "reserved_topic");
        free.publish(events).await;
    }
    hub.publish(json!([{"topic": "flext.stat"}])).await;
    newest(&hub, "flext.stats", |data| data["metrics"]["active_pipelines"] == 3).await;
}

#[tokio::test]
async fn what_has_no_room_in_the_log_costs_nothing_else_that_a_daemon_says() {
    let daemon = FakeDaemon::start();
    let file = format!("[journal]\nmax_topics = 2\n{}", settings(&daemon.url()));
    let hub = TestHub::with_file(&file).await;
    let active = |wanted| move |data: &Value| data["metrics"]["active_pipelines"] == wanted;
    newest(&hub, "flext.stats", active(3)).await;
    daemon.state().stats.active_pipelines = 5;
    newest(&hub, "flext.stats", active(5)).await;
    assert!(events(&hub, "flext.source").await.is_empty());
    hub.metric_becomes_at_least("pulsehub_limit_hits_total{limit=\"topics\"}", 1.0).await;
}

#[tokio::test]
async fn a_daemon_that_is_killed_leaves_its_last_values_and_a_reason() {
    let mut daemon = FakeDaemon::start();
    let hub = TestHub::with_file(&settings(&daemon.url())).await;
    newest(&hub, "flext.source", |data| data["ok"] == true).await;
    daemon.kill();
    // The call that was under way may break off in another manner first.
    let refused = "the daemon cannot be reached: Connection refused";
    let is_refused =
        |data: &Value| data["error"].as_str().is_some_and(|error| error.starts_with(refused));
    let away = newest(&hub, "flext.source", is_refused).await;
    assert_eq!(away["data"]["ok"], false);
    hub.metric_becomes_at_least("pulsehub_source_failures_total{source=\"main\"}", 2.0).await;
    // Whatever it was asked meanwhile, no value was made up.
    let stats = events(&hub, "flext.stats").await;
    assert!(stats.iter().all(|event| event["data"]["metrics"]["active_pipelines"] == 3));
    assert!(
        events(&hub, "flext.health").await.iter().all(|event| event["data"]["healthy"] == true)
    );

    daemon.state().stats.active_pipelines = 5;
    daemon.start_again().await;
    let back = newest(&hub, "flext.source", |data| data["ok"] == true).await;
    assert!(back["data"]["since"].as_str() > away["data"]["since"].as_str());
    newest(&hub, "flext.stats", |data| data["metrics"]["active_pipelines"] == 5).await;
    let said = events(&hub, "flext.source").await;
    let since: BTreeSet<_> =
        said.iter().map(|event| event["data"]["since"].as_str().unwrap()).collect();
    assert_eq!(since.len(), 3, "well, away, well again: {said:?}");
}

#[tokio::test]
async fn a_slow_a_failing_and_a_talkative_daemon_are_told_apart() {
    let daemon = FakeDaemon::start();
    let hub = TestHub::with_file(&settings(&daemon.url())).await;
    newest(&hub, "flext.source", |data| data["ok"] == true).await;
    let says = |text: &'static str| {
        move |data: &Value| data["error"].as_str().is_some_and(|error| error.contains(text))
    };
    daemon.state().mood = Mood::Slow;
    newest(&hub, "flext.source", says("GetSystemStats: no answer within 300ms")).await;
    asked(&daemon, 2).await;
    let said = events(&hub, "flext.source").await;
    let reasons: Vec<_> = said.iter().filter_map(|event| event["data"]["error"].as_str()).collect();
    // Where everything is slow, so is a connection.
    assert!(reasons.iter().all(|reason| reason.ends_with("within 300ms")), "{reasons:?}");
    daemon.state().mood = Mood::Failing;
    newest(&hub, "flext.source", says("GetSystemStats: Internal: boom")).await;
    daemon.state().mood = Mood::Forgetful;
    newest(&hub, "flext.source", says("ListExecutions: Unavailable: no database")).await;
    let before = events(&hub, "flext.stats").await.len();
    asked(&daemon, 3).await;
    assert!(events(&hub, "flext.stats").await.len() > before, "what is answered is published");
    daemon.state().mood = Mood::Talkative;
    newest(&hub, "flext.source", says("ListExecutions: OutOfRange")).await;
    daemon.state().mood = Mood::Well;
    newest(&hub, "flext.source", |data| data["ok"] == true).await;
}

#[tokio::test]
async fn one_that_takes_a_connection_and_says_nothing_is_told_from_one_that_cannot_be_reached() {
    // Nobody accepts: the system takes the connection, like that of a process that was stopped.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    for (scheme, reason) in [
        ("http", "GetSystemStats: no answer within 300ms"),
        ("https", "the daemon cannot be reached: no connection within 300ms"),
    ] {
        let settings = settings(&format!("{scheme}://{address}"));
        let hub = TestHub::with_file(&settings).await;
        newest(&hub, "flext.source", |data| data["error"] == reason).await;
        hub.metric_becomes_at_least("pulsehub_source_failures_total{source=\"main\"}", 3.0).await;
        assert_eq!(events(&hub, "flext.source").await.len(), 1, "it is said once: {scheme}");
    }
}

#[tokio::test]
async fn a_daemon_behind_tls_is_asked_when_somebody_vouches_for_it() {
    let daemon = FakeDaemon::start_with_tls();
    let stranger = TestHub::with_file(&settings(&daemon.url())).await;
    let source = newest(&stranger, "flext.source", |_| true).await;
    let error = source["data"]["error"].as_str().unwrap();
    assert!(error.contains("certificate"), "{error}");
    assert_eq!(daemon.state().authorization, None, "no token goes to whom nobody knows");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, daemon.certificate()).unwrap();
    let settings = format!("{}ca_file = \"{}\"\n", settings(&daemon.url()), path.display());
    let hub = TestHub::with_file(&settings).await;
    newest(&hub, "flext.source", |data| data["ok"] == true).await;
    assert_eq!(daemon.state().authorization.as_deref(), Some("Bearer let me in"));
}

#[tokio::test]
async fn a_running_execution_is_followed_between_two_questions() {
    let daemon = FakeDaemon::start();
    daemon.state().executions = vec![execution("e1", Status::Running)];
    // It is asked so seldom that only the stream can tell.
    let settings = settings(&daemon.url()).replace("100ms", "1h");
    let hub = TestHub::with_file(&settings).await;
    newest(&hub, "flext.executions", |data| data["status"] == "running").await;
    let follows = async || daemon.state().followed.contains(&"e1".to_owned()).then_some(());
    eventually("a follower", follows).await;
    for percent in 1..=20 {
        let update = ExecutionUpdate {
            execution_id: "e1".into(),
            r#type: "progress".into(),
            progress: f64::from(percent) * 5.0,
            ..ExecutionUpdate::default()
        };
        daemon.state().updates.send(update).unwrap();
    }
    let half = newest(&hub, "flext.executions", |data| data["updates"] == 20).await;
    assert_eq!(half["data"]["update"]["progress"], 100.0);
    assert_eq!(
        (&half["data"]["pipeline_name"], &half["data"]["duration"]),
        (&json!("crm-to-lake"), &Value::Null)
    );
    let complete = ExecutionUpdate {
        execution_id: "e1".into(),
        r#type: "complete".into(),
        status: Status::Success.into(),
        ..ExecutionUpdate::default()
    };
    daemon.state().updates.send(complete).unwrap();
    newest(&hub, "flext.executions", |data| data["status"] == "success").await;
    let count = events(&hub, "flext.executions").await.len();
    assert!(count < 10, "{count} events for 21 updates");
}

#[tokio::test]
async fn what_a_running_execution_says_at_too_great_length_is_left_out_and_counted() {
    let daemon = FakeDaemon::start();
    daemon.state().executions = vec![execution("e1", Status::Running)];
    let hub = TestHub::with_file(&settings(&daemon.url())).await;
    let follows = async |times| (daemon.state().followed.len() >= times).then_some(());
    eventually("a follower", || follows(1)).await;
    let say = |message: String| {
        let id = "e1".to_owned();
        let update = ExecutionUpdate { execution_id: id, message, ..ExecutionUpdate::default() };
        daemon.state().updates.send(update).unwrap();
    };
    say("x".repeat(300 << 10));
    hub.metric_becomes("pulsehub_source_left_out_total{source=\"main\"}", 1.0).await;
    // It is followed again, and goes on.
    eventually("a follower", || follows(2)).await;
    say("done soon".to_owned());
    let update = newest(&hub, "flext.executions", |data| data["update"] != json!(null)).await;
    assert_eq!(update["data"]["update"]["message"], "done soon");
}

#[tokio::test]
async fn a_hub_that_starts_again_repeats_nothing() {
    let daemon = FakeDaemon::start();
    daemon.state().executions = vec![execution("e1", Status::Success)];
    let mut hub = TestHub::with_file(&settings(&daemon.url())).await;
    newest(&hub, "flext.executions", |_| true).await;
    newest(&hub, "flext.source", |_| true).await;
    hub.stop().await;
    hub.start_again().await;
    asked(&daemon, 3).await;
    for topic in ["flext.health", "flext.executions", "flext.source"] {
        assert_eq!(events(&hub, topic).await.len(), 1, "{topic}");
    }
}

#[tokio::test]
async fn that_a_daemon_is_well_is_said_again_and_again_also_by_a_hub_that_starts_again() {
    let daemon = FakeDaemon::start();
    let clock = Clock::manual(1_795_176_000_000);
    let mut hub = TestHub::with_file_and_clock(&settings(&daemon.url()), clock.clone()).await;
    let first = newest(&hub, "flext.source", |_| true).await;
    for (round, after) in (2..).zip([20_000, 40_000, 90_000]) {
        if after == 90_000 {
            hub.stop().await;
        }
        clock.set(1_795_176_000_000 + after);
        if after == 90_000 {
            hub.start_again().await;
        }
        let said = eventually("the same once more", async || {
            let said = events(&hub, "flext.source").await;
            (said.len() == round).then_some(said)
        })
        .await;
        assert_eq!(said.last().unwrap()["data"], first["data"]);
    }
    asked(&daemon, 3).await;
    assert_eq!(events(&hub, "flext.source").await.len(), 4);
}

#[tokio::test]
async fn in_a_cluster_one_node_asks_and_another_goes_on() {
    let redis = RedisServer::start().await;
    let daemon = FakeDaemon::start();
    let settings = format!("redis = \"{}\"\n{}", redis.url(), settings(&daemon.url()));
    let mut one = TestHub::with_file(&settings).await;
    newest(&one, "flext.source", |data| data["ok"] == true).await;
    let two = TestHub::with_file(&settings).await;
    asked(&daemon, 5).await;
    assert_eq!(daemon.state().askers.len(), 1, "once for all nodes");
    newest(&two, "flext.stats", |_| true).await;
    one.stop().await;
    eventually("the other node", async || (daemon.state().askers.len() == 2).then_some(())).await;
    daemon.state().stats.active_pipelines = 9;
    newest(&two, "flext.stats", |data| data["metrics"]["active_pipelines"] == 9).await;
    assert_eq!(events(&two, "flext.source").await.len(), 1, "the log knew how it is");
}

#[tokio::test]
async fn what_may_have_been_stored_is_looked_for_and_not_told_again() {
    let redis = RedisServer::start().await;
    let daemon = FakeDaemon::start();
    let cluster = "[cluster]\ntimeout = \"500ms\"\n";
    let file = format!("redis = \"{}\"\n{cluster}{}", redis.url(), settings(&daemon.url()));
    let hub = TestHub::with_file(&file).await;
    newest(&hub, "flext.source", |data| data["ok"] == true).await;
    redis.freeze();
    daemon.state().executions = vec![execution("e1", Status::Success)];
    let before = daemon.state().asked;
    let failures = "pulsehub_duty_failures_total{duty=\"source.main\"}";
    // What it told meanwhile had no answer, and is stored when Redis goes on.
    eventually("an event of which nobody knows", async || {
        let has_failed = hub.metric(failures).await > 0.0;
        (has_failed || daemon.state().asked > before + 2).then_some(())
    })
    .await;
    redis.thaw();
    newest(&hub, "flext.executions", |data| data["id"] == "e1").await;
    asked(&daemon, 5).await;
    assert_eq!(events(&hub, "flext.executions").await.len(), 1);
}

#[tokio::test]
async fn the_machine_is_told_of_on_hub_host() {
    let hub = TestHub::with(&[("host.interval", "200ms")]).await;
    let event = newest(&hub, "hub.host", |_| true).await;
    assert_eq!((&event["type"], &event["source"]), (&json!("metrics"), &json!("hub")));
    assert!(!event["key"].as_str().unwrap().is_empty());
    let metrics = &event["data"]["metrics"];
    assert!(metrics["cores"].as_u64() >= Some(1) && metrics["uptime_s"].as_u64() > Some(0));
    let percent = |name: &str| metrics[name].as_f64().unwrap();
    assert!((0.0..=100.0).contains(&percent("cpu_percent")), "{metrics}");
    assert!((0.1..=100.0).contains(&percent("memory_percent")), "{metrics}");
    let quiet = TestHub::with(&[("host.publish", "false"), ("host.interval", "100ms")]).await;
    newest(&quiet, "hub.metrics", |data| data["uptime_s"].as_u64() >= Some(1)).await;
    assert_eq!(events(&quiet, "hub.host").await.len(), 0);
}
