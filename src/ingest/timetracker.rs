//! What instances of TimeTracker post: who they are, that they live, and how they are used.

use std::{borrow::Cow, fmt};

use jiff::civil::DateTime;
use serde::{
    Deserialize, Deserializer as _, Serialize,
    de::{DeserializeSeed as _, MapAccess, Visitor},
    ser::{SerializeMap, Serializer as _},
};
use serde_json::{Map, Value, value::RawValue};

use super::{
    AppName, BadItem, Bounds, Fault, InstanceId, Refusal,
    parts::{self, AtMost, attribute_of, text_of, within},
    timestamps::{self, Written},
};
use crate::{
    event::{DataError, Event, MAX_ATTRIBUTE_BYTES, PublisherName, compact},
    id,
    protocol::Losses,
    telemetry::Dropped,
    time::{Millis, rfc3339},
};

/// A body of any of its endpoints; each has some of the fields.
pub struct Message<'a>(Fields<'a>);

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default)]
    app_identifier: Option<&'a RawValue>,
    #[serde(borrow, default)]
    instance_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    version: Option<&'a RawValue>,
    #[serde(borrow, default)]
    country: Option<&'a RawValue>,
    #[serde(borrow, default)]
    city: Option<&'a RawValue>,
    #[serde(borrow, default)]
    license_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    system_metadata: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// What an instance says of itself when it registers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// Of the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Box<str>>,
    /// Where it says it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<Box<str>>,
    /// Where it says it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub city: Option<Box<str>>,
    /// None is ever required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license_id: Option<Box<str>>,
    /// Its `system_metadata`: texts, numbers and booleans by name.
    #[serde(default)]
    pub system: Map<String, Value>,
}

/// The most entries of `system_metadata` that are kept; TimeTracker sends nine.
const MOST_ENTRIES: usize = 32;
/// The longest name of one, in bytes.
const LONGEST_NAME: usize = 64;

impl<'a> Message<'a> {
    /// Reads a body; its fields are looked at when they are asked for.
    pub fn read(text: &'a str) -> Result<Self, Refusal> {
        let whole: &RawValue =
            serde_json::from_str(text).map_err(|error| parts::malformed(0, &error))?;
        parts::object(whole).map_err(|fault| refuse(None, fault))?;
        let fields =
            serde_json::from_str(whole.get()).map_err(|_| refuse(None, Fault::Repeated))?;
        Ok(Self(fields))
    }

    /// The application, if it is named.
    pub fn app(&self) -> Result<Option<AppName>, Refusal> {
        let parse = |text: Cow<'_, str>| AppName::parse(&text).map_err(Fault::from);
        named("app_identifier", self.0.app_identifier, parse)
    }

    /// The application, which must be named.
    pub fn needed_app(&self) -> Result<AppName, Refusal> {
        self.app()?.ok_or_else(|| refuse(Some("app_identifier"), Fault::Missing))
    }

    /// The application; where none is named, the `only` one there can be.
    pub fn app_or(&self, only: impl FnOnce() -> Option<AppName>) -> Result<AppName, Refusal> {
        let app = self.app()?.or_else(only);
        app.ok_or_else(|| refuse(Some("app_identifier"), Fault::Unclear))
    }

    /// The instance, if it is named.
    pub fn instance(&self) -> Result<Option<InstanceId>, Refusal> {
        let parse = |text: Cow<'_, str>| InstanceId::parse(&text).map_err(Fault::from);
        named("instance_id", self.0.instance_id, parse)
    }

    /// The instance, which must be named.
    pub fn needed_instance(&self) -> Result<InstanceId, Refusal> {
        self.instance()?.ok_or_else(|| refuse(Some("instance_id"), Fault::Missing))
    }

    /// What the instance says of itself, as far as it is of the kind and size it should be.
    pub fn registration(&self, losses: &mut Losses) -> Registration {
        let mut attribute = |name: &str, raw: Option<&RawValue>| {
            let read = raw.map(|raw| text_of(raw).and_then(attribute_of)).transpose();
            read.unwrap_or_else(|fault| {
                losses.note(Dropped::Field, || format!("`{name}` {fault}"));
                None
            })
        };
        let fields = &self.0;
        Registration {
            version: attribute("version", fields.version),
            country: attribute("country", fields.country),
            city: attribute("city", fields.city),
            license_id: attribute("license_id", fields.license_id),
            system: fields.system_metadata.map(|raw| system(raw, losses)).unwrap_or_default(),
        }
    }

