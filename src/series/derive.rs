//! Derived values: what a `[[derive]]` of the configuration makes of each event, as a sample.
//!
//! Pure: no value is kept here. The samples feed a series like any other, so a derived value is
//! charted, survives a restart and is the same on every node.

use serde::Deserialize;
use serde_json::Value;

use super::sample::Name;
use crate::{
    event::Record,
    select::{Condition, Field, number},
    time::Span,
    topic::TopicPattern,
};

/// One `[[derive]]` of the configuration.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeriveConfig {
    /// What shapes call it, and the name of its series.
    pub name: String,
    /// Whose events it is made of.
    pub topic: TopicPattern,
    /// What is made of them.
    pub op: Op,
    /// Only of events that are so; what a ratio is the share of.
    #[serde(default, rename = "where")]
    pub condition: Condition,
    /// The number in each event.
    pub field: Option<Field>,
    /// How far back; without it, ever since the hub has had the value.
    pub window: Option<Span>,
}

/// What is made of the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// How many.
    Count,
    /// The sum of the field.
    Sum,
    /// The mean of the field.
    Avg,
    /// How many percent of the events are so; those without the fields in question do not count.
    Ratio,
    /// The newest value of the field.
    Last,
    /// The smallest of the field.
    Min,
    /// The largest of the field.
    Max,
    /// How many a second, or how much of the field a second.
    Rate,
    /// Of how many keys the newest event is so. It is counted from the newest event of each key,
    /// not from a series.
    Present,
}

/// What is read of each event.
#[derive(Debug, Clone, PartialEq)]
pub struct DeriveRule {
    name: Box<str>,
    topic: TopicPattern,
    condition: Condition,
    sample: DerivedSample,
}

#[derive(Debug, Clone, PartialEq)]
enum DerivedSample {
    One,
    IsSo,
    Field(Field),
}

/// The longest window: how long the coarsest rollups are kept.
const LONGEST: Span = Span::seconds(30 * 86_400);

impl DeriveConfig {
    /// The key that makes no sense, and what to do about it.
    pub fn nonsense(&self) -> Option<(&'static str, String)> {
        let Self { op, condition, field, window, .. } = self;
        let needs_field = matches!(op, Op::Sum | Op::Avg | Op::Last | Op::Min | Op::Max);
        let takes_field = needs_field || *op == Op::Rate;
        let needs_window = matches!(op, Op::Min | Op::Max | Op::Rate);
        let is_about_so = matches!(op, Op::Ratio | Op::Present);
        let word = op.word();
        if needs_field && field.is_none() {
            return Some(("field", format!("{word} needs the field with the number")));
        }
        if !takes_field && field.is_some() {
            return Some(("field", format!("{word} reads no field: leave it out")));
        }
        if is_about_so && condition.is_empty() {
            return Some(("where", format!("{word} needs to know which events are meant")));
        }
        if needs_window && window.is_none() {
            return Some(("window", format!("{word} needs a window, such as 5m")));
        }
        if *op == Op::Present && window.is_some() {
            return Some(("window", "present is about now: leave it out".to_owned()));
        }
        let is_out = window.is_some_and(|window| window < Span::seconds(1) || window > LONGEST);
        is_out.then(|| ("window", format!("must be from 1s to {LONGEST}")))
    }

    /// What its series is fed with; `present` has none.
    pub fn rule(&self) -> Option<DeriveRule> {
        let sample = match (self.op, &self.field) {
            (Op::Present, _) => return None,
            (Op::Ratio, _) => DerivedSample::IsSo,
            (_, Some(field)) => DerivedSample::Field(field.clone()),
            (_, None) => DerivedSample::One,
        };
        Some(DeriveRule {
            name: self.name.as_str().into(),
            topic: self.topic.clone(),
            condition: self.condition.clone(),
            sample,
        })
    }
}

impl Op {
    fn word(self) -> &'static str {
        match self {
            Op::Count => "count",
            Op::Sum => "sum",
            Op::Avg => "avg",
            Op::Ratio => "ratio",
            Op::Last => "last",
            Op::Min => "min",
            Op::Max => "max",
            Op::Rate => "rate",
            Op::Present => "present",
        }
    }
}

impl DeriveRule {
    /// The name of the series.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whose events it is about; who may read all of these may read the series.
    pub fn topic(&self) -> &TopicPattern {
        &self.topic
    }

