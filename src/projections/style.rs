//! How a number is written: as it is, with so many digits, or in words.

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum NumberStyle {
    /// As it is.
    Plain,
    /// With so many digits behind the point.
    Rounded(i32),
    /// As seconds in words: `5d 12h 30m`.
    Uptime,
    /// As seconds in words: `2m 5s`.
    Duration,
}

/// `text` of the configuration.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum NumberText {
    Uptime,
    Duration,
}

/// Numbers below this are whole numbers in JSON for every reader (RFC 8259 section 6).
const EXACT: f64 = 9_007_199_254_740_992.0;

impl NumberStyle {
    /// What `text` and `round` of the configuration ask for, or the key that makes no sense.
    pub(super) fn new(
        text: Option<NumberText>,
        round: Option<u8>,
    ) -> Result<Self, (&'static str, &'static str)> {
        match (text, round) {
            (None, None) => Ok(Self::Plain),
            (Some(NumberText::Uptime), None) => Ok(Self::Uptime),
            (Some(NumberText::Duration), None) => Ok(Self::Duration),
            (None, Some(digits @ 0..=9)) => Ok(Self::Rounded(digits.into())),
            (None, Some(_)) => Err(("round", "must be from 0 to 9 digits")),
            (Some(_), Some(_)) => Err(("round", "is for numbers, not for a text")),
        }
    }

    pub(super) fn render(self, value: f64) -> Value {
        match self {
            Self::Plain => plain(value),
            Self::Rounded(0) => whole(value.round()),
            Self::Rounded(digits) => {
                let unit = 10f64.powi(digits);
                let rounded = (value * unit).round() / unit;
                // Too large to have digits behind the point; and there is one zero.
                if rounded.is_finite() { (rounded + 0.0).into() } else { value.into() }
            }
            Self::Uptime => uptime(value).into(),
            Self::Duration => duration(value).into(),
        }
    }
}

/// A whole number without a point, any other as it is.
fn plain(value: f64) -> Value {
    if value.fract() == 0.0 { whole(value) } else { value.into() }
}

fn whole(value: f64) -> Value {
    if value.abs() < EXACT { (value as i64).into() } else { value.into() }
}

/// Seconds as days, hours and minutes: `5d 12h 30m`; larger units only where there are any.
fn uptime(seconds: f64) -> String {
    let minutes = (seconds.max(0.0) / 60.0) as u64;
    let (days, hours, minutes) = (minutes / 1440, minutes / 60 % 24, minutes % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m"),
        (0, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h {minutes}m"),
    }
}

/// Seconds as the two largest of hours, minutes and seconds: `1h 5m`, `2m 5s`, `5s`.
fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m {seconds}s"),
        _ => format!("{hours}h {minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(style: NumberStyle, value: f64) -> String {
        style.render(value).to_string()
    }

    #[test]
    fn whole_numbers_have_no_point_and_others_the_digits_asked_for() {
        assert_eq!(render(NumberStyle::Plain, 1247.0), "1247");
        assert_eq!(render(NumberStyle::Plain, -0.5), "-0.5");
        assert_eq!(render(NumberStyle::Plain, 1e300), "1e+300");
        assert_eq!(render(NumberStyle::Rounded(1), 94.237), "94.2");
        assert_eq!(render(NumberStyle::Rounded(1), 45.0), "45.0");
        assert_eq!(render(NumberStyle::Rounded(0), 44.5), "45");
        assert_eq!(render(NumberStyle::Rounded(9), 1e300), "1e+300");
        assert_eq!(render(NumberStyle::Rounded(1), -0.04), "0.0");
    }

    #[test]
    fn an_uptime_is_told_in_days_hours_and_minutes() {
        for (seconds, text) in [
            (0.0, "0m"),
            (59.9, "0m"),
            (1800.0, "30m"),
            (3600.0, "1h 0m"),
            (477_000.0, "5d 12h 30m"),
            (-1.0, "0m"),
        ] {
            assert_eq!(render(NumberStyle::Uptime, seconds), format!("\"{text}\""));
        }
    }

    #[test]
    fn a_duration_is_told_in_the_two_largest_units() {
        for (seconds, text) in
            [(0.4, "0s"), (5.0, "5s"), (125.9, "2m 5s"), (3900.0, "1h 5m"), (-1.0, "0s")]
        {
            assert_eq!(render(NumberStyle::Duration, seconds), format!("\"{text}\""));
        }
    }
}
