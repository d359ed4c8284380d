//! VoiceHive's dashboard: what it asks for, in the shapes it knows.

use super::*;
use crate::odd_payloads::CORPUS;
use crate::support::program::{python, variables};

const PATHS: [&str; 9] = [
    "metrics",
    "health",
    "call-volume",
    "recent-activity",
    "alerts",
    "call-logs",
    "performance-metrics",
    "call-analytics",
    "usage-analytics",
];

/// A call of so many minutes.
fn call(minutes: f64, status: &str) -> Value {
    let data = json!({"duration": minutes * 60.0, "status": status, "agent": "roxy"});
    json!({"topic": "voicehive.calls", "type": "call", "data": data})
}

fn metrics(memory: f64, more: Value) -> Value {
    let mut metrics = json!({"memory_usage": memory, "cpu_usage": 35.0, "active_calls": 8});
    metrics.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"topic": "voicehive.metrics", "type": "metrics", "data": {"metrics": metrics}})
}

async fn metrics_become(hub: &TestHub, name: &str, wanted: Value) -> Value {
    becomes(hub, "/api/dashboard/metrics", |value| value[name] == wanted).await
}

#[tokio::test]
async fn what_nobody_has_told_is_null_and_a_count_of_nothing_is_0() {
    let hub = TestHub::start().await;
    let summary = becomes(&hub, "/api/dashboard/metrics", |_| true).await;
    let nothing = json!({"total_calls": 0, "active_calls": null, "success_rate": null, "avg_duration": null,
                         "avg_duration_seconds": null, "system_health": "warning", "alerts": 0});
    assert_eq!(without(summary, "last_updated"), nothing);
    let health = becomes(&hub, "/api/dashboard/health", |_| true).await;
    let nothing = json!({"status": "warning", "api_response_time": null, "memory_usage": null,
                         "cpu_usage": null, "active_alerts": 0, "uptime": null});
    assert_eq!(health, nothing);
    assert_eq!(becomes(&hub, "/api/dashboard/recent-activity", |_| true).await, json!([]));
    let volume = becomes(&hub, "/api/dashboard/call-volume", |_| true).await;
    let volume = volume.as_array().unwrap();
    assert_eq!(volume.len(), 12);
    assert!(volume.iter().all(|row| row["calls"] == 0), "{volume:?}");
    assert_eq!(becomes(&hub, "/api/dashboard/alerts", |_| true).await, json!([]));
    let logs = becomes(&hub, "/api/dashboard/call-logs", |_| true).await;
    assert_eq!(logs, json!({"logs": [], "total": 0}));
    let performance = becomes(&hub, "/api/dashboard/performance-metrics", |_| true).await;
    let nothing = json!({"response_times": {"api": null}, "throughput": {"calls_per_minute": 0.0},
                         "error_rates": {"calls": null}, "resource_usage": {"memory": null, "cpu": null}});
    assert_eq!(performance, nothing);
    let analytics = becomes(&hub, "/api/dashboard/call-analytics", |_| true).await;
    let trend = analytics["success_rate_trend"].as_array().unwrap();
    assert_eq!(trend.len(), 7);
    assert!(trend.iter().all(|day| day["rate"] == Value::Null), "{analytics}");
    assert_eq!(
        (&analytics["common_issues"], &analytics["sentiment_analysis"]),
        (&json!([]), &json!({}))
    );
}

