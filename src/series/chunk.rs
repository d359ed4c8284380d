//! A chunk: the rollups of one series over a stretch of time, a column for each figure.

use super::{
    pack::{PackError, Packer},
    tier::TIERS,
};
use crate::time::Millis;

/// What is known of one bucket of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bucket {
    /// The smallest value.
    pub(super) min: f64,
    /// The largest value.
    pub(super) max: f64,
    /// Of a gauge the sum of the values, of a counter how much it counted.
    pub(super) sum: f64,
    /// The newest value: the one of the greatest time, of equal times the one that came last.
    pub(super) last: f64,
    /// How many samples.
    pub(super) count: f64,
    /// When `last` was. In a chunk it counts from where the bucket begins.
    pub(super) last_at: Millis,
}

/// The most buckets of a chunk.
pub(super) const BUCKETS: usize = 300;
const _: () = assert!(TIERS[0].buckets <= BUCKETS as u64 && TIERS[1].buckets <= BUCKETS as u64);
const _: () = assert!(TIERS[2].buckets <= BUCKETS as u64);
const WORDS: usize = BUCKETS.div_ceil(64);

/// Buckets side by side, in columns. A column that holds nothing of its own takes no room.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Chunk {
    /// Which buckets there are.
    present: [u64; WORDS],
    last: Column,
    min: Column,
    max: Column,
    sum: Column,
    count: Column,
    last_at: Column,
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
    pub(super) fn of(value: f64, sum: f64, time: Millis) -> Self {
        Self { min: value, max: value, sum, last: value, count: 1.0, last_at: time }
    }

    /// This and what came after it, be that newer or older, as one.
    pub(super) fn and(self, next: Self) -> Self {
        let newest = if next.last_at >= self.last_at { next } else { self };
        Self {
            min: self.min.min(next.min),
            max: self.max.max(next.max),
            sum: self.sum + next.sum,
            last: newest.last,
            count: self.count + next.count,
            last_at: newest.last_at,
        }
    }
}

impl Chunk {
    /// Adds to the bucket at `index`, which is below [`BUCKETS`].
    pub(super) fn add(&mut self, index: usize, bucket: Bucket) {
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
            (&mut self.last_at, bucket.last_at as f64),
        ] {
            column.put(place, value, Some(bucket.last), &self.last, len);
        }
        // Itself last, for the others look at what it was.
        self.last.put(place, bucket.last, None, &Column::Same, len);
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

    /// How much memory it takes, in bytes.
    pub(super) fn size(&self) -> usize {
        let columns = [&self.last, &self.min, &self.max, &self.sum, &self.count, &self.last_at];
        size_of::<Self>() + columns.map(Column::size).into_iter().sum::<usize>()
    }

    /// The form in which it is kept.
    pub(super) fn pack(&self, packer: &mut Packer) -> Result<bytes::Bytes, PackError> {
        let columns = [&self.last, &self.min, &self.max, &self.sum, &self.count, &self.last_at];
        packer.pack(&self.present, self.len(), columns)
    }

    /// Reads it again.
    pub(super) fn unpack(packed: &[u8]) -> Result<Self, PackError> {
        let (present, [last, min, max, sum, count, last_at]) = super::pack::unpack(packed)?;
        Ok(Self { present, last, min, max, sum, count, last_at })
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
            last_at: self.last_at.get(rank, last) as Millis,
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
    /// What it takes beside itself, in bytes.
    fn size(&self) -> usize {
        match self {
            Self::Same | Self::Constant(_) => 0,
            Self::Own(values) => values.capacity() * size_of::<f64>(),
        }
    }

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
