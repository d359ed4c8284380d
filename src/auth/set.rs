//! The claims of a token as they came: each is read only when it is needed.
//!
//! Providers put many claims into a token that the hub does not use. Some of them are not valid Unicode (`"\ud800"`,
//! half of a surrogate pair) or not a number (`1e400`). They must not make the other claims unreadable.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, de};
use serde_json::{Value, value::RawValue};

/// A JSON object of which nothing but the names was read; of a repeated name the last counts.
pub(super) struct ClaimSet(BTreeMap<RawName, Box<RawValue>>);

/// The bytes of a name, which may be no UTF-8.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct RawName(Vec<u8>);

/// A claim that cannot be read as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

impl ClaimSet {
    /// Reads a JSON object; None if it is something else.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok().map(Self)
    }

    /// The claim of this name.
    pub(super) fn get(&self, name: &str) -> Result<Option<Value>, Unreadable> {
        self.raw(name).map(read).transpose()
    }

    /// The claim of this name, or else what the dotted path leads to.
    pub(super) fn at(&self, path: &str) -> Result<Option<Value>, Unreadable> {
        if let Some(raw) = self.raw(path) {
            return read(raw).map(Some);
        }
        let Some((first, rest)) = path.split_once('.') else { return Ok(None) };
        let mut found = self.raw(first).map(ToOwned::to_owned);
        for step in rest.split('.') {
            let inside = found.and_then(|raw| Self::parse(raw.get().as_bytes()));
            found = inside.and_then(|inside| inside.raw(step).map(ToOwned::to_owned));
        }
        found.as_deref().map(read).transpose()
    }

    fn raw(&self, name: &str) -> Option<&RawValue> {
        self.0.get(&RawName(name.into())).map(|raw| &**raw)
    }
}

fn read(raw: &RawValue) -> Result<Value, Unreadable> {
    serde_json::from_str(raw.get()).map_err(|_| Unreadable)
}

impl<'de> Deserialize<'de> for RawName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl de::Visitor<'_> for NameVisitor {
            type Value = RawName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E>(self, text: &str) -> Result<RawName, E> {
                Ok(RawName(text.into()))
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<RawName, E> {
                Ok(RawName(bytes.into()))
            }
        }
        // As bytes, which are not checked to be Unicode.
        deserializer.deserialize_bytes(NameVisitor)
    }
}
