//! What LocaNext posts: numbers in groups every few minutes, and single events as they happen.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    BadItem, Defaults, Fault, Refusal, lenient,
    parts::{self, attribute_of, text_of},
    timestamps,
};
use crate::{
    admission::BatchLimits,
    event::{AppName, Event, compact},
    json::Object,
    protocol::Losses,
    telemetry::DroppedPart,
    time::rfc3339,
};

/// Which of the two a body is; the path tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocanextKind {
    /// `{"source","timestamp","metrics":{group:{name:number}}}` → `{app}.metrics`.
    Metrics,
    /// `{"source","timestamp","event_type","data"}` → `{app}.events.{event_type}`.
    Event,
}

#[derive(Deserialize)]
struct LocanextBody<'a> {
    #[serde(borrow, default)]
    source: Option<&'a RawValue>,
    #[serde(borrow, default)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow, default)]
    metrics: Option<&'a RawValue>,
    #[serde(borrow, default)]
    event_type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// The event a body becomes, and what could not be kept of it.
///
/// The `data` of metrics is the whole body as it came, so that what is no number is there too; of
/// an event it is the body's `data`. A time without a zone is UTC; one that cannot be read is now.
pub fn read(
    app: &AppName,
    kind: LocanextKind,
    body: &[u8],
    defaults: &Defaults<'_>,
    limits: &BatchLimits,
) -> Result<(Event, Losses), Refusal> {
    let lenient = lenient::read(body)?;
    let whole: &RawValue =
        serde_json::from_str(&lenient.text).map_err(|error| parts::malformed(0, &error))?;
    let refuse = |field, fault| Refusal::Items(vec![BadItem { index: 0, field, fault }]);
    parts::object(whole).map_err(|fault| refuse(None, fault))?;
    let Object(body): Object<LocanextBody<'_>> =
        serde_json::from_str(whole.get()).map_err(|_| refuse(None, Fault::Repeated))?;
    let mut losses = lenient.losses();
    let source = body.source.map(|raw| text_of(raw).and_then(attribute_of)).transpose();
    let source = source.unwrap_or_else(|fault| {
        losses.note(DroppedPart::Field, || format!("`source` {fault}"));
        None
    });
    let time = match body.timestamp.map(text_of).transpose() {
        Ok(None) => None,
        Ok(Some(text)) => {
            let time = timestamps::read_as_utc(&text);
            if time.is_none() {
                losses.note(DroppedPart::Timestamp, || {
                    format!("`timestamp` {text:?} is no time: the time of arrival stands for it")
                });
            }
            time
        }
        Err(fault) => {
            losses.note(DroppedPart::Timestamp, || {
                format!("`timestamp` {fault}: the time of arrival stands for it")
            });
            None
        }
    };
    let (topic, kind, data) = match kind {
        LocanextKind::Metrics => {
            let field = Some("metrics");
            let metrics = body.metrics.ok_or_else(|| refuse(field, Fault::Missing))?;
            parts::object(metrics).map_err(|fault| refuse(field, fault))?;
            (app.topic("metrics"), "metrics".into(), whole)
        }
        LocanextKind::Event => {
            let field = Some("event_type");
            let kind = body.event_type.ok_or(Fault::Missing).and_then(text_of);
            let kind = kind.and_then(attribute_of).map_err(|fault| refuse(field, fault))?;
            (app.topic_of("events", &kind), kind, body.data.unwrap_or(RawValue::NULL))
        }
    };
    let event = Event {
        topic: topic.map_err(|error| refuse(None, error.into()))?,
        id: (defaults.new_id)(),
        id_is_ours: true,
        publisher: defaults.publisher.clone(),
        source: source.unwrap_or_else(|| defaults.source.into()),
        kind: Some(kind),
        time: time.unwrap_or_else(|| rfc3339(defaults.now).into()),
        key: None,
        data: compact(data).map_err(|error| refuse(Some("data"), error.into()))?,
    };
    limits.check(&event).map_err(|error| refuse(None, error.into()))?;
    Ok((event, losses))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BatchLimits = BatchLimits { event: 4096, batch: 10 };

    fn read(kind: LocanextKind, body: &str) -> Result<(Event, Losses), Refusal> {
        let publisher = &crate::event::PublisherName::key("key");
        let defaults = Defaults { source: "key", publisher, now: 1_000, new_id: || "new".into() };
        super::read(&AppName::parse("loca").unwrap(), kind, body.as_bytes(), &defaults, &LIMITS)
    }

    #[test]
    fn metrics_are_one_event_with_the_whole_body_in_it() {
        let body = r#"{"source": "locanext", "timestamp": "2025-12-16T12:00:00.5",
            "metrics": {"user_metrics": {"active_users": 15, "idle": NaN, "odd": [1, "x"]}}}"#;
        let (event, losses) = read(LocanextKind::Metrics, body).unwrap();
        assert_eq!(
            (event.topic.as_str(), event.kind.as_deref()),
            ("loca.metrics", Some("metrics"))
        );
        assert_eq!((&*event.source, &*event.time), ("locanext", "2025-12-16T12:00:00.5Z"));
        assert_eq!(
            event.data.get(),
            r#"{"source":"locanext","timestamp":"2025-12-16T12:00:00.5","metrics":{"user_metrics":{"active_users":15,"idle":null,"odd":[1,"x"]}}}"#
        );
        assert_eq!(losses.counts().collect::<Vec<_>>(), [(DroppedPart::Number, 1)]);
    }

    #[test]
    fn an_event_goes_by_its_type() {
        let body = r#"{"event_type":"file upload","data":{"user":"j"},"timestamp":"2025-12-16T12:00:00+01:00"}"#;
        let (event, losses) = read(LocanextKind::Event, body).unwrap();
        assert_eq!(event.topic.as_str(), "loca.events.file_upload");
        assert_eq!((event.kind.as_deref(), &*event.source), (Some("file upload"), "key"));
        assert_eq!(
            (&*event.time, event.data.get()),
            ("2025-12-16T12:00:00+01:00", r#"{"user":"j"}"#)
        );
        assert!(losses.is_empty());
        let (event, _) = read(LocanextKind::Event, r#"{"event_type":"x"}"#).unwrap();
        assert_eq!((event.data.get(), &*event.time), ("null", "1970-01-01T00:00:01.000Z"));
    }

    #[test]
    fn what_only_spoils_itself_is_told_and_the_rest_kept() {
        let long = format!("\"{}\"", "x".repeat(3000));
        for (timestamp, told) in [
            ("\"yesterday\"", "\"yesterday\" is no time"),
            ("17", "not a number"),
            ("\"\\ud800\"", "escape"),
            (long.as_str(), "xxx"),
        ] {
            let body = format!(r#"{{"source":[1],"timestamp":{timestamp},"metrics":{{}}}}"#);
            let (event, losses) = read(LocanextKind::Metrics, &body).unwrap();
            assert_eq!((&*event.source, &*event.time), ("key", "1970-01-01T00:00:01.000Z"));
            let told_all = serde_json::to_value(&losses).unwrap();
            assert_eq!((&told_all["field"], &told_all["timestamp"]), (&1.into(), &1.into()));
            assert!(told_all["reasons"].to_string().contains("must be a string, not an array"));
            let reason = told_all["reasons"][1].as_str().unwrap();
            assert!(reason.contains(told) && reason.len() <= 200, "{losses:?}");
        }
    }

    #[test]
    fn a_lone_surrogate_in_a_members_name_cost_the_whole_body() {
        let (event, losses) =
            read(LocanextKind::Metrics, r#"{"\ud800":1,"metrics":{"\ud800":2}}"#).unwrap();
        assert_eq!(event.data.get(), r#"{"\ud800":1,"metrics":{"\ud800":2}}"#);
        assert!(losses.is_empty());
    }

    #[test]
    fn what_leaves_nothing_to_keep_is_refused_with_a_reason() {
        let big = format!(r#"{{"metrics":{{"a":"{}"}}}}"#, "x".repeat(5000));
        let deep = format!(r#"{{"event_type":"x","data":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        for (kind, body, reason) in [
            (LocanextKind::Metrics, "", "the JSON ends where a value should stand"),
            (LocanextKind::Metrics, "[1]", "not an array"),
            (LocanextKind::Metrics, r#"{"metrics":{},"metrics":{}}"#, "twice"),
            (LocanextKind::Metrics, "{}", "`metrics`: is needed"),
            (
                LocanextKind::Metrics,
                r#"{"metrics":[1]}"#,
                "`metrics`: must be an object, not an array",
            ),
            (LocanextKind::Metrics, big.as_str(), "at most 4096 bytes"),
            (LocanextKind::Event, r#"{"event_type":""}"#, "must not be empty"),
            (LocanextKind::Event, r#"{"event_type":null}"#, "is needed"),
            (LocanextKind::Event, deep.as_str(), "deeper than 100"),
        ] {
            let said = match read(kind, body).unwrap_err() {
                Refusal::Items(items) => {
                    format!("`{}`: {}", items[0].field.unwrap_or_default(), items[0].fault)
                }
                refusal => refusal.to_string(),
            };
            assert!(said.contains(reason), "{said}");
        }
    }
}
