//! One series: its newest value, what it ever was, and its rollups in three widths.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    chunk::{BUCKETS, Bucket, Chunk},
    pack::{PackError, Packer},
    sample::{Dropped, Kind, Labels, Name, Value},
};
use crate::{
    position::Offset,
    store::{COLUMNS, Part},
    time::Millis,
};

/// How wide the buckets of a rollup are and how many of them a chunk has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tier {
    /// A bucket's width, in milliseconds.
    pub(super) width: Millis,
    /// Buckets in a chunk.
    pub(super) buckets: u64,
}

/// From the finest to the coarsest. The newest chunks are not packed: longer ones would cost memory,
/// shorter ones room in the store.
pub(super) const TIERS: [Tier; 3] = [
    Tier { width: 1000, buckets: 300 },
    Tier { width: 10_000, buckets: 180 },
    Tier { width: 60_000, buckets: 180 },
];

const _: () = assert!(TIERS[0].buckets <= BUCKETS as u64 && TIERS[1].buckets <= BUCKETS as u64);
const _: () = assert!(TIERS[2].buckets <= BUCKETS as u64);

/// How long each tier is kept, in milliseconds.
pub(super) type Keep = [Millis; TIERS.len()];

/// How long a chunk that is over stays in memory, for samples that come late.
const LINGER: Millis = 15 * 60_000;

/// What tells a series from others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The topic, or the pattern of topics, its samples come from: who may read that may read it.
    pub topic: Arc<str>,
    /// Its name.
    pub name: Name,
    /// Its labels.
    pub labels: Labels,
    /// How it is to be read.
    pub kind: Kind,
    /// What it is measured in.
    pub unit: Option<Box<str>>,
}

