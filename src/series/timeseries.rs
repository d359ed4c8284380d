//! One series: its newest value, what it ever was, its newest samples, and its rollups.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    chunk::{Bucket, Chunk},
    pack::{PackError, Packer},
    raw::RawSamples,
    raw_run::RawSample,
    resolution::{HEAD, Keep, RESOLUTIONS, chunk_of, column, raw_chunk_of, raw_column},
    rollups::{Rollups, read_chunk},
    sample::{Kind, Labels, Name, SampleHint, Value},
};
use crate::{ingest::samples::STALE, position::Offset, store::Part, time::Millis};

/// What tells a series from others, and how it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The topic, or the pattern of topics, its samples come from: who may read that may read it.
    pub topic: Arc<str>,
    /// Its name.
    pub name: Name,
    /// Its labels.
    pub labels: Labels,
    /// How it is to be read, by what was last heard of it.
    pub kind: Kind,
    /// What it is measured in, as kind.
    pub unit: Option<Box<str>>,
}

/// A value and its time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// When.
    pub time: Millis,
    /// A gauge's value, a counter's total.
    pub value: f64,
}

/// One series.
pub(super) struct Timeseries {
    pub(super) identity: Arc<Identity>,
    pub(super) row: Box<str>,
    /// By whom it was published first.
    pub(super) publisher: Arc<str>,
    /// All samples there ever were.
    pub(super) ever: Bucket,
    /// The newest sample in it.
    modified: Offset,
    /// What the store held when this was read from it: what lies up to here is in it already.
    through: Offset,
    pub(super) raw: RawSamples,
    /// The finest has only what hubs wrote once.
    rollups: [Rollups; RESOLUTIONS.len()],
}

/// What is kept of a series beside its chunks. Floats by their bits, which JSON would not keep.
#[derive(Serialize, Deserialize)]
struct Head {
    #[serde(flatten)]
    identity: Identity,
    #[serde(flatten)]
    reach: Reach,
    /// When the newest value was.
    time: Millis,
    ever: [u64; 5],
    /// Hubs kept one sum once.
    #[serde(default)]
    increase: Option<u64>,
    /// Nor did they keep this.
    #[serde(default)]
    publisher: Arc<str>,
    known: [Option<(u64, u64)>; RESOLUTIONS.len()],
    /// The numbers of the first chunk of raw samples and of the next.
    #[serde(default)]
    raw: (u64, u64),
}

/// Up to where samples are in the chunks that were stored: in all of them, for the head is written
/// whenever one is.
#[derive(Serialize, Deserialize)]
struct Reach {
    through: Offset,
}

/// The row of a series in the store.
pub(super) fn row_of(key: &str) -> Box<str> {
    use std::fmt::Write as _;
    let hash = Sha256::digest(key.as_bytes());
    hash.iter()
        .take(16)
        .fold(String::with_capacity(32), |mut row, byte| {
            let _ = write!(row, "{byte:02x}"); // a String takes everything
            row
        })
        .into()
}

impl Identity {
    /// What the list of all series is ordered by.
    pub fn order(&self) -> (&Name, &str, &Labels) {
        (&self.name, &self.topic, &self.labels)
    }
}

impl Timeseries {
    /// A series that has no sample yet.
    pub(super) fn new(identity: Identity, row: Box<str>, publisher: Arc<str>) -> Self {
        let (min, max) = (f64::MAX, f64::MIN);
        let (sum, increase, last, count, last_at) = (0.0, 0.0, 0.0, 0.0, 0);
        Self {
            identity: Arc::new(identity),
            row,
            publisher,
            ever: Bucket { min, max, sum, increase, last, count, last_at, ended_at: None },
            modified: 0,
            through: 0,
            raw: RawSamples::default(),
            rollups: Default::default(),
        }
    }

    /// The newest value.
    pub(super) fn newest(&self) -> Point {
        Point { time: self.ever.last_at, value: self.ever.last }
    }

    /// The columns of the chunks that have to be [filled](Self::fill) before a sample is added.
    pub(super) fn lacking(
        &self,
        time: Millis,
        offset: Offset,
        keep: &Keep,
        now: Millis,
    ) -> impl Iterator<Item = u64> {
        let resolutions =
            RESOLUTIONS.into_iter().zip(keep.resolutions).zip(&self.rollups).enumerate().skip(1);
        let lacking = resolutions.filter_map(move |(at, ((resolution, keep), rollups))| {
            let (number, _) = resolution.place(time);
            let is_wanted = resolution.is_kept(number, keep, now) && rollups.lacks(number);
            is_wanted.then(|| column(at, number))
        });
        lacking.filter(move |_| offset > self.through)
    }

