//! A chart of the last hours: rows of a time and a derived value, step by step.

use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value, json};

use super::style::NumberStyle;
use crate::{json, time::Millis};

/// `{ buckets = "…" }` of a shape.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Buckets {
    /// Which derived value.
    pub(super) derive: usize,
    /// What it is called in each row.
    pub(super) name: String,
    /// Whether its rows are told by `date`, where a step is a day or more.
    pub(super) is_dated: bool,
    /// How its figures are written.
    pub(super) style: NumberStyle,
    /// How far back, unless the request says.
    pub(super) hours: Hours,
}

/// How far back a chart goes: 1 to 720 hours, as long as series are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hours(u32);

/// Steps of time, all of one length, the last of which has begun and not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Steps {
    /// Where the first begins.
    pub(super) from: Millis,
    /// How long each is.
    pub(super) step: Millis,
    /// How many there are.
    pub(super) count: usize,
}

const MINUTE: Millis = 60_000;
const HOUR: Millis = 60 * MINUTE;

/// Lengths people count in; all divide a day or are days.
const LENGTHS: [Millis; 11] = [
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    4 * HOUR,
    6 * HOUR,
    12 * HOUR,
    24 * HOUR,
    72 * HOUR,
];

/// The most rows.
const ROWS: Millis = 12;

impl Hours {
    /// The steps of the last hours at `now`: in the shortest length of which twelve are enough,
    /// counted from midnight UTC.
    pub(super) fn steps(self, now: Millis) -> Steps {
        let span = Millis::from(self.0) * HOUR;
        let longest = LENGTHS[LENGTHS.len() - 1];
        let step = LENGTHS.into_iter().find(|length| span <= ROWS * length).unwrap_or(longest);
        let count = span.div_ceil(step);
        let last = now - now % step;
        let from = last.saturating_sub((count - 1) * step);
        Steps { from, step, count: count as usize }
    }
}

impl Steps {
    /// When a step begins.
    pub(super) fn start(self, index: usize) -> Millis {
        self.from + index as Millis * self.step
    }
}

impl Buckets {
    /// A row for each step; the time of day in UTC, with the day where there is more than one.
    pub(super) fn rows(&self, hours: Hours, steps: Steps, values: &[Value]) -> Value {
        let row = |(index, value): (usize, &Value)| {
            let at = steps.start(index);
            let label = label(at, hours.0 > 24);
            let when = match label.split_once(' ') {
                Some((date, _)) if self.is_dated && steps.step >= 24 * HOUR => json!(date),
                _ => json!(label),
            };
            let row = [
                (if self.is_dated { "date" } else { "time" }.to_owned(), when),
                (self.name.clone(), value.clone()),
            ];
            Value::Object(row.into_iter().collect::<Map<_, _>>())
        };
        values.iter().enumerate().map(row).collect()
    }
}

fn label(at: Millis, with_day: bool) -> String {
    let (minutes, hours) = (at / MINUTE % 60, at / HOUR % 24);
    let time = format!("{hours:02}:{minutes:02}");
    if !with_day {
        return time;
    }
    let date = crate::time::rfc3339(at);
    format!("{} {time}", date.get(..10).unwrap_or_default())
}

impl TryFrom<i64> for Hours {
    type Error = HoursError;

    fn try_from(hours: i64) -> Result<Self, HoursError> {
        u32::try_from(hours)
            .ok()
            .filter(|hours| (1..=720).contains(hours))
            .map(Self)
            .ok_or(HoursError)
    }
}

impl std::str::FromStr for Hours {
    type Err = HoursError;

    fn from_str(text: &str) -> Result<Self, HoursError> {
        json::read_whole::<i64>(text).ok_or(HoursError)?.try_into()
    }
}

/// A number of hours that cannot be charted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number from 1 to 720")]
pub struct HoursError;

/// The same as days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days(pub Hours);

impl std::str::FromStr for Days {
    type Err = DaysError;

    fn from_str(text: &str) -> Result<Self, DaysError> {
        let hours = json::read_whole::<i64>(text).and_then(|days| days.checked_mul(24));
        hours.and_then(|hours| hours.try_into().ok()).map(Self).ok_or(DaysError)
    }
}

/// A number of days that cannot be charted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number from 1 to 30")]
pub struct DaysError;

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer)?.try_into().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::parse_rfc3339;

    fn at(text: &str) -> Millis {
        parse_rfc3339(text).unwrap()
    }

    #[test]
    fn a_day_is_twelve_steps_of_two_hours() {
        let steps = Hours(24).steps(at("2026-11-21T15:31:00Z"));
        assert_eq!(steps, Steps { from: at("2026-11-20T16:00:00Z"), step: 2 * HOUR, count: 12 });
        let buckets = Buckets {
            derive: 0,
            name: "calls".into(),
            is_dated: false,
            style: NumberStyle::Plain,
            hours: Hours(24),
        };
        let rows = buckets.rows(Hours(24), steps, &[json!(3), json!(0)]);
        assert_eq!(rows, json!([{"time": "16:00", "calls": 3}, {"time": "18:00", "calls": 0}]));
    }

    #[test]
    fn every_span_has_at_most_twelve_steps_that_reach_now() {
        for hours in 1..=720 {
            for now in ["2026-11-21T00:00:00Z", "2026-11-21T15:31:00.001Z"] {
                let now = at(now);
                let steps = Hours(hours).steps(now);
                let end = steps.from + steps.count as Millis * steps.step;
                assert!((1..=12).contains(&steps.count), "{hours}");
                assert!(end > now && end <= now + steps.step, "{hours}");
                assert_eq!(steps.from % steps.step, 0, "{hours}");
                assert!(steps.count as Millis * steps.step >= Millis::from(hours) * HOUR);
            }
        }
    }

    #[test]
    fn longer_spans_name_the_day() {
        let steps = Hours(48).steps(at("2026-11-21T15:31:00Z"));
        let buckets = Buckets {
            derive: 0,
            name: "n".into(),
            is_dated: false,
            style: NumberStyle::Plain,
            hours: Hours(24),
        };
        let rows = buckets.rows(Hours(48), steps, &[json!(1)]);
        assert_eq!(rows[0]["time"], "2026-11-19 16:00");
        let dated = Buckets { is_dated: true, ..buckets };
        let steps = Hours(168).steps(at("2026-11-21T15:31:00Z"));
        assert_eq!(dated.rows(Hours(168), steps, &[json!(1)])[0]["date"], "2026-11-15");
    }

    #[test]
    fn hours_are_bounded() {
        for bad in ["0", "721", "-1", "1.5", "day", "", "99999999999999999999"] {
            assert_eq!(bad.parse::<Hours>(), Err(HoursError), "{bad}");
        }
        for good in ["720", "720.0", "72e1"] {
            assert_eq!(good.parse(), Ok(Hours(720)), "{good}");
        }
    }
}
