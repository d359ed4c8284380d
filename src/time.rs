//! The clock as an argument, and times and durations as people write them.

mod steady;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use self::steady::{Noticed, Steady};
use crate::text::{read_as_text, shown_as_text};

/// Milliseconds since the Unix epoch, UTC.
pub type Millis = u64;

/// Where the wall-clock time comes from: the system, or a test. Cheap to clone.
#[derive(Clone)]
pub struct Clock(ClockSource);

#[derive(Clone)]
enum ClockSource {
    Hand(Arc<AtomicU64>),
    System(Arc<SystemClock>),
}

struct SystemClock {
    began: Instant,
    /// Held to compare a few numbers.
    steady: Mutex<Steady>,
    /// The time when it was last settled.
    settled: AtomicU64,
}

/// Longer than anything is remembered.
const LONG_BEFORE: Millis = 1 << 42;

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        let steady = Mutex::new(Steady::new(wall(), 0));
        let settled = AtomicU64::new(0);
        Self(ClockSource::System(Arc::new(SystemClock { began: Instant::now(), steady, settled })))
    }

    /// A clock that stands at `start` until it is [`set`](Self::set).
    pub fn manual(start: Millis) -> Self {
        Self(ClockSource::Hand(Arc::new(AtomicU64::new(start))))
    }

    /// Moves a manual clock; the system's clock is left alone.
    pub fn set(&self, now: Millis) {
        if let ClockSource::Hand(hand) = &self.0 {
            hand.store(now, Ordering::SeqCst);
        }
    }

    /// Where a manual clock stands.
    pub fn hand(&self) -> Option<Millis> {
        match &self.0 {
            ClockSource::Hand(hand) => Some(hand.load(Ordering::SeqCst)),
            ClockSource::System(_) => None,
        }
    }

    /// The time now. A jump of the system's clock is logged, and followed only after half a minute.
    pub fn now(&self) -> Millis {
        match &self.0 {
            ClockSource::Hand(hand) => hand.load(Ordering::SeqCst),
            ClockSource::System(system) => {
                let mut steady = system.steady.lock();
                let (now, noticed) = steady.read(wall(), system.elapsed());
                drop(steady);
                noticed.into_iter().for_each(tell);
                now
            }
        }
    }

    /// Milliseconds since some moment long before the process began, by a clock that never jumps.
    pub fn elapsed(&self) -> Millis {
        match &self.0 {
            ClockSource::Hand(hand) => hand.load(Ordering::SeqCst),
            ClockSource::System(system) => LONG_BEFORE + system.elapsed(),
        }
    }

    /// Whether something may be thrown away because of its age: not while the clock disagrees with the
    /// monotonic one or with what it was held against, nor for ten minutes afterwards.
    pub fn is_settled(&self) -> bool {
        match &self.0 {
            ClockSource::Hand(_) => true,
            ClockSource::System(system) => {
                self.now();
                system.steady.lock().is_settled(system.elapsed())
            }
        }
    }

    /// The time by which what is old may be thrown away: it stands still while the clock is not settled, at 0 if it
    /// never was and was held against nothing.
    pub fn settled(&self) -> Millis {
        match &self.0 {
            ClockSource::Hand(hand) => hand.load(Ordering::SeqCst),
            ClockSource::System(system) => {
                if self.is_settled() {
                    system.settled.store(self.now(), Ordering::Relaxed);
                }
                // Put back since, it would make what is new look old.
                system.settled.load(Ordering::Relaxed).min(self.now())
            }
        }
    }

    /// Holds the clock against `neighbour`, the time of something that happened lately, 0 for nothing.
    pub fn meet(&self, neighbour: Millis) {
        if let ClockSource::System(system) = &self.0
            && neighbour > 0
            && !system.steady.lock().meet(neighbour, system.elapsed())
        {
            system.settled.store(neighbour.min(self.now()), Ordering::Relaxed);
            let (clock, neighbour) = (rfc3339(wall()), rfc3339(neighbour));
            tracing::warn!(%clock, %neighbour,
                "the clock is far from the newest event of the log: nothing is removed by its age for 10 min");
        }
    }

    /// How often the system's clock has jumped.
    pub fn jumps(&self) -> u64 {
        match &self.0 {
            ClockSource::Hand(_) => 0,
            ClockSource::System(system) => system.steady.lock().jumps(),
        }
    }
}