#[tokio::test]
async fn its_other_pages_show_what_is_known_of_calls_and_alerts() {
    let (hub, _) = standing("").await;
    let time = pulsehub::time::rfc3339(NOW);
    let at = |mut event: Value| {
        event["time"] = json!(time);
        event
    };
    let alert = |key: &str, status: &str| {
        let data = json!({"status": status, "severity": "warning", "message": "High memory usage"});
        at(json!({"topic": "voicehive.alerts", "key": key, "type": "alert", "data": data}))
    };
    hub.publish(json!([
        at(call(4.2, "success")),
        at(call(1.0, "error")),
        at(metrics(72.0, json!({"api_response_time": 45}))),
        alert("memory", "firing"),
        alert("calls", "firing"),
        alert("calls", "resolved"),
    ]))
    .await;
    let logs = becomes(&hub, "/api/dashboard/call-logs", |logs| logs["total"] == 2).await;
    let newest = json!({"timestamp": time, "duration": 60.0, "status": "error", "caller": null, "agent": "roxy",
                        "summary": null, "sentiment": null, "id": logs["logs"][0]["id"]});
    assert_eq!((&logs["logs"][0], logs["logs"].as_array().unwrap().len()), (&newest, 2));
    let one = becomes(&hub, "/api/dashboard/call-logs?limit=1", |_| true).await;
    assert_eq!(one["logs"], json!([newest]));
    let mut fields = json!({"caller": "Ada", "agent": "leo"});
    let mut third = at(call(2.0, "success"));
    third["data"].as_object_mut().unwrap().append(fields.as_object_mut().unwrap());
    hub.publish(json!([third])).await;
    becomes(&hub, "/api/dashboard/call-logs", |logs| logs["total"] == 3).await;
    for (query, agents) in [
        ("status=success", &["leo", "roxy"][..]),
        ("status=success&limit=1", &["leo"]),
        ("status=error,success&agent=roxy", &["roxy", "roxy"]),
        ("status=error&status=success&agent=leo", &["leo"]),
        ("status=nothing", &[]),
        ("status=", &["leo", "roxy", "roxy"]),
    ] {
        let path = format!("/api/dashboard/call-logs?{query}");
        let logs = becomes(&hub, &path, |_| true).await;
        let rows = logs["logs"].as_array().unwrap().iter();
        assert_eq!(rows.map(|row| &row["agent"]).collect::<Vec<_>>(), agents, "{query}");
        assert_eq!(logs["total"], 3, "of all calls");
    }
    let alerts = becomes(&hub, "/api/dashboard/alerts", |alerts| alerts[0] != Value::Null).await;
    let wanted = json!([{"id": "memory", "severity": "warning", "message": "High memory usage",
                         "timestamp": time, "acknowledged": null}]);
    assert_eq!(alerts, wanted);
    let path = "/api/dashboard/performance-metrics";
    let performance = becomes(&hub, path, |value| value["error_rates"]["calls"] == 33.3).await;
    assert_eq!(performance["throughput"], json!({"calls_per_minute": 0.6}));
    assert_eq!(performance["resource_usage"], json!({"memory": 72.0, "cpu": 35.0}));
    let usage = becomes(&hub, "/api/dashboard/usage-analytics", |_| true).await;
    let today = &time[..10];
    assert_eq!(usage["call_volume"][6], json!({"date": today, "calls": 3}));
    assert_eq!(usage["success_rate"][6], json!({"date": today, "rate": 66.7}));
    assert_eq!(usage["avg_duration"][6], json!({"date": today, "duration": 144.0}));
    assert_eq!(usage["avg_duration"][0]["duration"], Value::Null, "nothing is made up");
    assert_eq!(usage["top_callers"], json!([]));
    let month = becomes(&hub, "/api/dashboard/usage-analytics?days=30", |_| true).await;
    let rows = month["call_volume"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[9]["calls"]), (10, &json!(3)), "three days a row");
    let activity = becomes(&hub, "/api/dashboard/recent-activity?limit=5", |_| true).await;
    assert_eq!(activity.as_array().unwrap().len(), 5);
    let row = |at: usize| ["timestamp", "event", "details"].map(|name| activity[at][name].clone());
    assert_eq!(row(1), [json!(time), json!("alert"), json!("High memory usage")]);
    assert_eq!(row(0), [json!(time), json!("call"), Value::Null]);
}

#[tokio::test]
async fn what_its_page_asks_for_and_the_hub_cannot_do_was_passed_over_or_there_was_no_such_path() {
    let hub = TestHub::start().await;
    for (path, says) in [
        (
            "/api/dashboard/call-logs?offset=50",
            "there is no parameter `offset` here, only hours, days, limit, agent or status",
        ),
        ("/api/dashboard/alerts?status=open", "only hours, days or limit"),
        ("/api/dashboard/call-logs?limit=5&limit=6", "`limit` is given twice"),
        ("/api/dashboard/usage-analytics?days=31", "`days` must be a whole number from 1 to 30"),
        ("/api/dashboard/usage-analytics?days=7&hours=168", "give `hours` or `days`, not both"),
    ] {
        let (status, problem) = get(&hub, path, &["**"]).await;
        assert_eq!((status.as_u16(), &problem["code"]), (400, &json!("bad_request")), "{path}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{path}: {problem}");
    }
    let path = hub.url("/api/dashboard/alerts/memory/acknowledge");
    let answer = hub.http().post(path).bearer_auth(hub.token("page", &["**"])).send().await;
    let problem: Value = answer.unwrap().json().await.unwrap();
    assert_eq!((&problem["status"], &problem["code"]), (&json!(404), &json!("not_found")));
    let says = "nothing is below /api/dashboard/alerts, which is only read";
    assert!(problem["detail"].as_str().unwrap().starts_with(says), "{problem}");
    // A path that only begins alike is nobody's.
    let (_, problem) = get(&hub, "/api/dashboard/alertsx", &["**"]).await;
    assert!(problem["detail"].as_str().unwrap().starts_with("no such path"), "{problem}");
}

