//! What everybody is told of events that are no longer kept.

use serde_json::json;

use super::{
    request::{get, post},
    scene::{NOW, On, Scene},
};
use crate::support::eventually;

const HOUR: u64 = 3_600_000;

#[tokio::test]
async fn what_is_lost_is_told() {
    lose(On::Folder).await;
}

#[tokio::test]
async fn what_is_lost_is_told_with_redis() {
    lose(On::Redis).await;
}

async fn lose(on: On) {
    let settings = "[journal]\nmax_age = \"1h\"\nrecent_bytes = \"0 B\"\n";
    let mut scene = Scene::start_on(on, "gaps", settings).await;
    let ada = scene.user("ada", &["a.*"]);
    let key = ada.token.clone();
    let numbers = |from: u32, to: u32| {
        let event = |n| json!({"topic": "a.b", "id": format!("e{n}"), "data": {"n": n}});
        json!((from..to).map(event).collect::<Vec<_>>())
    };
    let stored = scene.ask(post("/api/v1/publish").by(&ada).json(&numbers(0, 4))).await;
    let epoch = stored.json["position"].as_str().unwrap().split(':').next().unwrap().to_owned();
    let second = format!("{epoch}:{}", stored.json["offsets"][1]);
    scene.clock.set(NOW + 2 * HOUR);
    scene.ask(post("/api/v1/publish").by(&ada).json(&numbers(4, 6))).await;
    eventually("the trim", async || {
        let history = scene.hub.http().get(scene.hub.url("/api/v1/history?topics=a.b"));
        let text = history.bearer_auth(&key).send().await.unwrap().text().await.unwrap();
        (!text.contains("\"e3\"")).then_some(())
    })
    .await;

    scene.note("in messages");
    let mut client = scene.connected("ada", &ada).await;
    let resume =
        json!({"type": "subscribe", "id": 2, "sub": "s", "topics": ["a.*"], "resume": second});
    scene.talk(&mut client, &resume).await;
    while scene.hear(&mut client).await["type"] != "live" {}

    scene.note("in simple mode");
    let path = format!("/ws/real-time?topics=a.*&resume={second}");
    let simple = scene.socket_at("ada", &path, &[("x-api-key", &key)]).await;
    scene.hear_close(simple).await;

    scene.note("in a stream");
    let request = get("/sse/real-time?topics=a.*").by(&ada).with("last-event-id", &second);
    let mut stream = scene.stream("ada", request).await;
    for _ in 0..4 {
        scene.hear_block(&mut stream).await;
    }

    scene.note("in history");
    scene.ask(get(format!("/api/v1/history?topics=a.*&after={second}")).by(&ada)).await;
    scene.ask(get("/api/v1/history?topics=a.*&after=1:2").by(&ada)).await;
    scene.end();
}
