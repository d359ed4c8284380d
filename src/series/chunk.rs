//! A chunk: the rollups of one series over a stretch of time, a column for each figure.

use super::{
    column::{BUCKETS, Column, Place, Present},
    pack::{PackError, Packer},
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

/// Buckets side by side, in columns. A column that holds nothing of its own takes no room.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Chunk {
    /// Which buckets there are.
    present: Present,
    last: Column,
    min: Column,
    max: Column,
    sum: Column,
    count: Column,
    last_at: Column,
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
