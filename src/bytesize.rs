//! Sizes in bytes as people write them: `256 KiB`, `16 MiB`, `1 GiB`.

use std::{fmt, str::FromStr};

use crate::text::{read_as_text, shown_as_text};

/// A size in bytes. Units are powers of 1024; a number without a unit counts bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// From large to small, so that `KiB` is tried before the `B` it ends with.
const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ByteSize {
    /// The size in bytes, for things in memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// The size in bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// A text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a size: write a whole number and a unit, such as 512 B, 256 KiB, 16 MiB, 1 GiB"
)]
pub struct ByteSizeError(String);

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let refuse = || ByteSizeError(text.to_owned());
        let (number, factor) = UNITS
            .iter()
            .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
            .unwrap_or((text, 1));
        let number = number.trim_end();
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refuse()); // `parse` would accept a plus sign
        }
        let count: u64 = number.parse().map_err(|_| refuse())?;
        count.checked_mul(factor).map(Self).ok_or_else(refuse)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = UNITS
            .iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(&("B", 1));
        write!(f, "{} {unit}", self.0 / factor)
    }
}

shown_as_text!(ByteSize);
read_as_text!(ByteSize, "a size in quotes, such as \"1 MiB\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print() {
        for text in ["0 B", "512 B", "256 KiB", "1 MiB", "3 GiB", "2 TiB", "1025 B"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        assert_eq!("4KiB".parse(), Ok(ByteSize(4096)));
        assert_eq!("4096".parse(), Ok(ByteSize(4096)));
        for bad in ["", "B", "KiB", "-1 B", "+1 B", "1.5 GiB", "1 GB", "99999999999 TiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }
}
