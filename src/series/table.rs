//! All series of this node, and how events get into them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use slab::Slab;

use super::{
    SeriesConfig,
    extract::DeriveRules,
    intake::{Arrived, Lacking},
    pack::{PackError, Packer},
    sample::{Dropped, Labels, Name},
    tally::Count,
    tier::{Keep, TIERS},
    track::{Identity, Track, row_of},
};
use crate::{position::Offset, store::Part, telemetry::Telemetry, time::Millis};

/// How many series there may be and how long they are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) max_series: usize,
    pub(super) max_per_topic: usize,
    pub(super) keep: Keep,
    /// By how many bytes chunks may grow in memory before a round must not wait.
    pub(super) growth: usize,
}

/// How long the seconds and the ten seconds are kept.
const SHORT: Millis = 15 * 60_000;
const MIDDLE: Millis = 6 * 3_600_000;
/// The most chunks that are read from the store at once, beyond those of one event.
const LACKING: usize = 256;

/// All series of this node.
pub(super) struct Table {
    bounds: Bounds,
    rules: DeriveRules,
    telemetry: Telemetry,
    tracks: Slab<Track>,
    by_key: HashMap<Box<str>, usize>,
    by_name: BTreeMap<Name, Vec<usize>>,
    by_topic: HashMap<Arc<str>, usize>,
    /// Everything up to here is in.
    pub(super) applied: Offset,
    /// By how many bytes the chunks have grown since the last [round](Self::begin_round).
    grown: usize,
    /// Reused for every look-up.
    key: String,
}

impl Bounds {
    pub(super) fn new(config: &SeriesConfig) -> Self {
        let long = config.keep.millis();
        Self {
            max_series: config.max_series,
            max_per_topic: config.max_per_topic,
            keep: [SHORT.min(long), MIDDLE.min(long), long],
            growth: config.save_bytes.as_usize(),
        }
    }
}

impl Table {
    pub(super) fn new(bounds: Bounds, rules: DeriveRules, telemetry: Telemetry) -> Self {
        Self {
            bounds,
            rules,
            telemetry,
            tracks: Slab::new(),
            by_key: HashMap::new(),
            by_name: BTreeMap::new(),
            by_topic: HashMap::new(),
            applied: 0,
            grown: 0,
            key: String::new(),
        }
    }