    /// The points of `data` as events of `app` on `{app}.usage.{key}`, received at `now`. A point
    /// that is no point is dropped alone.
    pub fn usage(
        &self,
        app: &AppName,
        instance: &InstanceId,
        publisher: &PublisherName,
        now: Millis,
        bounds: &Bounds,
        losses: &mut Losses,
    ) -> Result<Vec<Event>, Refusal> {
        let refuse = |fault| refuse(Some("data"), fault);
        let data = self.0.data.ok_or_else(|| refuse(Fault::Missing))?;
        let mut reader = serde_json::Deserializer::from_str(data.get());
        let raw =
            AtMost::<&RawValue>::new(bounds.batch).deserialize(&mut reader).map_err(|_| {
                refuse(Fault::WrongKind { wanted: "an array", found: parts::kind_of(data) })
            })?;
        let raw = raw.ok_or(Refusal::TooMany { limit: bounds.batch })?;
        let mut dropped = |index: usize, fault: Fault| {
            losses.note(Dropped::Point, || format!("`data[{index}]`: {fault}"));
        };
        let points: Vec<(usize, Point<'_>)> = (raw.iter().enumerate())
            .filter_map(|(index, raw)| match Point::read(raw) {
                Ok(point) => Some((index, point)),
                Err(fault) => {
                    dropped(index, fault);
                    None
                }
            })
            .collect();
        let naive = points.iter().filter_map(|(_, point)| point.naive());
        let zone = timestamps::guess_zone(naive, now);
        let received = rfc3339(now);
        let mut events = Vec::with_capacity(points.len());
        for (index, point) in points {
            let time = point.time.clone().and_then(|written| match written {
                Written::Zoned(text) => Some(text),
                Written::Naive(time) => zone.and_then(|zone| timestamps::in_zone(time, zone)),
            });
            if point.timestamp.is_some() && time.is_none() {
                losses.note(Dropped::Timestamp, || {
                    format!("`data[{index}].timestamp` is no time of a clock that goes right: the time of arrival stands for it")
                });
            }
            match point
                .event(app, instance, publisher, &received, time)
                .and_then(|event| within(event, bounds))
            {
                Ok(event) => events.push(event),
                Err(fault) => {
                    losses.note(Dropped::Point, || format!("`data[{index}]`: {fault}"));
                }
            }
        }
        Ok(events)
    }
}

fn refuse(field: Option<&'static str>, fault: Fault) -> Refusal {
    Refusal::Items(vec![BadItem { index: 0, field, fault }])
}

fn named<T>(
    field: &'static str,
    raw: Option<&RawValue>,
    parse: impl FnOnce(Cow<'_, str>) -> Result<T, Fault>,
) -> Result<Option<T>, Refusal> {
    let read = raw.map(|raw| text_of(raw).and_then(parse)).transpose();
    read.map_err(|fault| refuse(Some(field), fault))
}

/// The scalars of `system_metadata`, so many and so long that a record stays small.
fn system(raw: &RawValue, losses: &mut Losses) -> Map<String, Value> {
    if let Err(fault) = parts::object(raw) {
        losses.note(Dropped::Field, || format!("`system_metadata` {fault}"));
        return Map::new();
    }
    let mut reader = serde_json::Deserializer::from_str(raw.get());
    reader.deserialize_map(System(losses)).unwrap_or_else(|error| {
        losses.note(Dropped::Field, || format!("`system_metadata` cannot be read: {error}"));
        Map::new()
    })
}

/// Reads it entry by entry: a body of a few MiB can hold millions of values.
struct System<'a>(&'a mut Losses);

impl<'de> Visitor<'de> for System<'_> {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut kept = Map::new();
        while let Some((name, raw)) = entries.next_entry::<String, &RawValue>()? {
            let fits = kept.len() < MOST_ENTRIES && name.len() <= LONGEST_NAME;
            if let Some(value) = scalar(raw).filter(|_| fits) {
                kept.insert(name, value);
            } else {
                self.0.note(Dropped::Field, || {
                    let name: String = name.chars().take(LONGEST_NAME).collect();
                    format!("`system_metadata.{name}` is too long, too nested, or one too many")
                });
            }
        }
        Ok(kept)
    }
}

fn scalar(raw: &RawValue) -> Option<Value> {
    match parts::kind_of(raw) {
        "an object" | "an array" => None,
        "a string" => {
            let text = text_of(raw).ok().filter(|text| text.len() <= MAX_ATTRIBUTE_BYTES)?;
            Some(text.into())
        }
        _ => serde_json::from_str(raw.get()).ok(),
    }
}

/// One point of usage data.
struct Point<'a> {
    raw: &'a RawValue,
    key: Cow<'a, str>,
    /// What makes it the same point when it comes again.
    same: Option<String>,
    timestamp: Option<&'a RawValue>,
    time: Option<Written>,
}

#[derive(Deserialize)]
struct PointFields<'a> {
    #[serde(borrow, default)]
    key: Option<&'a RawValue>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow, default)]
    timestamp: Option<&'a RawValue>,
}

