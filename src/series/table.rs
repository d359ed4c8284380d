//! All series of this node, and how events get into them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use bytes::Bytes;
use slab::Slab;

use super::{
    SeriesConfig,
    extract::DeriveRules,
    intake::{Arrived, Lacking},
    metadata::{MetadataTable, SeriesMetadata, family},
    pack::{PackError, Packer},
    resolution::{Keep, RESOLUTIONS},
    room::{SeriesBounds, SeriesRoom},
    sample::{Dropped, Kind, Labels, Name, Sample, Value},
    tally::Count,
    timeseries::{Identity, Timeseries, row_of},
};
use crate::{position::Offset, store::Part, telemetry::Telemetry, time::Millis};

/// How many series there may be and how long they are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) room: SeriesBounds,
    pub(super) keep: Keep,
    /// By how many bytes chunks may grow in memory before a round must not wait.
    pub(super) growth: usize,
}

/// How far back seconds are told, and how long the ten seconds are kept.
const SHORT: Millis = 15 * 60_000;
const MIDDLE: Millis = 6 * 3_600_000;
/// The most chunks that are read from the store at once, beyond those of one event.
const LACKING: usize = 256;

/// All series of this node.
pub(super) struct Table {
    bounds: Bounds,
    rules: DeriveRules,
    telemetry: Telemetry,
    timeseries: Slab<Timeseries>,
    by_key: HashMap<Box<str>, usize>,
    by_name: BTreeMap<Name, Vec<usize>>,
    pub(super) room: SeriesRoom,
    pub(super) metadata: MetadataTable,
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
            room: SeriesBounds::new(config),
            keep: Keep {
                raw: config.raw.millis().min(long),
                resolutions: [SHORT.min(long), MIDDLE.min(long), long],
            },
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
            timeseries: Slab::new(),
            by_key: HashMap::new(),
            by_name: BTreeMap::new(),
            room: SeriesRoom::new(bounds.room),
            metadata: MetadataTable::default(),
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
            let Some((place, timeseries)) = self.place(sample).map(|at| (at, &self.timeseries[at]))
            else {
                continue;
            };
            let keep = &self.bounds.keep;
            for column in timeseries.lacking(sample.time, sample.offset, keep, sample.now) {
                let new =
                    || Lacking { place, row: timeseries.row.clone(), columns: BTreeSet::new() };
                let of_timeseries = lacking.entry(place).or_insert_with(new);
                count += usize::from(of_timeseries.columns.insert(column));
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
        if let Some(timeseries) = self.timeseries.get_mut(lacking.place) {
            self.grown += timeseries.fill(&lacking.columns, parts)?;
        }
        Ok(())
    }

    /// Adds one sample to its series, which is made when it is new.
    pub(super) fn add(&mut self, arrived: &Arrived<'_>) -> Result<(), Dropped> {
        let Arrived { sample, time, offset, now, .. } = arrived;
        let at = match self.place(arrived) {
            Some(at) => at,
            // What nobody knows cannot end.
            None if sample.value == Value::Stale => return Ok(()),
            None => self.insert(arrived)?,
        };
        let timeseries = &mut self.timeseries[at];
        timeseries.note(&sample.hint);
        self.grown += timeseries.add(
            sample.value,
            // Whatever is derived of events counts each of them.
            sample.topic.is_some(),
            *time,
            *offset,
            &self.bounds.keep,
            *now,
        );
        Ok(())
    }

    /// Notes what is said of the name of a series or a family of them, of those there are and those to come.
    pub(super) fn learn(&mut self, topic: &str, name: &str, said: &SeriesMetadata) {
        if !self.metadata.learn(topic, name, said) {
            return;
        }
        for (name, hint) in family(name, said) {
            let places = Name::exact(&name).ok().and_then(|name| self.by_name.get(&name));
            for at in places.into_iter().flatten() {
                let of_topic = |timeseries: &&mut Timeseries| *timeseries.identity.topic == *topic;
                if let Some(timeseries) = self.timeseries.get_mut(*at).filter(of_topic) {
                    timeseries.note(&hint);
                }
            }
        }
    }

    /// Whether there is the series of a sample that an event of `topic` has.
    pub(super) fn knows(&self, topic: &str, sample: &Sample) -> bool {
        let mut key = String::new();
        write_key(&mut key, topic, &sample.name, &sample.labels);
        self.by_key.contains_key(key.as_str())
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
        // Derived series are as many as the configuration says, and nobody's flood is to cost them.
        let is_derived = sample.topic.is_some();
        let publisher = if is_derived { "hub" } else { arrived.publisher };
        let lacks = self.room.lacks(topic, publisher, self.key.len());
        if let Some(bound) = lacks.filter(|_| !is_derived) {
            let all = self.timeseries.iter().map(|(_, timeseries)| &*timeseries.identity);
            self.room.note_crowding(bound, (topic, publisher), arrived.now, all);
            return Err(Dropped::Cap);
        }
        let (topic, publisher) = self.room.shared(topic, publisher);
        let identity = Identity {
            topic,
            name: sample.name.clone(),
            labels: sample.labels.clone(),
            kind: Kind::Gauge,
            unit: None,
        };
        let key = std::mem::take(&mut self.key);
        let mut timeseries = Timeseries::new(identity, row_of(&key), publisher);
        timeseries.note(
            &self.metadata.hint(&timeseries.identity.topic, timeseries.identity.name.as_str()),
        );
        let at = self.put(&key, timeseries);
        self.key = key;
        Ok(at)
    }

