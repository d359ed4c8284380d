//! The JSON of a projection: constants, derived values, words, newest events, buckets, the clock.
//!
//! Pure: what a shape is made of comes in as [`Inputs`].

mod number;
mod read;
mod words;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use self::{number::ShownNumber, words::Words};
use super::buckets::Buckets;

pub(super) use self::read::ShapeReader;

/// One node of a projection's JSON.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    /// As the configuration has it.
    Constant(Value),
    /// An object of further nodes.
    Object(Vec<(String, Shape)>),
    /// A list of further nodes.
    Array(Vec<Shape>),
    /// A derived value.
    Number(ShownNumber),
    /// What derived values amount to, in a word.
    Words(Words),
    /// What is collected under this number of the newest event.
    Newest(usize),
    /// What is collected under `number` of newest events, the first so many. By the members `filters` may be asked for
    /// some of them.
    List { number: usize, limit: usize, filters: Vec<String> },
    /// A derived value over the last hours, step by step.
    Buckets(Buckets),
    /// Why the values are not to be trusted; null while they are.
    Error,
    /// Whether the values are not to be trusted.
    IsStale,
    /// The time; it counts as no change.
    Clock,
}

/// What shapes are made of at one moment.
pub(super) struct Inputs<'a> {
    /// The derived value of this number; None when it is not known.
    pub(super) value: &'a dyn Fn(usize) -> Option<f64>,
    /// What is collected of newest events under this number.
    pub(super) collected: &'a dyn Fn(usize) -> Value,
    /// The rows of a chart.
    pub(super) rows: &'a dyn Fn(&Buckets) -> Value,
    /// How many rows of a list are asked for, if not as configured.
    pub(super) limit: Option<usize>,
    /// Which rows of lists are asked for: for each of these members, the values it may have.
    pub(super) filters: &'a BTreeMap<String, Vec<String>>,
    /// Why the values are not to be trusted.
    pub(super) error: Option<&'a str>,
    /// The time as texts have it.
    pub(super) clock: &'a str,
}

impl Shape {
    /// The JSON at the moment of `inputs`.
    pub(super) fn render(&self, inputs: &Inputs<'_>) -> Value {
        match self {
            Shape::Constant(value) => value.clone(),
            Shape::Object(members) => {
                let member = |(name, node): &(String, Shape)| (name.clone(), node.render(inputs));
                Value::Object(members.iter().map(member).collect::<Map<_, _>>())
            }
            Shape::Array(nodes) => nodes.iter().map(|node| node.render(inputs)).collect(),
            Shape::Number(number) => number.render((inputs.value)(number.derive())),
            Shape::Words(words) => words.choose(inputs.value).into(),
            Shape::Newest(number) => (inputs.collected)(*number),
            Shape::List { number, limit, filters } => {
                let mut rows = (inputs.collected)(*number);
                if let Value::Array(rows) = &mut rows {
                    let asked =
                        filters.iter().filter_map(|name| Some((name, inputs.filters.get(name)?)));
                    for (name, wanted) in asked {
                        rows.retain(|row| wanted.iter().any(|text| is_written(&row[name], text)));
                    }
                    rows.truncate(inputs.limit.unwrap_or(*limit));
                }
                rows
            }
            Shape::Buckets(buckets) => (inputs.rows)(buckets),
            Shape::Error => inputs.error.into(),
            Shape::IsStale => inputs.error.is_some().into(),
            Shape::Clock => inputs.clock.into(),
        }
    }

    /// Takes the clock's texts out of `value`, which this shape once rendered, so that it can be
    /// compared with another.
    pub(super) fn stop_clock(&self, value: &mut Value) {
        match (self, value) {
            (Shape::Clock, value) => *value = Value::Null,
            (Shape::Object(members), Value::Object(object)) => {
                for (name, node) in members {
                    if let Some(value) = object.get_mut(name) {
                        node.stop_clock(value);
                    }
                }
            }
            (Shape::Array(nodes), Value::Array(values)) => {
                nodes.iter().zip(values).for_each(|(node, value)| node.stop_clock(value));
            }
            _ => {}
        }
    }

    /// Calls `look` with this node and every one within it.
    pub(super) fn visit<'a>(&'a self, look: &mut dyn FnMut(&'a Shape)) {
        look(self);
        match self {
            Shape::Object(members) => members.iter().for_each(|(_, node)| node.visit(look)),
            Shape::Array(nodes) => nodes.iter().for_each(|node| node.visit(look)),
            _ => {}
        }
    }
}

/// Whether a query says `text` for `value`.
fn is_written(value: &Value, text: &str) -> bool {
    match value {
        Value::String(value) => value == text,
        Value::Number(number) => text.parse().is_ok_and(|asked| number.as_f64() == Some(asked)),
        Value::Bool(is_so) => text.parse() == Ok(*is_so),
        _ => false,
    }
}
