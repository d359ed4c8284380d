//! TimeTracker's paths and the registry behind them.

use serde_json::{Value, json};

use super::{
    request::{delete, get, post},
    scene::{NOW, On, Scene},
};

const HOUR: u64 = 3_600_000;

#[tokio::test]
async fn instances_from_their_registration_to_their_end() {
    register(On::Folder).await;
}

#[tokio::test]
async fn instances_from_their_registration_to_their_end_with_redis() {
    register(On::Redis).await;
}

async fn register(on: On) {
    let mut scene = Scene::start_on(on, "instances", "").await;
    let tracker = scene.user("tracker", &["timetracker.**", "hub.instances.timetracker"]);
    let root = scene.admin("root");
    let register = json!({
        "app_identifier": "timetracker", "version": "4.5.0", "instance_id": "office",
        "system_metadata": {"os": "Linux", "hostname": "office", "local_ip": "10.0.0.7"},
        "country": "AT", "city": "Graz", "license_id": "NO-LICENSE-REQUIRED",
    });
    let ask = |path: &str| post(format!("/api/v1/{path}")).by(&tracker);

    let mut follower = scene.connected("follower", &tracker).await;
    let all = json!({"type": "subscribe", "id": 2, "sub": "i", "topics": ["hub.instances.*"]});
    let own =
        json!({"type": "subscribe", "id": 2, "sub": "i", "topics": ["hub.instances.timetracker"]});
    scene.talk(&mut follower, &all).await;
    scene.talk(&mut follower, &own).await;
    scene.hear(&mut follower).await; // live

    scene.note("register, validate, heartbeat, data, status");
    scene.ask(ask("register").json(&register)).await;
    scene.hear(&mut follower).await;
    scene.ask(ask("register").json(&register)).await;
    scene.hear(&mut follower).await;
    let named = scene.ask(ask("register").json(&json!({"app_identifier": "timetracker"}))).await;
    scene.hear(&mut follower).await;
    scene
        .ask(
            ask("register").json(
                &json!({"app_identifier": "timetracker", "instance_id": "odd", "version": 7}),
            ),
        )
        .await;
    scene.hear(&mut follower).await;
    scene.ask(ask("register").json(&json!({"app_identifier": "hub"}))).await;
    scene.ask(ask("register").body("{\"app_identifier\":")).await;
    scene.ask(ask("validate").json(&json!({"app_identifier": "timetracker"}))).await;
    scene.ask(ask("heartbeat").json(&json!({"instance_id": "office"}))).await;
    scene.hear(&mut follower).await;
    scene
        .ask(
            ask("heartbeat")
                .json(&json!({"instance_id": "office", "app_identifier": "timetracker"})),
        )
        .await;
    scene.hear(&mut follower).await;
    scene.ask(ask("heartbeat").json(&json!({"app_identifier": "timetracker"}))).await;
    scene.clock.set(NOW + HOUR / 2);
    let points = r#"{"app_identifier":"timetracker","instance_id":"office","data":[
        {"key":"usage_event","value":"feature_used","type":"string","metadata":{"feature":"dashboard"}},
        {"key":"Seite öffnen","value":NaN,"type":"number","timestamp":"2027-01-15T09:30:00"},
        {"key":7},"x",{"value":1}]}"#;
    scene.ask(ask("data").body(points)).await;
    scene.hear(&mut follower).await;
    scene.ask(ask("data").body(points)).await;
    scene
        .ask(
            ask("data").json(
                &json!({"app_identifier": "timetracker", "instance_id": "office", "data": []}),
            ),
        )
        .await;
    scene
        .ask(
            ask("data")
                .json(&json!({"instance_id": "unheard", "data": [{"key": "k", "value": 1}]})),
        )
        .await;
    scene.hear(&mut follower).await;
    let is_healthy = |status: u16, _: &Value| status == 200;
    scene.ask_until(get("/api/v1/status").by(&tracker), is_healthy).await;
    scene.ask(get("/api/v1/history?topics=timetracker.usage.*").by(&tracker)).await;

    scene.note("lists");
    for query in [
        "",
        "?app=timetracker&sort=-last_seen&limit=1",
        "?state=pending,late&q=OFF",
        "?sort=version",
        "?state=down",
    ] {
        scene.ask(get(format!("/api/v1/instances{query}")).by(&tracker)).await;
    }
    let page = scene.quietly(get("/api/v1/instances?limit=2").by(&tracker)).await;
    let next = page["next"].as_str().unwrap();
    scene.call(next, "<next>");
    scene.ask(get("/api/v1/instances?limit=2").by(&tracker)).await;
    scene.ask(get(format!("/api/v1/instances?limit=2&after={next}")).by(&tracker)).await;

    scene.note("a key of its own");
    let made = scene.ask(post("/api/v1/instances/timetracker/office/key").by(&root)).await;
    let office = scene.known_as("office", made.json["key"].as_str().unwrap().to_owned());
    scene.hear(&mut follower).await;
    let beat = json!({"instance_id": "office"});
    scene.ask(post("/api/v1/heartbeat").by(&tracker).json(&beat)).await;
    scene.ask(post("/api/v1/heartbeat").by(&office).json(&beat)).await;
    scene.hear(&mut follower).await;
    scene.ask(post("/api/v1/heartbeat").by(&office).json(&json!({"instance_id": "odd"}))).await;
    scene
        .ask(post("/api/v1/publish").by(&office).json(&json!({"topic": "timetracker.usage.k"})))
        .await;
    scene.ask(get("/api/v1/session").by(&office)).await;
    scene.ask(post("/api/v1/instances/timetracker/nobody/key").by(&root)).await;

    scene.note("forgotten");
    scene.ask(delete("/api/v1/instances/timetracker/office").by(&root)).await;
    scene.hear(&mut follower).await;
    scene.ask(delete("/api/v1/instances/timetracker/office").by(&root)).await;
    scene.ask(delete("/api/v1/instances/time%20tracker/office").by(&root)).await;
    scene.ask(get("/api/v1/session").by(&office)).await;

    scene.note("late, and down");
    for id in ["odd", "unheard", named.json["instance_id"].as_str().unwrap()] {
        scene.ask(delete(format!("/api/v1/instances/timetracker/{id}")).by(&root)).await;
        scene.hear(&mut follower).await;
    }
    scene.ask(ask("heartbeat").json(&json!({"instance_id": "watched"}))).await;
    scene.hear(&mut follower).await;
    scene.clock.set(NOW + HOUR * 2);
    for _ in 0..2 {
        if scene.hear(&mut follower).await["events"][0]["type"] == "instance.late" {
            break;
        }
    }
    scene.end();
}
