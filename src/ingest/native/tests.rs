//! What the native format takes and what it refuses.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::{
    event::{DataError, PublisherName},
    topic::TopicError,
};

static PUBLISHER: LazyLock<PublisherName> = LazyLock::new(PublisherName::anonymous);

fn defaults() -> Defaults<'static> {
    let publisher = &PUBLISHER;
    Defaults { source: "me", publisher, now: 1_795_176_000_123, new_id: || "made".into() }
}

const LIMITS: BatchLimits = BatchLimits { event: 200, batch: 5 };

fn json(body: &str) -> Result<Vec<Event>, Refusal> {
    read(body.as_bytes(), BodyFormat::Json, &defaults(), &LIMITS)
}

fn faults(body: &str) -> Vec<(usize, Option<&'static str>, Fault)> {
    match json(body) {
        Err(Refusal::Items(items)) => {
            items.into_iter().map(|item| (item.index, item.field, item.fault)).collect()
        }
        other => panic!("not a list of bad items: {other:?}"),
    }
}

#[test]
fn what_is_absent_or_null_gets_its_default() {
    let events = json(r#"{"topic":"a.b","key":null,"later":{"x":[]}}"#).unwrap();
    let event = &events[0];
    assert_eq!((event.topic.as_str(), &*event.id, event.id_is_ours), ("a.b", "made", true));
    assert_eq!((&*event.source, &*event.time), ("me", "2026-11-20T12:00:00.123Z"));
    assert_eq!((&event.kind, &event.key, event.data.get()), (&None, &None, "null"));
}

#[test]
fn what_is_said_stays_as_it_was_said() {
    let body = r#"[{"topic":"a","id":"i\u0041","source":"s","type":"t","time":"2026-11-20T13:00:00.5+01:00",
        "key":"k","data":{ "n" : 1.00, "e":"\u00e4" }}]"#;
    let event = json(body).unwrap().remove(0);
    assert_eq!((&*event.id, event.id_is_ours, &*event.source), ("iA", false, "s"));
    assert_eq!((event.kind.as_deref(), event.key.as_deref()), (Some("t"), Some("k")));
    assert_eq!(&*event.time, "2026-11-20T13:00:00.5+01:00");
    assert_eq!(event.data.get(), r#"{"n":1.00,"e":"\u00e4"}"#);
}

#[test]
fn lines_are_known_by_the_second_of_them() {
    let topics = |body: &str| {
        let events = json(body)?;
        Ok(events.iter().map(|event| event.topic.to_string()).collect::<Vec<_>>())
    };
    for body in
        ["{\"topic\":\"a\"}\n{\"topic\":\"b\"}", "\n{\"topic\":\"a\"}\r\n\r\n  {\"topic\":\"b\"}\n"]
    {
        assert_eq!(topics(body), Ok(vec!["a".into(), "b".into()]), "{body:?}");
    }
    for one in ["{\"topic\":\"a\"}\n\n", "{\n\"topic\":\"a\",\n\"data\":{\n}\n}\n"] {
        assert_eq!(topics(one), Ok(vec!["a".into()]), "{one:?}");
    }
    for (body, at) in [
        ("{\"topic\":\"a\"} {\"topic\":\"b\"}", 1),
        ("{\"topic\":\"a\"}\n]", 2),
        ("{\"topic\":\"a\"}\n{\"topic\":\"b\"}\n{\"topic\":", 3),
        ("{\n\"topic\":\"a\"}\n{\"topic\":\"b\"}", 3),
    ] {
        let refused = topics(body);
        assert!(
            matches!(refused, Err(Refusal::Malformed { line, .. }) if line == at),
            "{refused:?}"
        );
    }
    let many = "{\"topic\":\"a\"}\n".repeat(6);
    assert_eq!(topics(&many), Err(BatchTooLong { limit: 5 }.into()));
}