    /// Puts in chunks that were lacking: `parts` is what the store has in their columns and in that
    /// of the head. Gives the bytes that memory grew by.
    pub(super) fn fill(
        &mut self,
        columns: &BTreeSet<u64>,
        parts: Vec<(u64, Bytes)>,
    ) -> Result<usize, PackError> {
        let mut parts: HashMap<_, _> = parts.into_iter().collect();
        let reach = parts.remove(&HEAD).map(|head| serde_json::from_slice::<Reach>(&head));
        let reach = reach.transpose().map_err(|_| PackError::Unreadable)?;
        let through = reach.map_or(0, |reach| reach.through);
        let mut grown = 0;
        for (resolution, number) in columns.iter().filter_map(|column| chunk_of(*column)) {
            let stored = parts.remove(&column(resolution, number));
            grown += self.rollups[resolution].fill(number, stored, through);
        }
        Ok(grown)
    }

    /// Notes how its producer says it is to be read.
    pub(super) fn note(&mut self, hint: &SampleHint) {
        if let Some(said) = hint.kind.filter(|said| *said != self.identity.kind) {
            Arc::make_mut(&mut self.identity).kind = said;
        }
        if hint.unit.is_some() && hint.unit != self.identity.unit {
            Arc::make_mut(&mut self.identity).unit.clone_from(&hint.unit);
        }
    }

    /// Adds a sample of which no chunk is [lacking](Self::lacking), unless it is there already and may not repeat. Gives the
    /// bytes that memory grew by.
    pub(super) fn add(
        &mut self,
        value: Value,
        may_repeat: bool,
        time: Millis,
        offset: Offset,
        keep: &Keep,
        now: Millis,
    ) -> usize {
        if offset <= self.through {
            return 0; // the store had it when we read there
        }
        let newest = self.newest();
        let is_first = self.ever.count == 0.0;
        let is_newest = is_first || time >= newest.time;
        let (number, increase, raw_time) = match value {
            Value::Stale => (f64::from_bits(STALE), 0.0, time),
            // What it counted before we knew it is not ours to tell; what comes late was counted
            // with the sample after it.
            Value::Reading(number) if is_first || !is_newest => (number, 0.0, time),
            Value::Reading(number) if number < newest.value => (number, number, time),
            Value::Reading(number) => (number, number - newest.value, time),
            // Its total is that of now, for those behind it have been told without it.
            Value::Added(number) if is_first => (number, number, time),
            Value::Added(number) => (self.ever.increase + number, number, time.max(newest.time)),
        };
        let raw = RawSample { time: raw_time, value: number };
        if !may_repeat && self.raw.has(raw) {
            return 0;
        }
        // From or to what is no number nothing was counted.
        let increase = if increase.is_finite() { increase } else { 0.0 };
        let sample = match value {
            Value::Stale => Bucket::ended(time),
            _ => Bucket::of(number, increase, time),
        };
        if value != Value::Stale {
            self.ever = if is_first { sample } else { self.ever.and(sample) };
        }
        self.modified = self.modified.max(offset);
        let mut grown = 0;
        if raw_time + keep.raw > now {
            grown += self.raw.push(raw, offset);
        }
        let resolutions =
            RESOLUTIONS.into_iter().zip(keep.resolutions).zip(&mut self.rollups).skip(1);
        for ((resolution, keep), rollups) in resolutions {
            if resolution.is_kept(resolution.place(time).0, keep, now) {
                grown += rollups.add(resolution, self.identity.kind, sample, offset);
            }
        }
        grown
    }

    /// Copies the buckets of `resolution` that begin in `[from, to)`, as far as they are in memory; gives
    /// the columns of the chunks that are not.
    pub(super) fn read(
        &self,
        resolution: usize,
        range: (Millis, Millis),
        buckets: &mut Vec<(Millis, Bucket)>,
    ) -> Vec<u64> {
        let missing = self.rollups[resolution].read(
            RESOLUTIONS[resolution],
            self.identity.kind,
            range,
            buckets,
        );
        missing.into_iter().map(|number| column(resolution, number)).collect()
    }

    /// Looks after the chunks: see [`Rollups::tend`]. Gives what is to be written.
    pub(super) fn tend(
        &mut self,
        clean: Offset,
        keep: &Keep,
        now: Millis,
        packer: &mut Packer,
    ) -> Result<Vec<Part>, PackError> {
        let mut parts = Vec::new();
        for (at, rollups) in self.rollups.iter_mut().enumerate() {
            let changes =
                rollups.tend(RESOLUTIONS[at], clean, keep.resolutions[at], now, packer)?;
            let part = |(number, bytes)| part(&self.row, column(at, number), bytes);
            parts.extend(changes.into_iter().map(part));
        }
        let changes = self.raw.tend(clean, now.saturating_sub(keep.raw));
        let raw_part = |(number, bytes)| part(&self.row, raw_column(number), bytes);
        parts.extend(changes.into_iter().map(raw_part));
        if self.modified > clean || !parts.is_empty() {
            parts.push(self.head()?);
        }
        Ok(parts)
    }

    /// Everything of it in the store, to be taken away.
    pub(super) fn removal(&self) -> Vec<Part> {
        let rollups = self.rollups.iter().enumerate();
        let chunks = rollups.filter_map(|(resolution, rollups)| Some((resolution, rollups.known?)));
        let chunks = chunks.flat_map(|(resolution, (oldest, newest))| {
            (oldest..=newest).map(move |number| column(resolution, number))
        });
        let (first, next) = self.raw.numbers();
        let chunks = chunks.chain((first..next).map(raw_column));
        chunks.chain([HEAD]).map(|column| part(&self.row, column, None)).collect()
    }

