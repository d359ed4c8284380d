//! The paths of LocaNext's exporter.

use serde_json::json;

use super::{
    request::{get, post},
    scene::{On, Scene},
};

#[tokio::test]
async fn locanext() {
    export(On::Folder).await;
}

#[tokio::test]
async fn locanext_with_redis() {
    export(On::Redis).await;
}

async fn export(on: On) {
    let mut scene = Scene::start_on(on, "locanext", "").await;
    let exporter = scene.user("exporter", &["locanext.**"]);
    let metrics = r#"{"source":"locanext","timestamp":"2027-01-15T07:59:58.123456",
        "metrics":{"user_metrics":{"active_users":15,"ratio":NaN},"test":true,"name":"x"}}"#;
    scene.ask(post("/api/locanext/metrics").by(&exporter).body(metrics)).await;
    for kind in [
        "user_login",
        "user_logout",
        "file_upload",
        "file_export",
        "translation_saved",
        "tm_match_applied",
        "error",
        "of another kind!",
    ] {
        let body = json!({"source": "locanext", "timestamp": "2027-01-15T07:59:59", "event_type": kind,
                          "data": {"project_id": 42, "kind": kind}});
        scene.ask(post("/api/locanext/events").by(&exporter).json(&body)).await;
    }

    scene.note("what is not as it should be");
    for (path, body) in [
        ("metrics", r#"{"metrics":{"n":1},"timestamp":"yesterday","source":7}"#),
        ("metrics", r#"{"metrics":[1]}"#),
        ("metrics", "[1]"),
        ("metrics", "{"),
        ("events", r#"{"event_type":7,"data":{}}"#),
        ("events", r#"{"data":{}}"#),
        ("events", r#"{"event_type":"x"}"#),
    ] {
        scene.ask(post(format!("/api/locanext/{path}")).by(&exporter).body(body)).await;
    }
    for app in ["v2", "dashboard", "stats", "hub", "a.b"] {
        scene.ask(post(format!("/api/{app}/metrics")).by(&exporter).body("{}")).await;
    }
    scene
        .ask(
            post("/api/locanext/metrics")
                .by(&exporter)
                .with("content-type", "text/plain")
                .body("x"),
        )
        .await;
    scene.ask(get("/api/v1/history?topics=locanext.**").by(&exporter)).await;
    scene.end();
}
