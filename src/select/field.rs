//! Where in an event something stands.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use crate::event::Record;

/// A dotted path within an event's `data`, or with an `@` one of its attributes.
///
/// Producers wrap numbers in `metrics` or do not: what `data` does not have is looked for in
/// `data.metrics`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// Of the payload.
    Data(Vec<Box<str>>),
    /// Of the event around it.
    Attribute(Attribute),
}

/// What an event has beside its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attribute {
    /// `@topic`
    Topic,
    /// `@id`
    Id,
    /// `@source`
    Source,
    /// `@type`
    Type,
    /// `@time`
    Time,
    /// `@key`
    Key,
}

/// The most names in one path.
const MOST_STEPS: usize = 16;

impl Field {
    /// What stands there; `data` is the record's payload. What is null is not there.
    pub fn read<'a>(&self, record: Record<'_>, data: &'a Value) -> Option<Cow<'a, Value>> {
        match self {
            Field::Attribute(attribute) => attribute.read(record).map(Cow::Owned),
            Field::Data(path) => {
                let found = walk(data, path).or_else(|| walk(data.get("metrics")?, path));
                found.map(Cow::Borrowed)
            }
        }
    }
}

fn walk<'a>(value: &'a Value, path: &[Box<str>]) -> Option<&'a Value> {
    let found = path.iter().try_fold(value, |value, name| value.get(&**name))?;
    (!found.is_null()).then_some(found)
}

impl Attribute {
    fn read(self, record: Record<'_>) -> Option<Value> {
        match self {
            Attribute::Topic => Some(record.topic().into()),
            Attribute::Type => serde_json::from_slice(record.kind()?).ok(),
            Attribute::Key => serde_json::from_slice(record.key()?).ok(),
            Attribute::Id => rest(record).map(|rest| rest.id.into()),
            Attribute::Source => rest(record).map(|rest| rest.source.into()),
            Attribute::Time => rest(record).map(|rest| rest.time.into()),
        }
    }
}

/// What a record does not know the place of.
#[derive(Deserialize)]
struct Rest {
    id: String,
    source: String,
    time: String,
}

fn rest(record: Record<'_>) -> Option<Rest> {
    serde_json::from_slice(record.json()).ok()
}

impl std::str::FromStr for Field {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        if let Some(name) = text.strip_prefix('@') {
            let name = de::value::StrDeserializer::<de::value::Error>::new(name);
            return Attribute::deserialize(name)
                .map(Self::Attribute)
                .map_err(|_| FieldError::Attribute);
        }
        let path: Vec<Box<str>> = text.split('.').map(Into::into).collect();
        if path.len() > MOST_STEPS || path.iter().any(|name| name.is_empty()) {
            return Err(FieldError::Path);
        }
        Ok(Self::Data(path))
    }
}

/// A text that names no field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// An `@` before something an event does not have.
    #[error("an event has @topic, @id, @source, @type, @time and @key")]
    Attribute,
    /// No path.
    #[error("a field is a path within `data` such as duration or call.duration")]
    Path,
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::block, *};
    use serde_json::json;

    #[test]
    fn attributes_and_paths_are_read() {
        let data = json!({"a": {"b": [1]}, "n": null});
        let block = block(&data.to_string());
        let record = block.record(0).unwrap();
        for (field, value) in [
            ("@topic", Some(json!("a.calls"))),
            ("@id", Some(json!("i1"))),
            ("@source", Some(json!("s"))),
            ("@type", Some(json!("call.ended"))),
            ("@time", Some(json!("2026-11-20T12:00:00Z"))),
            ("@key", Some(json!("line \"7\""))),
            ("a.b", Some(json!([1]))),
            ("a.b.c", None),
            ("n", None),
        ] {
            let read = field.parse::<Field>().unwrap().read(record, &data).map(Cow::into_owned);
            assert_eq!(read, value, "{field}");
        }
        assert_eq!("@nothing".parse::<Field>(), Err(FieldError::Attribute));
        for bad in ["", ".", "a..b", "a."] {
            assert_eq!(bad.parse::<Field>(), Err(FieldError::Path), "{bad}");
        }
    }
}
