//! For those who run the hub: its nodes, its connections, and a drain.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

use super::{
    request::{delete, get, post},
    scene::Scene,
};

#[tokio::test]
async fn nodes_and_connections() {
    let mut scene =
        Scene::start("nodes", "[http]\ndrain = \"100ms\"\n[limits]\nconnections = 1000\n").await;
    let (ada, root) = (scene.user("ada", &["a.*"]), scene.admin("root"));
    let told = scene.quietly(get("/api/v1/nodes").by(&root)).await;
    let node = told["nodes"][0]["node"].as_str().unwrap().to_owned();
    scene.call(&format!("\"{node}\""), "\"<node>\"");
    scene.call(&format!("node={node}"), "node=<node>");
    let behind = URL_SAFE_NO_PAD.encode(format!("[\"{node}\",\"c2\"]"));
    scene.call(&behind, "<behind c2 of node>");
    scene.ask(get("/api/v1/nodes").by(&root)).await;

    scene.note("who is connected");
    scene.ask(get("/api/v1/connections").by(&root)).await;
    let mut socket = scene.socket("ada").await;
    let connect = json!({
        "type": "connect", "id": 1, "token": ada.token, "name": "board",
        "subscribe": [{"sub": "one", "topics": ["a.*"]}],
    });
    scene.talk(&mut socket, &connect).await;
    scene.hear(&mut socket).await; // subscribed
    scene.hear(&mut socket).await; // live
    let path = "/ws/real-time?topics=a.b&last=1";
    let simple = scene.socket_at("ada", path, &[("x-api-key", &ada.token)]).await;
    scene.hub.metric_becomes("pulsehub_subscriptions", 2.0).await; // not the hub's own
    let mut stream = scene.stream("ada", get("/sse/real-time?topics=a.c").by(&ada)).await;
    scene.hear_block(&mut stream).await;
    // Lags are told with the next look at each.
    let is_whole = |status: u16, answer: &serde_json::Value| {
        let all = answer["connections"].as_array().unwrap();
        status == 200 && all.iter().all(|one| one["subscriptions"][0]["lag"] == 0)
    };
    scene.ask_until(get("/api/v1/connections").by(&root), is_whole).await;
    let page = scene.ask(get("/api/v1/connections?limit=2").by(&root)).await;
    let next = page.json["next"].as_str().unwrap().to_owned();
    scene.ask(get(format!("/api/v1/connections?limit=2&after={next}")).by(&root)).await;

    scene.note("drained, and not");
    let publishes = |_: u16, ready: &serde_json::Value| ready["publishing"] == true;
    scene.ask_until(get("/readyz"), publishes).await;
    let drain = json!({"node": node});
    scene.ask(post("/api/v1/drain").by(&root).json(&drain)).await;
    scene.hear_close(socket).await;
    scene.hear_close(simple).await;
    while scene.hear_block(&mut stream).await {}
    scene.ask_until(get("/readyz"), publishes).await;
    scene.ask(delete(format!("/api/v1/drain?node={node}")).by(&root)).await;
    scene.ask_until(get("/readyz"), publishes).await;
    scene.end();
}