/// A chunk that is in the store.
pub(super) struct Missing {
    /// Where.
    pub(super) column: u64,
    /// What came late and may not be there yet.
    pub(super) late: Vec<(Millis, Bucket)>,
    /// Up to where that goes.
    pub(super) through: Offset,
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
pub(super) struct Track {
    pub(super) identity: Identity,
    pub(super) row: Box<str>,
    pub(super) newest: Point,
    /// All samples there ever were.
    pub(super) ever: Bucket,
    /// The newest sample in it.
    modified: Offset,
    /// What the store held when this was read from it: what lies up to here is in it already.
    through: Offset,
    lanes: [Lane; TIERS.len()],
}

/// One tier's chunks, in order.
#[derive(Default)]
struct Lane {
    slots: VecDeque<Slot>,
    /// The oldest and the newest chunk there are, here or in the store.
    known: Option<(u64, u64)>,
}

struct Slot {
    /// Which chunk since 1970.
    number: u64,
    /// The newest sample in it.
    modified: Offset,
    /// Only what came late is here, the rest is in the store.
    is_partial: bool,
    body: Body,
}

enum Body {
    Open(Box<Chunk>),
    Packed(Bytes),
}

/// What is kept of a series beside its chunks. Floats by their bits, which JSON would not keep.
#[derive(Serialize, Deserialize)]
struct Head {
    #[serde(flatten)]
    identity: Identity,
    through: Offset,
    time: Millis,
    value: u64,
    ever: [u64; 5],
    known: [Option<(u64, u64)>; TIERS.len()],
}

/// The column of the head, above all chunks.
pub(super) const HEAD: u64 = COLUMNS - 1;

/// The column of a chunk: those of one time stand together, whatever their tier.
fn column(tier: usize, number: u64) -> u64 {
    ((number * TIERS[tier].buckets * (TIERS[tier].width / 1000)) << 2) | tier as u64
}

/// The tier and number of a chunk's column.
fn chunk_of(column: u64) -> Option<(usize, u64)> {
    let tier = (column & 3) as usize;
    let seconds = TIERS.get(tier).map(|tier| tier.buckets * tier.width / 1000)?;
    (column != HEAD).then(|| (tier, (column >> 2) / seconds))
}

/// The columns of a series in which what is of use in memory at `now` lies, the head among them.
pub(super) fn hot_columns(now: Millis) -> std::ops::Range<u64> {
    let longest = TIERS[2].width * TIERS[2].buckets;
    let from = now.saturating_sub(longest + LINGER) / 1000;
    from << 2..COLUMNS
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

impl Track {
    /// A series that has no sample yet.
    pub(super) fn new(identity: Identity, row: Box<str>) -> Self {
        Self {
            identity,
            row,
            newest: Point { time: 0, value: 0.0 },
            ever: Bucket { min: f64::MAX, max: f64::MIN, sum: 0.0, last: 0.0, count: 0.0 },
            modified: 0,
            through: 0,
            lanes: Default::default(),
        }
    }

    /// Adds a sample.
    pub(super) fn add(
        &mut self,
        value: Value,
        time: Millis,
        offset: Offset,
        keep: &Keep,
        now: Millis,
    ) -> Result<(), Dropped> {
        let number = value.checked()?;
        if value.kind() != self.identity.kind {
            return Err(Dropped::Kind);
        }
        if offset <= self.through {
            return Ok(()); // the store had it when we read there
        }
        let is_first = self.ever.count == 0.0;
        let is_newest = is_first || time >= self.newest.time;
        let (number, sum) = match value {
            Value::Gauge(_) => (number, number),
            // What it counted before we knew it is not ours to tell; what comes late was counted
            // with the sample after it.
            Value::Total(_) if is_first || !is_newest => (number, 0.0),
            Value::Total(_) if number < self.newest.value => (number, number),
            Value::Total(_) => (number, number - self.newest.value),
            Value::Added(_) => (self.ever.sum + number, number),
        };
        let bucket = Bucket::of(number, sum);
        self.ever = if is_first { bucket } else { self.ever.and(bucket) };
        if is_newest {
            self.newest = Point { time, value: number };
        }
        self.modified = self.modified.max(offset);
        for (tier, keep) in keep.iter().enumerate() {
            let Tier { width, buckets } = TIERS[tier];
            let number = time / width;
            if (number / buckets + 1) * buckets * width + keep > now {
                let index = (number % buckets) as usize;
                self.lanes[tier].add(number / buckets, index, bucket, offset);
            }
        }
        Ok(())
    }

    /// Copies the buckets of `tier` that begin in `[from, to)`, as far as they are in memory; gives
    /// the chunks that are not, or not wholly.
    pub(super) fn read(
        &self,
        tier: usize,
        range: (Millis, Millis),
        buckets: &mut Vec<(Millis, Bucket)>,
    ) -> Vec<Missing> {
        let lane = &self.lanes[tier];
        let span = TIERS[tier].width * TIERS[tier].buckets;
        let mut missing = Vec::new();
        let (Some((oldest, newest)), true) = (lane.known, range.0 < range.1) else {
            return missing;
        };
        for number in (range.0 / span).max(oldest)..=((range.1 - 1) / span).min(newest) {
            let column = column(tier, number);
            match lane.find(number).ok().map(|at| &lane.slots[at]) {
                None => missing.push(Missing { column, late: Vec::new(), through: 0 }),
                Some(slot) if slot.is_partial => {
                    let mut late = Vec::new();
                    read_chunk(tier, number, &slot.body.chunk(), range, &mut late);
                    missing.push(Missing { column, late, through: slot.modified });
                }
                Some(slot) => read_chunk(tier, number, &slot.body.chunk(), range, buckets),
            }
        }
        missing
    }

    /// The chunks that want to be filled from the store before they can be written there.
    pub(super) fn wanting(&self, clean: Offset) -> Vec<u64> {
        let lanes = self.lanes.iter().enumerate();
        let wanting = lanes.flat_map(|(tier, lane)| {
            let slots = lane.slots.iter();
            let wanting = slots.filter(move |slot| slot.is_partial && slot.modified > clean);
            wanting.map(move |slot| column(tier, slot.number))
        });
        wanting.collect()
    }

    /// Puts what the store has of a chunk beneath what came late.
    pub(super) fn fill(&mut self, column: u64, stored: Option<&[u8]>) -> Result<(), PackError> {
        let Some((tier, number)) = chunk_of(column) else { return Ok(()) };
        let lane = &mut self.lanes[tier];
        let Ok(at) = lane.find(number) else { return Ok(()) };
        let slot = &mut lane.slots[at];
        if let Some(stored) = stored.filter(|_| slot.is_partial) {
            let stored = Chunk::unpack(stored)?;
            slot.body.open().add_before(&stored);
        }
        slot.is_partial = false;
        Ok(())
    }

    /// Looks after the chunks: what changed since `clean`, up to where the store has everything, is
    /// packed for the store, what is over and stored leaves memory, what is too old leaves both.
    pub(super) fn tend(
        &mut self,
        clean: Offset,
        keep: &Keep,
        now: Millis,
        packer: &mut Packer,
    ) -> Result<Vec<Part>, PackError> {
        let mut parts = Vec::new();
        let row = &self.row;
        let mut put = |column, bytes| parts.push(Part { row: row.clone(), column, bytes });
        for (tier, lane) in self.lanes.iter_mut().enumerate() {
            let span = TIERS[tier].width * TIERS[tier].buckets;
            while let Some((oldest, newest)) = lane.known
                && (oldest + 1) * span + keep[tier] <= now
            {
                put(column(tier, oldest), None);
                lane.known = (oldest < newest).then_some((oldest + 1, newest));
                lane.slots.retain(|slot| slot.number > oldest);
            }
            let newest = lane.known.map_or(0, |(_, newest)| newest);
            for slot in &mut lane.slots {
                let (is_over, is_dirty) = (slot.number < newest, slot.modified > clean);
                if slot.is_partial || !(is_over || is_dirty) {
                    continue;
                }
                let packed = slot.body.packed(packer)?;
                if is_dirty {
                    put(column(tier, slot.number), Some(packed.clone()));
                }
                if is_over {
                    slot.body = Body::Packed(packed);
                }
            }
            lane.slots.retain(|slot| {
                let is_gone = slot.is_partial || (slot.number + 1) * span + LINGER <= now;
                slot.modified > clean || !is_gone
            });
        }
        if self.modified > clean || !parts.is_empty() {
            let head = self.head()?;
            parts.push(Part { row: self.row.clone(), column: HEAD, bytes: Some(head) });
        }
        Ok(parts)
    }

    /// Everything of it in the store, to be taken away.
    pub(super) fn removal(&self) -> Vec<Part> {
        let lanes = self.lanes.iter().enumerate();
        let chunks = lanes.filter_map(|(tier, lane)| Some((tier, lane.known?)));
        let chunks = chunks.flat_map(|(tier, (oldest, newest))| {
            (oldest..=newest).map(move |number| column(tier, number))
        });
        let part = |column| Part { row: self.row.clone(), column, bytes: None };
        chunks.chain([HEAD]).map(part).collect()
    }

    /// The log has lost its memory: offsets above this are given anew. Gives the head as it has to
    /// be in the store before any of them is, if what is there says more.
    pub(super) fn forget_after(&mut self, offset: Offset) -> Result<Option<Part>, PackError> {
        let is_beyond = self.through > offset;
        self.through = self.through.min(offset);
        self.modified = self.modified.min(offset);
        for slot in self.lanes.iter_mut().flat_map(|lane| &mut lane.slots) {
            slot.modified = slot.modified.min(offset);
        }
        let head = is_beyond.then(|| self.head()).transpose()?;
        Ok(head.map(|head| Part { row: self.row.clone(), column: HEAD, bytes: Some(head) }))
    }

    fn head(&self) -> Result<Bytes, PackError> {
        let Bucket { min, max, sum, last, count } = self.ever;
        let head = Head {
            identity: self.identity.clone(),
            through: self.modified.max(self.through),
            time: self.newest.time,
            value: self.newest.value.to_bits(),
            ever: [min, max, sum, last, count].map(f64::to_bits),
            known: std::array::from_fn(|tier| self.lanes[tier].known),
        };
        serde_json::to_vec(&head).map(Bytes::from).map_err(|_| PackError::Unreadable)
    }

    /// Reads a series again from what [`tend`](Self::tend) put into its row; None without a head.
    pub(super) fn restore(
        row: &str,
        parts: Vec<(u64, Bytes)>,
        now: Millis,
    ) -> Result<Option<Self>, PackError> {
        let Some((_, head)) = parts.iter().find(|(column, _)| *column == HEAD) else {
            return Ok(None);
        };
        let head: Head = serde_json::from_slice(head).map_err(|_| PackError::Unreadable)?;
        let [min, max, sum, last, count] = head.ever.map(f64::from_bits);
        let mut track = Self::new(head.identity, row.into());
        track.newest = Point { time: head.time, value: f64::from_bits(head.value) };
        track.ever = Bucket { min, max, sum, last, count };
        (track.modified, track.through) = (head.through, head.through);
        for (lane, known) in track.lanes.iter_mut().zip(head.known) {
            lane.known = known;
        }
        for (column, bytes) in parts {
            let Some((tier, number)) = chunk_of(column) else { continue };
            let span = TIERS[tier].width * TIERS[tier].buckets;
            if (number + 1) * span + LINGER > now {
                // Beyond the head lie only offsets that the log has lost: see `forget_after`.
                let modified = Chunk::unpack(&bytes)?.through.min(head.through);
                let body = Body::Packed(bytes);
                let slot = Slot { number, modified, is_partial: false, body };
                track.lanes[tier].slots.push_back(slot);
            }
        }
        Ok(Some(track))
    }
}

impl Missing {
    /// Adds what is stored, and what memory has besides; no order is kept.
    pub(super) fn read(
        self,
        stored: Option<&[u8]>,
        range: (Millis, Millis),
        buckets: &mut Vec<(Millis, Bucket)>,
    ) -> Result<(), PackError> {
        let (tier, number) = chunk_of(self.column).ok_or(PackError::Unreadable)?;
        let chunk = stored.map(Chunk::unpack).transpose()?.unwrap_or_default();
        read_chunk(tier, number, &chunk, range, buckets);
        if chunk.through < self.through {
            buckets.extend(self.late);
        }
        Ok(())
    }
}

fn read_chunk(
    tier: usize,
    number: u64,
    chunk: &Chunk,
    (from, to): (Millis, Millis),
    buckets: &mut Vec<(Millis, Bucket)>,
) {
    let Tier { width, buckets: count } = TIERS[tier];
    let timed =
        chunk.buckets().map(|(index, bucket)| ((number * count + index as u64) * width, bucket));
    buckets.extend(timed.filter(|(time, _)| (from..to).contains(time)));
}

impl Lane {
    fn find(&self, number: u64) -> Result<usize, usize> {
        match self.slots.back() {
            Some(slot) if slot.number == number => Ok(self.slots.len() - 1),
            _ => self.slots.binary_search_by_key(&number, |slot| slot.number),
        }
    }

    fn add(&mut self, number: u64, index: usize, bucket: Bucket, offset: Offset) {
        let at = self.find(number).unwrap_or_else(|at| {
            // What is between those we know may be in the store.
            let is_known = |(oldest, newest): (u64, u64)| oldest <= number && number <= newest;
            let slot = Slot {
                number,
                modified: 0,
                is_partial: self.known.is_some_and(is_known),
                body: Body::Open(Box::default()),
            };
            self.slots.insert(at, slot);
            let known = self.known.map_or((number, number), |(oldest, newest)| {
                (oldest.min(number), newest.max(number))
            });
            self.known = Some(known);
            at
        });
        let slot = &mut self.slots[at];
        slot.modified = slot.modified.max(offset);
        slot.body.open().add(index, bucket, offset);
    }
}

impl Body {
    fn chunk(&self) -> std::borrow::Cow<'_, Chunk> {
        match self {
            Self::Open(chunk) => std::borrow::Cow::Borrowed(chunk),
            Self::Packed(bytes) => std::borrow::Cow::Owned(unpacked(bytes)),
        }
    }

    fn open(&mut self) -> &mut Chunk {
        if let Self::Packed(bytes) = self {
            *self = Self::Open(Box::new(unpacked(bytes)));
        }
        match self {
            Self::Open(chunk) => chunk,
            Self::Packed(_) => unreachable!("it was opened above"),
        }
    }

    fn packed(&self, packer: &mut Packer) -> Result<Bytes, PackError> {
        match self {
            Self::Open(chunk) => chunk.pack(packer),
            Self::Packed(bytes) => Ok(bytes.clone()),
        }
    }
}

/// Reads what was packed here, or read once when it came from the store: it can be read.
fn unpacked(bytes: &[u8]) -> Chunk {
    Chunk::unpack(bytes).unwrap_or_else(|error| {
        tracing::error!(%error, "a chunk in memory is broken");
        Chunk::default()
    })
}
