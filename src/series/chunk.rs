//! A chunk: the rollups of one series over a stretch of time, a column for each figure.

use super::{
    column::{BUCKETS, Column, Place, Present},
    pack::{self, COLUMNS, PackError, Packer},
    sample::Kind,
};
use crate::time::Millis;

/// What is known of one bucket of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bucket {
    /// The smallest value.
    pub(super) min: f64,
    /// The largest value.
    pub(super) max: f64,
    /// The sum of the values.
    pub(super) sum: f64,
    /// What a counter of these values has counted: a fall is a new beginning.
    pub(super) increase: f64,
    /// The newest value: the one of the greatest time, of equal times the one that came last.
    pub(super) last: f64,
    /// How many samples.
    pub(super) count: f64,
    /// When `last` was. In a chunk it counts from where the bucket begins.
    pub(super) last_at: Millis,
    /// When the series was last said to have ended; likewise.
    pub(super) ended_at: Option<Millis>,
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
    increase: Column,
    count: Column,
    last_at: Column,
    /// One more than [`Bucket::ended_at`], 0 for none.
    ended_at: Column,
}

impl Bucket {
    /// The bucket of one sample, by which a counter has grown by `increase`.
    pub(super) fn of(value: f64, increase: f64, time: Millis) -> Self {
        let (min, max, sum, last) = (value, value, value, value);
        Self { min, max, sum, increase, last, count: 1.0, last_at: time, ended_at: None }
    }

    /// The bucket in which nothing is but the end of the series.
    pub(super) fn ended(time: Millis) -> Self {
        let (min, max, last) = (f64::NAN, f64::NAN, f64::NAN);
        Self {
            min,
            max,
            last,
            sum: 0.0,
            increase: 0.0,
            count: 0.0,
            last_at: 0,
            ended_at: Some(time),
        }
    }

    /// When the sample or the end was of which it was made.
    pub(super) fn made_at(&self) -> Millis {
        self.ended_at.unwrap_or(self.last_at)
    }

    /// Whether no sample is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0.0
    }

    /// This and what came after it, be that newer or older, as one.
    pub(super) fn and(self, next: Self) -> Self {
        let is_next = self.is_empty() || (!next.is_empty() && next.last_at >= self.last_at);
        let newest = if is_next { next } else { self };
        Self {
            min: self.min.min(next.min),
            max: self.max.max(next.max),
            sum: self.sum + next.sum,
            increase: self.increase + next.increase,
            last: newest.last,
            count: self.count + next.count,
            last_at: newest.last_at,
            ended_at: self.ended_at.max(next.ended_at),
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
            (&mut self.increase, bucket.increase),
            (&mut self.count, bucket.count),
            (&mut self.last_at, bucket.last_at as f64),
            (&mut self.ended_at, bucket.ended_at.map_or(0.0, |time| (time + 1) as f64)),
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
        size_of::<Self>() + self.columns().map(Column::size).into_iter().sum::<usize>()
    }

    /// The form in which it is kept.
    pub(super) fn pack(&self, packer: &mut Packer) -> Result<bytes::Bytes, PackError> {
        packer.pack(&self.present, self.len(), self.columns())
    }

    /// Reads it again. Hubs kept one sum once: of a counter (`kind`) what it had counted, of a gauge that of the values.
    /// What was not kept is not a number.
    pub(super) fn unpack(packed: &[u8], kind: Kind) -> Result<Self, PackError> {
        let (present, [last, min, max, sum, count, last_at, increase, ended_at]) =
            pack::unpack(packed)?;
        let chunk = Self { present, last, min, max, sum, increase, count, last_at, ended_at };
        Ok(match (pack::has_one_sum(packed), kind) {
            (false, _) => chunk,
            (true, Kind::Gauge) => Self { increase: Column::Constant(f64::NAN), ..chunk },
            (true, Kind::Counter) => {
                Self { increase: chunk.sum, sum: Column::Constant(f64::NAN), ..chunk }
            }
        })
    }

    /// In the order in which they are kept.
    fn columns(&self) -> [&Column; COLUMNS] {
        [
            &self.last,
            &self.min,
            &self.max,
            &self.sum,
            &self.count,
            &self.last_at,
            &self.increase,
            &self.ended_at,
        ]
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
            increase: self.increase.get(rank, last),
            count: self.count.get(rank, last),
            last_at: self.last_at.get(rank, last) as Millis,
            ended_at: (self.ended_at.get(rank, last) as Millis).checked_sub(1),
        }
    }
}