    /// Adds samples, one event after the other, until the table [is full](Self::is_full) or an event
    /// needs chunks that are only in the store: then gives these, and what those behind it need.
    pub(super) fn take(&mut self, arrived: &mut &[Arrived<'_>], count: &mut Count) -> Vec<Lacking> {
        while let Some(first) = arrived.first() {
            let is_other = |next: &Arrived<'_>| next.offset != first.offset;
            let (event, behind) =
                arrived.split_at(arrived.iter().position(is_other).unwrap_or(arrived.len()));
            if !self.lacking(event).is_empty() {
                return self.lacking(arrived);
            }
            for sample in event {
                count.put(sample.offset, self.add(sample));
            }
            self.applied = self.applied.max(first.offset);
            *arrived = behind;
            if self.is_full() {
                break;
            }
        }
        Vec::new()
    }

    /// The chunks that are only in the store and that the samples belong into; all of the first
    /// event's, and about [`LACKING`] of those behind it.
    fn lacking(&mut self, arrived: &[Arrived<'_>]) -> Vec<Lacking> {
        let mut lacking = HashMap::new();
        let mut count = 0;
        for sample in arrived {
            let is_first = arrived.first().is_some_and(|first| first.offset == sample.offset);
            if count >= LACKING && !is_first {
                break;
            }
            let Some((place, track)) = self.place(sample).map(|at| (at, &self.tracks[at])) else {
                continue;
            };
            let keep = &self.bounds.keep;
            for column in track.lacking(sample.time, sample.offset, keep, sample.now) {
                let new = || Lacking { place, row: track.row.clone(), columns: BTreeSet::new() };
                let of_track = lacking.entry(place).or_insert_with(new);
                count += usize::from(of_track.columns.insert(column));
            }
        }
        lacking.into_values().collect()
    }

    /// Puts in what the store has of chunks that were lacking, and of the head.
    pub(super) fn fill(
        &mut self,
        lacking: &Lacking,
        parts: Vec<(u64, Bytes)>,
    ) -> Result<(), PackError> {
        if let Some(track) = self.tracks.get_mut(lacking.place) {
            self.grown += track.fill(&lacking.columns, parts)?;
        }
        Ok(())
    }

    /// Adds one sample to its series, which is made when it is new.
    pub(super) fn add(&mut self, arrived: &Arrived<'_>) -> Result<(), Dropped> {
        let Arrived { sample, time, offset, now, .. } = arrived;
        sample.value.checked()?;
        let place = self.place(arrived);
        let at = place.map_or_else(|| self.insert(arrived), Ok);
        let track = &mut self.tracks[at?];
        self.grown += track.add(sample.value, *time, *offset, &self.bounds.keep, *now)?;
        Ok(())
    }

    /// Where the series of a sample is; leaves its key behind.
    fn place(&mut self, arrived: &Arrived<'_>) -> Option<usize> {
        let sample = &arrived.sample;
        write_key(&mut self.key, arrived.topic(), &sample.name, &sample.labels);
        self.by_key.get(self.key.as_str()).copied()
    }

    /// Makes the series of the sample whose key was written.
    fn insert(&mut self, arrived: &Arrived<'_>) -> Result<usize, Dropped> {
        let (topic, sample) = (arrived.topic(), &arrived.sample);
        let of_topic = self.by_topic.get(topic).copied().unwrap_or(0);
        let is_full = self.tracks.len() >= self.bounds.max_series;
        // Derived series are as many as the configuration says, and nobody's flood is to cost them.
        let is_derived = sample.topic.is_some();
        if (is_full || of_topic >= self.bounds.max_per_topic) && !is_derived {
            return Err(Dropped::Cap);
        }
        let shared = self.by_topic.get_key_value(topic).map(|(topic, _)| topic.clone());
        let identity = Identity {
            topic: shared.unwrap_or_else(|| topic.into()),
            name: sample.name.clone(),
            labels: sample.labels.clone(),
            kind: sample.value.kind(),
            unit: sample.unit.clone(),
        };
        let key = std::mem::take(&mut self.key);
        let at = self.put(&key, Track::new(identity, row_of(&key)));
        self.key = key;
        Ok(at)
    }

    /// Puts a series in that was read from the store.
    pub(super) fn restore(&mut self, track: Track) {
        let mut key = String::new();
        let Identity { topic, name, labels, .. } = &track.identity;
        write_key(&mut key, topic, name, labels);
        if !self.by_key.contains_key(key.as_str()) {
            self.put(&key, track);
        }
    }

    fn put(&mut self, key: &str, track: Track) -> usize {
        let (topic, name) = (track.identity.topic.clone(), track.identity.name.clone());
        let at = self.tracks.insert(track);
        self.by_key.insert(key.into(), at);
        self.by_name.entry(name).or_default().push(at);
        *self.by_topic.entry(topic).or_default() += 1;
        self.telemetry.series.set(i64::try_from(self.tracks.len()).unwrap_or(i64::MAX));
        at
    }

    /// How many series there are.
    pub(super) fn len(&self) -> usize {
        self.tracks.len()
    }

    /// The series of a name that have all of `labels`, and their places.
    pub(super) fn find<'a>(
        &'a self,
        name: &Name,
        labels: &'a Labels,
    ) -> impl Iterator<Item = (usize, &'a Track)> + use<'a> {
        let found = self.by_name.get(name).into_iter().flatten();
        let found = found.filter_map(|at| Some((*at, self.tracks.get(*at)?)));
        found.filter(|(_, track)| track.identity.labels.contain(labels))
    }

    /// All series, ordered by name.
    pub(super) fn all(&self) -> impl Iterator<Item = &Track> {
        self.by_name.values().flatten().filter_map(|at| self.tracks.get(*at))
    }

    /// How long each tier is kept.
    pub(super) fn keep(&self) -> &Keep {
        &self.bounds.keep
    }

    /// The places of all series, to be looked after one after the other. From here on it counts how
    /// much memory grows.
    pub(super) fn begin_round(&mut self) -> Vec<usize> {
        self.grown = 0;
        self.tracks.iter().map(|(at, _)| at).collect()
    }

    /// Whether so much has come since the last round that the next must not wait.
    pub(super) fn is_full(&self) -> bool {
        self.grown >= self.bounds.growth
    }

    /// One series, if it is still there.
    pub(super) fn track(&self, at: usize) -> Option<&Track> {
        self.tracks.get(at)
    }

    /// Looks after one series: see [`Track::tend`]. When others want its place and it has been
    /// silent for as long as anything is kept, it is forgotten.
    pub(super) fn tend(
        &mut self,
        at: usize,
        clean: Offset,
        now: Millis,
        packer: &mut Packer,
    ) -> Result<Vec<Part>, PackError> {
        let Bounds { max_series, max_per_topic, keep, .. } = self.bounds;
        let Some(track) = self.tracks.get_mut(at) else { return Ok(Vec::new()) };
        let of_topic = self.by_topic.get(&track.identity.topic).copied().unwrap_or(0);
        let is_full = self.by_key.len() >= max_series || of_topic >= max_per_topic;
        let is_silent = track.newest().time + keep[TIERS.len() - 1] <= now;
        // What is derived took nobody's place, and is what it ever was.
        let Identity { topic, name, labels, .. } = &track.identity;
        let is_derived = labels.is_empty() && self.rules.iter().any(|rule| rule.feeds(topic, name));
        if !(is_full && is_silent) || is_derived {
            return track.tend(clean, &keep, now, packer);
        }
        let track = self.tracks.remove(at);
        let mut key = String::new();
        let Identity { topic, name, labels, .. } = &track.identity;
        write_key(&mut key, topic, name, labels);
        self.by_key.remove(key.as_str());
        if let Some(places) = self.by_name.get_mut(name) {
            places.retain(|place| *place != at);
            if places.is_empty() {
                self.by_name.remove(name);
            }
        }
        if of_topic > 1 {
            self.by_topic.insert(topic.clone(), of_topic - 1);
        } else {
            self.by_topic.remove(topic);
        }
        self.telemetry.series.set(i64::try_from(self.tracks.len()).unwrap_or(i64::MAX));
        Ok(track.removal())
    }
}

/// A text that no two series share: what cannot stand in any part stands between them.
fn write_key(key: &mut String, topic: &str, name: &Name, labels: &Labels) {
    key.clear();
    key.push_str(topic);
    key.push('\n');
    key.push_str(name.as_str());
    for (name, value) in labels.iter() {
        // The length tells where the value ends, which may be any text.
        for part in ["\n", name, "=", &value.len().to_string(), ":", value] {
            key.push_str(part);
        }
    }
}
