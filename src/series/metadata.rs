//! What producers say of the names of series: type, unit and help. They are hints, may come late and change, and are
//! kept in memory only, since producers say them again and again.

use std::collections::BTreeMap;

use super::sample::{Kind, MAX_UNIT, SampleHint};

/// What is said of a name, or of a family of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeriesMetadata {
    /// The type, by the producer's word: counter, gauge, histogram, summary and what else there may be.
    pub kind: Box<str>,
    /// What it is measured in.
    pub unit: Box<str>,
    /// What it means.
    pub help: Box<str>,
}

/// What is said of all names, by topic and name.
#[derive(Default)]
pub(super) struct MetadataTable {
    known: BTreeMap<(Box<str>, Box<str>), SeriesMetadata>,
    bytes: usize,
}

/// The most bytes of all of it.
const MOST_BYTES: usize = 8 << 20;
/// The longest text of one.
const LONGEST: usize = 1024;
/// What stands behind a family's name in those of its series.
const SUFFIXES: [&str; 6] = ["", "_total", "_bucket", "_count", "_sum", "_created"];

impl MetadataTable {
    /// Notes what is said; whether that is new. Beyond the room there is, nothing is noted.
    pub(super) fn learn(&mut self, topic: &str, name: &str, said: &SeriesMetadata) -> bool {
        let longest = [name, &said.kind, &said.unit, &said.help].map(str::len).into_iter().max();
        let key = (topic.into(), name.into());
        let before = self.known.get(&key);
        if before == Some(said) || longest > Some(LONGEST) {
            return false;
        }
        let size = |said: &SeriesMetadata| {
            topic.len() + name.len() + said.kind.len() + said.unit.len() + said.help.len() + 128
        };
        let bytes = self.bytes + size(said) - before.map_or(0, size);
        if bytes > MOST_BYTES {
            return false;
        }
        self.bytes = bytes;
        self.known.insert(key, said.clone());
        true
    }

    /// What is known of a series.
    pub(super) fn hint(&self, topic: &str, name: &str) -> SampleHint {
        if self.known.is_empty() {
            return SampleHint::default();
        }
        let families =
            SUFFIXES.iter().filter_map(|suffix| Some((*suffix, name.strip_suffix(suffix)?)));
        let said = families.filter_map(|(suffix, family)| {
            Some((suffix, self.known.get(&(topic.into(), family.into()))?))
        });
        said.map(|(suffix, said)| said.hint(suffix)).next().unwrap_or_default()
    }

    /// Everything that is known, by topic and name.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str, &SeriesMetadata)> {
        self.known.iter().map(|((topic, name), said)| (&**topic, &**name, said))
    }
}

/// The names of the series that a family may have, and what is known of each of them by what is said of the family.
pub(super) fn family<'a>(
    name: &'a str,
    said: &'a SeriesMetadata,
) -> impl Iterator<Item = (String, SampleHint)> + use<'a> {
    SUFFIXES.iter().map(move |suffix| (format!("{name}{suffix}"), said.hint(suffix)))
}

impl SeriesMetadata {
    /// How a series is read whose name is that of the family and `suffix`.
    fn hint(&self, suffix: &str) -> SampleHint {
        let kind = match (&*self.kind, suffix) {
            (_, "_created") | ("gauge" | "info" | "stateset", "") | ("summary", "") => {
                Some(Kind::Gauge)
            }
            ("counter", "" | "_total") => Some(Kind::Counter),
            ("histogram" | "summary", "_bucket" | "_count" | "_sum") => Some(Kind::Counter),
            _ => None,
        };
        // How many observations there were has none.
        let has_unit =
            !self.unit.is_empty() && !matches!(suffix, "_count" | "_bucket" | "_created");
        // Each series has a copy.
        let unit = has_unit.then(|| self.unit.chars().take(MAX_UNIT).collect());
        SampleHint { kind, unit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(kind: &str, unit: &str) -> SeriesMetadata {
        SeriesMetadata { kind: kind.into(), unit: unit.into(), help: "Help.".into() }
    }

    #[test]
    fn a_family_tells_how_each_of_its_series_is_read() {
        let mut table = MetadataTable::default();
        assert!(table.learn("t", "calls", &said("counter", "")));
        assert!(!table.learn("t", "calls", &said("counter", "")), "nothing new");
        assert!(table.learn("t", "wait", &said("histogram", "s")));
        let kind = |name| table.hint("t", name).kind;
        assert_eq!(kind("calls_total"), Some(Kind::Counter));
        assert_eq!(kind("wait_bucket"), Some(Kind::Counter));
        assert_eq!(kind("wait_created"), Some(Kind::Gauge));
        assert_eq!(kind("wait"), None);
        assert_eq!(table.hint("t", "wait_sum").unit.as_deref(), Some("s"));
        assert_eq!(table.hint("t", "wait_count").unit, None);
        assert_eq!(table.hint("other", "calls"), SampleHint::default());
    }

    #[test]
    fn metadata_takes_no_more_memory_than_it_may() {
        let mut table = MetadataTable::default();
        let long = SeriesMetadata { help: "x".repeat(LONGEST).into(), ..said("gauge", "") };
        assert!((0..20_000).any(|n| !table.learn("t", &n.to_string(), &long)));
        assert!(table.bytes <= MOST_BYTES);
        let longer = SeriesMetadata { help: "x".repeat(LONGEST + 1).into(), ..said("gauge", "") };
        assert!(!MetadataTable::default().learn("t", "n", &longer));
    }
}
