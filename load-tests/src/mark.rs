//! The mark every published event carries: its stream, its number within it, and when it was published. It says the
//! same to the receiver whatever server carried it.

use std::time::Duration;

use memchr::memmem::Finder;
use nix::time::{ClockId, clock_gettime};

const BEGIN: &str = "~#";
const STREAM: usize = 8;
const NUMBER: usize = 12;
const TIME: usize = 16;
const LENGTH: usize = BEGIN.len() + STREAM + NUMBER + TIME + 1;

/// One event as the receiver checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Events of one stream are numbered without holes.
    pub(crate) stream: u32,
    pub(crate) number: u64,
    /// Nanoseconds of [`now`].
    pub(crate) published: u64,
}

impl Mark {
    /// `{"mark":"…","pad":"…"}` of `bytes` bytes, or of what the mark needs if that is more.
    pub(crate) fn payload(self, bytes: usize) -> String {
        let Self { stream, number, published } = self;
        let mut text =
            format!(r#"{{"mark":"{BEGIN}{stream:08x}{number:012x}{published:016x}~","pad":""#);
        let pad = bytes.saturating_sub(text.len() + r#""}"#.len());
        text.extend(std::iter::repeat_n('x', pad));
        text.push_str(r#""}"#);
        text
    }
}

/// Nanoseconds of the machine's monotonic clock.
pub(crate) fn now() -> u64 {
    // Linux always has it.
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    time.as_nanos() as u64
}

/// Finds marks; made once, because preparing the search costs more than one search.
pub(crate) struct Marks(Finder<'static>);

impl Marks {
    pub(crate) fn new() -> Self {
        Self(Finder::new(BEGIN))
    }

    /// Hands every mark in `bytes` to `each`. A mark that is cut or garbled is an error.
    pub(crate) fn find(&self, bytes: &[u8], mut each: impl FnMut(Mark)) -> Result<(), String> {
        for at in self.0.find_iter(bytes) {
            let text = bytes.get(at..at + LENGTH).ok_or("a frame ends within a mark")?;
            each(read(text).ok_or_else(|| format!("garbled: {}", text.escape_ascii()))?);
        }
        Ok(())
    }
}

fn read(text: &[u8]) -> Option<Mark> {
    let (stream, rest) = text[BEGIN.len()..].split_at(STREAM);
    let (number, rest) = rest.split_at(NUMBER);
    let (time, end) = rest.split_at(TIME);
    (end == b"~").then_some(())?;
    let (stream, number, published) = (hex(stream)?, hex(number)?, hex(time)?);
    Some(Mark { stream: u32::try_from(stream).ok()?, number, published })
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_back_as_written_at_the_size_asked_for() {
        let one = Mark { stream: 7, number: 12_345, published: 987_654_321 };
        let two = Mark { number: u64::from(u32::MAX) + 1, ..one };
        let payload = one.payload(200);
        assert_eq!(payload.len(), 200);
        serde_json::from_str::<serde_json::Value>(&payload).unwrap();
        let mut found = Vec::new();
        let both = format!("{payload},{}", two.payload(0));
        Marks::new().find(both.as_bytes(), |mark| found.push(mark)).unwrap();
        assert_eq!(found, [one, two]);
    }

    #[test]
    fn a_cut_or_garbled_mark_is_an_error() {
        let payload = Mark { stream: 1, number: 2, published: 3 }.payload(100);
        let at = payload.find(BEGIN).unwrap();
        for cut in at + BEGIN.len()..at + LENGTH {
            assert!(Marks::new().find(&payload.as_bytes()[..cut], drop).is_err(), "{cut}");
        }
        let garbled = payload.replace("00", "zz");
        assert!(Marks::new().find(garbled.as_bytes(), drop).is_err());
    }
}
