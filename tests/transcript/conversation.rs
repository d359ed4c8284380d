//! The conversation of `hub.v1`: every message both ways and every error.

use serde_json::{Value, json};

use super::{
    request::post,
    scene::{On, Scene},
};

/// `subscribe` with these fields.
fn subscribe(id: u32, sub: &str, fields: Value) -> Value {
    let mut message = json!({"type": "subscribe", "id": id, "sub": sub, "topics": ["a.*"]});
    message.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    message
}

#[tokio::test]
async fn the_messages_of_a_conversation() {
    converse(On::Folder).await;
}

#[tokio::test]
async fn the_messages_of_a_conversation_with_redis() {
    converse(On::Redis).await;
}

async fn converse(on: On) {
    let mut scene = Scene::start_on(on, "conversation", "").await;
    let (ada, bob) = (scene.user("ada", &["a.**"]), scene.user("bob", &["a.**"]));

    scene.note("connect, with a subscription");
    let mut client = scene.socket("ada").await;
    let connect = json!({
        "type": "connect", "id": "first", "token": ada.token, "name": "board",
        "subscribe": [{"sub": "one", "topics": ["a.*"]}], "unknown": "is ignored",
    });
    scene.talk(&mut client, &connect).await;
    scene.hear(&mut client).await; // subscribed
    scene.hear(&mut client).await; // live

    scene.note("publish; the subscriber gets what it matches, in order");
    let mut publisher = scene.connected("bob", &bob).await;
    let events = json!([
        {"topic": "a.b", "type": "made", "source": "me", "id": "1", "key": "k", "data": {"n": 1.50}},
        {"topic": "a.b.c", "data": 0},
        {"topic": "a.c", "time": "2026-11-20T12:00:00Z", "data": null},
    ]);
    scene.talk(&mut publisher, &json!({"type": "publish", "id": 2, "events": events})).await;
    let heard = scene.hear(&mut client).await;
    let again = json!([{"topic": "a.b", "source": "me", "id": "1", "data": "another"}]);
    scene.talk(&mut publisher, &json!({"type": "publish", "id": 3, "events": again})).await;
    let samples = json!([{"topic": "a.s", "type": "samples", "data": {"samples": [7]}}]);
    scene.talk(&mut publisher, &json!({"type": "publish", "id": 4, "events": samples})).await;
    let last = scene.hear(&mut client).await;

    scene.note("unsubscribe");
    scene.talk(&mut client, &json!({"type": "unsubscribe", "id": 5, "sub": "one"})).await;

    scene.note("replay: the last, since, the latest; resume");
    let whole = json!({"topics": ["a.**"]});
    for (id, sub, how) in [
        (10, "last", json!({"replay": {"last": 2}})),
        (11, "since", json!({"replay": {"since": "5m"}})),
        (12, "time", json!({"replay": {"since": "2030-01-01T00:00:00Z"}})),
        (13, "latest", json!({"replay": {"latest": true}})),
        (14, "resumed", json!({"resume": heard["position"]})),
        (15, "foreign", json!({"resume": "1:2"})),
    ] {
        let mut fields = whole.clone();
        fields.as_object_mut().unwrap().extend(how.as_object().unwrap().clone());
        let subscribed = scene.talk(&mut client, &subscribe(id, sub, fields)).await;
        assert_eq!(subscribed["type"], "subscribed");
        while scene.hear(&mut client).await["type"] != "live" {}
        client.client.send(json!({"type": "unsubscribe", "id": id, "sub": sub})).await;
        client.client.expect("unsubscribed").await;
    }
    assert_eq!(last["type"], "events");

    scene.note("mode latest: the newest of each key, and how many were passed over");
    let latest = json!({"mode": "latest", "max_hz": 7, "replay": {"latest": true}});
    scene.talk(&mut client, &subscribe(20, "newest", latest)).await;
    while scene.hear(&mut client).await["type"] != "live" {}
    let events: Vec<Value> = (0..3)
        .map(|n| json!({"topic": "a.m", "key": "k", "id": format!("m{n}"), "data": n}))
        .collect();
    scene.talk(&mut publisher, &json!({"type": "publish", "id": 21, "events": events})).await;
    scene.hear(&mut client).await;

    scene.note("refresh: the same user, other grants; a subscription without a grant ends");
    let narrow = scene.user("ada", &["b.*"]);
    let refresh = |token: &str| json!({"type": "refresh", "id": 30, "token": token});
    scene.talk(&mut client, &refresh(&narrow.token)).await;
    scene.hear(&mut client).await; // unsubscribed
    scene.end();
}

#[tokio::test]
async fn the_errors_of_a_conversation() {
    make_mistakes(On::Folder).await;
}

#[tokio::test]
async fn the_errors_of_a_conversation_with_redis() {
    make_mistakes(On::Redis).await;
}