    /// Puts a series in that was read from the store.
    pub(super) fn restore(&mut self, timeseries: Timeseries) {
        let mut key = String::new();
        let Identity { topic, name, labels, .. } = &*timeseries.identity;
        write_key(&mut key, topic, name, labels);
        if !self.by_key.contains_key(key.as_str()) {
            self.put(&key, timeseries);
        }
    }

    fn put(&mut self, key: &str, timeseries: Timeseries) -> usize {
        self.room.take(&timeseries.identity.topic, &timeseries.publisher, key.len());
        let name = timeseries.identity.name.clone();
        let at = self.timeseries.insert(timeseries);
        self.by_key.insert(key.into(), at);
        self.by_name.entry(name).or_default().push(at);
        self.telemetry.series.set(i64::try_from(self.timeseries.len()).unwrap_or(i64::MAX));
        at
    }

    /// How many series there are.
    pub(super) fn len(&self) -> usize {
        self.timeseries.len()
    }

    /// The series of a name that have all of `labels`, and their places.
    pub(super) fn find<'a>(
        &'a self,
        name: &Name,
        labels: &'a Labels,
    ) -> impl Iterator<Item = (usize, &'a Timeseries)> + use<'a> {
        let found = self.by_name.get(name).into_iter().flatten();
        let found = found.filter_map(|at| Some((*at, self.timeseries.get(*at)?)));
        found.filter(|(_, timeseries)| timeseries.identity.labels.contain(labels))
    }

    /// The series of a name, or all.
    pub(super) fn candidates<'a>(
        &'a self,
        name: Option<&str>,
    ) -> impl Iterator<Item = &'a Timeseries> + use<'a> {
        let named =
            name.map(|name| Name::exact(name).ok().and_then(|name| self.by_name.get(&name)));
        let all = named.is_none().then(|| self.timeseries.iter().map(|(_, timeseries)| timeseries));
        let places = named.flatten().into_iter().flatten();
        places.filter_map(|at| self.timeseries.get(*at)).chain(all.into_iter().flatten())
    }

    /// Whether only the hub feeds it.
    pub(super) fn is_derived(&self, timeseries: &Timeseries) -> bool {
        is_derived(&self.rules, &timeseries.identity)
    }

    /// All series, ordered by name.
    pub(super) fn all(&self) -> impl Iterator<Item = &Timeseries> {
        self.by_name.values().flatten().filter_map(|at| self.timeseries.get(*at))
    }

    /// How long each resolution is kept.
    pub(super) fn keep(&self) -> &Keep {
        &self.bounds.keep
    }

    /// The places of all series, to be looked after one after the other. From here on it counts how
    /// much memory grows.
    pub(super) fn begin_round(&mut self) -> Vec<usize> {
        self.grown = 0;
        self.timeseries.iter().map(|(at, _)| at).collect()
    }

    /// Whether so much has come since the last round that the next must not wait.
    pub(super) fn is_full(&self) -> bool {
        self.grown >= self.bounds.growth
    }

    /// One series, if it is still there.
    pub(super) fn timeseries(&self, at: usize) -> Option<&Timeseries> {
        self.timeseries.get(at)
    }

    /// Looks after one series: see [`Timeseries::tend`]. When others want its place and it has been
    /// silent for as long as anything is kept, it is forgotten.
    pub(super) fn tend(
        &mut self,
        at: usize,
        clean: Offset,
        now: Millis,
        packer: &mut Packer,
    ) -> Result<Vec<Part>, PackError> {
        let keep = self.bounds.keep;
        let Some(timeseries) = self.timeseries.get_mut(at) else { return Ok(Vec::new()) };
        let Identity { topic, .. } = &*timeseries.identity;
        let is_full = self.room.is_nearly_full(topic, &timeseries.publisher);
        let is_silent = timeseries.newest().time + keep.resolutions[RESOLUTIONS.len() - 1] <= now;
        // What is derived took nobody's place, and is what it ever was.
        let is_derived = is_derived(&self.rules, &timeseries.identity);
        if !(is_full && is_silent) || is_derived {
            return timeseries.tend(clean, &keep, now, packer);
        }
        let timeseries = self.timeseries.remove(at);
        let mut key = String::new();
        let Identity { topic, name, labels, .. } = &*timeseries.identity;
        write_key(&mut key, topic, name, labels);
        self.by_key.remove(key.as_str());
        if let Some(places) = self.by_name.get_mut(name) {
            places.retain(|place| *place != at);
            if places.is_empty() {
                self.by_name.remove(name);
            }
        }
        self.room.give_back(topic, &timeseries.publisher, key.len());
        self.telemetry.series.set(i64::try_from(self.timeseries.len()).unwrap_or(i64::MAX));
        Ok(timeseries.removal())
    }
}

fn is_derived(rules: &DeriveRules, Identity { topic, name, labels, .. }: &Identity) -> bool {
    labels.is_empty() && rules.iter().any(|rule| rule.feeds(topic, name))
}

/// A text that no two series share: what cannot stand in any part stands between them.
fn write_key(key: &mut String, topic: &str, name: &Name, labels: &Labels) {
    key.clear();
    key.push_str(topic);
    key.push('\n');
    key.push_str(&escaped(name.as_str()));
    for (name, value) in labels.iter() {
        // The length tells where the value ends, which may be any text.
        for part in ["\n", &escaped(name), "=", &value.len().to_string(), ":", value] {
            key.push_str(part);
        }
    }
}

/// A name without what stands between the parts of a key.
fn escaped(name: &str) -> Cow<'_, str> {
    if !name.contains(['\n', '=', '\\']) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.replace('\\', "\\\\").replace('\n', "\\n").replace('=', "\\e"))
}
