//! Amounts of bytes as people write them: `512 B`, `256 KiB`, `16 MiB`, `1 GiB`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de};

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A text that is no amount of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size: write a whole number and a unit, such as 256 KiB, 16 MiB, 1 GiB")]
pub struct ByteSizeError(String);

impl ByteSize {
    /// The number for sizes of things in memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let refuse = || ByteSizeError(text.to_owned());
        let (unit, factor) =
            UNITS.iter().find(|(unit, _)| text.ends_with(unit)).ok_or_else(refuse)?;
        let number: u64 = text[..text.len() - unit.len()].trim().parse().map_err(|_| refuse())?;
        number.checked_mul(*factor).map(Self).ok_or_else(refuse)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) =
            UNITS.iter().find(|(_, factor)| self.0 % factor == 0).unwrap_or(&UNITS[4]);
        write!(f, "{} {unit}", self.0 / factor)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print() {
        for text in ["512 B", "256 KiB", "16 MiB", "1 GiB"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        assert_eq!("2KiB".parse::<ByteSize>().unwrap(), ByteSize(2048));
        for bad in ["", "5", "KiB", "-1 B", "1.5 GiB", "99999999 TiB", "1 KB "] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }
}
