//! Samples out of events: pure, and told what it leaves out.
//!
//! docs/series.md tells the shapes.

use std::{iter, sync::Arc};

use serde_json::value::RawValue;

use super::{
    compact::CompactSamples,
    derive::DeriveRule,
    incoming::{Found, Incoming, Pairs, is_number, is_object, number},
    sample::{Dropped, Labels, MAX_DEPTH, Name, Sample, SampleHint, Value},
    typed::typed,
};
use crate::{
    event::{BlockBuilder, Event, Record},
    protocol::Losses,
    telemetry,
    time::Millis,
};

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
        match CompactSamples::read(&event) {
            Some(samples) => samples.take(&mut found),
            None => typed(&event, &mut found),
        }
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
    let mut losses = Losses::default();
    for (index, event) in events.iter().enumerate() {
        for reason in found_in(event).dropped {
            losses.note(telemetry::DroppedPart::Sample, || format!("event {index}: {reason}"));
        }
    }
    losses
}

/// What is in an event that is not stored yet, if its type is `samples`.
pub(super) fn found_in(event: &Event) -> Found {
    /// No rule asks for the payload.
    static NOTHING: serde_json::Value = serde_json::Value::Null;
    if event.kind.as_deref() != Some("samples") {
        return Found::default();
    }
    let mut block = BlockBuilder::default();
    block.push(1, 0, event);
    let block = block.finish();
    let found = block.record(0).and_then(|record| extract(record, &[], || &NOTHING));
    found.map(|(_, found)| found).unwrap_or_default()
}

/// The largest value of a derived series, either way.
const MAX_DERIVED: f64 = 1e100;

/// What a rule makes of the event.
fn derived(
    rule: &DeriveRule,
    event: &Incoming<'_>,
    payload: &serde_json::Value,
    found: &mut Found,
) {
    let Some(number) = rule.value(event.record, payload) else { return };
    match Name::new(rule.name()) {
        // One event must not be all that is left of a sum.
        Ok(_) if number.abs() > MAX_DERIVED => found.dropped.push(Dropped::Value),
        Ok(name) => found.samples.push(Sample {
            topic: Some(rule.topic().clone()),
            name,
            labels: Labels::default(),
            hint: SampleHint::default(),
            value: Value::Reading(number),
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
        } else if is_number(value) {
            let number = number(value).ok_or(Dropped::Value);
            match number.and_then(|number| Ok((Name::new(path)?, number))) {
                Ok((name, number)) => found.samples.push(Sample {
                    topic: None,
                    name,
                    labels: labels.clone(),
                    hint: SampleHint::default(),
                    value: Value::Reading(number),
                    time: None,
                }),
                Err(reason) => found.dropped.push(reason),
            }
        }
        path.truncate(end);
    }
}
