//! An event as it is published, and the blocks in which events are stored and shared.
//!
//! An event's outward JSON is made once, when it gets its offset; everyone who receives it
//! shares those bytes. A [`Block`] is a run of such records, the unit of storing and dispatching.

mod block;
mod builder;
mod names;
mod payload;
mod publisher;
mod stored;

pub use block::{Block, Record};
pub use builder::BlockBuilder;
pub use names::{AppName, InstanceId, NameError};
pub use payload::payload;
pub use publisher::PublisherName;
pub use stored::BlockError;

use serde_json::value::RawValue;

use crate::topic::Topic;

/// The most bytes in an event's `id`, `source`, `type` or `key`.
pub const MAX_ATTRIBUTE_BYTES: usize = 256;

/// The type of the hub's own events whose numbers become series.
pub const METRICS: &str = "metrics";

/// An event on its way in; attribute names are those of CloudEvents 1.0.
#[derive(Debug, Clone)]
pub struct Event {
    /// What it is about.
    pub topic: Topic,
    /// Its name within (publisher, topic, source); the idempotency key together with these.
    pub id: Box<str>,
    /// Whether the hub made the id, so that no retry can carry it.
    pub id_is_ours: bool,
    /// Whose credentials it came with; not in the outward JSON, which all readers share.
    pub publisher: PublisherName,
    /// The source, as the publisher states it.
    pub source: Box<str>,
    /// What kind of event (`type` on the wire).
    pub kind: Option<Box<str>>,
    /// When it happened, in RFC 3339, as the producer wrote it.
    pub time: Box<str>,
    /// What `latest` conflates by.
    pub key: Option<Box<str>>,
    /// The payload: any JSON, without insignificant white space.
    pub data: Box<RawValue>,
}

/// A new id: a UUIDv7 (RFC 9562 section 5.7), so that ids sort by the time they were made.
pub fn new_id() -> Box<str> {
    uuid::Uuid::now_v7().to_string().into()
}

/// A payload that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// More levels of arrays and objects than [`MAX_DEPTH`].
    #[error("`data` is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// The bytes are no JSON value.
    #[error("`data` is not valid JSON")]
    Invalid,
}

/// The most nested arrays and objects in `data`; many JSON readers stop at 128.
pub const MAX_DEPTH: usize = 100;

/// `data` without white space between its tokens; everything else stays as the producer wrote it.
pub fn compact(data: &RawValue) -> Result<Box<RawValue>, DataError> {
    let text = data.get();
    let mut kept = None;
    let (mut in_string, mut escaped, mut depth) = (false, false, 0usize);
    for (at, byte) in text.bytes().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => in_string = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                b' ' | b'\t' | b'\n' | b'\r' => {
                    kept.get_or_insert_with(|| text.as_bytes()[..at].to_vec());
                    continue;
                }
                _ => {}
            }
            if depth > MAX_DEPTH {
                return Err(DataError::TooDeep);
            }
        }
        if let Some(kept) = &mut kept {
            kept.push(byte);
        }
    }
    match kept {
        None => Ok(data.to_owned()),
        Some(bytes) => String::from_utf8(bytes)
            .ok()
            .and_then(|text| RawValue::from_string(text).ok())
            .ok_or(DataError::Invalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compacted(text: &str) -> Result<String, DataError> {
        let raw: Box<RawValue> = serde_json::from_str(text).unwrap();
        compact(&raw).map(|raw| raw.get().to_owned())
    }

    #[test]
    fn only_insignificant_white_space_goes() {
        let text = "{ \"b\" : [1.0,  1e3 ,\n 12345678901234567890],\t\"a b\":\"x \\\" y\\u0041\" }";
        let want = r#"{"b":[1.0,1e3,12345678901234567890],"a b":"x \" y\u0041"}"#;
        assert_eq!(compacted(text).unwrap(), want);
        assert_eq!(compacted(want).unwrap(), want);
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(compacted(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(compacted(&nested(MAX_DEPTH + 1)), Err(DataError::TooDeep));
    }
}
