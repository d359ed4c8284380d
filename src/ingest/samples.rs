//! Samples → payloads of events of type `samples`, in the compact form: one target's rows, cut where an event would become
//! larger than it may be. `series/compact.rs` reads it; docs/series.md tells it.
//!
//! Equal samples make equal payloads, so that a producer that sends again makes no other events.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::time::Millis;

/// Samples of one target, and what they have in common.
#[derive(Debug, Clone, Default)]
pub struct SampleSet<'a> {
    /// Labels that all of them have; a row's own count first.
    pub labels: Vec<(&'a str, &'a str)>,
    /// When all of them were taken that have no time of their own; without it, when the event happened.
    pub time: Option<Millis>,
    /// Type, unit and help, by the name of a series or of a family of them.
    pub metadata: BTreeMap<&'a str, SampleMetadata<'a>>,
    /// The samples.
    pub rows: Vec<SampleRow<'a>>,
}

/// One sample.
#[derive(Debug, Clone)]
pub struct SampleRow<'a> {
    /// The name of its series.
    pub name: &'a str,
    /// Labels beside those that all have.
    pub labels: Vec<(&'a str, &'a str)>,
    /// Any double; [`STALE`] ends the series.
    pub value: f64,
    /// When it was taken, where that is not the time of all.
    pub time: Option<Millis>,
}

/// What is said of a name.
#[derive(Debug, Clone, Copy, Default)]
pub struct SampleMetadata<'a> {
    /// counter, gauge, histogram, summary or another word; empty if it is not known, as the others.
    pub kind: &'a str,
    /// What it is measured in.
    pub unit: &'a str,
    /// What it means.
    pub help: &'a str,
}

/// Payloads of events, and what does not fit into any.
#[derive(Debug, Default)]
pub struct SamplePayloads {
    /// In the order of the rows.
    pub payloads: Vec<SamplePayload>,
    /// The places of rows that are larger than an event may be by themselves.
    pub too_large: Vec<usize>,
}

/// The payload of one event.
#[derive(Debug)]
pub struct SamplePayload {
    /// Its `data`.
    pub data: Box<RawValue>,
    /// An id made of the content, where every sample tells its time: then the same content is the same event.
    pub id: Option<Box<str>>,
}

/// The bits of the NaN by which Prometheus says that a series has ended (`value.StaleNaN`).
pub const STALE: u64 = 0x7ff0_0000_0000_0002;

/// A payload that grows.
struct OpenPayload {
    head: String,
    rows: String,
    metadata: String,
    is_timed: bool,
}

impl<'a> SampleSet<'a> {
    /// The payloads of events that hold all samples in their order, none longer than `most` bytes. Metadata stand with the
    /// first row of their name, and those of names without rows behind all rows.
    pub fn payloads(&'a self, most: usize) -> SamplePayloads {
        let mut made = SamplePayloads::default();
        let mut left = self.metadata.clone();
        let mut open = OpenPayload::new(self);
        let around = open.len();
        for (place, row) in self.rows.iter().enumerate() {
            let text = row.text();
            if around + text.len() > most {
                made.too_large.push(place);
                continue;
            }
            let said = family(&left, row.name).and_then(|name| left.remove_entry(name));
            let said = said.map(|(name, said)| said.text(name)).unwrap_or_default();
            // Metadata are worth no event of their own.
            let said = if around + text.len() + said.len() > most { String::new() } else { said };
            if open.len() + text.len() + said.len() + 2 > most {
                made.payloads.extend(std::mem::replace(&mut open, OpenPayload::new(self)).close());
            }
            append(&mut open.rows, &text);
            append(&mut open.metadata, &said);
            open.is_timed &= row.time.is_some() || self.time.is_some();
        }
        for (name, said) in left {
            let said = said.text(name);
            if around + said.len() > most {
                continue;
            }
            if open.len() + said.len() + 1 > most {
                made.payloads.extend(std::mem::replace(&mut open, OpenPayload::new(self)).close());
            }
            append(&mut open.metadata, &said);
        }
        made.payloads.extend(open.close());
        made
    }
}