#[tokio::test]
async fn the_dashboard_gets_its_numbers_in_its_own_shapes_and_keeps_them_over_a_restart() {
    let mut hub = TestHub::start().await;
    let calls =
        [call(4.2, "success"), call(3.0, "success"), call(6.0, "abandoned"), call(4.1, "success")];
    hub.publish(json!(calls)).await;
    let uptime = json!({"uptime_seconds": 477_000, "api_response_time": 45});
    let alert = |key: &str, status: &str| {
        let data = json!({"status": status, "severity": "warning", "message": "High memory usage"});
        json!({"topic": "voicehive.alerts", "key": key, "type": "alert", "data": data})
    };
    hub.publish(json!([
        metrics(72.0, uptime),
        alert("memory", "firing"),
        alert("calls", "firing"),
        alert("calls", "resolved")
    ]))
    .await;
    for round in 0..2 {
        let summary = metrics_become(&hub, "alerts", json!(1)).await;
        let summary = if summary["active_calls"] == 8 && summary["total_calls"] == 4 {
            summary
        } else {
            becomes(&hub, "/api/dashboard/metrics", |value| {
                value["active_calls"] == 8 && value["total_calls"] == 4
            })
            .await
        };
        let wanted = json!({"total_calls": 4, "active_calls": 8, "success_rate": 75.0, "avg_duration": 4.3,
                            "avg_duration_seconds": 259.5, "system_health": "warning", "alerts": 1});
        assert_eq!(without(summary, "last_updated"), wanted, "round {round}");
        let health = becomes(&hub, "/api/dashboard/health", |_| true).await;
        let wanted = json!({"status": "warning", "api_response_time": 45.0, "memory_usage": 72.0,
                            "cpu_usage": 35.0, "active_alerts": 1, "uptime": "5d 12h 30m"});
        assert_eq!(health, wanted, "round {round}");
        let activity = becomes(&hub, "/api/dashboard/recent-activity", |_| true).await;
        let activity = activity.as_array().unwrap();
        assert_eq!(activity.len(), 7);
        assert_eq!(
            (&activity[0]["status"], &activity[0]["message"]),
            (&json!("resolved"), &json!("High memory usage"))
        );
        let oldest = &activity[6];
        assert_eq!(
            (&oldest["topic"], &oldest["duration"], &oldest["agent"]),
            (&json!("voicehive.calls"), &json!(252.0), &json!("roxy"))
        );
        let volume = becomes(&hub, "/api/dashboard/call-volume?hours=24", |_| true).await;
        let counted: u64 =
            volume.as_array().unwrap().iter().map(|row| row["calls"].as_u64().unwrap()).sum();
        assert_eq!((volume.as_array().unwrap().len(), counted), (12, 4), "{volume}");
        if round == 0 {
            hub.stop().await;
            hub.start_again().await;
        }
    }
}

#[tokio::test]
async fn who_may_only_publish_calls_cannot_write_into_what_is_derived_of_them() {
    let hub = TestHub::start().await;
    becomes(&hub, "/api/dashboard/metrics", |_| true).await;
    let name = "voicehive.dashboard.total_calls";
    let sample = |label: usize| json!({"name": name, "value": 7, "labels": {"n": label}});
    let mut samples: Vec<_> = (0..201).map(sample).collect();
    // One that would fix the kind before the first call does, and one that stands in for no series.
    samples.push(json!({"name": name, "type": "counter", "value": 7}));
    samples.push(json!({"name": name, "type": "histogram", "count": 7, "sum": 7}));
    let event = json!({"topic": "voicehive.calls", "type": "samples",
                       "data": {"samples": samples, "duration": 240.0, "status": "success"}});
    hub.publish(json!([event])).await;
    hub.metric_becomes("pulsehub_series_drops_total{reason=\"derived\"}", 202.0).await;
    hub.publish(json!([call(6.0, "success")])).await;
    let summary = metrics_become(&hub, "total_calls", json!(2)).await;
    assert_eq!(summary["avg_duration"], 5.0);
    eventually("what is published", async || {
        let newest = published(&hub, "voicehive.dashboard.summary").await.pop()?;
        (newest["total_calls"] == 2).then_some(())
    })
    .await;
    let volume = becomes(&hub, "/api/dashboard/call-volume", |_| true).await;
    let calls = volume.as_array().unwrap().iter().filter_map(|row| row["calls"].as_u64());
    assert_eq!(calls.sum::<u64>(), 2, "{volume}");
}

