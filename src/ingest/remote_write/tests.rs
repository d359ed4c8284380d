//! Requests of Prometheus, written with prost from the specification's messages.

use proptest::prelude::*;
use prost::Message;
use serde_json::{Value, json};

use super::*;
use crate::event::{PublisherName, new_id};

/// `prometheus.WriteRequest`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) series: Vec<TimeSeries>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) metadata: Vec<MetricMetadata>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<PromSample>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    histograms: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PromSample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetricMetadata {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    family: String,
    #[prost(string, tag = "4")]
    help: String,
    #[prost(string, tag = "5")]
    unit: String,
}

/// 2026-11-20T12:00:00Z
const NOW: Millis = 1_795_176_000_000;
const AT: i64 = 1_795_175_990_000;

pub(crate) fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> TimeSeries {
    let label =
        |(name, value): &(&str, &str)| Label { name: (*name).into(), value: (*value).into() };
    let sample =
        |(timestamp, value): &(i64, f64)| PromSample { value: *value, timestamp: *timestamp };
    TimeSeries {
        labels: labels.iter().map(label).collect(),
        samples: samples.iter().map(sample).collect(),
        histograms: Vec::new(),
    }
}

fn read_as(
    template: &str,
    event: usize,
    most: usize,
    body: &[u8],
) -> Result<RemoteWrite, RemoteWriteError> {
    let topic: TopicTemplate = template.parse().unwrap();
    let limits = BatchLimits { event, batch: 100 };
    let times = NOW - 3_600_000..=NOW + 300_000;
    let rules = RemoteWriteRules { topic: &topic, limits: &limits, times, most };
    let publisher = PublisherName::key("prom");
    let defaults = Defaults { source: "prom", publisher: &publisher, now: NOW, new_id };
    read(body, &rules, &defaults)
}

fn read_all(template: &str, series: Vec<TimeSeries>) -> RemoteWrite {
    let request = WriteRequest { series, metadata: Vec::new() };
    read_as(template, 10_000, 100_000, &request.encode_to_vec()).unwrap()
}

fn data(event: &Event) -> Value {
    serde_json::from_str(event.data.get()).unwrap()
}

fn reasons(write: &RemoteWrite) -> Vec<String> {
    let told = serde_json::to_value(&write.losses).unwrap();
    serde_json::from_value(told["reasons"].clone()).unwrap()
}

#[test]
fn each_target_is_one_event_with_what_its_samples_share_once() {
    let up = |instance| {
        series(&[("__name__", "up"), ("instance", instance), ("job", "node")], &[(AT, 1.0)])
    };
    let load = series(
        &[("__name__", "load"), ("cpu", "0"), ("instance", "a:1"), ("job", "node")],
        &[(AT, f64::INFINITY), (AT + 1000, f64::from_bits(0x7ff0_0000_0000_0002))],
    );
    let write = read_all("{publisher}.samples", vec![up("a:1"), up("b:1"), load]);
    assert!(write.losses.is_empty());
    let [topic] = &write.topics[..] else { panic!("{write:?}") };
    assert_eq!((topic.topic.as_str(), topic.samples), ("prom.samples", 4));
    let keys: Vec<_> = topic.events.iter().map(|event| event.key.as_deref()).collect();
    assert_eq!(keys, [Some("node/a:1"), Some("node/b:1")]);
    let wanted = json!({
        "time": AT, "labels": {"instance": "a:1", "job": "node"},
        "rows": [["up", {}, 1.0], ["load", {"cpu": "0"}, "+Inf"], ["load", {"cpu": "0"}, "stale", AT + 1000]],
    });
    assert_eq!(data(&topic.events[0]), wanted);
    let event = &topic.events[0];
    assert_eq!(
        (event.kind.as_deref(), &*event.source, event.id_is_ours),
        (Some("samples"), "prom", false)
    );
}

#[test]
fn the_same_request_makes_the_same_events_whenever_it_is_sent() {
    let rows: Vec<_> = (0..200).map(|n| (format!("m{n}"), f64::from(n))).collect();
    let request = || {
        rows.iter()
            .map(|(name, value)| series(&[("__name__", name), ("job", "x")], &[(AT, *value)]))
    };
    let ids = |write: RemoteWrite| -> Vec<_> {
        write.topics.into_iter().flat_map(|topic| topic.events).map(|event| event.id).collect()
    };
    let body = WriteRequest { series: request().collect(), metadata: Vec::new() }.encode_to_vec();
    let small = |body: &[u8]| ids(read_as("{job}.samples", 1000, 100_000, body).unwrap());
    let first = small(&body);
    assert!(first.len() > 3, "{first:?}");
    assert_eq!(first, small(&body));
    let write = read_as("{job}.samples", 1000, 100_000, &body).unwrap();
    let limits = BatchLimits { event: 1000, batch: 100 };
    for event in write.topics.iter().flat_map(|topic| &topic.events) {
        limits.check(event).unwrap();
    }
}

