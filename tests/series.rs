//! Series, through the wire: what becomes one, who may read it, and what a restart leaves of it.

mod cost;
mod late;
pub(crate) mod restart;

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

#[tokio::test]
async fn bad_leaves_cost_only_themselves() {
    let hub = TestHub::start().await;
    hub.publish(json!([
        {"topic": "bad.metrics", "data": {"good": 1, "text": "12", "null": null, "list": [[1], {"x": 2}],
            "a": {"b": {"c": {"d": {"too_deep": 1}, "deep": 2}}}, "": 3, "ü": 4}},
        {"topic": "bad.metrics", "data": "no object"},
        {"topic": "bad.metrics", "data": [1, 2]},
        {"topic": "bad.samples", "type": "samples", "data": {"samples": [
            {"name": "ok", "value": 5}, {"name": "", "value": 1}, {"name": "unknown", "type": "summary"},
            {"name": "n", "type": "counter", "value": -1}, {"name": "n", "type": "counter", "value": "1"},
            {"name": "h", "type": "histogram", "count": 1, "bounds": [2, 1], "counts": [1, 0, 0]},
            {"name": "l", "value": 1, "labels": {"a": [1]}}, 7]}},
        {"topic": "bad.samples", "type": "samples", "data": {"nothing": true}},
    ]))
    .await;
    // One number that no double holds, which only raw JSON can say.
    let body = r#"{"topic":"bad.metrics","data":{"huge":1e999,"large":1e101,"fine":6}}"#;
    let token = hub.token("publisher", &["**"]);
    let request = hub.http().post(hub.url("/api/v1/publish")).bearer_auth(token);
    let request = request.header("content-type", "application/json").body(body);
    assert_eq!(request.send().await.unwrap().status(), 200);
    becomes(&hub, "bad.fine", 6.0).await;
    becomes(&hub, "ok", 5.0).await;
    let list = get(&hub, &["**"], "/api/v1/series?topic=bad.*").await;
    let names: Vec<_> = list["series"].as_array().unwrap().iter().map(|s| &s["name"]).collect();
    let wanted = ["bad._", "bad.a.b.c.deep", "bad.fine", "bad.good", "bad.large", "n", "ok"];
    assert_eq!(names, wanted);
    assert_eq!(list["series"][4]["newest"]["value"], json!(1e101));
    assert_eq!(list["series"][5]["newest"]["value"], json!(-1.0), "whatever its type");
    let dropped = json!({"depth": 1, "labels": 1, "name": 1, "shape": 3, "value": 3});
    assert_eq!(list["dropped"], dropped);
    assert_eq!(hub.metric("pulsehub_series_drops_total{reason=\"shape\"}").await, 3.0);
}

#[tokio::test]
async fn too_many_series_are_left_out_and_counted() {
    let hub = TestHub::with(&[("series.max_series", "120"), ("series.max_per_topic", "50")]).await;
    for topic in ["one.metrics", "two.metrics"] {
        let names: serde_json::Map<_, _> =
            (0..1000).map(|n| (format!("n{n:03}"), json!(n))).collect();
        hub.publish(json!({"topic": topic, "data": names})).await;
    }
    hub.publish(json!({"topic": "three.metrics", "data": {"last": 1}})).await;
    becomes(&hub, "three.last", 1.0).await;
    let list = get(&hub, &["**"], "/api/v1/series?limit=1000").await;
    let of = |topic: &str| {
        list["series"].as_array().unwrap().iter().filter(|s| s["topic"] == topic).count()
    };
    assert_eq!((of("one.metrics"), of("two.metrics"), of("three.metrics")), (50, 50, 1));
    assert_eq!((&list["dropped"], &list["max"]), (&json!({"cap": 1900}), &json!(120)));
    assert!(list["count"].as_u64().unwrap() >= 101, "the hub's own beside these");
    assert_eq!(hub.metric("pulsehub_series_drops_total{reason=\"cap\"}").await, 1900.0);
    // Whoever sends such samples is told; those that are there go on.
    let rows = json!([["n000", {"user": "a"}, 1], ["other", {"user": "b"}, 2]]);
    let token = hub.token("publisher", &["**"]);
    let more = json!({"topic": "one.metrics", "type": "samples", "data": {"rows": rows}});
    let request = hub.http().post(hub.url("/api/v1/publish")).bearer_auth(token).json(&more);
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    let why = "event 0: there is no room for another series: `series.max_per_topic` is reached: the label `__name__` of \
               one.metrics has 50 values";
    assert_eq!(answer["dropped"], json!({"sample": 2, "reasons": [why]}));
    hub.publish(json!({"topic": "one.metrics", "data": {"n000": 77, "n999": 1}})).await;
    becomes(&hub, "one.n000", 77.0).await;
}

