//! A column of a chunk: one figure of all its buckets.

use super::resolution::RESOLUTIONS;

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

/// The most buckets of a chunk.
pub(super) const BUCKETS: usize = 300;
const _: () =
    assert!(RESOLUTIONS[0].buckets <= BUCKETS as u64 && RESOLUTIONS[1].buckets <= BUCKETS as u64);
const _: () = assert!(RESOLUTIONS[2].buckets <= BUCKETS as u64);

/// Which buckets there are, one bit each.
pub(super) type Present = [u64; BUCKETS.div_ceil(64)];

/// Where in a column a figure goes: where one is, or between two.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    There(usize),
    New(usize),
}

/// Columns grow by this much: there are many of them, and doubling would waste half.
const GROWTH: usize = 32;

impl Column {
    /// What it takes beside itself, in bytes.
    pub(super) fn size(&self) -> usize {
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
    pub(super) fn put(
        &mut self,
        place: Place,
        value: f64,
        last: Option<f64>,
        lasts: &Column,
        len: usize,
    ) {
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