impl<'a> Point<'a> {
    fn read(raw: &'a RawValue) -> Result<Self, Fault> {
        parts::object(raw)?;
        let fields: PointFields<'_> =
            serde_json::from_str(raw.get()).map_err(|_| Fault::Repeated)?;
        let key = text_of(fields.key.ok_or(Fault::Missing)?)?;
        if key.is_empty() {
            return Err(Fault::Blank);
        }
        let written = fields.timestamp.map(text_of).transpose().ok().flatten();
        let time = written.and_then(|text| timestamps::read(&text));
        let same = fields.timestamp.map(|timestamp| {
            let all = [fields.key, fields.value, fields.kind, fields.metadata, Some(timestamp)];
            // A line break stands nowhere in compact JSON.
            let text = |raw: Option<&RawValue>| {
                raw.and_then(|raw| compact(raw).ok()).map_or(String::new(), |raw| raw.to_string())
            };
            id::hash(&all.map(text).join("\n"))
        });
        Ok(Self { raw, key, same, timestamp: fields.timestamp, time })
    }

    fn naive(&self) -> Option<DateTime> {
        match &self.time {
            Some(Written::Naive(time)) => Some(*time),
            _ => None,
        }
    }

    /// The point as it came, with whose it is and when it arrived beside it.
    ///
    /// Only what was kept for an outage has a timestamp, and only that is sent again: the id of
    /// any other is the hub's, for using the same thing twice is two points.
    fn event(
        &self,
        app: &AppName,
        instance: &InstanceId,
        publisher: &PublisherName,
        received: &str,
        time: Option<Box<str>>,
    ) -> Result<Event, Fault> {
        let point = compact(self.raw)?;
        let data = told_by(&point, instance, received).map_err(|_| DataError::Invalid)?;
        Ok(Event {
            topic: app.topic_of("usage", &self.key)?,
            id_is_ours: self.same.is_none(),
            id: self.same.clone().map_or_else(super::new_id, Into::into),
            publisher: publisher.clone(),
            source: instance.as_str().into(),
            kind: Some("usage".into()),
            time: time.unwrap_or_else(|| received.into()),
            key: Some(instance.as_str().into()),
            data,
        })
    }
}

/// A point's members as they came, and behind them whose it is and when it arrived. Where the point
/// says one of these two itself, the hub's word replaces it: readers do not agree on which of two
/// members of one name counts.
fn told_by(
    point: &RawValue,
    instance: &InstanceId,
    received: &str,
) -> Result<Box<RawValue>, serde_json::Error> {
    struct Members<'a>(&'a InstanceId, &'a str);
    impl<'de> Visitor<'de> for Members<'_> {
        type Value = Result<Vec<u8>, serde_json::Error>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
            let mut text = Vec::new();
            let mut writer = serde_json::Serializer::new(&mut text);
            let mut written = writer.serialize_map(None);
            while let Some((name, value)) = members.next_entry::<String, &RawValue>()? {
                if !["instance_id", "received_at"].contains(&&*name) {
                    written = written.and_then(|mut map| {
                        map.serialize_entry(&name, value)?;
                        Ok(map)
                    });
                }
            }
            let written = written.and_then(|mut map| {
                map.serialize_entry("instance_id", self.0.as_str())?;
                map.serialize_entry("received_at", self.1)?;
                SerializeMap::end(map)
            });
            Ok(written.map(|()| text))
        }
    }
    let mut reader = serde_json::Deserializer::from_str(point.get());
    let text = reader.deserialize_map(Members(instance, received))??;
    serde_json::from_slice(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::parse_rfc3339;

    const BOUNDS: Bounds = Bounds { event: 2048, batch: 10 };
    const NOW: &str = "2026-03-01T12:00:00.000Z";

    fn usage(body: &str) -> Result<(Vec<Event>, Value), Refusal> {
        let message = Message::read(body)?;
        let (app, instance) = (message.app()?.unwrap(), message.needed_instance()?);
        let (now, mut losses) = (parse_rfc3339(NOW).unwrap(), Losses::default());
        let events = message.usage(
            &app,
            &instance,
            &PublisherName::anonymous(),
            now,
            &BOUNDS,
            &mut losses,
        )?;
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
            ("x", "expected value"),
        ] {
            let said = match usage(body).unwrap_err() {
                Refusal::Items(items) => items[0].fault.to_string(),
                refusal => refusal.to_string(),
            };
            assert!(said.contains(reason), "{body}: {said}");
        }
        assert_eq!(with(&many).unwrap_err(), Refusal::TooMany { limit: 10 });
    }

    #[test]
    fn a_registration_is_kept_as_far_as_it_is_small() {
        let mut entries: Vec<String> = (0..40).map(|n| format!(r#""n{n}":{n}"#)).collect();
        entries
            .insert(0, r#""os":"Linux","nested":{"a":1},"disabled":false,"processor":"""#.into());
        let body = format!(
            r#"{{"version":"4.5.0","country":"Unknown","city":7,"system_metadata":{{{}}}}}"#,
            entries.join(",")
        );
        let mut losses = Losses::default();
        let registration = Message::read(&body).unwrap().registration(&mut losses);
        assert_eq!(registration.version.as_deref(), Some("4.5.0"));
        assert_eq!((registration.city, registration.license_id), (None, None));
        assert_eq!(registration.system.len(), MOST_ENTRIES);
        assert_eq!(losses.counts().collect::<Vec<_>>(), [(Dropped::Field, 1 + 44 - MOST_ENTRIES)]);
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
}