#[tokio::test]
async fn a_series_is_as_open_as_its_topic() {
    let hub = TestHub::start().await;
    hub.publish(json!([
        {"topic": "open.metrics", "data": {"n": 1}},
        {"topic": "closed.metrics", "data": {"n": 2}},
        {"topic": "closed.samples", "type": "samples", "data": {"samples": [{"name": "open.n", "value": 3}]}},
    ]))
    .await;
    becomes(&hub, "closed.n", 2.0).await;
    let list = get(&hub, &["open.*"], "/api/v1/series").await;
    assert_eq!(list["series"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list["series"][0]["name"], "open.n");
    let path = "/api/v1/series/query?name=open.n&agg=last&from=1m";
    let topics = async |patterns: &[&str]| {
        let columns = get(&hub, patterns, path).await;
        let series = columns["series"].as_array().unwrap().clone();
        series.into_iter().map(|series| series["topic"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(topics(&["open.*"]).await, ["open.metrics"]);
    assert_eq!(topics(&["**"]).await, ["closed.samples", "open.metrics"]);
    assert!(topics(&["other"]).await.is_empty());
    let answer = hub.http().get(hub.url(path)).send().await.unwrap();
    assert_eq!(answer.status(), 401);

    // Page by page.
    let mut path = "/api/v1/series?limit=1&topic=*.*".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = get(&hub, &["**"], &path).await;
        let series = page["series"].as_array().unwrap();
        seen.extend(series.iter().map(|s| format!("{} {}", s["topic"], s["name"])));
        let Some(next) = page["next"].as_str() else { break };
        let mut url = reqwest::Url::parse("http://x/api/v1/series?limit=1&topic=*.*").unwrap();
        url.query_pairs_mut().append_pair("after", next);
        path = format!("/api/v1/series?{}", url.query().unwrap());
    }
    let wanted = [
        r#""closed.metrics" "closed.n""#,
        r#""closed.samples" "open.n""#,
        r#""open.metrics" "open.n""#,
    ];
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn questions_that_mean_nothing_are_told_what_to_do() {
    let hub = TestHub::start().await;
    let token = hub.token("reader", &["**"]);
    for (query, said) in [
        ("", "GET /api/v1/series"),
        ("name=", "1 to 1024 bytes"),
        ("name=a&agg=median", "avg, min"),
        ("name=a&step=5", "duration"),
        ("name=a&step=0s", "at least 1s"),
        ("name=a&from=yesterday", "seconds since 1970"),
        ("name=a&from=1m&to=2m", "before `to`"),
        ("name=a&labels=key", "key=value"),
        ("name=a&labels={", "JSON object"),
    ] {
        let url = hub.url(&format!("/api/v1/series/query?{query}"));
        let answer = hub.http().get(url).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{query}");
        let problem: Value = answer.json().await.unwrap();
        assert!(problem["detail"].as_str().unwrap().contains(said), "{query}: {problem}");
    }
    for wide in ["name=a&from=0&to=99999999999999&step=1s", "name=a&step=99999999d"] {
        let columns = get(&hub, &["**"], &format!("/api/v1/series/query?{wide}")).await;
        assert_eq!(columns["series"], json!([]));
        assert!(columns["times"].as_array().unwrap().len() <= 11_001, "{wide}");
    }
}

#[tokio::test]
async fn times_that_cannot_be_true_become_the_arrival() {
    let hub = TestHub::start().await;
    let now = pulsehub::time::Clock::system().now();
    let at = |time: u64| pulsehub::time::rfc3339(time);
    let day = 86_400_000;
    let events: Vec<_> = [now - 60 * day, now + day, now - 2 * day, now + 60_000]
        .iter()
        .enumerate()
        .map(|(n, time)| json!({"topic": "t.metrics", "time": at(*time), "data": {format!("n{n}"): n}}))
        .collect();
    hub.publish(events.into()).await;
    becomes(&hub, "t.n3", 3.0).await;
    let list = get(&hub, &["**"], "/api/v1/series?prefix=t.").await;
    let time = |n: usize| {
        let text = list["series"][n]["newest"]["time"].as_str().unwrap();
        pulsehub::time::parse_rfc3339(text).unwrap()
    };
    assert!(time(0).abs_diff(now) < 60_000 && time(1).abs_diff(now) < 60_000, "arrival: {list}");
    assert_eq!((time(2), time(3)), (now - 2 * day, now + 60_000), "as sent: {list}");
    assert_eq!(hub.metric("pulsehub_series_retimed_total").await, 2.0);
}

#[tokio::test]
async fn counters_and_histograms_are_counted_from_their_samples() {
    let hub = TestHub::start().await;
    let now = pulsehub::time::Clock::system().now() / 60_000 * 60_000 - 600_000;
    // Five requests before we looked, then 10, a new beginning with 3, then 4.
    let totals = [5, 15, 3, 7];
    let mut samples = Vec::new();
    for (n, total) in totals.iter().enumerate() {
        let time = now + n as u64 * 10_000;
        samples.push(json!({"name": "http_requests_total", "type": "counter", "unit": "requests",
            "labels": {"code": 200, "path": "/a,b"}, "time": time, "value": total}));
        // 1 s each: half below 0.5, all below 1; one more batch each time.
        samples.push(
            json!({"name": "took", "type": "histogram", "unit": "s", "time": pulsehub::time::rfc3339(time),
            "count": n * 100, "sum": n * 60, "bounds": [0.5, 1.0], "counts": [n * 50, n * 50, 0]}),
        );
        samples.push(
            json!({"name": "jobs", "type": "counter", "delta": true, "time": time, "value": 2}),
        );
    }
    hub.publish(json!({"topic": "web.samples", "type": "samples", "data": {"samples": samples}}))
        .await;
    becomes(&hub, "jobs", 8.0).await;
    let figure = async |question: &str| {
        let path =
            format!("/api/v1/series/query?{question}&from={}&to={}", now / 1000, now / 1000 + 60);
        let columns = get(&hub, &["web.*"], &path).await;
        assert_eq!(columns["times"], json!([now / 1000]), "{columns}");
        columns["values"][0][0].clone()
    };
    assert_eq!(figure("name=http_requests_total&step=1m&agg=increase").await, 17.0);
    let labels = r#"labels={"code":"200","path":"/a,b"}"#;
    let rate = figure(&format!("name=http_requests_total&step=1m&{labels}")).await;
    assert_eq!(rate, 17.0 / 60.0, "a counter's rate without being asked");
    assert_eq!(figure("name=http_requests_total&step=1m&agg=last").await, 7.0);
    assert_eq!(figure("name=jobs&step=1m&agg=increase").await, 8.0);
    assert_eq!(figure("name=took&step=1m&agg=count").await, 300.0);
    assert_eq!(figure("name=took&step=1m&agg=avg").await, 0.6);
    assert_eq!(figure("name=took&step=1m&agg=p95").await, 0.95);
    for (agg, unit) in [("avg", json!("s")), ("p95", json!("s")), ("rate", json!(null))] {
        let path = format!("/api/v1/series/query?name=took&agg={agg}&from={}", now / 1000);
        let columns = get(&hub, &["web.*"], &path).await;
        assert_eq!(columns["series"][0]["unit"], unit, "{agg}");
    }
    for (agg, unit) in [("increase", json!("requests")), ("count", json!(null))] {
        let path = "/api/v1/series/query?name=http_requests_total";
        let columns = get(&hub, &["web.*"], &format!("{path}&agg={agg}&from={}", now / 1000)).await;
        assert_eq!(columns["series"][0]["unit"], unit, "{agg}");
    }
    let list = get(&hub, &["web.*"], "/api/v1/series?prefix=took_").await;
    for series in list["series"].as_array().unwrap() {
        let unit = if series["name"] == "took_sum" { json!("s") } else { json!(null) };
        assert_eq!(series["unit"], unit, "how many there were is not in seconds: {series}");
    }
    // What was a counter may become a gauge.
    let other = json!({"samples": [{"name": "jobs", "type": "gauge", "value": 1}, {"name": "seen", "value": 1}]});
    hub.publish(json!({"topic": "web.samples", "type": "samples", "data": other})).await;
    becomes(&hub, "seen", 1.0).await;
    let list = get(&hub, &["web.*"], "/api/v1/series?prefix=jobs").await;
    assert_eq!((&list["series"][0]["type"], &list["dropped"]), (&json!("gauge"), &json!({})));
}
