//! Everything that can be read: history, topics, series, health, the page.

use serde_json::{Value, json};

use super::{
    request::{get, post},
    scene::{NOW, On, Scene},
};

fn publish(id: &str, topic: &str, more: Value) -> Value {
    let mut event = json!({"id": id, "topic": topic});
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    event
}

#[tokio::test]
async fn history_and_topics() {
    read_history(On::Folder).await;
}

#[tokio::test]
async fn history_and_topics_with_redis() {
    read_history(On::Redis).await;
}

async fn read_history(on: On) {
    let settings = "[[journal.retention]]\ntopics = [\"a.brief\"]\nmax_age = \"1h\"\n";
    let mut scene = Scene::start_on(on, "history", settings).await;
    let (ada, root) = (scene.user("ada", &["a.**"]), scene.admin("root"));
    let stored = scene
        .ask(post("/api/v1/publish").by(&ada).json(&json!([
            publish("1", "a.b", json!({"type": "made", "key": "k", "source": "me", "data": {"n": 1.50, "text": "ü"}})),
            publish("2", "a.c", json!({"time": "2027-01-15T09:00:00.5+01:00", "data": null})),
            publish("3", "a.brief", json!({"data": [1, "x", true]})),
            publish("4", "a.b", json!({"data": {"n": 2}})),
        ])))
        .await;
    let position = stored.json["position"].as_str().unwrap();
    let epoch = position.split(':').next().unwrap().to_owned();
    let at = |index: usize| format!("{epoch}:{}", stored.json["offsets"][index]);
    scene
        .ask(post("/api/v1/publish?ack=accepted").by(&ada).json(&publish("5", "a.d", json!({}))))
        .await;
    let lines =
        "{\"id\":\"6\",\"topic\":\"a.e\"}\n\n{\"id\":\"1\",\"source\":\"me\",\"topic\":\"a.b\"}\n";
    let lines =
        post("/api/v1/publish").by(&ada).with("content-type", "application/x-ndjson").body(lines);
    scene.ask(lines).await;
    let samples = json!({"samples": [7, {"name": "n", "value": "x"}]});
    let samples = publish("7", "a.s", json!({"type": "samples", "data": samples}));
    scene.ask(post("/api/v1/publish").by(&ada).json(&samples)).await;

    scene.note("history");
    for (query, by) in [
        ("topics=a.b".to_owned(), &ada),
        ("topics=a.b,a.c&limit=1".to_owned(), &ada),
        (format!("topics=a.*&limit=2&after={}", at(0)), &ada),
        (format!("topics=a.*&limit=2&before={}", at(3)), &ada),
        ("topics=a.*&since=5m&limit=1".to_owned(), &ada),
        ("topics=a.*&since=2027-01-15T08:00:00.001Z".to_owned(), &ada),
        ("topics=a.b&limit=1".to_owned(), &root),
        ("topics=a.nothing".to_owned(), &ada),
    ] {
        scene.ask(get(format!("/api/v1/history?{query}")).by(by)).await;
    }
    scene
        .ask(get("/api/v1/history?topics=a.b&limit=1").by(&ada).with("accept-encoding", "identity"))
        .await;

    scene.note("topics");
    let page = scene.ask(get("/api/v1/topics?limit=2").by(&ada)).await;
    let next = page.json["next"].as_str().unwrap().to_owned();
    scene.ask(get(format!("/api/v1/topics?after={next}")).by(&ada)).await;
    scene.ask(get("/api/v1/topics?prefix=a.c").by(&ada)).await;
    scene.end();
}

#[tokio::test]
async fn series() {
    read_series(On::Folder).await;
}

#[tokio::test]
async fn series_with_redis() {
    read_series(On::Redis).await;
}

