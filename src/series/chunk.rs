//! A chunk: the rollups of one series over a stretch of time, a column for each figure.

use super::pack::{PackError, Packer};
use crate::position::Offset;

/// What is known of one bucket of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bucket {
    /// The smallest value.
    pub(super) min: f64,
    /// The largest value.
    pub(super) max: f64,
    /// Of a gauge the sum of the values, of a counter how much it counted.
    pub(super) sum: f64,
    /// The value that came last.
    pub(super) last: f64,
    /// How many samples.
    pub(super) count: f64,
}

/// The most buckets of a chunk.
pub(super) const BUCKETS: usize = 300;
const WORDS: usize = BUCKETS.div_ceil(64);

/// Buckets side by side, in columns. A column that holds nothing of its own takes no room.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Chunk {
    /// Which buckets there are.
    present: [u64; WORDS],
    /// Everything up to here is in it.
    pub(super) through: Offset,
    last: Column,
    min: Column,
    max: Column,
    sum: Column,
    count: Column,
}

/// One figure of all buckets there are, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Column {
    /// It is always what `last` is.
    #[default]
    Same,
    /// It is always this.
    Constant(f64),
    /// It changes.
    Own(Vec<f64>),
}

impl Bucket {
    /// The bucket of one sample, which adds `sum`.
    pub(super) fn of(value: f64, sum: f64) -> Self {
        Self { min: value, max: value, sum, last: value, count: 1.0 }
    }

    /// This and what came after it, as one.
    pub(super) fn and(self, later: Self) -> Self {
        Self {
            min: self.min.min(later.min),
            max: self.max.max(later.max),
            sum: self.sum + later.sum,
            last: later.last,
            count: self.count + later.count,
        }
    }
}

impl Chunk {
    /// Adds to the bucket at `index`, which is below [`BUCKETS`].
    pub(super) fn add(&mut self, index: usize, bucket: Bucket, offset: Offset) {
        self.through = self.through.max(offset);
        let (rank, len) = (self.rank(index), self.len());
        let (bucket, place) = if self.has(index) {
            (self.at(rank).and(bucket), Place::There(rank))
        } else {
            (bucket, Place::New(rank))
        };
        self.present[index / 64] |= 1 << (index % 64);
        for (column, value) in [
            (&mut self.min, bucket.min),
            (&mut self.max, bucket.max),
            (&mut self.sum, bucket.sum),
            (&mut self.count, bucket.count),
        ] {
            column.put(place, value, Some(bucket.last), &self.last, len);
        }
        // Itself last, for the others look at what it was.
        self.last.put(place, bucket.last, None, &Column::Same, len);
    }

    /// Puts what came before into the same buckets.
    pub(super) fn add_before(&mut self, before: &Chunk) {
        let mut merged = before.clone();
        for (index, bucket) in self.buckets() {
            merged.add(index, bucket, self.through);
        }
        *self = merged;
    }

    /// The buckets there are, each with its index.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (usize, Bucket)> {
        let indices = (0..BUCKETS).filter(|index| self.has(*index));
        indices.enumerate().map(|(rank, index)| (index, self.at(rank)))
    }

    /// How many buckets there are.
    pub(super) fn len(&self) -> usize {
        self.present.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The form in which it is kept.
    pub(super) fn pack(&self, packer: &mut Packer) -> Result<bytes::Bytes, PackError> {
        let columns = [&self.last, &self.min, &self.max, &self.sum, &self.count];
        packer.pack(self.through, &self.present, self.len(), columns)
    }

    /// Reads it again.
    pub(super) fn unpack(packed: &[u8]) -> Result<Self, PackError> {
        let mut chunk = Self::default();
        let [last, min, max, sum, count];
        (chunk.through, chunk.present, [last, min, max, sum, count]) = super::pack::unpack(packed)?;
        (chunk.last, chunk.min, chunk.max, chunk.sum, chunk.count) = (last, min, max, sum, count);
        Ok(chunk)
    }

    fn has(&self, index: usize) -> bool {
        self.present[index / 64] >> (index % 64) & 1 == 1
    }

    /// How many buckets there are before `index`.
    fn rank(&self, index: usize) -> usize {
        let (word, bit) = (index / 64, index % 64);
        let whole: u32 = self.present[..word].iter().map(|word| word.count_ones()).sum();
        (whole + (self.present[word] & ((1 << bit) - 1)).count_ones()) as usize
    }

    fn at(&self, rank: usize) -> Bucket {
        let last = self.last.get(rank, 0.0);
        Bucket {
            last,
            min: self.min.get(rank, last),
            max: self.max.get(rank, last),
            sum: self.sum.get(rank, last),
            count: self.count.get(rank, last),
        }
    }
}

/// Where in a column a figure goes: where one is, or between two.
#[derive(Debug, Clone, Copy)]
enum Place {
    There(usize),
    New(usize),
}

/// Columns grow by this much: there are many of them, and doubling would waste half.
const GROWTH: usize = 32;

impl Column {
    /// The figure at `rank`, where `last` is the newest value there.
    pub(super) fn get(&self, rank: usize, last: f64) -> f64 {
        match self {
            Self::Same => last,
            Self::Constant(value) => *value,
            Self::Own(values) => values.get(rank).copied().unwrap_or(last),
        }
    }

    /// Puts a figure into a column of `len`, beside the value `last` (None in that column itself).
    fn put(&mut self, place: Place, value: f64, last: Option<f64>, lasts: &Column, len: usize) {
        let is_only = match place {
            Place::There(_) => len == 1,
            Place::New(_) => len == 0,
        };
        match self {
            Self::Same if last.is_some_and(|last| same(last, value)) => return,
            Self::Constant(constant) if same(*constant, value) => return,
            _ if is_only => {
                *self = Self::Constant(value);
                return;
            }
            Self::Own(_) => {}
            Self::Same => *self = Self::Own((0..len).map(|rank| lasts.get(rank, 0.0)).collect()),
            Self::Constant(constant) => *self = Self::Own(vec![*constant; len]),
        }
        let Self::Own(values) = self else { return };
        match place {
            Place::There(rank) => values[rank] = value,
            Place::New(rank) => {
                if values.len() == values.capacity() {
                    values.reserve_exact(GROWTH);
                }
                values.insert(rank, value);
            }
        }
    }
}

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits()
}