impl SystemClock {
    fn elapsed(&self) -> Millis {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn wall() -> Millis {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn tell(noticed: Noticed) {
    match noticed {
        Noticed::Jump(by_ms) => tracing::warn!(
            by_ms,
            "the system's clock has jumped: it is not followed before it has stayed there for 30 s, and \
             nothing is removed by its age meanwhile; check the machine's time service"
        ),
        Noticed::Believed(by_ms) => tracing::warn!(
            by_ms,
            "the system's clock has stayed where it jumped to and is followed: nothing is removed by \
             its age for 10 min"
        ),
        Noticed::Back => tracing::info!("the system's clock is back where it was"),
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.hand().is_some() { "Clock(manual)" } else { "Clock(system)" })
    }
}

/// `millis` in RFC 3339 with milliseconds and `Z`, the form the hub writes.
pub fn rfc3339(millis: Millis) -> String {
    let millis = i64::try_from(millis).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{:.3}", jiff::Timestamp::MAX),
    }
}

/// Reads RFC 3339 with a zone, and what the library reads beyond it; times before 1970 count as 1970.
pub fn parse_rfc3339(text: &str) -> Result<Millis, TimeError> {
    let refuse = || TimeError(text.to_owned());
    if has_rfc3339_shape(text) {
        return strictly(text).ok_or_else(refuse);
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| refuse())?;
    Ok(u64::try_from(time.as_millisecond()).unwrap_or(0))
}

/// The shape that RFC 3339 section 5.6 gives a time. The library reads much more than that (ISO
/// 8601's basic form, zones in brackets), which most receivers would not.
pub fn has_rfc3339_shape(text: &str) -> bool {
    let digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    let fits = |part: &[u8], shape: &[u8]| {
        part.len() == shape.len()
            && part.iter().zip(shape).all(|(byte, want)| match want {
                b'0' => byte.is_ascii_digit(),
                want => byte.eq_ignore_ascii_case(want),
            })
    };
    let Some((date_time, rest)) = text.as_bytes().split_at_checked(19) else { return false };
    let (fraction, zone) = match rest.iter().position(|byte| !matches!(byte, b'.' | b'0'..=b'9')) {
        Some(at) => rest.split_at(at),
        None => return false,
    };
    fits(date_time, b"0000-00-00T00:00:00")
        && (fraction.is_empty() || fraction[0] == b'.' && digits(&fraction[1..]))
        && (fits(zone, b"Z") || fits(zone, b"+00:00") || fits(zone, b"-00:00"))
}

/// A text of that shape by the ranges of section 5.7. The library's own end two days before the year
/// 9999 does, allow nine digits of a fraction, and know zones of more than a day.
fn strictly(text: &str) -> Option<Millis> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let below = |number: Option<i64>, limit: i64| number.filter(|number| *number < limit);
    let narrow = |number: Option<i64>| i8::try_from(number?).ok();
    let year = i16::try_from(number(0, 4)?).ok()?;
    let date = jiff::civil::Date::new(year, narrow(number(5, 7))?, narrow(number(8, 10))?).ok()?;
    let days = jiff::civil::date(1970, 1, 1).until(date).ok()?.get_days();
    let (hour, minute) = (below(number(11, 13), 24)?, below(number(14, 16), 60)?);
    // A leap second counts as the one before it.
    let second = below(number(17, 19), 61)?.min(59);
    let rest = text.get(19..)?;
    let digits = rest.bytes().skip(1).take_while(u8::is_ascii_digit).take(3);
    let is_fraction = rest.starts_with('.');
    let fraction = digits.filter(|_| is_fraction).zip([100, 10, 1]);
    let millis: i64 = fraction.map(|(digit, unit)| i64::from(digit - b'0') * unit).sum();
    let zone = match rest.rfind(['+', '-']) {
        None => 0,
        Some(at) => {
            let at = 19 + at;
            let hours = below(number(at + 1, at + 3), 24)?;
            let zone = hours * 60 + below(number(at + 4, at + 6), 60)?;
            if text.as_bytes().get(at) == Some(&b'-') { -zone } else { zone }
        }
    };
    let minutes = (i64::from(days) * 24 + hour) * 60 + minute - zone;
    Some(u64::try_from((minutes * 60 + second) * 1000 + millis).unwrap_or(0))
}

/// A moment that is written in RFC 3339 wherever it is stored or shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub Millis);

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_rfc3339(&text).map(Self).map_err(de::Error::custom)
    }
}

/// A text that is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time: write RFC 3339 with a zone, such as 2026-11-20T12:00:00Z")]
pub struct TimeError(String);

/// A duration as people write it: `250ms`, `30s`, `5m`, `1h`, `7d`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];

impl Span {
    /// A span of `seconds`.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The span in milliseconds.
    pub fn millis(self) -> Millis {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl std::str::FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let refuse = || SpanError(text.to_owned());
        let (unit, factor) =
            UNITS.iter().find(|(unit, _)| text.ends_with(unit)).ok_or_else(refuse)?;
        let number: u64 = text[..text.len() - unit.len()].trim().parse().map_err(|_| refuse())?;
        let millis = number.checked_mul(*factor).ok_or_else(refuse)?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

/// A text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: write a whole number and a unit, such as 250ms, 30s, 5m, 1h, 7d")]
pub struct SpanError(String);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.millis();
        let (unit, factor) = ["d", "h", "m", "s", "ms"]
            .iter()
            .filter_map(|name| UNITS.iter().find(|(unit, _)| unit == name))
            .find(|(_, factor)| millis.is_multiple_of(*factor))
            .unwrap_or(&UNITS[0]);
        write!(f, "{}{unit}", millis / factor)
    }
}

shown_as_text!(Span);
read_as_text!(Span, "a duration in quotes, such as \"30s\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        for text in ["250ms", "30s", "5m", "1h", "7d"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        for bad in ["", "5", "m", "-1s", "1.5h", "1 year", "99999999999999999999d"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn times_read_and_print() {
        let millis = parse_rfc3339("2026-11-20T13:00:00.123+01:00").unwrap();
        assert_eq!(rfc3339(millis), "2026-11-20T12:00:00.123Z");
        for text in [
            "1999-02-28T23:59:60.9994-23:59",
            "2024-02-29t00:00:00.05+05:30",
            "1971-01-01T00:00:00Z",
        ] {
            let library: jiff::Timestamp = text.replace(":60", ":59").parse().unwrap();
            assert_eq!(parse_rfc3339(text), Ok(library.as_millisecond() as u64), "{text}");
        }
        assert_eq!(parse_rfc3339("9999-12-31T23:59:59.999Z"), Ok(253_402_300_799_999));
        assert_eq!(parse_rfc3339("0000-01-01T00:00:00Z"), Ok(0));
        assert!(parse_rfc3339("2026-11-20T12:00:00").is_err());
        assert!(parse_rfc3339("yesterday").is_err());
    }
}
