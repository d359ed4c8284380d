//! All series of this node, and how events get into them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use slab::Slab;

use super::{
    Config,
    extract::{Rules, extract},
    pack::{PackError, Packer},
    query::AHEAD,
    sample::{Dropped, Labels, Name, Sample},
    track::{Identity, Keep, TIERS, Track, row_of},
};
use crate::{
    consumer::Delivery, position::Offset, store::Part, telemetry::Telemetry, time::Millis,
    topic::TopicPattern,
};

/// How many series there may be and how long they are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) max_series: usize,
    pub(super) max_per_topic: usize,
    pub(super) keep: Keep,
}

/// How long the seconds and the ten seconds are kept.
const SHORT: Millis = 15 * 60_000;
const MIDDLE: Millis = 6 * 3_600_000;

/// All series of this node.
pub(super) struct Table {
    bounds: Bounds,
    rules: Rules,
    telemetry: Telemetry,
    tracks: Slab<Track>,
    by_key: HashMap<Box<str>, usize>,
    by_name: BTreeMap<Name, Vec<usize>>,
    by_topic: HashMap<Arc<str>, usize>,
    dropped: BTreeMap<&'static str, u64>,
    /// Everything up to here is in.
    pub(super) applied: Offset,
    /// Reused for every look-up.
    key: String,
}

impl Bounds {
    pub(super) fn new(config: &Config) -> Self {
        let long = config.keep.millis();
        Self {
            max_series: config.max_series,
            max_per_topic: config.max_per_topic,
            keep: [SHORT.min(long), MIDDLE.min(long), long],
        }
    }
}

impl Table {
    pub(super) fn new(bounds: Bounds, rules: Rules, telemetry: Telemetry) -> Self {
        Self {
            bounds,
            rules,
            telemetry,
            tracks: Slab::new(),
            by_key: HashMap::new(),
            by_name: BTreeMap::new(),
            by_topic: HashMap::new(),
            dropped: BTreeMap::new(),
            applied: 0,
            key: String::new(),
        }
    }

    /// Takes in what was delivered; whether that changed any series.
    pub(super) fn apply(&mut self, delivery: &Delivery, now: Millis) -> bool {
        let rules = self.rules.clone();
        let mut changed = false;
        for record in delivery.records() {
            let Some((time, found)) = extract(record, &rules) else { continue };
            let received = record.received();
            changed |= !found.samples.is_empty();
            for sample in found.samples {
                let time = self.plausible(sample.time.unwrap_or(time), received);
                let of_many = sample.topic.clone();
                let topic = of_many.as_ref().map_or(record.topic(), TopicPattern::as_str);
                let added = self.add(topic, sample, time, record.offset(), now.max(received));
                if let Err(reason) = added {
                    self.drop(reason);
                }
            }
            found.dropped.into_iter().for_each(|reason| self.drop(reason));
        }
        self.applied = self.applied.max(delivery.position.offset);
        changed
    }

    /// Adds one sample to its series, which is made when it is new.
    pub(super) fn add(
        &mut self,
        topic: &str,
        sample: Sample,
        time: Millis,
        offset: Offset,
        now: Millis,
    ) -> Result<(), Dropped> {
        sample.value.checked()?;
        let mut key = std::mem::take(&mut self.key);
        write_key(&mut key, topic, &sample.name, &sample.labels);
        let found = self.by_key.get(key.as_str()).copied();
        let at = found.map_or_else(|| self.insert(&key, topic, &sample), Ok);
        self.key = key;
        self.telemetry.series_samples.inc();
        self.tracks[at?].add(sample.value, time, offset, &self.bounds.keep, now)
    }

    fn insert(&mut self, key: &str, topic: &str, sample: &Sample) -> Result<usize, Dropped> {
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
        Ok(self.put(key, Track::new(identity, row_of(key))))
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

    /// The producer's time where it can be true, else when the event came.
    fn plausible(&self, time: Millis, received: Millis) -> Millis {
        let longest = self.bounds.keep[TIERS.len() - 1];
        let is_plausible = time <= received + AHEAD && time + longest >= received;
        if is_plausible {
            return time;
        }
        self.telemetry.series_retimed.inc();
        received
    }

    fn drop(&mut self, reason: Dropped) {
        self.telemetry.series_dropped(reason.name());
        *self.dropped.entry(reason.name()).or_default() += 1;
    }

    /// Puts a table that was read anew in the place of this one; what was left out stays counted.
    pub(super) fn become_new(&mut self, mut table: Self) {
        for (reason, count) in &self.dropped {
            *table.dropped.entry(reason).or_default() += count;
        }
        *self = table;
    }

    /// How many samples were left out since the hub started, by reason.
    pub(super) fn dropped(&self) -> &BTreeMap<&'static str, u64> {
        &self.dropped
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

    /// The places of all series, to be looked after one after the other.
    pub(super) fn places(&self) -> Vec<usize> {
        self.tracks.iter().map(|(at, _)| at).collect()
    }

    /// One series, if it is still there.
    pub(super) fn track(&self, at: usize) -> Option<&Track> {
        self.tracks.get(at)
    }

    /// The same, to be changed.
    pub(super) fn track_mut(&mut self, at: usize) -> Option<&mut Track> {
        self.tracks.get_mut(at)
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
        let Bounds { max_series, max_per_topic, keep } = self.bounds;
        let Some(track) = self.tracks.get_mut(at) else { return Ok(Vec::new()) };
        let of_topic = self.by_topic.get(&track.identity.topic).copied().unwrap_or(0);
        let is_full = self.by_key.len() >= max_series || of_topic >= max_per_topic;
        let is_silent = track.newest.time + keep[TIERS.len() - 1] <= now;
        // What is derived took nobody's place, and is what it ever was.
        let Identity { topic, name, .. } = &track.identity;
        let is_derived = self
            .rules
            .iter()
            .any(|rule| rule.name() == name.as_str() && rule.topic().as_str() == &**topic);
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
