//! What VoiceHive's and FLEXT's dashboards read, made of what they publish.

use pulsehub::sources::flext_proto::{ComponentHealth, Execution, Status};
use serde_json::{Value, json};

use super::{
    request::{get, post},
    scene::{NOW, On, Scene},
};
use crate::support::flext::FakeDaemon;

#[tokio::test]
async fn voicehive_and_flext() {
    show_dashboards(On::Folder).await;
}

#[tokio::test]
async fn voicehive_and_flext_with_redis() {
    show_dashboards(On::Redis).await;
}

async fn show_dashboards(on: On) {
    let mut scene = Scene::start_on(on, "projections", "").await;
    let voice = scene.user("voice", &["voicehive.**", "flext.**"]);
    const PATHS: [&str; 10] = [
        "/api/dashboard/metrics",
        "/api/dashboard/health",
        "/api/dashboard/call-volume",
        "/api/dashboard/recent-activity",
        "/api/stats/",
        "/api/dashboard/alerts",
        "/api/dashboard/call-logs",
        "/api/dashboard/performance-metrics",
        "/api/dashboard/call-analytics",
        "/api/dashboard/usage-analytics",
    ];
    // FLEXT's stats are answered with 503 before they have come, and so is everything while the hub starts.
    let stands = |status: u16, value: &Value| status == 200 || value["stale"] == true;

    scene.note("before anything has come");
    for path in PATHS {
        scene.ask_until(get(path).by(&voice), stands).await;
    }
    scene.ask(get(PATHS[0])).await;

    scene.note("what is published");
    let alert = json!({"status": "firing", "severity": "warning", "message": "High memory usage"});
    let metrics = json!({"memory_usage": 72.0, "cpu_usage": 35.0, "active_calls": 8, "uptime_seconds": 477_000,
                         "api_response_time": 45});
    let call = |n: u32, status: &str| {
        json!({"topic": "voicehive.calls", "id": format!("c{n}"),
               "data": {"duration": f64::from(n) * 1.5, "status": status, "agent": "roxy"}})
    };
    let stats = json!({"active_pipelines": 3, "total_executions": 1520, "success_rate": 97.5, "cpu_usage": 41.25,
                       "memory_usage": 63.0, "uptime_seconds": 86400, "active_connections": 12});
    let execution = json!({"id": "e1", "pipeline_name": "orders", "status": "running",
                           "started_at": "2027-01-15T07:59:00.000Z", "duration": null});
    let events = json!([
        call(2, "success"),
        call(4, "abandoned"),
        call(6, "success"),
        {"topic": "voicehive.metrics", "type": "metrics", "id": "m1", "data": {"metrics": metrics}},
        {"topic": "voicehive.alerts", "type": "alert", "key": "memory", "id": "a1", "data": alert},
        {"topic": "flext.stats", "type": "metrics", "id": "s1", "data": {"metrics": stats}},
        {"topic": "flext.health", "id": "h1", "data": {"healthy": true, "components": {"db": {"healthy": true}}}},
        {"topic": "flext.executions", "key": "e1", "id": "e1", "data": execution},
        {"topic": "flext.source", "key": "flext", "id": "f1",
         "data": {"ok": true, "error": null, "since": "2027-01-15T07:00:00.000Z"}},
    ]);
    scene.ask(post("/api/v1/publish").by(&voice).json(&events)).await;
    let waits: [fn(&Value) -> bool; 10] = [
        |value| value["total_calls"] == 3 && value["alerts"] == 1 && value["active_calls"] == 8,
        |value| value["active_alerts"] == 1 && value["uptime"] != Value::Null,
        |value| value.as_array().unwrap().iter().any(|row| row["calls"] == 3),
        |value| value.as_array().unwrap().len() == 4,
        |value| value["recent_executions"][0]["id"] == "e1" && value["health"] != Value::Null,
        |value| value[0]["id"] == "memory",
        |value| value["total"] == 3,
        |value| value["resource_usage"]["memory"] != Value::Null,
        |value| value["success_rate_trend"][6]["rate"] != Value::Null,
        |value| value["call_volume"][6]["calls"] == 3,
    ];
    for (path, is_so) in PATHS.into_iter().zip(waits) {
        scene.ask_until(get(path).by(&voice), |status, value| status == 200 && is_so(value)).await;
    }
    scene.ask(get("/api/dashboard/call-volume?hours=2").by(&voice)).await;

    scene.note("the newest at once on its socket, and on its topic");
    let key = [("x-api-key", voice.token.as_str())];
    let path = "/api/v1/history?topics=voicehive.dashboard.live&limit=1";
    let is_told = |_: u16, page: &Value| page["events"][0]["data"]["total_calls"] == 3;
    scene.ask_until(get(path).by(&voice), is_told).await;
    let mut live = scene.socket_at("voice", "/api/dashboard/ws/real-time", &key).await;
    scene.hear(&mut live).await;

    scene.note("ten minutes later nobody has told anything");
    scene.clock.set(NOW + 600_000);
    scene
        .ask_until(get("/api/dashboard/metrics").by(&voice), |_, value| {
            value["active_calls"] == Value::Null
        })
        .await;
    scene.ask_until(get("/api/stats/").by(&voice), |_, value| value["stale"] == true).await;
    scene.end();
}

#[tokio::test]
async fn what_a_source_publishes() {
    let mut daemon = FakeDaemon::start();
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    daemon.state().executions = vec![Execution {
        id: "e1".into(),
        pipeline_id: "crm-to-lake".into(),
        status: Status::Success.into(),
        started_at: at(1_799_999_000),
        finished_at: at(1_799_999_090),
        ..Execution::default()
    }];
    let component = ComponentHealth { healthy: true, message: "ok".into(), ..Default::default() };
    daemon.state().health.components.insert("database".into(), component);
    let settings = format!(
        "[[source]]\nname = \"main\"\nkind = \"flext-grpc\"\naddress = \"{}\"\ninterval = \"100ms\"\n",
        daemon.url()
    );
    let mut scene = Scene::start("source", &settings).await;
    let ada = scene.user("ada", &["flext.*"]);
    for topic in ["source", "stats", "health", "executions"] {
        let mut event = scene.newest(&ada, &format!("flext.{topic}"), |_| true).await;
        for its_own in ["offset", "id"] {
            event.as_object_mut().unwrap().remove(its_own);
        }
        if topic == "stats" {
            event["data"]["metrics"]["uptime_seconds"] = json!("(as often as it was asked)");
        }
        scene.tell(&event.to_string());
    }
    daemon.kill();
    // The words for it depend on what was under way.
    let away = scene.newest(&ada, "flext.source", |data| data["ok"] == false).await;
    scene.tell(&format!("away: {}", away["data"]["error"].is_string()));
    scene.end();
}
