//! FLEXT's `/api/stats/`: made of what is published on its topics, by a source or by itself.

use pulsehub::sources::flext_proto;

use super::*;
use crate::support::{
    DEADLINE,
    flext::FakeDaemon,
    program::{python, variables},
};

fn stats(active: u64) -> Value {
    let metrics = json!({"active_pipelines": active, "total_executions": 1520, "success_rate": 97.5,
                         "cpu_usage": 41.25, "memory_usage": 63.0, "uptime_seconds": 86400, "active_connections": 12});
    json!({"topic": "flext.stats", "type": "metrics", "data": {"metrics": metrics}})
}

fn execution(id: &str, status: &str, duration: Value) -> Value {
    let data = json!({"id": id, "pipeline_name": "orders", "status": status,
                      "started_at": "2026-11-21T15:00:00.000Z", "duration": duration, "metadata": {}});
    json!({"topic": "flext.executions", "key": id, "data": data})
}

fn source(ok: bool, error: Value) -> Value {
    let data = json!({"ok": ok, "error": error, "since": "2026-11-21T15:00:00.000Z"});
    json!({"topic": "flext.source", "key": "flext", "data": data})
}

/// Waits until the stats are so. They are answered with 503 while they are not to be trusted.
async fn stats_become(hub: &TestHub, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually("/api/stats/", async || {
        let (status, value) = get(hub, "/api/stats/", &["**"]).await;
        let is_failure = value["stale"] == true;
        assert_eq!(status.as_u16(), if is_failure { 503 } else { 200 }, "{value}");
        assert_eq!(value["error"].is_string(), is_failure, "{value}");
        is_so(&value).then_some(value)
    })
    .await
}

#[tokio::test]
async fn the_stats_have_every_field_of_its_page_and_nothing_made_up() {
    let hub = TestHub::start().await;
    let nothing = json!({
        "stats": {"active_pipelines": null, "total_executions": null, "success_rate": null, "cpu_usage": null,
                  "memory_usage": null, "uptime_seconds": null, "active_connections": null},
        "health": null, "recent_executions": [], "stale": true,
        "error": "nothing has come on flext.stats yet",
    });
    assert_eq!(stats_become(&hub, |_| true).await, nothing);
    let health = json!({"healthy": true, "components": {"db": {"healthy": true}}});
    hub.publish(json!([
        stats(3),
        {"topic": "flext.health", "data": health},
        execution("e1", "running", json!(null)),
        execution("e2", "failed", json!(7.5)),
        source(true, json!(null)),
    ]))
    .await;
    let all = stats_become(&hub, |value| {
        value["error"] == json!(null) && value["recent_executions"][1] != json!(null)
    })
    .await;
    let row = |id: &str, status: &str, duration: Value, seconds: Value| {
        json!({"id": id, "pipeline_name": "orders", "status": status,
               "started_at": "2026-11-21T15:00:00.000Z", "duration": duration,
               "duration_seconds": seconds})
    };
    let failed = row("e2", "failed", json!("7s"), json!(7.5));
    let mut metrics = stats(3)["data"]["metrics"].clone();
    metrics["cpu_usage"] = json!(41.3);
    let wanted = json!({
        "stats": metrics, "health": health, "error": null, "stale": false,
        "recent_executions": [failed, row("e1", "running", json!(null), json!(null))],
    });
    assert_eq!(all, wanted);
    // Each execution is listed once, as it is now.
    hub.publish(json!([execution("e1", "success", json!(125))])).await;
    let all =
        stats_become(&hub, |value| value["recent_executions"][1]["status"] == "success").await;
    let success = row("e1", "success", json!("2m 5s"), json!(125));
    assert_eq!(all["recent_executions"], json!([failed, success]));
}

