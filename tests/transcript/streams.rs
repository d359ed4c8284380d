//! Server-sent events.

use serde_json::{Value, json};

use super::{
    request::{Request, get, post},
    scene::{On, Scene},
};

#[tokio::test]
async fn the_blocks_and_refusals_of_a_stream() {
    stream(On::Folder).await;
}

#[tokio::test]
async fn the_blocks_and_refusals_of_a_stream_with_redis() {
    stream(On::Redis).await;
}

async fn stream(on: On) {
    let settings = "[limits]\nreplay = 10\nviews_per_principal = 3\nconnections_per_principal = 3\n\
                    [http]\ndrain = \"100ms\"\nallowed_origins = [\"https://dash.example\"]\n";
    let mut scene = Scene::start_on(on, "streams", settings).await;
    let (ada, root) = (scene.user("ada", &["a.*"]), scene.admin("root"));
    let events: Vec<Value> = (1..4)
        .map(|n| json!({"topic": "a.b", "type": "made", "id": format!("e{n}"), "key": "k", "data": {"n": n}}))
        .collect();
    let stored = scene.ask(post("/api/v1/publish").by(&ada).json(&json!(events))).await;
    let position = stored.json["position"].as_str().unwrap();
    let first = format!("{}:{}", position.split(':').next().unwrap(), stored.json["offsets"][0]);

    for (query, blocks) in
        [("last=2", 2), ("since=5m&mode=all", 2), ("latest=1", 2), ("latest=1&mode=latest", 2)]
    {
        let path = format!("/sse/real-time?topics=a.*&{query}");
        let mut stream = scene.stream("ada", get(path).by(&ada)).await;
        for _ in 0..blocks {
            scene.hear_block(&mut stream).await;
        }
        drop(stream);
        scene.hub.metric_becomes("pulsehub_connections", 0.0).await;
    }

    scene.note("resumed, then live");
    let request = get("/sse/real-time?topics=a.*").by(&ada).with("last-event-id", &first);
    let mut stream = scene.stream("ada", request).await;
    scene.hear_block(&mut stream).await;
    scene.hear_block(&mut stream).await;
    scene.hear_block(&mut stream).await;
    let more = json!([{"topic": "a.c", "id": "e4", "data": "text"}]);
    scene.ask(post("/api/v1/publish").by(&ada).json(&more)).await;
    scene.hear_block(&mut stream).await;

    scene.note("in the forms it can have");
    for query in ["events=typed", "format=data", "events=typed&format=data"] {
        let path = format!("/sse/real-time?topics=a.b&last=1&{query}");
        let mut formed = scene.stream("ada again", get(path).by(&ada)).await;
        scene.hear_block(&mut formed).await;
        scene.hear_block(&mut formed).await;
        drop(formed);
        scene.hub.metric_becomes("pulsehub_connections", 1.0).await;
    }

    scene.note("with a ticket of its own");
    let made = scene.ask(post("/api/v1/tickets").by(&ada).json(&json!({"topics": ["a.*"]}))).await;
    let ticket = made.json["ticket"].as_str().unwrap().to_owned();
    for _ in 0..2 {
        let path = format!("/sse/real-time?topics=a.b&ticket={ticket}");
        let mut by_ticket = scene.stream("a page", get(path)).await;
        scene.hear_block(&mut by_ticket).await;
        drop(by_ticket);
        scene.hub.metric_becomes("pulsehub_connections", 1.0).await;
    }
    scene.ask(get(format!("/sse/real-time?topics=b.*&ticket={ticket}"))).await;
    let taken_back = json!({"ticket": ticket});
    scene.ask(Request::new("DELETE", "/api/v1/tickets").by(&ada).json(&taken_back)).await;
    scene.ask(get(format!("/sse/real-time?topics=a.b&ticket={ticket}"))).await;
    scene.ask(post("/api/v1/tickets").by(&ada).json(&json!({"topics": ["b.*"]}))).await;
    scene.ask(post("/api/v1/tickets").by(&ada).json(&json!({"topics": []}))).await;

    scene.note("another history");
    let path = "/sse/real-time?topics=a.*&resume=1:2";
    let mut foreign = scene.stream("ada again", get(path).by(&ada)).await;
    scene.hear_block(&mut foreign).await;
    scene.hear_block(&mut foreign).await;

    scene.note("refusals");
    for request in [
        get("/sse/real-time").by(&ada),
        get("/sse/real-time?topics=a.*"),
        get("/sse/real-time?topics=b.*").by(&ada),
        get("/sse/real-time?topics=a.*&last=11").by(&ada),
        get("/sse/real-time?topics=a.*").by(&ada).with("last-event-id", "nonsense"),
        get("/sse/real-time?topics=a.*").by(&ada).with("origin", "https://evil.example"),
        get("/sse/real-time?topics=a.*&token=x"),
        get("/sse/real-time?topics=a.*&ticket=x"),
        get("/sse/real-time?topics=a.*&format=xml").by(&ada),
        get("/sse/real-time?topics=a.*&events=all").by(&ada),
        get("/sse/real-time?topics=a.*&topcis=b").by(&ada),
    ] {
        scene.ask(request).await;
    }
    let third = scene.stream("a third", get("/sse/real-time?topics=a.z").by(&ada)).await;
    scene.ask(get("/sse/real-time?topics=a.y").by(&ada)).await; // too many connections
    drop(third);

    scene.note("the node is drained");
    scene.quietly(post("/api/v1/drain").by(&root).json(&json!({"node": "all"}))).await;
    while scene.hear_block(&mut stream).await {}
    scene.end();
}

#[tokio::test]
async fn a_replay_that_ends_before_it_has_all() {
    truncate(On::Folder).await;
}

#[tokio::test]
async fn a_replay_that_ends_before_it_has_all_with_redis() {
    truncate(On::Redis).await;
}

async fn truncate(on: On) {
    let settings = "[hub]\nreplay_bytes = \"64 KiB\"\n[journal]\nrecent_bytes = \"1 KiB\"\n";
    let mut scene = Scene::start_on(on, "truncated", settings).await;
    let ada = scene.user("ada", &["a.*"]);
    // Too large to be merged with others: a block is looked through whole.
    let fill = "x".repeat(70 << 10);
    scene.call(&fill, "<70 KiB>");
    for n in 0..4 {
        let event = json!({"topic": "a.b", "id": format!("e{n}"), "data": fill});
        scene.quietly(post("/api/v1/publish").by(&ada).json(&event)).await;
    }
    let mut client = scene.connected("ada", &ada).await;
    let last =
        json!({"type": "subscribe", "id": 2, "sub": "s", "topics": ["a.*"], "replay": {"last": 4}});
    scene.talk(&mut client, &last).await;
    while scene.hear(&mut client).await["type"] != "live" {}
    let mut stream = scene.stream("ada", get("/sse/real-time?topics=a.*&last=4").by(&ada)).await;
    for _ in 0..3 {
        scene.hear_block(&mut stream).await;
    }
    scene.end();
}
