//! What instances of TimeTracker post, in the shapes they post it in and in broken ones.

use super::*;
use crate::time::parse_rfc3339;

const LIMITS: BatchLimits = BatchLimits { event: 2048, batch: 10 };
const NOW: &str = "2026-03-01T12:00:00.000Z";

fn usage(body: &str) -> Result<(Vec<Event>, Value), Refusal> {
    let message = Message::read(body)?;
    let (app, instance) = (message.app()?.unwrap(), message.needed_instance()?);
    let (now, mut losses) = (parse_rfc3339(NOW).unwrap(), Losses::default());
    let events =
        message.usage(&app, &instance, &PublisherName::anonymous(), now, &LIMITS, &mut losses)?;
    Ok((events, serde_json::to_value(&losses).unwrap()))
}

fn with(data: &str) -> Result<(Vec<Event>, Value), Refusal> {
    usage(&format!(r#"{{"app_identifier":"tt","instance_id":"i-1","data":{data}}}"#))
}

#[test]
fn a_point_is_an_event_of_its_key_and_its_instance() {
    let (events, _) =
        with(r#"[{"key":"usage_event","value":"feature_used","type":"string","metadata":{"feature":"dashboard"}}]"#)
            .unwrap();
    let event = &events[0];
    assert_eq!(event.topic.as_str(), "tt.usage.usage_event");
    assert_eq!((&*event.source, event.key.as_deref()), ("i-1", Some("i-1")));
    assert_eq!((event.kind.as_deref(), &*event.time), (Some("usage"), NOW));
    assert!(event.id_is_ours);
    assert_eq!(
        event.data.get(),
        r#"{"key":"usage_event","value":"feature_used","type":"string","metadata":{"feature":"dashboard"},"instance_id":"i-1","received_at":"2026-03-01T12:00:00.000Z"}"#
    );
}

#[test]
fn what_a_point_says_of_its_instance_and_its_arrival_never_stands_beside_the_hubs_word() {
    let (events, _) = with(
        r#"[{"key":"a","instance_id":"other","x":{},"received\u005fat":1,"big":1e400,"odd":"\ud800"}]"#,
    )
    .unwrap();
    assert_eq!(
        events[0].data.get(),
        r#"{"key":"a","x":{},"big":1e400,"odd":"\ud800","instance_id":"i-1","received_at":"2026-03-01T12:00:00.000Z"}"#
    );
    let (events, _) = with(r#"[{"key":"a","instance_id":"other"}]"#).unwrap();
    assert_eq!(events[0].data.get().matches("instance_id").count(), 1);
}

#[test]
fn an_offline_point_is_known_again_and_gets_the_best_time_there_is() {
    let old = r#"{"key":"a","value":1,"type":"number","metadata":{"x":1},"timestamp":"2026-03-01T12:10:00.5"}"#;
    let new = r#"{"key":"a","value":1,"type":"number","metadata":{"x":1},"timestamp":"2026-03-01T12:50:00"}"#;
    let spaced = r#"{ "metadata": {"x": 1}, "timestamp":"2026-03-01T12:10:00.5", "key":"a", "value":1, "type":"number" }"#;
    let (events, losses) = with(&format!("[{old},{new},{spaced}]")).unwrap();
    assert_eq!(events[0].id, events[2].id);
    assert_ne!(events[0].id, events[1].id);
    assert!(!events[0].id_is_ours);
    let times: Vec<&str> = events.iter().map(|event| &*event.time).collect();
    assert_eq!(times[..2], ["2026-03-01T12:10:00.5+01:00", "2026-03-01T12:50:00+01:00"]);
    assert!(events[0].data.get().contains(r#""timestamp":"2026-03-01T12:10:00.5""#));
    assert_eq!(losses["reasons"], Value::Array(vec![]));
    let (zoned, _) = with(r#"[{"key":"a","timestamp":"2026-03-01T12:10:00-05:00"}]"#).unwrap();
    assert_eq!(&*zoned[0].time, "2026-03-01T12:10:00-05:00");
}

#[test]
fn a_bad_point_is_dropped_alone_and_a_bad_time_replaced() {
    let big = format!(r#"{{"key":"a","value":"{}"}}"#, "x".repeat(3000));
    let deep = format!(r#"{{"key":"a","value":{}{}}}"#, "[".repeat(150), "]".repeat(150));
    let data = format!(
        r#"[1,null,{{"value":2}},{{"key":7}},{{"key":""}},{big},{deep},{{"key":"a","key":"b"}},
            {{"key":"ok","value":[[null]],"timestamp":"1970-01-01T00:00:00"}},{{"key":"ok","timestamp":5}}]"#
    );
    let (events, losses) = with(&data).unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(events.iter().map(|event| &*event.time).collect::<Vec<_>>(), [NOW, NOW]);
    assert_eq!((&losses["point"], &losses["timestamp"]), (&8.into(), &2.into()));
    let reasons = losses["reasons"].to_string();
    for reason in [
        "`data[0]`: must be an object, not a number",
        "is needed",
        "not a number",
        "must not be empty",
        "at most 2048 bytes",
        "deeper than 100",
        "twice",
    ] {
        assert!(reasons.contains(reason), "{reason}: {reasons}");
    }
}

#[test]
fn a_body_that_cannot_be_taken_says_why() {
    let many = format!("[{}]", ["{}"; 11].join(","));
    for (body, reason) in [
        (r#"{"app_identifier":"tt","instance_id":"i","data":{}}"#, "an array, not an object"),
        (r#"{"app_identifier":"tt","instance_id":"i","data":7}"#, "an array, not a number"),
        (r#"{"app_identifier":"tt","instance_id":"i"}"#, "is needed"),
        (r#"{"app_identifier":"tt","data":[]}"#, "is needed"),
        (r#"{"app_identifier":"t t","instance_id":"i"}"#, "one token"),
        (r#"{"app_identifier":"hub","instance_id":"i"}"#, "uses that word itself"),
        (r#"{"app_identifier":["tt"],"instance_id":"i"}"#, "a string, not an array"),
        (r#"{"app_identifier":"tt","instance_id":""}"#, "1 to 128 bytes"),
        ("[]", "an object, not an array"),
        ("x", "the JSON has something that is no JSON value"),
    ] {
        let said = match usage(body).unwrap_err() {
            Refusal::Items(items) => items[0].fault.to_string(),
            refusal => refusal.to_string(),
        };
        assert!(said.contains(reason), "{body}: {said}");
    }
    assert_eq!(with(&many).unwrap_err(), Refusal::TooLong(BatchTooLong { limit: 10 }));
}

#[test]
fn a_registration_is_kept_as_far_as_it_is_small() {
    let mut entries: Vec<String> = (0..40).map(|n| format!(r#""n{n}":{n}"#)).collect();
    entries.insert(0, r#""os":"Linux","nested":{"a":1},"disabled":false,"processor":"""#.into());
    let body = format!(
        r#"{{"version":"4.5.0","country":"Unknown","city":7,"system_metadata":{{{}}}}}"#,
        entries.join(",")
    );
    let mut losses = Losses::default();
    let registration = Message::read(&body).unwrap().registration(&mut losses);
    assert_eq!(registration.version.as_deref(), Some("4.5.0"));
    assert_eq!((registration.city, registration.license_id), (None, None));
    assert_eq!(registration.system.len(), MOST_ENTRIES);
    assert_eq!(losses.counts().collect::<Vec<_>>(), [(DroppedPart::Field, 1 + 44 - MOST_ENTRIES)]);
    let deep = format!(
        r#"{{"system_metadata":{{"deep":{}{},"os":"Linux"}}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    let kept = Message::read(&deep).unwrap().registration(&mut losses).system;
    assert_eq!(Value::from(kept), serde_json::json!({"os": "Linux"}), "only itself is lost");
    let none = Message::read(r#"{"system_metadata":"x"}"#).unwrap().registration(&mut losses);
    assert_eq!(none, Registration::default());
}

#[test]
fn a_lone_surrogate_in_a_members_name_cost_the_whole_point() {
    let (events, losses) = with(r#"[{"key":"a","\ud800":1,"\udc00":{}}]"#).unwrap();
    assert_eq!(
        events[0].data.get(),
        r#"{"key":"a","\ud800":1,"\udc00":{},"instance_id":"i-1","received_at":"2026-03-01T12:00:00.000Z"}"#,
        "{losses}"
    );
    let body = r#"{"app_identifier":"tt","instance_id":"i-1","\ud800":1,"system_metadata":{"\ud800":1,"os":"x"}}"#;
    let mut losses = Losses::default();
    let registration = Message::read(body).unwrap().registration(&mut losses);
    assert_eq!(registration.system.get("os"), Some(&"x".into()), "{losses:?}");
}
