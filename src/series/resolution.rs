//! How wide the buckets of rollups are, how long they are kept, and where chunks are stored.

use crate::{store::COLUMNS, time::Millis};

/// How wide the buckets of a rollup are and how many of them a chunk has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resolution {
    /// A bucket's width, in milliseconds.
    pub(super) width: Millis,
    /// Buckets in a chunk.
    pub(super) buckets: u64,
}

/// From the finest to the coarsest. The newest chunks are not packed: longer ones would cost memory,
/// shorter ones room in the store.
///
/// Those of the finest are made of raw samples when they are asked for. Hubs kept them once.
pub(super) const RESOLUTIONS: [Resolution; 3] = [
    Resolution { width: 1000, buckets: 300 },
    Resolution { width: 10_000, buckets: 180 },
    Resolution { width: 60_000, buckets: 180 },
];

/// How long samples are kept, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    /// As they were sent.
    pub(super) raw: Millis,
    /// In the buckets of each resolution; of the finest, how far back they are made of raw samples.
    pub(super) resolutions: [Millis; RESOLUTIONS.len()],
}

/// How long a chunk that is over stays in memory, for samples that come late.
const LINGER: Millis = 15 * 60_000;

/// How far a producer's clock may be ahead of ours.
pub(super) const AHEAD: Millis = 5 * 60_000;

/// The column of a series' head, above all chunks.
pub(super) const HEAD: u64 = COLUMNS - 1;

impl Resolution {
    /// How long a chunk is, in milliseconds.
    pub(super) const fn span(self) -> Millis {
        self.width * self.buckets
    }

    /// The chunk, counted since 1970, and the bucket of it in which a time lies.
    pub(super) fn place(self, time: Millis) -> (u64, usize) {
        (time / self.span(), (time % self.span() / self.width) as usize)
    }

    /// When a bucket begins.
    pub(super) fn start(self, number: u64, index: usize) -> Millis {
        number * self.span() + index as Millis * self.width
    }

    /// Whether any of a chunk is kept at `now`.
    pub(super) fn is_kept(self, number: u64, keep: Millis, now: Millis) -> bool {
        (number + 1) * self.span() + keep > now
    }

    /// Whether a chunk is to be in memory at `now`.
    pub(super) fn lingers(self, number: u64, now: Millis) -> bool {
        self.is_kept(number, LINGER, now)
    }
}

/// The column of a chunk: those of one time stand together, whatever their resolution.
pub(super) fn column(resolution: usize, number: u64) -> u64 {
    ((number * RESOLUTIONS[resolution].span() / 1000) << 2) | resolution as u64
}

/// The resolution and number of a chunk's column.
pub(super) fn chunk_of(column: u64) -> Option<(usize, u64)> {
    let resolution = (column & 3) as usize;
    let span = RESOLUTIONS.get(resolution)?.span();
    (column != HEAD).then(|| (resolution, (column >> 2) / (span / 1000)))
}

/// In the place of the resolution, in columns of raw samples.
const RAW: u64 = 3;

/// The column of a chunk of raw samples.
pub(super) fn raw_column(number: u64) -> u64 {
    (number << 2) | RAW
}

/// The number of the chunk of raw samples in a column.
pub(super) fn raw_chunk_of(column: u64) -> Option<u64> {
    (column & 3 == RAW && column != HEAD).then_some(column >> 2)
}

/// The columns of a series in which what is of use in memory at `now` lies, the head among them.
pub(super) fn hot_columns(now: Millis) -> Vec<u64> {
    let of_resolution = |(at, resolution): (usize, &Resolution)| {
        let numbers =
            now.saturating_sub(LINGER) / resolution.span()..=(now + AHEAD) / resolution.span();
        numbers.map(move |number| column(at, number))
    };
    RESOLUTIONS.iter().enumerate().flat_map(of_resolution).chain([HEAD]).collect()
}
