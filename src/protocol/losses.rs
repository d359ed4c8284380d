//! What of a request could not be kept although the rest was.

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::telemetry::{DroppedPart, Telemetry};

/// Everything that was dropped of one request: counted, and the first of it named.
#[derive(Debug, Default)]
pub struct Losses {
    counts: Vec<(DroppedPart, usize)>,
    named: Vec<String>,
}

/// So many are named; all are counted.
const MOST_NAMED: usize = 20;
/// The longest reason, in characters: it may quote what was sent.
const LONGEST: usize = 200;

impl Losses {
    /// Counts one, and says where it stood and why it could not be kept.
    pub fn note(&mut self, what: DroppedPart, reason: impl FnOnce() -> String) {
        self.add(what, 1, reason);
    }

    /// Counts several of one kind.
    pub fn add(&mut self, what: DroppedPart, count: usize, reason: impl FnOnce() -> String) {
        if count == 0 {
            return;
        }
        match self.counts.iter_mut().find(|(known, _)| *known == what) {
            Some((_, known)) => *known += count,
            None => self.counts.push((what, count)),
        }
        if self.named.len() < MOST_NAMED {
            self.named.push(reason().chars().take(LONGEST).collect());
        }
    }

    /// Adds what others tell of.
    pub fn extend(&mut self, others: Self) {
        for (what, count) in others.counts {
            match self.counts.iter_mut().find(|(known, _)| *known == what) {
                Some((_, known)) => *known += count,
                None => self.counts.push((what, count)),
            }
        }
        let room = MOST_NAMED.saturating_sub(self.named.len());
        self.named.extend(others.named.into_iter().take(room));
    }

    /// Some of the reasons.
    pub fn reasons(&self) -> &[String] {
        &self.named
    }

    /// Whether nothing was lost.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Counts them among all that was dropped.
    pub fn count(&self, telemetry: &Telemetry) {
        self.counts().for_each(|(what, count)| telemetry.dropped(what, count));
    }

    /// How much was lost, of whatever kind.
    pub fn total(&self) -> usize {
        self.counts().map(|(_, count)| count).sum()
    }

    /// How much of each kind was lost.
    pub fn counts(&self) -> impl Iterator<Item = (DroppedPart, usize)> {
        self.counts.iter().copied()
    }
}

/// As an answer shows it: a number for each kind, and `reasons`.
impl Serialize for Losses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (what, count) in &self.counts {
            map.serialize_entry(what.name(), count)?;
        }
        map.serialize_entry("reasons", &self.named)?;
        map.end()
    }
}
