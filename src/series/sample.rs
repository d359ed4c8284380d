//! A sample: one value of one series at one time, and the grammar of names.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{time::Millis, topic::TopicPattern};

/// One value of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Whose series it is, where several topics feed one: then who may read all of them may read it.
    pub topic: Option<TopicPattern>,
    /// Which series of the topic.
    pub name: Name,
    /// And which of that name.
    pub labels: Labels,
    /// How it is to be read, if its producer says so with it.
    pub hint: SampleHint,
    /// What was measured.
    pub value: Value,
    /// When; without it, when the event happened.
    pub time: Option<Millis>,
}

/// What a sample says. Every double is one, of whatever sign and size, NaN and the infinities among them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A level, or a counter's total since it began.
    Reading(f64),
    /// What a counter has counted since the sample before.
    Added(f64),
    /// The series has ended, until the next reading: Prometheus' stale marker.
    Stale,
}

/// What a producer says of a series beside its values. It may come late and may change, and nothing is left out for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SampleHint {
    /// How the series is to be read.
    pub kind: Option<Kind>,
    /// What it is measured in, for people.
    pub unit: Option<Box<str>>,
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
    #[error(
        "a series has at most {MAX_LABELS} labels, their names of at most {MAX_NAME} and their values of at most \
         {MAX_LABEL} bytes"
    )]
    Labels,
    /// No number, or one that no double holds.
    #[error(
        "a value is a number that a double holds; in `rows` also \"NaN\", \"+Inf\", \"-Inf\" or \"stale\""
    )]
    Value,
    /// Groups within groups within groups.
    #[error("metrics are nested at most {MAX_DEPTH} levels deep")]
    Depth,
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
            Self::Cap => "cap",
            Self::Derived => "derived",
            Self::Time => "time",
            Self::Shape => "shape",
        }
    }
}

/// The longest name of a series or a label, in bytes.
pub const MAX_NAME: usize = 1024;
/// The most labels of a series.
pub const MAX_LABELS: usize = 40;
/// The longest value of a label, in bytes.
pub const MAX_LABEL: usize = 4096;
/// The longest unit, in characters.
pub const MAX_UNIT: usize = 32;
/// Labels by which series are matched; no series has them.
const RESERVED: [&str; 2] = ["__name__", "__topic__"];
/// The most groups within groups that metrics are looked for in.
pub const MAX_DEPTH: usize = 4;

/// A series' name, at most [`MAX_NAME`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(Box<str>);

impl Name {
    /// The name that `text` becomes: what is not one of `A-Z a-z 0-9 _ : - .` becomes `_`.
    pub fn new(text: &str) -> Result<Self, Dropped> {
        // By bytes first: whoever sends long names must not have each of them counted through.
        let is_long = text.len() > 4 * MAX_NAME || text.chars().count() > MAX_NAME;
        if text.is_empty() || is_long {
            return Err(Dropped::Name);
        }
        Ok(Self(sanitised(text)))
    }

    /// The very name that `text` is.
    pub fn exact(text: &str) -> Result<Self, Dropped> {
        if (1..=MAX_NAME).contains(&text.len()) {
            Ok(Self(text.into()))
        } else {
            Err(Dropped::Name)
        }
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
    /// is no label. In names, what is not one of `A-Z a-z 0-9 _ : - .` becomes `_`.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Dropped> {
        let mut labels = Vec::new();
        for (name, value) in pairs {
            if name.is_empty() || name.chars().count() > MAX_NAME || value.len() > MAX_LABEL {
                return Err(Dropped::Labels);
            }
            if labels.len() == MAX_LABELS {
                return Err(Dropped::Labels);
            }
            let name = sanitised(name);
            if RESERVED.contains(&&*name) {
                return Err(Dropped::Labels);
            }
            if !value.is_empty() {
                labels.push((name, value.into()));
            }
        }
        Ok(Self::sorted(labels))
    }

    /// Labels by these very names; of equal names the first counts. One whose value is empty is no label, also where one
    /// of that name stands behind it.
    pub fn exact<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Dropped> {
        let mut labels = Vec::new();
        for (name, value) in pairs {
            let is_sound = (1..=MAX_NAME).contains(&name.len())
                && value.len() <= MAX_LABEL
                && !RESERVED.contains(&name)
                && labels.len() < 2 * MAX_LABELS;
            if !is_sound {
                return Err(Dropped::Labels);
            }
            labels.push((name.into(), value.into()));
        }
        let Self(labels) = Self::sorted(labels);
        let labels: Box<[_]> =
            labels.into_iter().filter(|(_, value): &(_, Box<str>)| !value.is_empty()).collect();
        if labels.len() > MAX_LABELS { Err(Dropped::Labels) } else { Ok(Self(labels)) }
    }

    fn sorted(mut labels: Vec<(Box<str>, Box<str>)>) -> Self {
        labels.sort_by(|(a, _), (b, _)| a.cmp(b));
        labels.dedup_by(|(a, _), (b, _)| a == b);
        Self(labels.into())
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

impl SampleHint {
    /// Of a series that is read as this.
    pub fn kind(kind: Kind) -> Self {
        Self { kind: Some(kind), unit: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_become_plain() {
        assert_eq!(Name::new("a b/ü.c:d-e_1").unwrap().as_str(), "a_b__.c:d-e_1");
        assert_eq!(Name::new(""), Err(Dropped::Name));
        assert_eq!(Name::new(&"a".repeat(MAX_NAME + 1)), Err(Dropped::Name));
        let widest = "\u{10348}".repeat(MAX_NAME);
        assert_eq!(Name::new(&widest).unwrap().as_str(), "_".repeat(MAX_NAME));
        assert_eq!(Name::new(&widest.repeat(2)), Err(Dropped::Name));
        let labels = Labels::new([("z", "1"), ("a x", "2"), ("z", "3"), ("none", "")]).unwrap();
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a_x", "2"), ("z", "1")]);
        assert_eq!(labels.with("z", "9").unwrap().get("z"), Some("9"));
        assert!(labels.contain(&Labels::new([("z", "1")]).unwrap()));
        assert!(!labels.contain(&Labels::new([("y", "1")]).unwrap()));
        let many: Vec<_> = (0..=MAX_LABELS).map(|n| n.to_string()).collect();
        let many = || many.iter().map(|n| (n.as_str(), "x"));
        let long = "x".repeat(MAX_LABEL + 1);
        for make in [|pairs: Vec<_>| Labels::new(pairs), |pairs| Labels::exact(pairs)] {
            assert_eq!(make(many().collect()), Err(Dropped::Labels));
            assert!(make(many().skip(1).collect()).is_ok());
            assert_eq!(make(vec![("a", &*long)]), Err(Dropped::Labels));
            assert!(make(vec![("a", &long[1..])]).is_ok());
        }
    }

    #[test]
    fn exact_names_that_differ_in_a_sign_never_merge() {
        assert_ne!(Name::exact("a.b").unwrap(), Name::exact("a_b").unwrap());
        assert_eq!(Name::exact("a b/ü").unwrap().as_str(), "a b/ü");
        assert_eq!(Name::exact(&"a".repeat(MAX_NAME + 1)), Err(Dropped::Name));
        assert_eq!(Name::exact(""), Err(Dropped::Name));
        let labels =
            Labels::exact([("a b", "1"), ("job", ""), ("a_b", "2"), ("job", "x")]).unwrap();
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a b", "1"), ("a_b", "2")]);
        for reserved in RESERVED {
            assert_eq!(Labels::exact([(reserved, "x")]), Err(Dropped::Labels));
        }
    }
}