#[tokio::test]
async fn the_systems_health_follows_the_thresholds_of_its_alert_rules() {
    let hub = TestHub::start().await;
    let healthy: Vec<_> = (0..38).map(|_| call(4.0, "success")).collect();
    hub.publish(json!(healthy)).await;
    for (events, word) in [
        (vec![metrics(72.0, json!({}))], "healthy"),
        (vec![metrics(80.5, json!({}))], "warning"),
        (vec![metrics(91.0, json!({}))], "error"),
        (vec![metrics(72.0, json!({"api_response_time": 2500}))], "warning"),
        (vec![metrics(72.0, json!({"api_response_time": 100}))], "healthy"),
        (vec![call(11.0, "success")], "warning"),
        (vec![call(1.0, "error"), call(1.0, "error"), call(1.0, "error")], "error"),
    ] {
        hub.publish(json!(events)).await;
        metrics_become(&hub, "system_health", json!(word)).await;
        becomes(&hub, "/api/dashboard/health", |health| health["status"] == word).await;
    }
}

#[test]
fn its_two_words_for_health_go_by_the_same_thresholds() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/voicehive.toml");
    let file: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    let shape = |path: &str| {
        let mut projections = file["projection"].as_array().unwrap().iter();
        let is_there = |projection: &&toml::Value| {
            projection.get("path").and_then(toml::Value::as_str) == Some(path)
        };
        projections.find(is_there).unwrap()["shape"].clone()
    };
    let (metrics, health) = (shape("/api/dashboard/metrics"), shape("/api/dashboard/health"));
    assert_eq!(metrics["system_health"]["words"].as_array().unwrap().len(), 7);
    assert_eq!(metrics["system_health"], health["status"]);
}

