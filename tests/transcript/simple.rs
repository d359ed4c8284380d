//! Simple mode: the hub alone speaks.

use serde_json::json;

use super::{
    request::post,
    scene::{On, Scene},
};
use crate::support::hub::PROTOCOL;

#[tokio::test]
async fn the_frames_and_refusals_of_simple_mode() {
    listen(On::Folder).await;
}

#[tokio::test]
async fn the_frames_and_refusals_of_simple_mode_with_redis() {
    listen(On::Redis).await;
}

async fn listen(on: On) {
    let mut scene =
        Scene::start_on(on, "simple", "[limits]\nreplay = 10\nviews_per_principal = 2\n").await;
    let ada = scene.user("ada", &["a.*"]);
    let token = ada.token.clone();
    let key = [("x-api-key", token.as_str())];
    let event = |n: u32, key: &str| json!({"topic": "a.b", "id": format!("e{n}"), "key": key, "data": {"n": n}});
    let events = json!([event(1, "x"), event(2, "y"), event(3, "x")]);
    let stored = scene.ask(post("/api/v1/publish").by(&ada).json(&events)).await;
    let position = stored.json["position"].as_str().unwrap();
    let first = format!("{}:{}", position.split(':').next().unwrap(), stored.json["offsets"][0]);
    for (query, frames) in [
        ("last=1", 1),
        ("last=1&format=event", 1),
        ("last=2&format=data", 2),
        ("since=5m&format=data", 3),
        ("latest=1&format=data", 2),
        (&*format!("resume={first}&format=data"), 2),
        ("latest=true&mode=latest&max_hz=20&format=data", 2),
    ] {
        let path = format!("/ws/real-time?topics=a.*&{query}");
        let mut socket = scene.socket_at("ada", &path, &key).await;
        for _ in 0..frames {
            scene.hear(&mut socket).await;
        }
        drop(socket);
        scene.hub.metric_becomes("pulsehub_connections", 0.0).await;
    }

    scene.note("what comes in is ignored, and what is published comes out");
    let path = "/ws/real-time?topics=a.*&last=1";
    let mut socket = scene.socket_at("ada", path, &key).await;
    scene.hear(&mut socket).await;
    scene.say_text(&mut socket, "nonsense").await;
    let more = json!([{"topic": "a.c", "id": "e4", "data": "text"}]);
    scene.ask(post("/api/v1/publish").by(&ada).json(&more)).await;
    scene.hear(&mut socket).await;

    scene.note("refusals");
    for (query, headers) in [
        ("topics=a.*", &[][..]),
        ("topics=a.*,b.*", &key),
        ("topics=a..b", &key),
        ("topics=a.*.*.*.*", &key),
        ("topics=a.*&format=xml", &key),
        ("topics=a.*&mode=some", &key),
        ("topics=a.*&mode=latest&max_hz=61", &key),
        ("topics=a.*&latest=yes", &key),
        ("topics=a.*&last=x", &key),
        ("topics=a.*&last=11", &key),
        ("topics=a.*&last=1&since=5m", &key),
        ("topics=a.*&since=yesterday", &key),
        ("topics=a.*&resume=nonsense", &key),
        ("topics=a.*&after=3", &key),
        ("topics=a.*&topcis=b", &key),
        ("topics=a.*&events=typed", &key),
        ("last=1", &key),
        ("topics=a.*&resume=1:1", &key),
    ] {
        let path = format!("/ws/real-time?{query}");
        let socket = scene.socket_at("ada", &path, headers).await;
        scene.hear_close(socket).await;
    }

    scene.note("more different subscriptions than one user may have");
    let mut socket = scene.connected("ada", &ada).await;
    let other = json!({"type": "subscribe", "id": 2, "sub": "s", "topics": ["a.z"]});
    scene.talk(&mut socket, &other).await;
    let third = scene.socket_at("ada again", "/ws/real-time?topics=a.y", &key).await;
    scene.hear_close(third).await;

    scene.note("with the subprotocol the topics of the address count for nothing");
    let mut talks = scene.socket_at("ada", "/ws/real-time?topics=a.*", &[PROTOCOL, key[0]]).await;
    scene.talk(&mut talks, &json!({"type": "connect", "id": 1})).await;
    scene.end();
}
