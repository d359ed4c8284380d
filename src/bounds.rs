//! Bounds of settings, beside the fields they are of: `#[serde(deserialize_with = "bounds::at_least::<_, _, 1>")]`.

use serde::{Deserialize, Deserializer, de};

use crate::{bytesize::ByteSize, time::Span};

/// The least that lets a packet come and go, in milliseconds.
pub const MOMENT: u64 = 10;
/// A second, in milliseconds.
pub const SECOND: u64 = 1000;

/// What can be counted: in milliseconds if it is a time, in bytes if it is a size.
pub trait Countable: Sized {
    /// How much it is.
    fn count(&self) -> u64;

    /// `count` as people write it.
    fn shown(count: u64) -> String {
        count.to_string()
    }
}

/// Reads a value of at least `LEAST`.
pub fn at_least<'de, D, T, const LEAST: u64>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Countable,
{
    within::<D, T, LEAST, { u64::MAX }>(deserializer)
}

/// Reads a value from `LEAST` to `MOST`.
pub fn within<'de, D, T, const LEAST: u64, const MOST: u64>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Countable,
{
    let value = T::deserialize(deserializer)?;
    match value.count() {
        count if count < LEAST => {
            Err(de::Error::custom(format!("must be at least {}", T::shown(LEAST))))
        }
        count if count > MOST => {
            Err(de::Error::custom(format!("must be at most {}", T::shown(MOST))))
        }
        _ => Ok(value),
    }
}

impl Countable for usize {
    fn count(&self) -> u64 {
        *self as u64
    }
}

impl Countable for u32 {
    fn count(&self) -> u64 {
        (*self).into()
    }
}

impl Countable for Span {
    fn count(&self) -> u64 {
        self.millis()
    }

    fn shown(count: u64) -> String {
        Span(std::time::Duration::from_millis(count)).to_string()
    }
}

impl Countable for ByteSize {
    fn count(&self) -> u64 {
        self.0
    }

    fn shown(count: u64) -> String {
        ByteSize(count).to_string()
    }
}
