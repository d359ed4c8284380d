//! A derived value as a number or a text.

use serde::Deserialize;
use serde_json::Value;

/// How a derived value is written.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::projections) struct ShownNumber {
    derive: usize,
    scale: f64,
    style: Style,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Style {
    /// As it is.
    Plain,
    /// With so many digits behind the point.
    Rounded(i32),
    /// As seconds in words.
    Uptime,
}

/// `{ value = "…" }` of the configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ValueOperator {
    pub(super) value: String,
    /// What it is multiplied by.
    scale: Option<f64>,
    /// Digits behind the point.
    round: Option<u8>,
    text: Option<NumberText>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum NumberText {
    Uptime,
}

impl ValueOperator {
    pub(super) fn number(
        &self,
        derive: usize,
    ) -> Result<ShownNumber, (&'static str, &'static str)> {
        let style = match (&self.text, self.round) {
            (None, None) => Style::Plain,
            (Some(NumberText::Uptime), None) => Style::Uptime,
            (None, Some(digits @ 0..=9)) => Style::Rounded(digits.into()),
            (None, Some(_)) => return Err(("round", "is from 0 to 9 digits")),
            (Some(_), Some(_)) => return Err(("round", "is for numbers, not for a text")),
        };
        let scale = self.scale.unwrap_or(1.0);
        if !scale.is_finite() {
            return Err(("scale", "must be a number"));
        }
        Ok(ShownNumber { derive, scale, style })
    }
}

impl ShownNumber {
    /// Which derived value.
    pub(in crate::projections) fn derive(&self) -> usize {
        self.derive
    }

    pub(super) fn render(&self, value: Option<f64>) -> Value {
        let Some(value) = value.map(|value| value * self.scale) else { return Value::Null };
        match self.style {
            Style::Plain => plain(value),
            Style::Rounded(0) => whole(value.round()),
            Style::Rounded(digits) => {
                let unit = 10f64.powi(digits);
                let rounded = (value * unit).round() / unit;
                // Too large to have digits behind the point; and there is one zero.
                if rounded.is_finite() { (rounded + 0.0).into() } else { value.into() }
            }
            Style::Uptime => uptime(value).into(),
        }
    }
}

/// Numbers below this are whole numbers in JSON for every reader (RFC 8259 section 6).
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A whole number without a point, any other as it is.
pub(in crate::projections) fn plain(value: f64) -> Value {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn render(style: Style, scale: f64, value: f64) -> String {
        ShownNumber { derive: 0, scale, style }.render(Some(value)).to_string()
    }

    #[test]
    fn whole_numbers_have_no_point_and_others_the_digits_asked_for() {
        assert_eq!(render(Style::Plain, 1.0, 1247.0), "1247");
        assert_eq!(render(Style::Plain, 1.0, -0.5), "-0.5");
        assert_eq!(render(Style::Plain, 1.0, 1e300), "1e+300");
        assert_eq!(render(Style::Rounded(1), 1.0, 94.237), "94.2");
        assert_eq!(render(Style::Rounded(1), 1000.0, 0.045), "45.0");
        assert_eq!(render(Style::Rounded(0), 1.0, 44.5), "45");
        assert_eq!(render(Style::Rounded(9), 1.0, 1e300), "1e+300");
        assert_eq!(render(Style::Rounded(1), 1.0, -0.04), "0.0");
        let unknown = ShownNumber { derive: 0, scale: 1.0, style: Style::Plain }.render(None);
        assert_eq!(unknown, Value::Null);
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
            assert_eq!(render(Style::Uptime, 1.0, seconds), format!("\"{text}\""));
        }
    }
}
