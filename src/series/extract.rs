//! Samples out of events: pure, and told what it leaves out.
//!
//! docs/series.md tells the shapes.

use std::{borrow::Cow, collections::BTreeMap, fmt, iter, sync::Arc};

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    derive::DeriveRule,
    sample::{Dropped, Labels, MAX_DEPTH, Name, Sample, Value},
};
use crate::{
    event::{BlockBuilder, Event, Record},
    json::{self, MemberName, Object},
    protocol::Losses,
    telemetry,
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
    data: &'a RawValue,
}

/// What was found in an event.
#[derive(Debug, Default)]
pub struct Found {
    /// The samples.
    pub samples: Vec<Sample>,
    /// What was left out, each time with the reason.
    pub dropped: Vec<Dropped>,
}

/// All rules of derived series. Cheap to clone.
pub type DeriveRules = Arc<[DeriveRule]>;

/// What is in a record; None if nothing in it concerns any series. Its [payload](crate::event::payload) is asked for
/// only where a rule reads it.
pub fn extract<'a>(
    record: Record<'_>,
    rules: &[DeriveRule],
    payload: impl Fn() -> &'a serde_json::Value,
) -> Option<(Millis, Found)> {
    let (topic, kind) = (record.topic(), record.kind());
    let is_samples = kind == Some(b"\"samples\"");
    let is_metrics = kind == Some(b"\"metrics\"")
        || topic.rsplit('.').next() == Some("metrics")
        || topic == "hub.host";
    let mut concerned = rules.iter().filter(|rule| rule.topic().matches(topic)).peekable();
    if !is_samples && !is_metrics && concerned.peek().is_none() {
        return None;
    }
    let mut found = Found::default();
    let Some(event) = Incoming::read(record) else {
        found.dropped.push(Dropped::Shape);
        return Some((record.received(), found));
    };
    if is_samples {
        typed(&event, &mut found);
    } else if is_metrics {
        leaves(&event, &mut found);
    }
    // Whoever may publish the events that a value is derived of may not say what it is.
    let all = found.samples.len();
    found.samples.retain(|sample| !rules.iter().any(|rule| rule.feeds(topic, &sample.name)));
    let left_out = all - found.samples.len();
    found.dropped.extend(iter::repeat_n(Dropped::Derived, left_out));
    for rule in concerned {
        derived(rule, &event, payload(), &mut found);
    }
    Some((event.time.unwrap_or(event.received), found))
}

/// Which samples of events of type `samples` will be left out and why, for the answer to who publishes them;
/// what only the table of all series can know is not among it.
pub fn left_out(events: &[Event]) -> Losses {
    /// No rule asks for the payload.
    static NOTHING: serde_json::Value = serde_json::Value::Null;
    let mut losses = Losses::default();
    for (index, event) in events.iter().enumerate() {
        if event.kind.as_deref() != Some("samples") {
            continue;
        }
        let mut block = BlockBuilder::default();
        block.push(1, 0, event);
        let block = block.finish();
        let found = block.records().filter_map(|record| extract(record, &[], || &NOTHING));
        for reason in found.flat_map(|(_, found)| found.dropped) {
            losses.note(telemetry::DroppedPart::Sample, || format!("event {index}: {reason}"));
        }
    }
    losses
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

/// What a rule makes of the event.
fn derived(
    rule: &DeriveRule,
    event: &Incoming<'_>,
    payload: &serde_json::Value,
    found: &mut Found,
) {
    let Some(number) = rule.value(event.record, payload) else { return };
    match Name::new(rule.name()) {
        Ok(name) => found.samples.push(Sample {
            topic: Some(rule.topic().clone()),
            name,
            labels: Labels::default(),
            unit: None,
            value: Value::Gauge(number),
            time: None,
        }),
        Err(reason) => found.dropped.push(reason),
    }
}

/// The numeric leaves of `metrics`, or of all of the payload.
fn leaves(event: &Incoming<'_>, found: &mut Found) {
    let labels = match event.labels() {
        Ok(labels) => labels,
        Err(reason) => return found.dropped.push(reason),
    };
    // A payload that is no object has no names in it.
    let Some(data) = Pairs::of(event.data) else { return };
    let named = data.0.iter().find(|(name, value)| name == "metrics" && is_object(value));
    let metrics = named.map_or(event.data, |(_, value)| value);
    let mut path = event.topic.strip_suffix(".metrics").unwrap_or(event.topic).to_owned();
    walk(metrics, &mut path, 0, &labels, found);
}

fn walk(group: &RawValue, path: &mut String, depth: usize, labels: &Labels, found: &mut Found) {
    let Some(pairs) = Pairs::of(group) else { return };
    if depth == MAX_DEPTH {
        return found.dropped.push(Dropped::Depth);
    }
    for (name, value) in pairs.0 {
        let end = path.len();
        path.push('.');
        path.push_str(if name.is_empty() { "_" } else { &name });
        if is_object(value) {
            walk(value, path, depth + 1, labels, found);
        } else if let Some(number) = number(value) {
            match Name::new(path) {
                Ok(name) => found.samples.push(Sample {
                    topic: None,
                    name,
                    labels: labels.clone(),
                    unit: None,
                    value: Value::Gauge(number),
                    time: None,
                }),
                Err(reason) => found.dropped.push(reason),
            }
        }
        path.truncate(end);
    }
}

/// Read by itself, so that one number that is too large does not cost the others.
fn number(value: &RawValue) -> Option<f64> {
    match value.get() {
        "true" => Some(1.0),
        "false" => Some(0.0),
        text if text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

/// An object's members, unread.
struct Pairs<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Pairs<'a> {
    fn of(value: &'a RawValue) -> Option<Self> {
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
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

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
pub const MAX_BOUNDS: usize = 64;

/// The samples of an event of type `samples`.
fn typed(event: &Incoming<'_>, found: &mut Found) {
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
        let counted = |number| if self.delta { Value::Added(number) } else { Value::Total(number) };
        let values = match self.kind.as_deref() {
            None | Some("gauge") => vec![("", None, Value::Gauge(value(self.value)?))],
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
            Some(_) => return Err(Dropped::Shape),
        };
        let time = self.time.map(time).transpose()?;
        let labels = self.labels(event)?;
        let unit: Option<Box<str>> = self.unit.as_ref().map(|unit| unit.chars().take(32).collect());
        let mut samples = Vec::with_capacity(values.len());
        // All of a histogram or nothing.
        for (suffix, bound, value) in values {
            value.checked()?;
            samples.push(Sample {
                topic: None,
                name: Name::new(&format!("{}{suffix}", self.name))?,
                labels: match bound {
                    Some(bound) => labels.with("le", &bound)?,
                    None => labels.clone(),
                },
                // How many observations there were has none.
                unit: unit.clone().filter(|_| !matches!(suffix, "_count" | "_bucket")),
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

/// A label's value: a text, or a number or boolean as it is written.
fn label(value: &RawValue) -> Result<Cow<'_, str>, Dropped> {
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
fn time(value: &RawValue) -> Result<Millis, Dropped> {
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
