//! A derived value as a number or a text.

use serde::Deserialize;
use serde_json::Value;

use crate::projections::style::{NumberStyle, NumberText};

/// How a derived value is written.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::projections) struct ShownNumber {
    derive: usize,
    scale: f64,
    style: NumberStyle,
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

impl ValueOperator {
    pub(super) fn number(
        &self,
        derive: usize,
    ) -> Result<ShownNumber, (&'static str, &'static str)> {
        let style = NumberStyle::new(self.text, self.round)?;
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
        value.map_or(Value::Null, |value| self.style.render(value * self.scale))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_scaled_before_it_is_rounded_and_null_while_it_is_unknown() {
        let shown = ShownNumber { derive: 0, scale: 1000.0, style: NumberStyle::Rounded(1) };
        assert_eq!(shown.render(Some(0.045)).to_string(), "45.0");
        assert_eq!(shown.render(None), Value::Null);
    }
}
