//! Events of type `samples` in the compact form, and what becomes of hints.

use super::*;

impl Bench {
    async fn publish_rows(&self, data: serde_json::Value) {
        let event = event(NOW, &data).with_key("target:1");
        self.broker.publish(event.into()).await.unwrap();
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::exact(pairs.iter().copied()).unwrap()
}

/// All series, as name, labels and newest value.
fn all(series: &Series) -> Vec<(String, Labels, Point)> {
    let listed = series.names(|_| true).into_iter();
    listed
        .map(|one| (one.identity.name.to_string(), one.identity.labels.clone(), one.newest))
        .collect()
}

#[tokio::test]
async fn rows_have_common_labels_and_time_once_and_the_key_is_no_label() {
    let bench = Bench::new();
    let mut node = bench.node(true).await;
    let data = json!({
        "labels": {"job": "a", "instance": "x:1"},
        "time": NOW - 1000,
        "rows": [
            ["calls_total", {"status": "ok"}, 4],
            ["calls_total", {"status": "bad", "job": "own"}, 2, NOW - 5000],
            ["calls_total", {"instance": ""}, 3],
            ["größe/x", {}, -1e300],
        ],
    });
    bench.publish_rows(data).await;
    follow(&mut node).await;
    let point = |ago, value| Point { time: NOW - ago, value };
    let wanted = [
        (
            "calls_total".to_owned(),
            labels(&[("instance", "x:1"), ("job", "a"), ("status", "ok")]),
            point(1000, 4.0),
        ),
        (
            "calls_total".to_owned(),
            labels(&[("instance", "x:1"), ("job", "own"), ("status", "bad")]),
            point(5000, 2.0),
        ),
        ("calls_total".to_owned(), labels(&[("job", "a")]), point(1000, 3.0)),
        ("größe/x".to_owned(), labels(&[("instance", "x:1"), ("job", "a")]), point(1000, -1e300)),
    ];
    assert_eq!(all(&node.series), wanted);
    assert!(node.series.dropped().is_empty());
}

#[tokio::test]
async fn values_that_json_has_no_number_for_are_taken() {
    let bench = Bench::new();
    let mut node = bench.node(true).await;
    let rows = json!([["a", {}, "+Inf"], ["b", {}, "-Inf"], ["c", {}, "NaN"], ["d", {}, "stale"]]);
    bench.publish_rows(json!({"rows": rows})).await;
    follow(&mut node).await;
    let newest: Vec<_> =
        all(&node.series).into_iter().map(|(name, _, newest)| (name, newest.value)).collect();
    assert_eq!(newest[..2], [("a".to_owned(), f64::INFINITY), ("b".to_owned(), f64::NEG_INFINITY)]);
    assert!(newest[2].1.is_nan() && newest.len() == 3, "what nobody knows cannot end");
    // What follows an infinity is counted from there on.
    bench.publish_rows(json!({"rows": [["a", {}, 5]], "time": NOW + 1})).await;
    bench.publish_rows(json!({"rows": [["a", {}, 7]], "time": NOW + 2})).await;
    follow(&mut node).await;
    let name = Name::exact("a").unwrap();
    let sum =
        async |agg| node.series.window(&name, &Labels::default(), agg, None, NOW, &|_| true).await;
    assert_eq!(sum(Aggregate::Max).await.unwrap(), Some(f64::INFINITY));
    assert_eq!(sum(Aggregate::Count).await.unwrap(), Some(3.0));
}

#[tokio::test]
async fn a_bad_row_costs_only_itself() {
    let bench = Bench::new();
    let mut node = bench.node(true).await;
    let rows = json!([
        ["good", {}, 1], ["short", {}], ["long", {}, 1, NOW, 5], 7, ["", {}, 1], ["bool", {}, true],
        ["text", {}, "much"], ["list", {"a": [1]}, 1], ["__name__", {"__name__": "x"}, 1],
        ["timeless", {}, 1, "yesterday"], ["good", {"n": 1}, 2],
    ]);
    bench.publish_rows(json!({"rows": rows})).await;
    bench.publish_rows(json!({"labels": {"a": [1]}, "rows": [["x", {}, 1], ["y", {}, 1]]})).await;
    follow(&mut node).await;
    assert_eq!(all(&node.series).len(), 2);
    let dropped = node.series.dropped();
    let wanted = [("labels", 4), ("name", 1), ("shape", 3), ("time", 1), ("value", 2)];
    assert_eq!(dropped.into_iter().collect::<Vec<_>>(), wanted);
}

#[tokio::test]
async fn a_type_that_comes_late_or_changes_leaves_nothing_out() {
    let bench = Bench::new();
    let mut node = bench.node(true).await;
    for (ago, value) in [(3, 5), (2, 9), (1, 2)] {
        bench
            .publish_rows(json!({"time": NOW - ago * 1000, "rows": [["calls_total", {}, value]]}))
            .await;
    }
    follow(&mut node).await;
    let kind = |node: &Upkeep| node.series.names(|_| true)[0].identity.kind;
    let name = Name::exact("calls_total").unwrap();
    let sum = async |node: &Upkeep| {
        let none = Labels::default();
        node.series.window(&name, &none, Aggregate::Sum, None, NOW, &|_| true).await.unwrap()
    };
    assert_eq!((kind(&node), sum(&node).await), (Kind::Gauge, Some(16.0)));
    let said = json!({"calls": {"type": "counter", "unit": "calls", "help": "Calls."}});
    bench.publish_rows(json!({"metadata": said, "rows": []})).await;
    follow(&mut node).await;
    assert_eq!(
        (kind(&node), sum(&node).await),
        (Kind::Counter, Some(6.0)),
        "4 more, and 2 after a fall"
    );
    save(&mut node).await;
    let mut node = bench.node(true).await;
    assert_eq!((kind(&node), sum(&node).await), (Kind::Counter, Some(6.0)), "after a restart too");
    // The present form may say otherwise, and metadata what they like.
    let sample = json!({"name": "calls_total", "type": "gauge", "value": -3});
    bench.broker.publish(event(NOW, &json!({"samples": [sample]})).into()).await.unwrap();
    let odd = json!({"calls": {"type": "surprise"}, "other": 7});
    bench
        .publish_rows(json!({"metadata": odd, "time": NOW + 1, "rows": [["calls_total", {}, 1]]}))
        .await;
    follow(&mut node).await;
    assert_eq!((kind(&node), sum(&node).await), (Kind::Gauge, Some(14.0)));
    assert_eq!(node.series.dropped().into_iter().collect::<Vec<_>>(), [("shape", 1)]);
    let metadata = node.series.metadata(|topic| topic == "a.samples");
    assert_eq!((metadata.len(), &*metadata[0].1, &*metadata[0].2.kind), (1, "calls", "surprise"));
    assert!(node.series.metadata(|_| false).is_empty());
}

#[tokio::test]
async fn names_from_hell_are_series_of_their_own() {
    let bench = Bench::new();
    let mut node = bench.node(true).await;
    let rows = json!([
        ["a", {"b": "1"}, 1], ["a\nb=1:1", {}, 2], ["a", {"b=1:1\nc": "1"}, 3], ["a\\nb\\e1:1", {}, 4],
        ["a.b", {}, 5], ["a_b", {}, 6], ["a", {"b": "1\nc=1:1"}, 7],
    ]);
    bench.publish_rows(json!({"rows": rows})).await;
    follow(&mut node).await;
    assert_eq!(all(&node.series).len(), 7);
    save(&mut node).await;
    let node = bench.node(true).await;
    assert_eq!(all(&node.series).len(), 7, "after a restart too");
}