#[tokio::test]
async fn odd_payloads_cost_no_projection_what_stands_beside_them() {
    let hub = TestHub::start().await;
    let publish = async |body: String| {
        let request = hub.http().post(hub.url("/api/v1/publish")).body(body);
        let request = request.header("content-type", "application/x-ndjson");
        let answer = request.bearer_auth(hub.token("odd", &["**"])).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
    };
    // Whole, inside a call that is otherwise good, and as the name of a member beside the good ones.
    let mut lines = String::new();
    for odd in CORPUS.lines() {
        for topic in ["calls", "metrics", "alerts"] {
            lines += &format!("{{\"topic\":\"voicehive.{topic}\",\"data\":{odd}}}\n");
        }
        let name = if odd.starts_with('"') { odd } else { r#""\udfff""# };
        for data in
            [format!("{{\"odd\":{odd},\"duration\":4}}"), format!("{{{name}:1,\"duration\":7}}")]
        {
            lines += &format!("{{\"topic\":\"voicehive.calls\",\"data\":{data}}}\n");
        }
    }
    publish(lines).await;
    hub.publish(json!([metrics(72.0, json!({})), call(4.0, "success")])).await;
    let odd = CORPUS.lines().count();
    let all = 3 * odd + 1;
    let summary = metrics_become(&hub, "total_calls", json!(all)).await;
    let average = (4 * odd + 7 * odd + 240) as f64 / (2 * odd + 1) as f64;
    // The last call is one of four minutes.
    assert_eq!(summary["avg_duration_seconds"], (average * 10.0).round() / 10.0, "{summary}");
    metrics_become(&hub, "active_calls", json!(8)).await;
    let calls =
        |value: &Value| value.as_array().unwrap().iter().any(|item| item["agent"] == "roxy");
    becomes(&hub, "/api/dashboard/recent-activity", calls).await;
    eventually("what is published", async || {
        published(&hub, "voicehive.dashboard.summary")
            .await
            .last()
            .filter(|last| last["total_calls"] == all && last["active_calls"] == 8)
            .map(drop)
    })
    .await;
}

#[tokio::test]
async fn the_volume_of_calls_is_told_for_as_many_hours_as_are_asked_for() {
    let hub = TestHub::start().await;
    hub.publish(json!([call(1.0, "success"), call(2.0, "error")])).await;
    metrics_become(&hub, "total_calls", json!(2)).await;
    for (hours, rows) in [("1", 12), ("24.0", 12), ("48", 12), ("168", 7), ("720", 10)] {
        let path = format!("/api/dashboard/call-volume?hours={hours}");
        let volume = becomes(&hub, &path, |_| true).await;
        let volume = volume.as_array().unwrap();
        let calls: u64 = volume.iter().map(|row| row["calls"].as_u64().unwrap()).sum();
        assert_eq!((volume.len(), calls), (rows, 2), "{hours}: {volume:?}");
        let last = volume.last().unwrap()["time"].as_str().unwrap();
        assert_eq!(last.len(), if hours.parse::<f64>().unwrap() > 24.0 { 16 } else { 5 }, "{last}");
    }
    for bad in ["0", "1.5", "721", "-1", "all", ""] {
        let (status, problem) =
            get(&hub, &format!("/api/dashboard/call-volume?hours={bad}"), &["**"]).await;
        assert_eq!((status.as_u16(), &problem["code"]), (400, &json!("bad_request")), "{bad}");
        assert!(problem["detail"].as_str().unwrap().contains("from 1 to 720"), "{problem}");
    }
}

#[tokio::test]
async fn hours_that_are_not_kept_any_more_had_no_known_number_of_calls() {
    let (hub, _) = standing("[series]\nkeep = \"1d\"\n").await;
    // The series is there, and none of it is so old.
    for calls in [0, 1] {
        let path = "/api/dashboard/call-volume?hours=168";
        let volume = becomes(&hub, path, |volume| volume[6]["calls"] == calls).await;
        let known: Vec<_> = (0..7).map(|row| volume[row]["calls"].is_number()).collect();
        assert_eq!(known, [false, false, false, false, false, false, true], "{volume}");
        if calls == 0 {
            let time = pulsehub::time::rfc3339(NOW);
            let mut call = call(4.0, "success");
            call["time"] = json!(time);
            hub.publish(json!([call])).await;
        }
    }
}

#[tokio::test]
async fn the_socket_sends_what_it_is_now_and_then_each_change() {
    let hub = TestHub::start().await;
    hub.publish(json!([call(4.0, "success"), metrics(72.0, json!({}))])).await;
    let whole = |value: &Value| value["total_calls"] == 1 && value["active_calls"] == 8;
    becomes(&hub, "/api/dashboard/metrics", whole).await;
    let token = hub.token("d", &["voicehive.dashboard.live"]);
    let mut socket = hub.socket("/api/dashboard/ws/real-time", &[("x-api-key", &token)]).await;
    let first = loop {
        let value = socket.next_json().await;
        if whole(&value) {
            break value;
        }
    };
    let wanted = json!({"total_calls": 1, "active_calls": 8, "success_rate": 100.0});
    assert_eq!(without(first, "timestamp"), wanted);
    hub.publish(json!([call(4.0, "error")])).await;
    let wanted = json!({"total_calls": 2, "active_calls": 8, "success_rate": 50.0});
    assert_eq!(without(socket.next_json().await, "timestamp"), wanted);
    let mut another = hub.socket("/api/dashboard/ws/real-time", &[("x-api-key", &token)]).await;
    assert_eq!(without(another.next_json().await, "timestamp"), wanted);
}

/// What the guide has anonymous visitors read.
const ANONYMOUS: &str = "[auth.anonymous]\nsubscribe = [\"voicehive.dashboard.*\"]\npublish = []\n";

#[tokio::test]
async fn the_python_of_its_documents_reads_and_the_guides_python_writes() {
    let hub = TestHub::with_file(ANONYMOUS).await;
    let said = python("voicehive.py", &variables(&hub, &["voicehive.**"])).await;
    let answers: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(answers["metrics"]["total_calls"], 2, "{said}");
    assert_eq!(answers["metrics"]["avg_duration"], 4.3, "{said}");
    assert_eq!(answers["health"]["cpu_usage"], 35.0, "{said}");
    assert_eq!(answers["volume"].as_array().unwrap().len(), 12, "{said}");
    assert_eq!(answers["activity"].as_array().unwrap().len(), 2, "{said}");
    for path in PATHS {
        let url = hub.url(&format!("/api/dashboard/{path}"));
        let answer = hub.http().get(url).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/json");
    }
}
