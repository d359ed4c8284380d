//! What producers write for a time: with a zone, without one, or nothing a clock ever showed.

use jiff::{Timestamp, civil::DateTime, tz::Offset};

use crate::time::{Millis, has_rfc3339_shape, parse_rfc3339};

/// A time as its producer wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WrittenTime {
    /// With a zone, in RFC 3339.
    Zoned(Box<str>),
    /// Without one, as Python's `datetime.now().isoformat()` writes it.
    Naive(DateTime),
}

/// Reads RFC 3339 and its relatives (a space for the `T`, `+0100`); None for what is no time.
pub(super) fn read(text: &str) -> Option<WrittenTime> {
    if has_rfc3339_shape(text) {
        return parse_rfc3339(text).is_ok().then(|| WrittenTime::Zoned(text.into()));
    }
    match text.parse::<Timestamp>() {
        Ok(time) => rfc3339(time).map(WrittenTime::Zoned),
        Err(_) => text.parse().ok().map(WrittenTime::Naive),
    }
}

/// The same in RFC 3339, taking it for UTC where no zone was written. What only lacks the zone stays
/// as it was written, with all digits of its fraction.
pub(super) fn read_as_utc(text: &str) -> Option<Box<str>> {
    let with_zone = format!("{text}Z");
    if has_rfc3339_shape(&with_zone) {
        return parse_rfc3339(&with_zone).is_ok().then(|| with_zone.into());
    }
    match read(text)? {
        WrittenTime::Zoned(text) => Some(text),
        WrittenTime::Naive(time) => rfc3339(Offset::UTC.to_timestamp(time).ok()?),
    }
}

/// The zone in which times that were written without one and sent together seem to stand, by the
/// newest of them and when they arrived; None when no zone on Earth explains them.
///
/// Zones lie whole quarters of an hour from UTC. The one taken is that in which the newest time
/// lies less than a quarter of an hour before its arrival: what happened cannot have happened
/// later, but for a minute that the clocks may differ, and what was kept for an outage is sent
/// soon after its end. So the error is how long the newest had waited, to the quarter of an hour,
/// and the distances between them are kept.
pub(super) fn guess_zone(
    times: impl Iterator<Item = DateTime>,
    received: Millis,
) -> Option<Offset> {
    const QUARTER: i64 = 15 * 60;
    const MINUTE: i64 = 60;
    const ZONES: std::ops::RangeInclusive<i64> = -12 * 3600..=14 * 3600;
    let newest = Offset::UTC.to_timestamp(times.max()?).ok()?;
    let ahead = newest.as_second().checked_sub(i64::try_from(received / 1000).ok()?)?;
    let east = -(MINUTE - ahead).div_euclid(QUARTER) * QUARTER; // rounded up
    let east = ZONES.contains(&east).then(|| i32::try_from(east).ok())??;
    Offset::from_seconds(east).ok()
}

/// A time without a zone, in this one, in RFC 3339.
pub(super) fn in_zone(time: DateTime, zone: Offset) -> Option<Box<str>> {
    let time = zone.to_timestamp(time).ok()?;
    rfc3339(time).map(|_| time.display_with_offset(zone).to_string().into())
}

/// Years from 0 to 9999, which is as far as RFC 3339 goes.
fn rfc3339(time: Timestamp) -> Option<Box<str>> {
    let text = time.to_string();
    has_rfc3339_shape(&text).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_utc(text: &str) -> Option<String> {
        read_as_utc(text).map(Into::into)
    }

    #[test]
    fn a_zone_is_kept_and_a_missing_one_is_utc() {
        for kept in ["2025-12-16T12:00:00Z", "2025-12-16t12:00:00.123456+05:30"] {
            assert_eq!(as_utc(kept).unwrap(), kept);
        }
        for (text, want) in [
            ("2025-12-16T12:00:00.123456", "2025-12-16T12:00:00.123456Z"),
            ("2025-12-16T12:00:00.123450", "2025-12-16T12:00:00.123450Z"),
            ("9999-12-31T23:59:59", "9999-12-31T23:59:59Z"),
            ("2025-12-16 12:00:00", "2025-12-16T12:00:00Z"),
            ("2025-12-16", "2025-12-16T00:00:00Z"),
            ("2025-12-16 12:00:00+0100", "2025-12-16T11:00:00Z"),
            ("0001-01-01T00:00:00", "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(as_utc(text).as_deref(), Some(want));
        }
        for absurd in [
            "",
            "soon",
            "2025-13-01T00:00:00",
            "1765886400",
            "-000001-01-01T00:00:00",
            "2025-12-16T25:00:00",
            "12025-01-01T00:00:00Z",
            "2025-12-16T12:00:00+25:59",
            "2025-02-30",
        ] {
            assert_eq!(as_utc(absurd), None, "{absurd:?}");
        }
    }

    fn guessed(texts: &[&str], received: &str) -> Option<Vec<String>> {
        let times = || texts.iter().map(|text| text.parse::<DateTime>().unwrap());
        let zone = guess_zone(times(), parse_rfc3339(received).unwrap())?;
        Some(times().map(|time| in_zone(time, zone).unwrap().into()).collect())
    }

    #[test]
    fn local_times_get_the_zone_that_lets_the_newest_have_just_happened() {
        let received = "2026-03-01T12:00:00.400Z";
        for (texts, want) in [
            // Central Europe, a minute and an hour ago.
            (
                ["2026-03-01T12:00:00", "2026-03-01T12:59:00.5"],
                ["2026-03-01T12:00:00+01:00", "2026-03-01T12:59:00.5+01:00"],
            ),
            // Nepal; New York; London, and the same second.
            (
                ["2026-03-01T17:00:00", "2026-03-01T17:44:00"],
                ["2026-03-01T17:00:00+05:45", "2026-03-01T17:44:00+05:45"],
            ),
            (
                ["2026-03-01T06:59:59", "2026-03-01T01:00:00"],
                ["2026-03-01T06:59:59-05:00", "2026-03-01T01:00:00-05:00"],
            ),
            (
                ["2026-02-20T00:00:00", "2026-03-01T12:00:59"],
                ["2026-02-20T00:00:00+00:00", "2026-03-01T12:00:59+00:00"],
            ),
        ] {
            assert_eq!(guessed(&texts, received).unwrap(), want);
        }
    }

    #[test]
    fn a_clock_that_is_off_by_a_day_stands_in_no_zone() {
        let received = "2026-03-01T12:00:00Z";
        for text in ["2026-03-02T12:00:00", "2026-02-28T12:00:00", "9999-12-31T23:59:59"] {
            assert_eq!(guessed(&[text], received), None, "{text}");
        }
        assert_eq!(guess_zone(std::iter::empty(), 0), None);
    }
}
