//! Where in the log: an epoch, an offset within it, and the two together.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

use crate::text::read_as_text;

/// Names one history of the log; two logs that could disagree about an offset have different epochs.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// An epoch from its stored number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number of an event within an epoch. The first event has 1; 0 stands before every event.
pub type Offset = u64;

/// A place in the log. A client here has received every event up to and including `offset`.
///
/// As text `epoch:offset`, the epoch in lower-case hexadecimal; also the id of a server-sent event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Position {
    /// The history the offset counts in.
    pub epoch: Epoch,
    /// The last offset that has been received.
    pub offset: Offset,
}

/// A text that is not `epoch:offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a position looks like 3f9a:1842 (epoch in hexadecimal, a colon, offset)")]
pub struct PositionError;

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let (epoch, offset) = text.split_once(':').ok_or(PositionError)?;
        let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !plain(epoch) || !plain(offset) {
            return Err(PositionError); // from_str_radix would accept a sign
        }
        Ok(Self {
            epoch: Epoch(u64::from_str_radix(epoch, 16).map_err(|_| PositionError)?),
            offset: offset.parse().map_err(|_| PositionError)?,
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

read_as_text!(Position);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let position = Position { epoch: Epoch::new(0x3f9a), offset: 1842 };
        assert_eq!(position.to_string(), "3f9a:1842");
        assert_eq!("3f9a:1842".parse(), Ok(position));
        for bad in [
            "",
            "3f9a",
            ":",
            "3f9a:",
            ":1",
            "+1:2",
            "1:+2",
            "1:2:3",
            "x:1",
            "1:99999999999999999999",
        ] {
            assert_eq!(bad.parse::<Position>(), Err(PositionError), "{bad}");
        }
    }
}
