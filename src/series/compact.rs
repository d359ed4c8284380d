//! The compact form of an event of type `samples`: rows of name, labels and value, and what they have in common once.
//!
//! `src/ingest/samples.rs` writes it, docs/series.md tells it.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{Deserializer, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    incoming::{Found, Incoming, Pairs, Text, label, number, time},
    metadata::SeriesMetadata,
    sample::{Dropped, Labels, Name, Sample, SampleHint, Value},
};
use crate::{json::Object, time::Millis};

/// The payload of an event in the compact form.
#[derive(Deserialize)]
pub(super) struct CompactSamples<'a> {
    /// Of all rows; a row's own count first.
    #[serde(borrow, default)]
    labels: Option<Pairs<'a>>,
    /// Of all rows that have none of their own; without it the event's.
    #[serde(borrow, default)]
    time: Option<&'a RawValue>,
    /// Type, unit and help by the name of a series or a family of them.
    #[serde(borrow, default)]
    metadata: Option<Pairs<'a>>,
    #[serde(borrow)]
    rows: Vec<&'a RawValue>,
}

/// `[name, {labels}, value]`, and perhaps a time of its own.
struct CompactRow<'a> {
    name: Text<'a>,
    labels: Pairs<'a>,
    value: &'a RawValue,
    time: Option<&'a RawValue>,
}

/// What is said of a name.
#[derive(Deserialize)]
struct NameMetadata<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    unit: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    help: Option<Cow<'a, str>>,
}

impl<'a> CompactSamples<'a> {
    /// The payload, if it is in this form.
    pub(super) fn read(event: &Incoming<'a>) -> Option<Self> {
        let Object(samples) = serde_json::from_str(event.data.get()).ok()?;
        Some(samples)
    }

    /// Puts what is in it to what was found. A bad row costs only itself.
    pub(super) fn take(self, found: &mut Found) {
        for (name, said) in self.metadata.iter().flat_map(|Pairs(pairs)| pairs) {
            let read = serde_json::from_str::<Object<NameMetadata<'_>>>(said.get());
            match read {
                Ok(Object(said)) => found.metadata.push(said.of(name)),
                Err(_) => found.dropped.push(Dropped::Shape),
            }
        }
        let common = texts(self.labels.as_ref());
        let all_at = self.time.map(time).transpose();
        let (common, all_at) = match (common, all_at) {
            (Ok(common), Ok(all_at)) => (common, all_at),
            (Err(reason), _) | (_, Err(reason)) => {
                return found.dropped.extend(self.rows.iter().map(|_| reason));
            }
        };
        for row in self.rows {
            let row = serde_json::from_str::<CompactRow<'_>>(row.get());
            match row.map_err(|_| Dropped::Shape).and_then(|row| row.read(&common, all_at)) {
                Ok(sample) => found.samples.push(sample),
                Err(reason) => found.dropped.push(reason),
            }
        }
    }
}

impl CompactRow<'_> {
    fn read(
        &self,
        common: &[(&str, Cow<'_, str>)],
        all_at: Option<Millis>,
    ) -> Result<Sample, Dropped> {
        let own = texts(Some(&self.labels))?;
        let labels = own.iter().chain(common).map(|(name, value)| (*name, &**value));
        Ok(Sample {
            topic: None,
            name: Name::exact(&self.name.0)?,
            labels: Labels::exact(labels)?,
            hint: SampleHint::default(),
            value: value(self.value)?,
            time: self.time.map(time).transpose()?.or(all_at),
        })
    }
}

impl NameMetadata<'_> {
    fn of(&self, name: &str) -> (Box<str>, SeriesMetadata) {
        let text = |said: &Option<Cow<'_, str>>| said.as_deref().unwrap_or_default().into();
        let said = SeriesMetadata {
            kind: text(&self.kind),
            unit: text(&self.unit),
            help: text(&self.help),
        };
        (name.into(), said)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for CompactRow<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RowVisitor;
        impl<'de> Visitor<'de> for RowVisitor {
            type Value = CompactRow<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[name, {labels}, value] or [name, {labels}, value, time]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut row: A) -> Result<Self::Value, A::Error> {
                use serde::de::Error as _;
                let few = |at| A::Error::invalid_length(at, &RowVisitor);
                let name = row.next_element()?.ok_or_else(|| few(0))?;
                let labels = row.next_element()?.ok_or_else(|| few(1))?;
                let value = row.next_element()?.ok_or_else(|| few(2))?;
                let time = row.next_element()?;
                match row.next_element::<IgnoredAny>()? {
                    None => Ok(CompactRow { name, labels, value, time }),
                    Some(_) => Err(few(5)),
                }
            }
        }
        deserializer.deserialize_seq(RowVisitor)
    }
}

fn texts<'a>(labels: Option<&'a Pairs<'_>>) -> Result<Vec<(&'a str, Cow<'a, str>)>, Dropped> {
    let pairs = labels.into_iter().flat_map(|Pairs(pairs)| pairs);
    pairs.map(|(name, value)| Ok((&**name, label(value)?))).collect()
}

/// A number, or one of those that JSON has no number for.
fn value(value: &RawValue) -> Result<Value, Dropped> {
    match value.get() {
        "\"NaN\"" => Ok(Value::Reading(f64::NAN)),
        "\"+Inf\"" => Ok(Value::Reading(f64::INFINITY)),
        "\"-Inf\"" => Ok(Value::Reading(f64::NEG_INFINITY)),
        "\"stale\"" => Ok(Value::Stale),
        "true" | "false" => Err(Dropped::Value),
        _ => number(value).map(Value::Reading).ok_or(Dropped::Value),
    }
}