impl OpenPayload {
    fn new(set: &SampleSet<'_>) -> Self {
        let mut head = String::from("{");
        if let Some(time) = set.time {
            let _ = write!(head, r#""time":{time},"#); // a String takes everything
        }
        head.push_str(r#""labels":"#);
        put_labels(&mut head, &set.labels);
        Self { head, rows: String::new(), metadata: String::new(), is_timed: true }
    }

    /// Its length, at most.
    fn len(&self) -> usize {
        let around = r#","metadata":{},"rows":[]}"#.len();
        self.head.len() + around + self.rows.len() + self.metadata.len()
    }

    fn close(self) -> Option<SamplePayload> {
        if self.rows.is_empty() && self.metadata.is_empty() {
            return None;
        }
        let mut text = self.head;
        if !self.metadata.is_empty() {
            let _ = write!(text, r#","metadata":{{{}}}"#, self.metadata);
        }
        let _ = write!(text, r#","rows":[{}]}}"#, self.rows);
        let id = self.is_timed.then(|| content_id(&text));
        RawValue::from_string(text).ok().map(|data| SamplePayload { data, id })
    }
}

impl SampleRow<'_> {
    fn text(&self) -> String {
        let mut text = String::from("[");
        put_text(&mut text, self.name);
        text.push(',');
        put_labels(&mut text, &self.labels);
        text.push(',');
        match self.value {
            value if value.to_bits() == STALE => text.push_str(r#""stale""#),
            value if value.is_nan() => text.push_str(r#""NaN""#),
            f64::INFINITY => text.push_str(r#""+Inf""#),
            f64::NEG_INFINITY => text.push_str(r#""-Inf""#),
            value => text.push_str(
                &serde_json::Number::from_f64(value)
                    .map_or_else(|| r#""NaN""#.to_owned(), |number| number.to_string()),
            ),
        }
        if let Some(time) = self.time {
            let _ = write!(text, ",{time}");
        }
        text.push(']');
        text
    }
}

impl SampleMetadata<'_> {
    fn text(&self, name: &str) -> String {
        let mut text = String::new();
        put_text(&mut text, name);
        text.push_str(":{");
        let start = text.len();
        for (field, said) in [("type", self.kind), ("unit", self.unit), ("help", self.help)] {
            if said.is_empty() {
                continue;
            }
            if text.len() > start {
                text.push(',');
            }
            put_text(&mut text, field);
            text.push(':');
            put_text(&mut text, said);
        }
        text.push('}');
        text
    }
}

/// The name under which metadata stand for a series: its own or its family's.
fn family<'a>(known: &BTreeMap<&'a str, SampleMetadata<'_>>, name: &str) -> Option<&'a str> {
    let suffixes = ["", "_total", "_bucket", "_count", "_sum", "_created"];
    let names = suffixes.iter().filter_map(|suffix| name.strip_suffix(suffix));
    names.filter_map(|name| known.get_key_value(name)).map(|(name, _)| *name).next()
}

fn append(list: &mut String, item: &str) {
    if !list.is_empty() && !item.is_empty() {
        list.push(',');
    }
    list.push_str(item);
}

fn put_labels(text: &mut String, labels: &[(&str, &str)]) {
    text.push('{');
    for (at, (name, value)) in labels.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        put_text(text, name);
        text.push(':');
        put_text(text, value);
    }
    text.push('}');
}

fn put_text(text: &mut String, value: &str) {
    text.push_str(&serde_json::Value::from(value).to_string());
}

fn content_id(text: &str) -> Box<str> {
    let hash = Sha256::digest(text.as_bytes());
    let mut id = String::with_capacity(34);
    id.push_str("s-");
    for byte in hash.iter().take(16) {
        let _ = write!(id, "{byte:02x}"); // a String takes everything
    }
    id.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(name: &str, value: f64) -> SampleRow<'_> {
        SampleRow { name, labels: vec![("le", "+Inf")], value, time: None }
    }

    #[test]
    fn a_payload_says_every_value_as_json_can() {
        let mut set =
            SampleSet { labels: vec![("job", "a\"b")], time: Some(5), ..SampleSet::default() };
        let metadata = SampleMetadata { kind: "counter", unit: "", help: "Calls." };
        set.metadata.insert("calls", metadata);
        let values =
            [f64::from_bits(STALE), f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e300];
        set.rows = values.map(|value| row("calls_total", value)).into();
        set.rows[0].time = Some(7);
        let made = set.payloads(10_000);
        let wanted = concat!(
            r#"{"time":5,"labels":{"job":"a\"b"},"metadata":{"calls":{"type":"counter","help":"Calls."}},"rows":["#,
            r#"["calls_total",{"le":"+Inf"},"stale",7],["calls_total",{"le":"+Inf"},"NaN"],"#,
            r#"["calls_total",{"le":"+Inf"},"+Inf"],["calls_total",{"le":"+Inf"},"-Inf"],"#,
            r#"["calls_total",{"le":"+Inf"},-0.0],["calls_total",{"le":"+Inf"},1e+300]]}"#,
        );
        assert_eq!(made.payloads[0].data.get(), wanted);
        assert!(made.payloads[0].id.is_some() && made.payloads.len() == 1);
        // The event's own time is another one each time it is sent.
        set.time = None;
        assert!(set.payloads(10_000).payloads[0].id.is_none());
    }

    proptest! {
        #[test]
        fn no_sample_is_lost_where_a_set_is_cut_and_no_payload_is_too_large(
            names in proptest::collection::vec("[a-z\"\u{e9}]{1,40}", 0..60),
            most in 150..600usize,
        ) {
            let mut set = SampleSet { labels: vec![("job", "x")], ..SampleSet::default() };
            set.metadata.extend(names.iter().step_by(3).map(|name| {
                (name.as_str(), SampleMetadata { kind: "gauge", unit: "s", help: "h" })
            }));
            set.rows = names.iter().zip(0u32..).map(|(name, n)| row(name, n.into())).collect();
            let made = set.payloads(most);
            prop_assert_eq!(made.too_large.len(), 0);
            let mut found = Vec::new();
            for payload in &made.payloads {
                prop_assert!(payload.data.get().len() <= most);
                let data: serde_json::Value = serde_json::from_str(payload.data.get()).unwrap();
                found.extend(data["rows"].as_array().unwrap().iter().map(|row| {
                    (row[0].as_str().unwrap().to_owned(), row[2].as_f64().unwrap())
                }));
            }
            let wanted: Vec<_> = names.iter().cloned().zip((0u32..).map(f64::from)).collect();
            prop_assert_eq!(found, wanted);
            let again = set.payloads(most);
            prop_assert!(again.payloads.iter().zip(&made.payloads).all(|(a, b)| a.data.get() == b.data.get()));
        }
    }

    #[test]
    fn a_row_that_no_event_holds_is_told_and_costs_no_other() {
        let long = "x".repeat(300);
        let rows = vec![row("a", 1.0), row(&long, 2.0), row("b", 3.0)];
        let set = SampleSet { rows, ..SampleSet::default() };
        let made = set.payloads(200);
        assert_eq!(made.too_large, [1]);
        assert!(made.payloads[0].data.get().ends_with(r#"["b",{"le":"+Inf"},3.0]]}"#));
    }
}
