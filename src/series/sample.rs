//! A sample: one value of one series at one time, and the grammar of names.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{event::MAX_ATTRIBUTE_BYTES, time::Millis, topic::TopicPattern};

/// One value of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Whose series it is, where several topics feed one: then who may read all of them may read it.
    pub topic: Option<TopicPattern>,
    /// Which series of the topic.
    pub name: Name,
    /// And which of that name.
    pub labels: Labels,
    /// What it is measured in, for people.
    pub unit: Option<Box<str>>,
    /// What was measured.
    pub value: Value,
    /// When; without it, when the event happened.
    pub time: Option<Millis>,
}

/// What a sample says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A level, which goes up and down.
    Gauge(f64),
    /// A counter's total since it began; a fall is a new beginning.
    Total(f64),
    /// What a counter has counted since the sample before.
    Added(f64),
}

/// How a series is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A level.
    Gauge,
    /// Something that is counted up.
    Counter,
}

/// Why a sample is left out. Each is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Dropped {
    /// No name, or too long a one.
    #[error("a series' name has 1 to {MAX_NAME} bytes")]
    Name,
    /// Too many labels, or too long ones.
    #[error("a series has at most {MAX_LABELS} labels of at most {MAX_LABEL} bytes each")]
    Labels,
    /// No finite number in the range that is kept.
    #[error("a value is a number between -1e100 and 1e100, a counter's not below 0")]
    Value,
    /// Groups within groups within groups.
    #[error("metrics are nested at most {MAX_DEPTH} levels deep")]
    Depth,
    /// A gauge that is a counter now, or the other way.
    #[error("the series is of another type")]
    Kind,
    /// There are too many series.
    #[error("there is no room for another series")]
    Cap,
    /// Somebody's sample for a series that the hub derives.
    #[error("the series is a derived value, which only the hub makes")]
    Derived,
    /// A time that is none.
    #[error("a sample's `time` is RFC 3339 with a zone, or milliseconds since 1970")]
    Time,
    /// The event does not have the shape it should have.
    #[error("the samples are not in the form that docs/series.md tells")]
    Shape,
}

impl Dropped {
    /// Its name in metrics and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Labels => "labels",
            Self::Value => "value",
            Self::Depth => "depth",
            Self::Kind => "kind",
            Self::Cap => "cap",
            Self::Derived => "derived",
            Self::Time => "time",
            Self::Shape => "shape",
        }
    }
}

/// The longest name, in bytes.
pub const MAX_NAME: usize = 255;
/// The most labels of a series.
pub const MAX_LABELS: usize = 16;
/// The longest label, name or value, in bytes: an event's longest key is one.
pub const MAX_LABEL: usize = MAX_ATTRIBUTE_BYTES;
/// The largest value either way.
pub const MAX_VALUE: f64 = 1e100;
/// The most groups within groups that metrics are looked for in.
pub const MAX_DEPTH: usize = 4;

/// A series' name: 1–255 bytes of `A-Z a-z 0-9 _ : - .`, where everything else became `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(Box<str>);

impl Name {
    /// The name that `text` becomes.
    pub fn new(text: &str) -> Result<Self, Dropped> {
        // By bytes first: whoever sends long names must not have each of them counted through.
        let is_long = text.len() > 4 * MAX_NAME || text.chars().count() > MAX_NAME;
        if text.is_empty() || is_long {
            return Err(Dropped::Name);
        }
        Ok(Self(sanitised(text)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A series' labels, sorted by name; each name once.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    /// Labels out of names and values; of equal names the first counts. A label without a value
    /// is no label.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Dropped> {
        let mut labels = Vec::new();
        for (name, value) in pairs {
            if name.is_empty() || name.chars().count() > MAX_LABEL || value.len() > MAX_LABEL {
                return Err(Dropped::Labels);
            }
            if labels.len() == MAX_LABELS {
                return Err(Dropped::Labels);
            }
            if !value.is_empty() {
                labels.push((sanitised(name), value.into()));
            }
        }
        labels.sort_by(|(a, _), (b, _)| a.cmp(b));
        labels.dedup_by(|(a, _), (b, _)| a == b);
        Ok(Self(labels.into()))
    }

    /// The names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// Whether all of `wanted` are among these.
    pub fn contain(&self, wanted: &Labels) -> bool {
        wanted.iter().all(|(name, value)| self.get(name) == Some(value))
    }

    /// These without one.
    pub fn without(&self, name: &str) -> Self {
        Self(self.0.iter().filter(|(found, _)| &**found != name).cloned().collect())
    }

    /// These and one more; it replaces one of the same name.
    pub fn with(&self, name: &str, value: &str) -> Result<Self, Dropped> {
        Self::new([(name, value)].into_iter().chain(self.iter()))
    }
}

fn sanitised(text: &str) -> Box<str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_:-.".contains(c);
    text.chars().map(|c| if plain(c) { c } else { '_' }).collect()
}

impl Value {
    /// What kind of series it belongs to.
    pub fn kind(self) -> Kind {
        match self {
            Self::Gauge(_) => Kind::Gauge,
            Self::Total(_) | Self::Added(_) => Kind::Counter,
        }
    }

    /// The value itself, if it is one that is kept.
    pub fn checked(self) -> Result<f64, Dropped> {
        let (Self::Gauge(number) | Self::Total(number) | Self::Added(number)) = self;
        let is_kept = number.is_finite() && number.abs() <= MAX_VALUE;
        let is_kept = is_kept && (self.kind() == Kind::Gauge || number >= 0.0);
        // So that nobody has to know that there are two zeros.
        if is_kept { Ok(number + 0.0) } else { Err(Dropped::Value) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_become_plain() {
        assert_eq!(Name::new("a b/ü.c:d-e_1").unwrap().as_str(), "a_b__.c:d-e_1");
        assert_eq!(Name::new(""), Err(Dropped::Name));
        assert_eq!(Name::new(&"a".repeat(256)), Err(Dropped::Name));
        let widest = "\u{10348}".repeat(255);
        assert_eq!(Name::new(&widest).unwrap().as_str(), "_".repeat(255));
        assert_eq!(Name::new(&widest.repeat(2)), Err(Dropped::Name));
        let labels = Labels::new([("z", "1"), ("a x", "2"), ("z", "3"), ("none", "")]).unwrap();
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a_x", "2"), ("z", "1")]);
        assert_eq!(labels.with("z", "9").unwrap().get("z"), Some("9"));
        assert!(labels.contain(&Labels::new([("z", "1")]).unwrap()));
        assert!(!labels.contain(&Labels::new([("y", "1")]).unwrap()));
        let many: Vec<_> = (0..17).map(|n| n.to_string()).collect();
        let many = many.iter().map(|n| (n.as_str(), "x"));
        assert_eq!(Labels::new(many), Err(Dropped::Labels));
        assert_eq!(Labels::new([("a", "x".repeat(257).as_str())]), Err(Dropped::Labels));
    }

    #[test]
    fn values_are_bounded() {
        for bad in [f64::NAN, f64::INFINITY, 1e101, -1e300] {
            assert_eq!(Value::Gauge(bad).checked(), Err(Dropped::Value));
        }
        assert_eq!(Value::Total(-1.0).checked(), Err(Dropped::Value));
        assert_eq!(Value::Gauge(-1.0).checked(), Ok(-1.0));
        assert!(Value::Gauge(-0.0).checked().unwrap().is_sign_positive());
    }
}
