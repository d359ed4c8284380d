//! What instances of TimeTracker post: who they are, that they live, and how they are used.

mod point;

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer as _, Serialize,
    de::{DeserializeSeed as _, MapAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};

use self::point::UsagePoint;
use super::{
    BadItem, Fault, Refusal,
    parts::{self, AtMost, attribute_of, text_of},
    timestamps::{self, WrittenTime},
};
use crate::{
    admission::{BatchLimits, BatchTooLong},
    event::{AppName, Event, InstanceId, MAX_ATTRIBUTE_BYTES, PublisherName},
    json::{MemberName, Object},
    protocol::Losses,
    telemetry::DroppedPart,
    time::{Millis, rfc3339},
};

/// A body of any of its endpoints; each has some of the fields.
pub struct Message<'a>(MessageFields<'a>);

#[derive(Deserialize)]
struct MessageFields<'a> {
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
        let Object(fields) =
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

    /// The application; if none is named, the `only` possible one.
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

    /// What the instance says of itself, without what has the wrong type or size.
    pub fn registration(&self, losses: &mut Losses) -> Registration {
        let mut attribute = |name: &str, raw: Option<&RawValue>| {
            let read = raw.map(|raw| text_of(raw).and_then(attribute_of)).transpose();
            read.unwrap_or_else(|fault| {
                losses.note(DroppedPart::Field, || format!("`{name}` {fault}"));
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
        limits: &BatchLimits,
        losses: &mut Losses,
    ) -> Result<Vec<Event>, Refusal> {
        let refuse = |fault| refuse(Some("data"), fault);
        let data = self.0.data.ok_or_else(|| refuse(Fault::Missing))?;
        let mut reader = serde_json::Deserializer::from_str(data.get());
        let raw =
            AtMost::<&RawValue>::new(limits.batch).deserialize(&mut reader).map_err(|_| {
                refuse(Fault::WrongKind { wanted: "an array", found: parts::kind_of(data) })
            })?;
        let raw = raw.ok_or(BatchTooLong { limit: limits.batch })?;
        let mut dropped = |index: usize, fault: Fault| {
            losses.note(DroppedPart::Point, || format!("`data[{index}]`: {fault}"));
        };
        let points: Vec<(usize, UsagePoint<'_>)> = (raw.iter().enumerate())
            .filter_map(|(index, raw)| match UsagePoint::read(raw) {
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
                WrittenTime::Zoned(text) => Some(text),
                WrittenTime::Naive(time) => zone.and_then(|zone| timestamps::in_zone(time, zone)),
            });
            if point.timestamp.is_some() && time.is_none() {
                losses.note(DroppedPart::Timestamp, || {
                    format!("`data[{index}].timestamp` is no time of a clock that goes right: the time of arrival stands for it")
                });
            }
            match point
                .event(app, instance, publisher, &received, time)
                .and_then(|event| Ok(limits.check(&event).map(|()| event)?))
            {
                Ok(event) => events.push(event),
                Err(fault) => {
                    losses.note(DroppedPart::Point, || format!("`data[{index}]`: {fault}"));
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
        losses.note(DroppedPart::Field, || format!("`system_metadata` {fault}"));
        return Map::new();
    }
    let mut reader = serde_json::Deserializer::from_str(raw.get());
    reader.deserialize_map(System(losses)).unwrap_or_else(|error| {
        losses.note(DroppedPart::Field, || format!("`system_metadata` cannot be read: {error}"));
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
        while let Some((MemberName(name), raw)) = entries.next_entry::<_, &RawValue>()? {
            let fits = kept.len() < MOST_ENTRIES && name.len() <= LONGEST_NAME;
            if let Some(value) = scalar(raw).filter(|_| fits) {
                kept.insert(name.into_owned(), value);
            } else {
                self.0.note(DroppedPart::Field, || {
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

#[cfg(test)]
mod tests;