#[tokio::test]
async fn what_running_executions_say_hid_the_failures() {
    let hub = TestHub::start().await;
    let started = |n: u32, status: &str| {
        let mut execution = execution(&format!("e{n:02}"), status, json!(null));
        execution["data"]["started_at"] = json!(format!("2026-11-21T15:{n:02}:00.000Z"));
        execution
    };
    // One failed last, twelve that started before it run on and say so again and again.
    let mut events = vec![started(30, "failed")];
    events.extend((0..3).flat_map(|_| (0..12).map(|n| started(n, "running"))));
    events.push(json!({"topic": "flext.stats", "data": {"metrics": {"cpu_usage": 1}}}));
    hub.publish(json!(events)).await;
    let all = stats_become(&hub, |value| value["stats"]["cpu_usage"] == 1.0).await;
    let ids = |value: &Value| -> Vec<String> {
        let rows = value["recent_executions"].as_array().unwrap().iter();
        rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let newest: Vec<_> = (3..12).rev().map(|n| format!("e{n:02}")).collect();
    assert_eq!(ids(&all), [vec!["e30".to_owned()], newest].concat());
    assert_eq!(all["recent_executions"][0]["status"], "failed");
    let asked = |limit: &str| {
        let path = format!("/api/stats/?limit={limit}");
        let hub = &hub;
        async move { get(hub, &path, &["flext.*"]).await }
    };
    assert_eq!(ids(&asked("2").await.1), ["e30", "e11"]);
    assert_eq!(ids(&asked("50").await.1).len(), 13);
    for bad in ["0", "1001", "all", "-1"] {
        let (status, problem) = asked(bad).await;
        assert_eq!((status.as_u16(), &problem["code"]), (400, &json!("bad_request")), "{bad}");
        assert!(problem["detail"].as_str().unwrap().contains("`limit`"), "{problem}");
    }
}

#[tokio::test]
async fn its_own_socket_path_answers() {
    let hub = TestHub::start().await;
    hub.publish(json!([stats(3), source(true, json!(null))])).await;
    stats_become(&hub, |value| value["stale"] == false).await;
    let token = hub.token("page", &["flext.dashboard"]);
    let mut socket = hub.socket("/api/ws/dashboard-1", &[("x-api-key", &token)]).await;
    while socket.next_json().await["stats"]["active_pipelines"] != 3 {}
}

#[tokio::test]
async fn while_the_daemon_is_away_the_last_values_stay_and_the_reason_is_told() {
    let mut hub = TestHub::start().await;
    hub.publish(json!([stats(3), source(true, json!(null))])).await;
    stats_become(&hub, |value| value["stale"] == false).await;
    let reason = "Unable to connect to FLEXT daemon: connection refused";
    hub.publish(json!([source(false, json!(reason))])).await;
    let away = stats_become(&hub, |value| value["stale"] == true).await;
    assert_eq!((&away["error"], &away["stats"]["active_pipelines"]), (&json!(reason), &json!(3)));
    eventually("the reason on the topic", async || {
        let all = published(&hub, "flext.dashboard").await;
        all.last().filter(|last| last["error"] == reason).map(drop)
    })
    .await;
    hub.stop().await;
    hub.start_again().await;
    assert_eq!(stats_become(&hub, |_| true).await, away);
    hub.publish(json!([source(true, json!(null)), stats(4)])).await;
    stats_become(&hub, |value| {
        value["error"] == json!(null) && value["stats"]["active_pipelines"] == 4
    })
    .await;
}

#[tokio::test]
async fn values_that_nobody_fetches_are_stale_when_they_fall_silent() {
    let (hub, clock) = standing("").await;
    hub.publish(json!([stats(3)])).await;
    stats_become(&hub, |value| value["stale"] == false).await;
    clock.set(NOW + 60_000);
    stats_become(&hub, |value| value["stale"] == false).await;
    clock.set(NOW + 60_001);
    let silent = stats_become(&hub, |value| value["stale"] == true).await;
    let reason = format!("nothing has come on flext.stats since {}", pulsehub::time::rfc3339(NOW));
    assert_eq!((&silent["error"], &silent["stats"]["cpu_usage"]), (&json!(reason), &json!(41.3)));
    // The topic says so too, though nothing was published.
    eventually("the silence on the topic", async || {
        published(&hub, "flext.dashboard")
            .await
            .last()
            .filter(|last| last["stale"] == true)
            .map(drop)
    })
    .await;
    hub.publish(json!([stats(5)])).await;
    stats_become(&hub, |value| value["stale"] == false).await;
}

#[tokio::test]
async fn a_source_that_is_gone_keeps_nothing_fresh_for_ever() {
    let (mut hub, clock) = standing("").await;
    hub.publish(json!([stats(3), source(true, json!(null))])).await;
    stats_become(&hub, |value| value["stale"] == false).await;
    // It goes on to say that they are still so, and they are, however old.
    clock.set(NOW + 50_000);
    hub.publish(json!([source(true, json!(null))])).await;
    let told = pulsehub::time::rfc3339(NOW + 50_000);
    clock.set(NOW + 110_000);
    stats_become(&hub, |value| value["stale"] == false).await;
    // Then nobody says anything any more: it was taken out of the settings, or its node has died.
    clock.set(NOW + 110_001);
    let gone = stats_become(&hub, |value| value["stale"] == true).await;
    assert_eq!(gone["error"], format!("nothing has come on flext.source since {told}"));
    assert_eq!(gone["stats"]["active_pipelines"], 3, "the last values stay");
    hub.stop().await;
    hub.start_again().await;
    assert_eq!(stats_become(&hub, |_| true).await, gone);
    hub.publish(json!([source(true, json!(null))])).await;
    stats_become(&hub, |value| value["stale"] == false).await;
}

#[tokio::test]
async fn the_last_words_of_a_source_that_is_gone_do_not_make_others_values_stale_for_ever() {
    let (hub, clock) = standing("").await;
    hub.publish(json!([source(false, json!("away")), stats(3)])).await;
    stats_become(&hub, |value| value["error"] == "away").await;
    clock.set(NOW + 60_001);
    hub.publish(json!([stats(4)])).await;
    stats_become(&hub, |value| {
        value["error"] == json!(null) && value["stats"]["active_pipelines"] == 4
    })
    .await;
}

#[tokio::test]
async fn from_a_daemon_that_speaks_grpc_to_its_page_and_to_whoever_subscribes() {
    let mut daemon = FakeDaemon::start();
    let executions = ["e1", "e2"].map(|id| flext_proto::Execution {
        id: id.into(),
        pipeline_id: "crm-to-lake".into(),
        status: flext_proto::Status::Running.into(),
        ..Default::default()
    });
    daemon.state().executions = executions.to_vec();
    let hub = TestHub::with_file(&format!(
        "[[source]]\nname = \"flext\"\nkind = \"flext-grpc\"\naddress = \"{}\"\n\
         interval = \"100ms\"\ntimeout = \"1s\"\n",
        daemon.url()
    ))
    .await;
    let page = stats_become(&hub, |value| {
        value["stale"] == false && value["recent_executions"][1] != json!(null)
    })
    .await;
    assert_eq!(page["stats"]["active_pipelines"], 3);
    assert_eq!((&page["stats"]["success_rate"], &page["error"]), (&json!(98.5), &json!(null)));
    assert_eq!(page["health"]["healthy"], true);
    let row = json!({"pipeline_name": "crm-to-lake", "status": "running", "started_at": null,
                     "duration": null, "duration_seconds": null});
    for execution in page["recent_executions"].as_array().unwrap() {
        let mut row = row.clone();
        row["id"] = execution["id"].clone();
        assert_eq!(*execution, row);
    }

    let topics = "topics=flext.dashboard&latest=1&format=data";
    let path = format!("/ws/real-time?{topics}&ticket={}", ticket(&hub, &["flext.*"]).await);
    let mut socket = hub.socket(&path, &[]).await;
    let mut comes = async |what: &str, is_so: &dyn Fn(&Value) -> bool| {
        let next = async {
            loop {
                let value = socket.next_json().await;
                if is_so(&value) {
                    return value;
                }
            }
        };
        tokio::time::timeout(DEADLINE, next).await.unwrap_or_else(|_| panic!("no {what}"))
    };
    comes("newest", &|value| value["stats"]["active_pipelines"] == 3).await;
    daemon.state().stats.active_pipelines = 4;
    comes("change", &|value| value["stats"]["active_pipelines"] == 4).await;
    daemon.kill();
    let away = comes("reason", &|value| value["stale"] == true).await;
    assert!(away["error"].is_string(), "{away}");
    assert_eq!(away["stats"]["active_pipelines"], 4, "the last values stay");
    stats_become(&hub, |value| value["stale"] == true && value["stats"] == away["stats"]).await;
    daemon.state().stats.active_pipelines = 5;
    daemon.start_again().await;
    let back = |value: &Value| value["stale"] == false && value["stats"]["active_pipelines"] == 5;
    comes("fresh value", &back).await;
    stats_become(&hub, back).await;
}

/// docs/guides/flext.md, whose view `tests/producers/flext.py` takes from there.
#[tokio::test]
async fn the_guides_view_hands_the_answer_to_those_who_are_signed_in() {
    let hub = TestHub::start().await;
    let variables = variables(&hub, &["flext.**"]);
    let before: Value = serde_json::from_str(&python("flext.py", &variables).await).unwrap();
    assert_eq!(before[0]["status"], 302, "{before}");
    assert_eq!((&before[1]["status"], &before[1]["body"]["stale"]), (&json!(503), &json!(true)));
    hub.publish(json!([stats(3), source(true, json!(null))])).await;
    stats_become(&hub, |value| value["stale"] == false).await;
    let after: Value = serde_json::from_str(&python("flext.py", &variables).await).unwrap();
    assert_eq!(after[0]["status"], 302, "{after}");
    assert_eq!(after[1]["status"], 200, "{after}");
    assert_eq!(after[1]["body"]["stats"]["active_pipelines"], 3, "{after}");
}

/// Not a test of anything: what it costs, for docs/performance.md.
#[tokio::test]
#[ignore = "a measurement: cargo test --test hub -- --ignored --nocapture the_stats_are"]
async fn the_stats_are_answered_in() {
    let hub = TestHub::start().await;
    hub.publish(json!([stats(3), source(true, json!(null))])).await;
    hub.publish((0..500).map(|n| execution(&format!("e{n}"), "success", json!(n))).collect()).await;
    stats_become(&hub, |value| value["stale"] == false).await;
    let token = hub.token("reader", &["flext.dashboard"]);
    let mut times = Vec::new();
    for _ in 0..5000 {
        let started = Instant::now();
        let answer =
            hub.http().get(hub.url("/api/stats/")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.bytes().await.unwrap().first(), Some(&b'{'));
        times.push(started.elapsed());
    }
    times.sort();
    println!("p50 {:?}, p95 {:?}, p99 {:?}", times[2500], times[4750], times[4950]);
}
