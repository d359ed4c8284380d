//! What a projection takes of each event.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::style::{NumberStyle, NumberText};
use crate::{event::Record, select::Field};

/// What is taken of an event.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Take {
    /// Its payload.
    #[default]
    Data,
    /// One field of it.
    One(FieldPaths),
    /// An object of fields.
    Object(Vec<(String, TakenField)>),
}

/// Fields, and how a number there is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TakenField {
    fields: FieldPaths,
    style: NumberStyle,
}

/// Places something may stand at; the first that has anything counts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FieldPaths(Vec<Field>);

impl Take {
    /// What is taken of this event; `data` is its payload. What is not there is null.
    pub(super) fn take(&self, record: Record<'_>, data: &Value) -> Value {
        match self {
            Take::Data => data.clone(),
            Take::One(fields) => fields.read(record, data),
            Take::Object(members) => {
                let read = |(name, taken): &(String, TakenField)| {
                    (name.clone(), taken.write(taken.fields.read(record, data)))
                };
                members.iter().map(read).collect()
            }
        }
    }

    /// Whether it makes an object with this member.
    pub(super) fn has(&self, member: &str) -> bool {
        matches!(self, Take::Object(members) if members.iter().any(|(name, _)| name == member))
    }

    /// What is taken where there is no event.
    pub(super) fn nothing(&self) -> Value {
        match self {
            Take::Data | Take::One(_) => Value::Null,
            Take::Object(members) => {
                members.iter().map(|(name, _)| (name.clone(), Value::Null)).collect()
            }
        }
    }
}

impl TakenField {
    /// A number as it is to be written; anything else as it is.
    fn write(&self, value: Value) -> Value {
        match (self.style, value.as_f64()) {
            (NumberStyle::Plain, _) | (_, None) => value,
            (style, Some(number)) => style.render(number),
        }
    }
}

impl FieldPaths {
    fn read(&self, record: Record<'_>, data: &Value) -> Value {
        let found = self.0.iter().find_map(|field| field.read(record, data));
        found.map_or(Value::Null, std::borrow::Cow::into_owned)
    }
}

/// `{ field = "cpu_usage", round = 1 }` of the configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TakenFieldConfig {
    field: FieldPaths,
    /// Digits behind the point.
    round: Option<u8>,
    text: Option<NumberText>,
}

impl<'de> Deserialize<'de> for Take {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TakeVisitor)
    }
}

impl<'de> Deserialize<'de> for TakenField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TakenFieldVisitor)
    }
}

impl<'de> Deserialize<'de> for FieldPaths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldsVisitor)
    }
}

struct TakeVisitor;

impl<'de> de::Visitor<'de> for TakeVisitor {
    type Value = Take;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a field, a list of fields of which the first there is counts, or a table of them",
        )
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Take, E> {
        FieldsVisitor.visit_str(text).map(Take::One)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, items: A) -> Result<Take, A::Error> {
        FieldsVisitor.visit_seq(items).map(Take::One)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Take, A::Error> {
        let map = de::value::MapAccessDeserializer::new(map);
        BTreeMap::deserialize(map).map(|members| Take::Object(members.into_iter().collect()))
    }
}

struct TakenFieldVisitor;

impl<'de> de::Visitor<'de> for TakenFieldVisitor {
    type Value = TakenField;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field, a list of fields, or a table with `field` and `round` or `text`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<TakenField, E> {
        FieldsVisitor.visit_str(text).map(TakenField::from)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, items: A) -> Result<TakenField, A::Error> {
        FieldsVisitor.visit_seq(items).map(TakenField::from)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<TakenField, A::Error> {
        let map = de::value::MapAccessDeserializer::new(map);
        let TakenFieldConfig { field, round, text } = TakenFieldConfig::deserialize(map)?;
        let style = NumberStyle::new(text, round)
            .map_err(|(key, message)| de::Error::custom(format!("`{key}` {message}")))?;
        Ok(TakenField { fields: field, style })
    }
}

impl From<FieldPaths> for TakenField {
    fn from(fields: FieldPaths) -> Self {
        Self { fields, style: NumberStyle::Plain }
    }
}

struct FieldsVisitor;

impl<'de> de::Visitor<'de> for FieldsVisitor {
    type Value = FieldPaths;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field, or a list of fields of which the first there is counts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<FieldPaths, E> {
        text.parse().map(|field| FieldPaths(vec![field])).map_err(E::custom)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<FieldPaths, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = items.next_element()? {
            fields.push(field);
        }
        Ok(FieldPaths(fields))
    }
}
