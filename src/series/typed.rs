//! The form of an event of type `samples` in which each sample tells its type.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    incoming::{Found, Incoming, label, number, time},
    sample::{Dropped, Kind, Labels, MAX_UNIT, Name, Sample, SampleHint, Value},
};
use crate::json::Object;

/// A sample as it is sent.
#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, rename = "type", default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    unit: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    labels: BTreeMap<Cow<'a, str>, &'a RawValue>,
    #[serde(default)]
    delta: bool,
    #[serde(borrow, default)]
    time: Option<&'a RawValue>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    count: Option<&'a RawValue>,
    #[serde(borrow, default)]
    sum: Option<&'a RawValue>,
    #[serde(default)]
    bounds: Vec<f64>,
    #[serde(default)]
    counts: Vec<f64>,
}

/// The most buckets of a histogram.
pub(super) const MAX_BOUNDS: usize = 160;

/// The samples of an event of type `samples`.
pub(super) fn typed(event: &Incoming<'_>, found: &mut Found) {
    #[derive(Deserialize)]
    struct Samples<'a> {
        #[serde(borrow)]
        samples: Vec<&'a RawValue>,
    }
    let Ok(Object(Samples { samples })) = serde_json::from_str(event.data.get()) else {
        return found.dropped.push(Dropped::Shape);
    };
    for sample in samples {
        let read =
            serde_json::from_str::<Object<Typed<'_>>>(sample.get()).map_err(|_| Dropped::Shape);
        if let Err(reason) = read.and_then(|Object(typed)| typed.read(event, found)) {
            found.dropped.push(reason);
        }
    }
}

impl Typed<'_> {
    fn read(&self, event: &Incoming<'_>, found: &mut Found) -> Result<(), Dropped> {
        let value = |raw: Option<&RawValue>| raw.and_then(number).ok_or(Dropped::Value);
        let counted =
            |number| if self.delta { Value::Added(number) } else { Value::Reading(number) };
        let kind = match self.kind.as_deref() {
            Some("gauge") => Some(Kind::Gauge),
            Some("counter" | "histogram") => Some(Kind::Counter),
            _ => None,
        };
        let values = match self.kind.as_deref() {
            Some("counter") => vec![("", None, counted(value(self.value)?))],
            Some("histogram") => {
                let mut values = vec![("_count", None, counted(value(self.count)?))];
                if self.sum.is_some() {
                    values.push(("_sum", None, counted(value(self.sum)?)));
                }
                for (bound, count) in self.buckets()? {
                    values.push(("_bucket", Some(bound), counted(count)));
                }
                values
            }
            // What it may be called else is a hint, and nothing is left out for it.
            _ => vec![("", None, Value::Reading(value(self.value)?))],
        };
        let time = self.time.map(time).transpose()?;
        let labels = self.labels(event)?;
        let unit: Option<Box<str>> =
            self.unit.as_ref().map(|unit| unit.chars().take(MAX_UNIT).collect());
        let mut samples = Vec::with_capacity(values.len());
        // All of a histogram or nothing.
        for (suffix, bound, value) in values {
            samples.push(Sample {
                topic: None,
                name: Name::new(&format!("{}{suffix}", self.name))?,
                labels: match bound {
                    Some(bound) => labels.with("le", &bound)?,
                    None => labels.clone(),
                },
                hint: SampleHint {
                    kind,
                    // How many observations there were has none.
                    unit: unit.clone().filter(|_| !matches!(suffix, "_count" | "_bucket")),
                },
                value,
                time,
            });
        }
        found.samples.append(&mut samples);
        Ok(())
    }

    /// How much lies at or below each bound, as Prometheus counts; the last bound is infinity.
    fn buckets(&self) -> Result<Vec<(String, f64)>, Dropped> {
        if self.bounds.is_empty() && self.counts.is_empty() {
            return Ok(Vec::new());
        }
        let is_ascending = self.bounds.windows(2).all(|pair| pair[0] < pair[1]);
        let is_sound = is_ascending
            && self.bounds.len() <= MAX_BOUNDS
            && self.counts.len() == self.bounds.len() + 1;
        if !is_sound || self.counts.iter().any(|count| *count < 0.0) {
            return Err(Dropped::Shape);
        }
        let bounds = self.bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        let totals = self.counts.iter().scan(0.0, |total, count| {
            *total += count;
            Some(*total)
        });
        Ok(bounds.zip(totals).collect())
    }

    /// The sample's own labels; the event's key beside them unless they name one.
    fn labels(&self, event: &Incoming<'_>) -> Result<Labels, Dropped> {
        let mut texts = Vec::with_capacity(self.labels.len() + 1);
        for (name, value) in &self.labels {
            texts.push((&**name, label(value)?));
        }
        if let Some(key) = &event.key {
            texts.push(("key", Cow::Borrowed(&**key)));
        }
        Labels::new(texts.iter().map(|(name, value)| (*name, &**value)))
    }
}