async fn read_series(on: On) {
    let mut scene = Scene::start_on(on, "series", "").await;
    let ada = scene.user("ada", &["shop.**"]);
    let values = |seconds: u64, sales: f64| {
        json!([
            {"topic": "shop.metrics", "key": "till 1", "id": format!("m{seconds}"),
             "data": {"metrics": {"sales": {"count": sales, "open": true}, "note": "x"}}},
            {"topic": "shop.samples", "type": "samples", "id": format!("s{seconds}"), "data": {"samples": [
                {"name": "shop.requests", "type": "counter", "value": seconds * 10, "labels": {"path": "/a"}, "unit": "1"},
                {"name": "shop.latency", "type": "histogram", "count": 4, "sum": 10, "bounds": [1, 5],
                 "counts": [1, 2, 1], "min": 0.5, "max": 6},
            ]}},
        ])
    };
    for (seconds, sales) in [(0, 3.0), (1, 5.0), (20, 1.0), (90, 7.5)] {
        scene.clock.set(NOW + seconds * 1000);
        scene.quietly(post("/api/v1/publish").by(&ada).json(&values(seconds, sales))).await;
    }
    scene.clock.set(NOW + 120_000);
    let is_whole = |_: u16, list: &Value| {
        let series = list["series"].as_array().unwrap();
        series.len() >= 4
            && series.iter().all(|one| one["newest"]["time"].as_str().unwrap().contains("08:01:3"))
    };
    scene.ask_until(get("/api/v1/series?prefix=shop.").by(&ada), is_whole).await;
    let page = scene.ask(get("/api/v1/series?limit=1&topic=shop.*").by(&ada)).await;
    let next = page.json["next"].as_str().unwrap().replace('"', "%22").replace(' ', "%20");
    scene.ask(get(format!("/api/v1/series?limit=1&after={next}")).by(&ada)).await;
    for query in [
        "name=shop.sales.count&from=2m&step=30s",
        "name=shop.sales.count&labels=key=till%201&from=2027-01-15T08:00:00Z&to=2027-01-15T08:00:02Z&step=1s",
        "name=shop.sales.count&from=40s",
        "name=shop.sales.count&from=2m&step=2m&agg=avg",
        "name=shop.sales.count&from=2m&step=2m&agg=min",
        "name=shop.sales.count&from=2m&step=2m&agg=max",
        "name=shop.sales.count&from=2m&step=2m&agg=sum",
        "name=shop.sales.count&from=2m&step=2m&agg=last",
        "name=shop.sales.count&from=2m&step=2m&agg=count",
        "name=shop.sales.count&from=2m&step=2m&agg=p95",
        "name=shop.requests&from=2m&step=1m&agg=rate",
        "name=shop.requests&from=2m&step=1m&agg=increase&labels=%7B%22path%22:%22/a%22%7D",
        "name=shop.latency&from=2m&step=2m",
        "name=shop.latency&from=2m&step=2m&agg=p95",
        "name=shop.latency&from=2m&step=2m&agg=count",
        "name=shop.nothing",
    ] {
        scene.ask(get(format!("/api/v1/series/query?{query}")).by(&ada)).await;
    }
    let bob = scene.user("bob", &["other.**"]);
    scene.ask(get("/api/v1/series/query?name=shop.sales.count&from=2m&step=2m").by(&bob)).await;
    scene.ask(get("/api/v1/series?prefix=shop.").by(&bob)).await;
    scene.end();
}

#[tokio::test]
async fn health_and_the_page() {
    let settings = "[host]\npublish = true\ninterval = \"1s\"\n[limits]\nconnections = 1000\n";
    let mut scene = Scene::start("health", settings).await;
    let ada = scene.user("ada", &["hub.*"]);
    scene.ask(get("/healthz")).await;
    let publishes = |status: u16, _: &Value| status == 200;
    scene.ask_until(get("/readyz/publishing"), publishes).await;
    scene.ask(get("/readyz")).await;
    scene.ask(get("/api/v1/status").by(&ada)).await;
    scene.ask(get("/metrics")).await;
    scene.ask(get("/").with("accept", "text/html")).await;
    scene.ask(get("/activity").with("accept", "text/html")).await;
    scene.ask(get("/activity")).await;
    scene.ask(get("/assets/nothing.js")).await;

    scene.note("the hub's own numbers, by name and kind");
    for topic in ["hub.metrics", "hub.host"] {
        let event = scene.newest(&ada, topic, |_| true).await;
        scene.tell(&format!("{topic}: {}", shape(&event)));
    }
    scene.end();
}

/// The names in an object and what kind of value each has.
fn shape(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| format!("{name}: {}", shape(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
        Value::Array(_) => "a list".to_owned(),
        Value::String(_) => "a text".to_owned(),
        // A machine may not know one of its numbers.
        Value::Number(_) | Value::Null => "a number or null".to_owned(),
        Value::Bool(_) => "a boolean".to_owned(),
    }
}