    /// Whether it feeds the series of that topic and name, into which nothing else is put then.
    pub fn feeds(&self, topic: &str, name: &Name) -> bool {
        *self.name == *name.as_str() && self.topic.as_str() == topic
    }

    /// The sample that an event of the topic makes, if it makes one; `data` is its payload.
    pub fn value(&self, record: Record<'_>, data: &Value) -> Option<f64> {
        let is_so = self.condition.holds(record, data);
        match &self.sample {
            DerivedSample::IsSo => is_so.map(|so| if so { 1.0 } else { 0.0 }),
            _ if is_so != Some(true) => None,
            DerivedSample::One => Some(1.0),
            DerivedSample::Field(field) => number(&*field.read(record, data)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::select::tests::block;
    use serde_json::json;

    fn config(text: &str) -> DeriveConfig {
        toml::from_str(&format!("name = \"a.n\"\ntopic = \"a.*\"\n{text}")).unwrap()
    }

    fn sample(text: &str, data: Value) -> Option<f64> {
        let block = block(&data.to_string());
        config(text).rule().unwrap().value(block.record(0).unwrap(), &data)
    }

    #[test]
    fn each_op_makes_its_own_samples() {
        let call = json!({"duration": 4.5, "status": "success", "deep": {"n": 2}, "on": true});
        assert_eq!(sample("op = \"count\"", call.clone()), Some(1.0));
        assert_eq!(sample("op = \"avg\"\nfield = \"duration\"", call.clone()), Some(4.5));
        assert_eq!(sample("op = \"last\"\nfield = \"deep.n\"", call.clone()), Some(2.0));
        assert_eq!(sample("op = \"sum\"\nfield = \"on\"", call.clone()), Some(1.0));
        assert_eq!(sample("op = \"sum\"\nfield = \"status\"", call.clone()), None);
        assert_eq!(sample("op = \"sum\"\nfield = \"nowhere\"", call.clone()), None);
        let so = "where = { status = \"success\" }";
        assert_eq!(sample(&format!("op = \"ratio\"\n{so}"), call.clone()), Some(1.0));
        assert_eq!(sample(&format!("op = \"count\"\n{so}"), call), Some(1.0));
        let failed = json!({"status": "error"});
        assert_eq!(sample(&format!("op = \"ratio\"\n{so}"), failed.clone()), Some(0.0));
        assert_eq!(sample(&format!("op = \"count\"\n{so}"), failed), None);
    }

    #[test]
    fn an_event_that_does_not_say_is_no_failure() {
        let ratio = "op = \"ratio\"\nwhere = { status = \"success\" }";
        for data in [json!({}), json!(null), json!([1]), json!({"status": null})] {
            assert_eq!(sample(ratio, data.clone()), None, "{data}");
        }
    }

    #[test]
    fn metrics_are_found_where_producers_put_them() {
        let last = "op = \"last\"\nfield = \"active_calls\"";
        assert_eq!(sample(last, json!({"active_calls": 8})), Some(8.0));
        assert_eq!(sample(last, json!({"metrics": {"active_calls": 8}})), Some(8.0));
        assert_eq!(
            sample(last, json!({"metrics": {"active_calls": 8}, "active_calls": 9})),
            Some(9.0)
        );
    }

    #[test]
    fn what_an_op_needs_and_does_not_take_is_said() {
        for (text, key) in [
            ("op = \"avg\"", "field"),
            ("op = \"count\"\nfield = \"n\"", "field"),
            ("op = \"ratio\"", "where"),
            ("op = \"present\"", "where"),
            ("op = \"rate\"", "window"),
            ("op = \"max\"\nfield = \"n\"", "window"),
            ("op = \"present\"\nwhere = { on = true }\nwindow = \"5m\"", "window"),
            ("op = \"count\"\nwindow = \"1ms\"", "window"),
            ("op = \"count\"\nwindow = \"31d\"", "window"),
        ] {
            assert_eq!(config(text).nonsense().unwrap().0, key, "{text}");
        }
        assert_eq!(config("op = \"rate\"\nfield = \"n\"\nwindow = \"30d\"").nonsense(), None);
        assert!(config("op = \"present\"\nwhere = { on = true }").rule().is_none());
    }
}