    /// The log has lost its memory: offsets above this are given anew. Gives the head as it has to
    /// be in the store before any of them is, if what is there says more.
    pub(super) fn forget_after(&mut self, offset: Offset) -> Result<Option<Part>, PackError> {
        let is_beyond = self.through > offset;
        self.through = self.through.min(offset);
        self.modified = self.modified.min(offset);
        self.raw.forget_after(offset);
        for rollups in &mut self.rollups {
            rollups.forget_after(offset);
        }
        is_beyond.then(|| self.head()).transpose()
    }

    fn head(&self) -> Result<Part, PackError> {
        let Bucket { min, max, sum, increase, last, count, last_at, .. } = self.ever;
        let head = Head {
            identity: Identity::clone(&self.identity),
            reach: Reach { through: self.modified.max(self.through) },
            time: last_at,
            ever: [min, max, sum, last, count].map(f64::to_bits),
            increase: Some(increase.to_bits()),
            publisher: self.publisher.clone(),
            known: std::array::from_fn(|resolution| self.rollups[resolution].known),
            raw: self.raw.numbers(),
        };
        let head = serde_json::to_vec(&head).map_err(|_| PackError::Unreadable)?;
        Ok(part(&self.row, HEAD, Some(head.into())))
    }

    /// Reads a series again from what [`tend`](Self::tend) put into its row, as far as it is to be
    /// in memory; None without a head.
    pub(super) fn restore(row: &str, parts: Vec<(u64, Bytes)>) -> Result<Option<Self>, PackError> {
        let Some((_, head)) = parts.iter().find(|(column, _)| *column == HEAD) else {
            return Ok(None);
        };
        let head: Head = serde_json::from_slice(head).map_err(|_| PackError::Unreadable)?;
        let [min, max, sum, last, count] = head.ever.map(f64::from_bits);
        let (sum, increase) = match (head.increase, head.identity.kind) {
            (Some(increase), _) => (sum, f64::from_bits(increase)),
            (None, Kind::Counter) => (f64::NAN, sum),
            (None, Kind::Gauge) => (sum, 0.0),
        };
        let through = head.reach.through;
        let mut timeseries = Self::new(head.identity, row.into(), head.publisher);
        timeseries.ever =
            Bucket { min, max, sum, increase, last, count, last_at: head.time, ended_at: None };
        (timeseries.modified, timeseries.through) = (through, through);
        for (rollups, known) in timeseries.rollups.iter_mut().zip(head.known) {
            rollups.known = known;
        }
        let (mut chunks, mut seconds) = (Vec::new(), Vec::new());
        for (column, bytes) in parts {
            if let Some(number) = raw_chunk_of(column) {
                chunks.push((number, bytes));
            } else if let Some((0, _)) = chunk_of(column) {
                let range = (0, Millis::MAX);
                let read =
                    read_stored(column, &bytes, timeseries.identity.kind, range, &mut seconds);
                read.unwrap_or_else(|error| tracing::error!(row, %error, "a chunk is left out"));
            } else if let Some((resolution, number)) = chunk_of(column) {
                timeseries.rollups[resolution].fill(number, Some(bytes), through);
            }
        }
        timeseries.raw.restore(head.raw.1, chunks);
        // Of each second hubs kept the last sample once.
        let samples = seconds
            .into_iter()
            .map(|(_, bucket)| RawSample { time: bucket.last_at, value: bucket.last });
        timeseries.raw.restore_seconds(samples.collect());
        Ok(Some(timeseries))
    }
}

/// The columns in which the chunks of raw samples are, by what a row's head says.
pub(super) fn raw_columns(parts: &[(u64, Bytes)]) -> std::ops::Range<u64> {
    #[derive(Deserialize)]
    struct RawNumbers {
        #[serde(default)]
        raw: (u64, u64),
    }
    let head = parts.iter().find(|(column, _)| *column == HEAD);
    let numbers = head.and_then(|(_, head)| serde_json::from_slice::<RawNumbers>(head).ok());
    numbers.map_or(0..0, |RawNumbers { raw: (first, next) }| first..next.min(first + MOST_CHUNKS))
}

/// More chunks of raw samples than a series has.
const MOST_CHUNKS: u64 = 10_000;

/// Copies the buckets of a stored chunk that begin in `[from, to)`.
pub(super) fn read_stored(
    column: u64,
    stored: &[u8],
    kind: Kind,
    range: (Millis, Millis),
    buckets: &mut Vec<(Millis, Bucket)>,
) -> Result<(), PackError> {
    let (resolution, number) = chunk_of(column).ok_or(PackError::Unreadable)?;
    read_chunk(RESOLUTIONS[resolution], number, &Chunk::unpack(stored, kind)?, range, buckets);
    Ok(())
}

fn part(row: &str, column: u64, bytes: Option<Bytes>) -> Part {
    Part { row: row.into(), column, bytes }
}