#[test]
fn what_cannot_be_taken_is_named_and_the_rest_is() {
    let named = |name| [("__name__", name), ("job", "x")];
    let (old, soon) = (AT - 3_600_000, AT + 400_000);
    let mut native = series(&named("native"), &[]);
    native.histograms = vec![vec![]];
    let many: Vec<_> = (0..300).map(|n| format!("l{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (&**name, "v")).collect();
    let long = "x".repeat(300);
    let write = read_all(
        "{job}.samples",
        vec![
            series(&named("good"), &[(AT, 1.0), (old, 2.0), (soon, 3.0), (-1, 4.0)]),
            series(&[("job", "x")], &[(AT, 1.0)]),
            series(&[("__name__", "twice"), ("a", "1"), ("a", "2")], &[(AT, 1.0)]),
            series(&[("__name__", "ours"), ("__topic__", "hub.host")], &[(AT, 1.0)]),
            series(&many, &[(AT, 1.0), (AT + 1, 1.0)]),
            series(&[("__name__", "far"), ("job", &long)], &[(AT, 1.0)]),
            native,
            series(&[("__name__", "also"), ("job", "x"), ("empty", "")], &[(AT, 1.0)]),
        ],
    );
    let [topic] = &write.topics[..] else { panic!("{write:?}") };
    assert_eq!((topic.topic.as_str(), topic.samples), ("x.samples", 2));
    assert_eq!(data(&topic.events[0])["rows"], json!([["good", {}, 1.0], ["also", {}, 1.0]]));
    let reasons = reasons(&write);
    for (n, part) in [
        (0, "good{job=\"x\"}: the time of a sample, 1795172390000 ms, is not between"),
        (1, "1795176390000 ms"),
        (2, "-1 ms"),
        (3, "{job=\"x\"}: a series needs a name"),
        (4, "the label a stands there twice"),
        (5, "no label may be called \"__topic__\""),
        (6, "l0=\"v\""),
        (8, "far{job=\"x"),
        (9, "native{job=\"x\"}: native histograms are not taken"),
    ] {
        assert!(reasons[n].contains(part), "{part}: {reasons:?}");
    }
    assert_eq!(reasons.len(), 10);
}

#[test]
fn metadata_go_where_the_topic_needs_no_label() {
    let calls = MetricMetadata {
        kind: 1,
        family: "calls_total".into(),
        help: "Calls.".into(),
        unit: String::new(),
    };
    let body = WriteRequest { series: Vec::new(), metadata: vec![calls] }.encode_to_vec();
    let write = read_as("{publisher}.samples", 10_000, 100_000, &body).unwrap();
    let event = &write.topics[0].events[0];
    assert_eq!(
        data(event)["metadata"],
        json!({"calls_total": {"type": "counter", "help": "Calls."}})
    );
    assert_eq!((event.key.as_deref(), write.topics[0].samples), (None, 0));
    assert!(read_as("{job}.samples", 10_000, 100_000, &body).unwrap().topics.is_empty());
}

#[test]
fn many_samples_of_a_series_of_long_labels_became_a_hundred_times_as_many_bytes() {
    let long = "x".repeat(4000);
    let samples: Vec<_> = (0..1000).map(|n| (AT + n, 1.0)).collect();
    let one = series(&[("__name__", "a"), ("long", &long)], &samples);
    let body = WriteRequest { series: vec![one], metadata: Vec::new() }.encode_to_vec();
    assert!(body.len() < 40_000);
    let refused = read_as("a", 10_000, 100_000, &body);
    assert_eq!(refused.unwrap_err(), RemoteWriteError::TooMuch(100_000));
}

proptest! {
    /// Whatever it is: read or refused, and no more is made of it than may be.
    #[test]
    fn any_bytes_are_read_or_refused(
        mut body in proptest::collection::vec(any::<u8>(), 0..400),
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        is_real in any::<bool>(),
    ) {
        if is_real {
            let real = series(&[("__name__", "up"), ("job", "x")], &[(AT, 1.0), (AT + 1, 2.0)]);
            body = WriteRequest { series: vec![real.clone(), real], metadata: Vec::new() }.encode_to_vec();
            for (place, byte) in places {
                let place = place.index(body.len());
                body[place] = byte;
            }
        }
        if let Ok(write) = read_as("{job}.samples", 1000, 2000, &body) {
            let limits = BatchLimits { event: 1000, batch: 100 };
            for event in write.topics.iter().flat_map(|topic| &topic.events) {
                prop_assert!(limits.check(event).is_ok());
            }
        }
    }
}