async fn make_mistakes(on: On) {
    let settings = "[limits]\nsubscriptions = 2\npatterns = 2\nreplay = 10\nbatch = 2\nevent = \"1 KiB\"\n\
                    views_per_principal = 2\n[journal]\nmax_topics = 4\n";
    let mut scene = Scene::start_on(on, "errors", settings).await;
    let ada = scene.user("ada", &["a.*"]);
    let mut client = scene.connected("ada", &ada).await;
    scene.talk(&mut client, &subscribe(2, "one", json!({}))).await;
    scene.hear(&mut client).await; // live
    let bob = scene.user("bob", &["a.*"]);
    let long = "x".repeat(65);
    for (about, message) in [
        ("bad_message", json!({"type": "subscribe", "id": 3, "sub": "two", "topics": 7})),
        ("bad_message", subscribe(4, "two", json!({"topics": []}))),
        ("bad_message", subscribe(5, "two", json!({"topics": ["a..b"]}))),
        ("bad_message", subscribe(6, "two", json!({"resume": "1:2", "replay": {"last": 1}}))),
        ("bad_message", subscribe(7, "two", json!({"max_hz": 5}))),
        ("bad_message", subscribe(8, "two", json!({"mode": "latest", "max_hz": 61}))),
        ("bad_message", subscribe(9, "two", json!({"replay": {"last": 1, "since": "5m"}}))),
        ("bad_message", subscribe(10, "two", json!({"replay": {"since": "yesterday"}}))),
        ("bad_message", subscribe(11, &long, json!({}))),
        ("bad_message", json!({"type": "unsubscribe", "id": long, "sub": "one"})),
        ("bad_message", json!({"type": "unsubscribe", "id": [1], "sub": "one"})),
        ("bad_message", json!({"type": "publish", "id": 12})),
        ("unknown_type", json!({"type": "shout", "id": 13})),
        ("missing_id", json!({"type": "unsubscribe", "sub": "one"})),
        ("already_connected", json!({"type": "connect", "id": 14, "token": ada.token})),
        ("sub_in_use", subscribe(15, "one", json!({}))),
        ("unknown_sub", json!({"type": "unsubscribe", "id": 16, "sub": "no such"})),
        ("forbidden", subscribe(17, "two", json!({"topics": ["a.b", "b.*"]}))),
        ("forbidden", json!({"type": "publish", "id": 18, "events": [{"topic": "b.x"}]})),
        ("forbidden", json!({"type": "publish", "id": 19, "events": [{"topic": "hub.x"}]})),
        (
            "forbidden",
            json!({"type": "publish", "id": 20, "events": [{"topic": "flext.dashboard"}]}),
        ),
        ("forbidden", json!({"type": "refresh", "id": 21, "token": bob.token})),
        ("unauthorized", json!({"type": "refresh", "id": 22, "token": "nonsense"})),
        (
            "limit_exceeded: patterns",
            subscribe(23, "two", json!({"topics": ["a.x", "a.y", "a.z"]})),
        ),
        ("limit_exceeded: wild", subscribe(24, "two", json!({"topics": ["a.*.*.*.*"]}))),
        ("limit_exceeded: replay", subscribe(25, "two", json!({"replay": {"last": 11}}))),
        (
            "invalid_event: batch",
            json!({"type": "publish", "id": 26, "events": [{"topic": "a.b"}, {"topic": "a.b"}, {"topic": "a.b"}]}),
        ),
        (
            "invalid_event: event",
            json!({"type": "publish", "id": 27, "events": [{"topic": "a.b", "data": "x".repeat(1100)}]}),
        ),
        ("invalid_event", json!({"type": "publish", "id": 28, "events": [{"topic": "a..b"}]})),
        ("invalid_event", json!({"type": "publish", "id": 29, "events": "none"})),
        ("invalid_event", json!({"type": "publish", "id": 30, "events": []})),
    ] {
        scene.note(about);
        let answer = scene.talk(&mut client, &message).await;
        assert_eq!(answer["code"], about.split(':').next().unwrap());
    }

    scene.note("limit_exceeded: subscriptions, views, topics");
    scene.talk(&mut client, &subscribe(40, "two", json!({"topics": ["a.two"]}))).await;
    scene.hear(&mut client).await; // live
    scene.talk(&mut client, &subscribe(41, "three", json!({}))).await;
    let mut other = scene.connected("ada again", &ada).await;
    scene.talk(&mut other, &subscribe(42, "three", json!({"topics": ["a.three"]}))).await;
    let many: Vec<Value> = ["a.1", "a.2"].map(|topic| json!({"topic": topic})).to_vec();
    let bob = scene.user("bob", &["**"]);
    scene.ask(post("/api/v1/publish").by(&bob).json(&json!(many))).await;
    let more: Vec<Value> = ["c.1", "c.2"].map(|topic| json!({"topic": topic})).to_vec();
    scene.ask(post("/api/v1/publish").by(&bob).json(&json!(more))).await;
    let mut publisher = scene.connected("bob", &bob).await;
    let message = json!({"type": "publish", "id": 43, "events": [{"topic": "d.1"}]});
    scene.talk(&mut publisher, &message).await;
    scene.end();
}

#[tokio::test]
async fn pings() {
    let mut scene = Scene::start("pings", "[socket]\nping = \"1s\"\n").await;
    let ada = scene.user("ada", &["**"]);
    let mut client = scene.connected("ada", &ada).await;
    for sub in ["quiet", "busy"] {
        let topics = json!({"topics": [format!("{sub}.*")]});
        scene.talk(&mut client, &subscribe(2, sub, topics)).await;
        scene.hear(&mut client).await; // live
    }
    scene.hear_ping(&mut client).await;
    scene.say(&mut client, &json!({"type": "pong"})).await;
    scene.talk(&mut client, &json!({"type": "unsubscribe", "id": 4, "sub": "busy"})).await;
    scene.end();
}
