//! What the readers of all formats do alike: fields, their types and their bounds.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Fault, Refusal};
use crate::{event::MAX_ATTRIBUTE_BYTES, json, wording};

/// `above` is the number of lines before those that were read.
pub(super) fn malformed(above: usize, error: &serde_json::Error) -> Refusal {
    let message = wording::about("the JSON", &json::without_place(error));
    Refusal::Malformed { line: above + error.line(), column: error.column().max(1), message }
}

pub(super) fn not_utf8(body: &[u8], at: usize) -> Refusal {
    let before = &body[..at];
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    Refusal::Malformed {
        line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
        column: at - line_start + 1,
        message: "the bytes are not UTF-8".to_owned(),
    }
}

/// An array of at most this many items, `None` if it has more: a body of a few MiB can contain millions of empty
/// objects, which would take a hundred times its size in memory.
pub(super) struct AtMost<T>(usize, PhantomData<T>);

impl<T> AtMost<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self(limit, PhantomData)
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for AtMost<T> {
    type Value = Option<Vec<T>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for AtMost<T> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut taken = Vec::new();
        while taken.len() < self.0 {
            match items.next_element()? {
                Some(item) => taken.push(item),
                None => return Ok(Some(taken)),
            }
        }
        let mut over = false;
        while items.next_element::<IgnoredAny>()?.is_some() {
            over = true;
        }
        Ok((!over).then_some(taken))
    }
}

/// Whether it is an object.
pub(super) fn object(raw: &RawValue) -> Result<&RawValue, Fault> {
    match kind_of(raw) {
        "an object" => Ok(raw),
        found => Err(Fault::WrongKind { wanted: "an object", found }),
    }
}

/// A string's text.
pub(super) fn text_of(raw: &RawValue) -> Result<Cow<'_, str>, Fault> {
    if let Ok(text) = serde_json::from_str::<&str>(raw.get()) {
        return Ok(Cow::Borrowed(text));
    }
    serde_json::from_str(raw.get()).map(Cow::Owned).map_err(|_| match kind_of(raw) {
        "a string" => Fault::BadEscape,
        found => Fault::NotText(found),
    })
}

/// A text as the attribute of an event.
pub(super) fn attribute_of(text: Cow<'_, str>) -> Result<Box<str>, Fault> {
    match text.len() {
        0 => Err(Fault::Blank),
        bytes if bytes > MAX_ATTRIBUTE_BYTES => Err(Fault::TooLong(bytes)),
        _ => Ok(text.into()),
    }
}

pub(super) fn kind_of(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}
