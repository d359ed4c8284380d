//! One point of usage data, and the event that is made of it.

use std::{borrow::Cow, fmt};

use jiff::civil::DateTime;
use serde::{
    Deserialize, Deserializer as _, Serialize,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    event::{AppName, DataError, Event, InstanceId, PublisherName, compact, new_id},
    id,
    ingest::{
        Fault,
        parts::{self, text_of},
        timestamps::{self, WrittenTime},
    },
    json::Object,
};

/// One point of usage data.
pub(super) struct UsagePoint<'a> {
    raw: &'a RawValue,
    key: Cow<'a, str>,
    /// What makes it the same point when it comes again.
    same: Option<String>,
    pub(super) timestamp: Option<&'a RawValue>,
    pub(super) time: Option<WrittenTime>,
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

impl<'a> UsagePoint<'a> {
    /// Reads a point; a fault is that of this point alone.
    pub(super) fn read(raw: &'a RawValue) -> Result<Self, Fault> {
        parts::object(raw)?;
        let Object(fields): Object<PointFields<'_>> =
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

    /// Its time, if it names no zone.
    pub(super) fn naive(&self) -> Option<DateTime> {
        match &self.time {
            Some(WrittenTime::Naive(time)) => Some(*time),
            _ => None,
        }
    }

    /// The point as it came, with whose it is and when it arrived beside it.
    ///
    /// Only what was kept for an outage has a timestamp, and only that is sent again: the id of
    /// any other is the hub's, for using the same thing twice is two points.
    pub(super) fn event(
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
            id: self.same.clone().map_or_else(new_id, Into::into),
            publisher: publisher.clone(),
            source: instance.as_str().into(),
            kind: Some("usage".into()),
            time: time.unwrap_or_else(|| received.into()),
            key: Some(instance.as_str().into()),
            data,
        })
    }
}

/// A point's members as they came, followed by its instance and its time of arrival. If the point has one of these two
/// members itself, it is replaced, because readers do not agree on which of two members with the same name counts.
fn told_by(
    point: &RawValue,
    instance: &InstanceId,
    received: &str,
) -> Result<Box<RawValue>, serde_json::Error> {
    #[derive(Serialize)]
    struct PointOrigin<'a> {
        instance_id: &'a str,
        received_at: &'a str,
    }
    struct PointVisitor;
    impl<'de> Visitor<'de> for PointVisitor {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        /// Names are not read but where they are compared: some are no Unicode.
        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<String, A::Error> {
            let mut text = String::new();
            while let Some((name, value)) = members.next_entry::<&RawValue, &RawValue>()? {
                let is_ours = |name: Cow<'_, str>| ["instance_id", "received_at"].contains(&&*name);
                if !text_of(name).is_ok_and(is_ours) {
                    text.extend([name.get(), ":", value.get(), ","]);
                }
            }
            Ok(text)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(point.get());
    let mut text = reader.deserialize_map(PointVisitor)?;
    let told = PointOrigin { instance_id: instance.as_str(), received_at: received };
    text.insert(0, '{');
    text.push_str(&serde_json::to_string(&told)?[1..]);
    RawValue::from_string(text)
}
