//! What derived values amount to, in a word: `healthy`, `warning`, `critical`.

use serde::Deserialize;

/// The word of the first case that is so, else another.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::projections) struct Words {
    cases: Vec<(usize, Case)>,
    otherwise: String,
}

/// `{ words = […] }` of the configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WordsOperator {
    pub(super) words: Vec<Case>,
    otherwise: String,
}

/// A word, and when it is the right one: all that is asked must hold.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    word: String,
    /// The derived value it is about.
    pub(super) value: String,
    above: Option<f64>,
    at_least: Option<f64>,
    below: Option<f64>,
    at_most: Option<f64>,
    /// Whether the value is not known.
    #[serde(default)]
    missing: bool,
}

impl WordsOperator {
    /// `derives` has a number for each case.
    pub(super) fn words(self, derives: Vec<usize>) -> Words {
        Words { cases: derives.into_iter().zip(self.words).collect(), otherwise: self.otherwise }
    }
}

impl Case {
    pub(super) fn nonsense(&self) -> Option<&'static str> {
        let bounds = [self.above, self.at_least, self.below, self.at_most];
        let bounds: Vec<f64> = bounds.into_iter().flatten().collect();
        match (self.missing, bounds.is_empty()) {
            (true, false) => Some("a value that is missing cannot be compared as well"),
            (false, true) => Some(
                "say when it is the word: above, at_least, below, at_most a number, or missing = true",
            ),
            _ if bounds.iter().any(|bound| bound.is_nan()) => Some("compares with a number"),
            _ => None,
        }
    }

    fn holds(&self, value: Option<f64>) -> bool {
        let Some(value) = value else { return self.missing };
        !self.missing
            && self.above.is_none_or(|bound| value > bound)
            && self.at_least.is_none_or(|bound| value >= bound)
            && self.below.is_none_or(|bound| value < bound)
            && self.at_most.is_none_or(|bound| value <= bound)
    }
}

impl Words {
    /// Which derived values decide.
    pub(in crate::projections) fn derives(&self) -> impl Iterator<Item = usize> {
        self.cases.iter().map(|(derive, _)| *derive)
    }

    pub(super) fn choose(&self, value: &dyn Fn(usize) -> Option<f64>) -> &str {
        let case = self.cases.iter().find(|(derive, case)| case.holds(value(*derive)));
        case.map_or(&self.otherwise, |(_, case)| &case.word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_case_that_is_so_gives_the_word() {
        let config: WordsOperator = toml::from_str(
            r#"
            words = [
                { word = "critical", value = "m", above = 90 },
                { word = "unknown", value = "m", missing = true },
                { word = "warning", value = "m", above = 80 },
                { word = "warning", value = "s", at_least = 0, below = 90 },
            ]
            otherwise = "healthy"
            "#,
        )
        .unwrap();
        assert!(config.words.iter().all(|case| case.nonsense().is_none()));
        let words = config.words(vec![0, 0, 0, 1]);
        for (memory, success, wanted) in [
            (Some(91.0), Some(10.0), "critical"),
            (None, Some(10.0), "unknown"),
            (Some(90.0), Some(99.0), "warning"),
            (Some(10.0), Some(89.9), "warning"),
            (Some(10.0), Some(90.0), "healthy"),
            (Some(10.0), None, "healthy"),
        ] {
            let value = |derive| if derive == 0 { memory } else { success };
            assert_eq!(words.choose(&value), wanted, "{memory:?} {success:?}");
        }
    }

    #[test]
    fn a_case_that_asks_nothing_or_too_much_is_nonsense() {
        let case = |text: &str| -> Case {
            toml::from_str(&format!("word = \"w\"\nvalue = \"v\"\n{text}")).unwrap()
        };
        assert!(case("").nonsense().is_some());
        assert!(case("missing = true\nabove = 1").nonsense().is_some());
        assert!(case("above = nan").nonsense().is_some());
        assert!(case("missing = true").nonsense().is_none());
    }
}
