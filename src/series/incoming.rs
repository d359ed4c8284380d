//! An event taken apart for those who look for samples in it, and how they read what they find.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    metadata::SeriesMetadata,
    sample::{Dropped, Labels, Sample},
};
use crate::{
    event::Record,
    json::{self, MemberName},
    time::{Millis, parse_rfc3339},
};

/// An event, taken apart for those who look for samples in it.
pub struct Incoming<'a> {
    /// What it is about.
    pub topic: &'a str,
    /// Its `type`.
    pub kind: Option<Cow<'a, str>>,
    /// Its `key`.
    pub key: Option<Cow<'a, str>>,
    /// When it happened, if that can be read.
    pub time: Option<Millis>,
    /// When the hub took it in.
    pub received: Millis,
    /// The event as it is stored.
    pub record: Record<'a>,
    pub(super) data: &'a RawValue,
}

/// What was found in an event.
#[derive(Debug, Default)]
pub struct Found {
    /// The samples.
    pub samples: Vec<Sample>,
    /// What is said of the names of series.
    pub metadata: Vec<(Box<str>, SeriesMetadata)>,
    /// What was left out, each time with the reason.
    pub dropped: Vec<Dropped>,
}

impl<'a> Incoming<'a> {
    /// Takes a record apart.
    pub fn read(record: Record<'a>) -> Option<Self> {
        #[derive(Deserialize)]
        struct Envelope<'a> {
            #[serde(borrow, rename = "type")]
            kind: Option<Cow<'a, str>>,
            #[serde(borrow)]
            key: Option<Cow<'a, str>>,
            #[serde(borrow)]
            time: Cow<'a, str>,
            #[serde(borrow)]
            data: &'a RawValue,
        }
        let envelope: Envelope<'a> = serde_json::from_slice(record.json()).ok()?;
        Some(Self {
            topic: record.topic(),
            kind: envelope.kind,
            key: envelope.key,
            time: parse_rfc3339(&envelope.time).ok(),
            received: record.received(),
            record,
            data: envelope.data,
        })
    }

    /// The label that the event's key becomes.
    pub fn labels(&self) -> Result<Labels, Dropped> {
        Labels::new(self.key.as_deref().map(|key| ("key", key)))
    }
}

/// Read by itself, so that one number that is too large does not cost the others. None also for one that no double holds.
pub(super) fn number(value: &RawValue) -> Option<f64> {
    match value.get() {
        "true" => Some(1.0),
        "false" => Some(0.0),
        text if is_number(value) => text.parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}

/// Whether it is a number or a boolean.
pub(super) fn is_number(value: &RawValue) -> bool {
    matches!(value.get().as_bytes().first(), Some(b'-' | b'0'..=b'9' | b't' | b'f'))
}

pub(super) fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

/// An object's members, unread.
pub(super) struct Pairs<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Pairs<'a> {
    pub(super) fn of(value: &'a RawValue) -> Option<Self> {
        if is_object(value) { serde_json::from_str(value.get()).ok() } else { None }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((MemberName(name), value)) = map.next_entry()? {
                    pairs.push((name, value));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A text, borrowed where it has no escapes, which a `Cow` by itself never is.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// A label's value: a text, or a number or boolean as it is written.
pub(super) fn label(value: &RawValue) -> Result<Cow<'_, str>, Dropped> {
    match value.get().as_bytes().first() {
        Some(b'"') => {
            serde_json::from_str(value.get()).map(|Text(text)| text).map_err(|_| Dropped::Labels)
        }
        Some(b'{' | b'[') | None => Err(Dropped::Labels),
        Some(b'n') => Ok(Cow::Borrowed("")),
        Some(_) => Ok(Cow::Borrowed(value.get())),
    }
}

/// RFC 3339, or milliseconds since 1970, of which a fraction is dropped.
pub(super) fn time(value: &RawValue) -> Result<Millis, Dropped> {
    // Up to where doubles tell milliseconds apart.
    const LAST: f64 = (1_u64 << 53) as f64;
    match number(value).filter(|_| !matches!(value.get(), "true" | "false")) {
        Some(millis) if (0.0..=LAST).contains(&millis) => {
            json::read_whole(&millis.trunc().to_string()).ok_or(Dropped::Time)
        }
        Some(_) => Err(Dropped::Time),
        None => {
            let Text(text) = serde_json::from_str(value.get()).map_err(|_| Dropped::Time)?;
            parse_rfc3339(&text).map_err(|_| Dropped::Time)
        }
    }
}
