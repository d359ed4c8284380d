//! What a projection takes of each event.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

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
    Object(Vec<(String, FieldPaths)>),
}

/// Places something may stand at; the first that has anything counts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FieldPaths(Vec<Field>);

impl Take {
    /// What is taken of this event; `data` is its payload. What is not there is null.
    pub(super) fn take(&self, record: Record<'_>, data: &Value) -> Value {
        self.with(|fields| fields.read(record, data), || data.clone())
    }

    /// What is taken where there is no event.
    pub(super) fn nothing(&self) -> Value {
        self.with(|_| Value::Null, || Value::Null)
    }

    fn with(&self, read: impl Fn(&FieldPaths) -> Value, data: impl Fn() -> Value) -> Value {
        match self {
            Take::Data => data(),
            Take::One(fields) => read(fields),
            Take::Object(members) => {
                members.iter().map(|(name, fields)| (name.clone(), read(fields))).collect()
            }
        }
    }
}

impl FieldPaths {
    fn read(&self, record: Record<'_>, data: &Value) -> Value {
        let found = self.0.iter().find_map(|field| field.read(record, data));
        found.map_or(Value::Null, std::borrow::Cow::into_owned)
    }
}

impl<'de> Deserialize<'de> for Take {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TakeVisitor)
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
