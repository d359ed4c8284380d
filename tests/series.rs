//! Series, through the wire: what becomes one, who may read it, and what a restart leaves of it.

use serde_json::{Value, json};

use crate::support::{eventually, hub::TestHub};

/// Asks as somebody who may read `patterns`.
async fn get(hub: &TestHub, patterns: &[&str], path: &str) -> Value {
    let token = hub.token("reader", patterns);
    let answer = hub.http().get(hub.url(path)).bearer_auth(token).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{path}: {:?}", answer.text().await);
    answer.json().await.unwrap()
}

/// The newest value of the only series of this name, once it is `wanted`.
async fn becomes(hub: &TestHub, name: &str, wanted: f64) -> Value {
    eventually(&format!("{name} = {wanted}"), async || {
        let list = get(hub, &["**"], &format!("/api/v1/series?prefix={name}")).await;
        let series = list["series"].as_array().unwrap().clone();
        let found = series.into_iter().find(|series| series["name"] == name)?;
        (found["newest"]["value"] == wanted).then_some(found)
    })
    .await
}

#[tokio::test]
async fn metrics_become_series() {
    let hub = TestHub::start().await;
    hub.publish(json!([
        {"topic": "shop.metrics", "key": "till 1", "data": {
            "metrics": {"sales": {"count": 3, "open": true, "deep": {"a b": 1.5}}, "note": "x", "list": [1]},
            "other": 9}},
        {"topic": "shop.cellar", "type": "metrics", "data": {"celsius": -4, "nothing": null}},
    ]))
    .await;
    let series = becomes(&hub, "shop.cellar.celsius", -4.0).await;
    assert_eq!(series["topic"], "shop.cellar");
    assert_eq!(series["labels"], json!({}));
    assert_eq!(series["type"], "gauge");
    let list = get(&hub, &["**"], "/api/v1/series?prefix=shop.").await;
    let names: Vec<_> = list["series"].as_array().unwrap().iter().map(|s| &s["name"]).collect();
    let wanted =
        ["shop.cellar.celsius", "shop.sales.count", "shop.sales.deep.a_b", "shop.sales.open"];
    assert_eq!(names, wanted);
    assert_eq!(list["series"][1]["labels"], json!({"key": "till 1"}));

    let path = "/api/v1/series/query?name=shop.sales.count&labels=key=till%201&from=10s&step=1s";
    let columns = get(&hub, &["**"], path).await;
    assert_eq!(columns["series"][0]["labels"], json!({"key": "till 1"}));
    let (times, values) = (&columns["times"], columns["values"][0].as_array().unwrap());
    assert_eq!(times.as_array().unwrap().len(), values.len());
    let known: Vec<_> = values.iter().filter(|value| !value.is_null()).collect();
    assert_eq!(known, [3.0]);
}