#[test]
fn lines_are_events_and_blank_lines_nothing() {
    let body = b"{\"topic\":\"a\"}\r\n\n  {\"topic\":\"b\"}\n";
    let events = read(body, BodyFormat::Lines, &defaults(), &LIMITS).unwrap();
    assert_eq!(events.iter().map(|event| event.topic.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let refusal =
        read(b"{\"topic\":\"a\"}\n\n{\"topic\"\n", BodyFormat::Lines, &defaults(), &LIMITS);
    assert!(matches!(refusal, Err(Refusal::Malformed { line: 3, .. })), "{refusal:?}");
}

#[test]
fn every_fault_of_every_event_is_told() {
    let body = r#"[{"topic":"a"},{"topic":"a..b","type":7,"id":""},3,{"data":[]},{"topic":"a","topic":"b"}]"#;
    assert_eq!(
        faults(body),
        [
            (1, Some("type"), Fault::NotText("a number")),
            (1, Some("topic"), Fault::Topic(TopicError::EmptyToken)),
            (1, Some("id"), Fault::Blank),
            (2, None, Fault::NotAnObject("a number")),
            (3, Some("topic"), Fault::NoTopic),
            (4, None, Fault::Repeated),
        ]
    );
    assert_eq!(faults(r#"{"topic":[]}"#), [(0, Some("topic"), Fault::NotText("an array"))]);
    assert_eq!(faults(r#"{"topic":"a","key":"\ud800"}"#), [(0, Some("key"), Fault::BadEscape)]);
    assert_eq!(faults(r#""text""#), [(0, None, Fault::NotAnObject("a string"))]);
    let refusal = json(body).unwrap_err().to_string();
    assert!(refusal.starts_with("4 of the batch's events"), "{refusal}");
}

#[test]
fn an_array_in_the_place_of_an_event_is_refused() {
    let array = r#"["a","i","s","t",null,"k",1]"#;
    let no_object = Fault::NotAnObject("an array");
    for body in [format!("[{array}]"), format!(r#"[{{"topic":"a"}},{array}]"#)] {
        let found = faults(&body);
        assert_eq!((&found[0].1, &found[0].2), (&None, &no_object), "{body}");
    }
    let lines = read(array.as_bytes(), BodyFormat::Lines, &defaults(), &LIMITS);
    assert!(matches!(lines, Err(Refusal::Items(_))), "{lines:?}");
}

#[test]
fn the_bounds_hold() {
    let long = "k".repeat(257);
    assert_eq!(
        faults(&format!(r#"{{"topic":"a","key":"{long}"}}"#)),
        [(0, Some("key"), Fault::TooLong(257))]
    );
    let deep = format!(r#"{{"topic":"a","data":{}1{}}}"#, "[".repeat(101), "]".repeat(101));
    assert_eq!(faults(&deep), [(0, Some("data"), Fault::Data(DataError::TooDeep))]);
    let large = format!(r#"{{"topic":"a","data":"{}"}}"#, "x".repeat(200));
    let refusal = json(&large).unwrap_err();
    assert_eq!(refusal.limit(), Some(crate::telemetry::Limit::Event));
    let spaced = format!(r#"{{"topic":"a","data":[{}]}}"#, " ".repeat(200));
    assert!(json(&spaced).is_ok(), "white space does not count");
    let many = format!("[{}]", [r#"{"topic":"a"}"#; 6].join(","));
    assert_eq!(json(&many).unwrap_err(), Refusal::TooLong(BatchTooLong { limit: 5 }));
    let many = many.replace("},{", "}\n{").replace(['[', ']'], "");
    let refusal = read(many.as_bytes(), BodyFormat::Lines, &defaults(), &LIMITS).unwrap_err();
    assert_eq!(refusal, Refusal::TooLong(BatchTooLong { limit: 5 }));
    for empty in ["", " \n", "[]", " [ ] "] {
        assert_eq!(json(empty).unwrap_err(), Refusal::Empty, "{empty:?}");
    }
}

#[test]
fn what_is_no_json_is_refused_with_its_place() {
    for (body, line, column) in [
        ("{\"topic\":\"a\",\n\"data\":NaN}", 2, 8),
        ("[{\"topic\":\"a\"},", 1, 15),
        ("{\"topic\":\"a\"} x", 1, 15),
        ("{\"topic\":\"a\",\"data\":Infinity}", 1, 21),
    ] {
        match json(body) {
            Err(Refusal::Malformed { line: l, column: c, .. }) => {
                assert_eq!((l, c), (line, column), "{body}");
            }
            other => panic!("{body}: {other:?}"),
        }
    }
    let refusal =
        read(b"{\"topic\":\n\"a\xff\"}", BodyFormat::Json, &defaults(), &LIMITS).unwrap_err();
    assert!(matches!(refusal, Refusal::Malformed { line: 2, column: 3, .. }), "{refusal:?}");
}

#[test]
fn a_time_is_rfc_3339_and_nothing_else() {
    let time = |text: &str| json(&format!(r#"{{"topic":"a","time":"{text}"}}"#));
    for good in [
        "2026-11-20T12:00:00Z",
        "2026-11-20t12:00:00.123456789z",
        "1969-12-31T23:59:59-08:00",
        "2016-12-31T23:59:60Z",
        "9999-12-31T23:59:59Z",
        "2026-11-20T12:00:00.1234567890Z",
        "2026-11-20T12:00:00+23:59",
    ] {
        assert!(time(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "2026-11-20T12:00:00",
        "2026-11-20 12:00:00Z",
        "20261120T120000Z",
        "2026-11-20T12:00:00.Z",
        "2026-13-20T12:00:00Z",
        "2026-11-20T12:00:00+01",
        "2026-11-20T12:00:00+25:59",
        "2026-11-20T12:00:00+01:60",
        "2026-11-20T24:00:00Z",
        "2026-02-29T12:00:00Z",
        "2026-11-20T12:60:00Z",
        "2026-11-20T12:00:61Z",
        "2026-11-20T12:00:00Z[UTC]",
        "yesterday",
    ] {
        assert!(time(bad).is_err(), "{bad}");
    }
}

fn attribute_text() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("\\PC{1,20}|[\\x00-\\x7f]{1,20}")
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes, BodyFormat::Json, &defaults(), &LIMITS);
        let _ = read(&bytes, BodyFormat::Lines, &defaults(), &LIMITS);
    }

    #[test]
    fn hostile_text_never_panics(
        text in "([\\[\\]{},:]|\"(topic|id|type|time|data|a)\"|null|-|[0-9]|\\\\u[0-9a-f]{4}|\n| ){0,60}",
    ) {
        let _ = json(&text);
        let _ = read(text.as_bytes(), BodyFormat::Lines, &defaults(), &LIMITS);
    }

    #[test]
    fn good_batches_come_through_as_sent(
        batch in proptest::collection::vec((attribute_text(), attribute_text(), attribute_text(), any::<f32>()), 1..5),
    ) {
        let objects: Vec<_> = batch
            .iter()
            .map(|(id, kind, key, number)| serde_json::json!({
                "topic": "a.b", "id": id, "type": kind, "key": key, "data": {"n": number},
            }))
            .collect();
        let array = serde_json::to_string_pretty(&objects).unwrap();
        let lines: Vec<_> = objects.iter().map(ToString::to_string).collect();
        let limits = BatchLimits { event: 1000, batch: 5 };
        let from_array = read(array.as_bytes(), BodyFormat::Json, &defaults(), &limits).unwrap();
        let from_lines = read(lines.join("\n").as_bytes(), BodyFormat::Lines, &defaults(), &limits).unwrap();
        for events in [from_array, from_lines] {
            for (event, (object, (id, kind, key, _))) in events.iter().zip(objects.iter().zip(&batch)) {
                prop_assert_eq!(&*event.id, id.as_deref().unwrap_or("made"));
                prop_assert_eq!(event.kind.as_deref(), kind.as_deref());
                prop_assert_eq!(event.key.as_deref(), key.as_deref());
                prop_assert_eq!(event.data.get(), object["data"].to_string());
            }
        }
    }
}

#[test]
fn a_lone_surrogate_in_a_members_name_cost_the_whole_event() {
    for body in [r#"{"topic":"a","\ud800":1}"#, r#"[{"topic":"a","\ud800":1}]"#] {
        assert_eq!(json(body).unwrap()[0].topic.as_str(), "a", "{body}");
    }
    let body = r#"[{"topic":"a","\ud800":1},{"topic":"..","\ud800":1}]"#;
    assert!(
        matches!(&faults(body)[..], [(1, Some("topic"), Fault::Topic(_))]),
        "{:?}",
        faults(body)
    );
}
