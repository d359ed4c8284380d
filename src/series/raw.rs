//! The raw samples of one series: the newest hour, as they were sent, in chunks.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;

use super::{
    chunk::Bucket,
    pack::PackError,
    raw_run::{RawRun, RawSample, is_late, read, seal},
};
use crate::{position::Offset, time::Millis};

/// Samples as they were sent. Those in order go into one chunk after the other, late ones into chunks of their own, and
/// whoever reads puts all of them in order of time.
#[derive(Default)]
pub(super) struct RawSamples {
    sealed: VecDeque<SealedChunk>,
    /// Grows in order of time.
    open: Option<OpenChunk>,
    /// Takes what is older than that.
    late: Option<OpenChunk>,
    /// The number of the next chunk: each has its own, by which it is stored.
    next: u64,
    /// Of all chunks that may be in the store, the first number.
    first: u64,
    /// When the newest sample was.
    newest: Option<Millis>,
}

struct SealedChunk {
    number: u64,
    span: (Millis, Millis),
    /// The newest sample that was added to it here.
    modified: Offset,
    bytes: Bytes,
}

struct OpenChunk {
    number: u64,
    is_late: bool,
    span: (Millis, Millis),
    modified: Offset,
    run: RawRun,
}

/// So many samples make a chunk, unless they come faster than [`SHORTEST`].
const SAMPLES: usize = 120;
/// A chunk of so many samples is over, however fast they come.
const MOST_SAMPLES: usize = 16 * SAMPLES;
const SHORTEST: Millis = 2 * 60_000;
/// A chunk of so long is over, however slowly they come: what is too old leaves as a whole.
const LONGEST: Millis = 2 * 3_600_000;

impl RawSamples {
    /// Adds a sample; gives the bytes that memory grew by.
    pub(super) fn push(&mut self, sample: RawSample, offset: Offset) -> usize {
        let is_late = self.newest.is_some_and(|newest| sample.time < newest);
        let chunk = if is_late { &mut self.late } else { &mut self.open };
        let over = match chunk {
            Some(open) if open.is_over(sample.time) => chunk.take(),
            _ => None,
        };
        let mut grown = 0;
        let open = chunk.get_or_insert_with(|| {
            let number = self.next;
            self.next += 1;
            grown += size_of::<SealedChunk>();
            let span = (sample.time, sample.time);
            OpenChunk { number, is_late, span, modified: 0, run: RawRun::default() }
        });
        let before = open.run.size();
        open.run.push(sample);
        open.span = (open.span.0.min(sample.time), open.span.1.max(sample.time));
        open.modified = open.modified.max(offset);
        grown += open.run.size() - before;
        self.newest = self.newest.max(Some(sample.time));
        self.sealed.extend(over.map(OpenChunk::sealed));
        grown
    }

    /// Whether there is this very sample.
    pub(super) fn has(&self, sample: RawSample) -> bool {
        if self.newest.is_none_or(|newest| newest < sample.time) {
            return false;
        }
        let same = |other: &RawSample| {
            other.time == sample.time && other.value.to_bits() == sample.value.to_bits()
        };
        self.pieces(sample.time, sample.time).iter().any(|bytes| {
            let mut samples = Vec::new();
            // One that is broken costs only itself.
            read(bytes, &mut samples).is_ok() && samples.iter().any(same)
        })
    }

    /// The chunks in which samples from `from` to `to`, both included, may be. What came in order stands before what came
    /// late.
    pub(super) fn pieces(&self, from: Millis, to: Millis) -> Vec<Bytes> {
        let overlaps = |(first, last): (Millis, Millis)| first <= to && from <= last;
        let sealed = self.sealed.iter().filter(|chunk| overlaps(chunk.span));
        let sealed = sealed.map(|chunk| chunk.bytes.clone());
        let open = self.open.iter().chain(&self.late).filter(|chunk| overlaps(chunk.span));
        let mut pieces: Vec<_> = sealed.chain(open.map(OpenChunk::bytes)).collect();
        // Whatever came late came behind all that is as old and in order.
        pieces.sort_by_key(|bytes| is_late(bytes));
        pieces
    }

    /// Looks after the chunks: those in which a sample has changed since `clean` are to be written, those that end before
    /// `oldest` leave memory and store. Gives what is to be written, by number; None takes a chunk away.
    pub(super) fn tend(&mut self, clean: Offset, oldest: Millis) -> Vec<(u64, Option<Bytes>)> {
        let mut changes = Vec::new();
        for chunk in [&mut self.open, &mut self.late] {
            if chunk.as_ref().is_some_and(|chunk| chunk.span.1 < oldest) {
                changes.extend(chunk.take().map(|gone| (gone.number, None)));
            }
        }
        self.sealed.retain(|chunk| {
            let is_kept = chunk.span.1 >= oldest;
            if !is_kept {
                changes.push((chunk.number, None));
            }
            is_kept
        });
        let dirty = self.sealed.iter().filter(|chunk| chunk.modified > clean);
        changes.extend(dirty.map(|chunk| (chunk.number, Some(chunk.bytes.clone()))));
        let dirty = self.open.iter().chain(&self.late).filter(|chunk| chunk.modified > clean);
        changes.extend(dirty.map(|chunk| (chunk.number, Some(chunk.bytes()))));
        let numbers = self.sealed.iter().map(|chunk| chunk.number);
        let numbers = numbers.chain(self.open.iter().chain(&self.late).map(|chunk| chunk.number));
        self.first = numbers.min().unwrap_or(self.next);
        changes
    }

    /// The numbers of the chunks that may be in the store.
    pub(super) fn numbers(&self) -> (u64, u64) {
        (self.first, self.next)
    }

    /// Puts in what the store has: chunks, by number, of which the next is `next`.
    pub(super) fn restore(&mut self, next: u64, mut chunks: Vec<(u64, Bytes)>) {
        chunks.sort_unstable_by_key(|(number, _)| *number);
        for (number, bytes) in chunks {
            let mut samples = Vec::new();
            if let Err(error) = read(&bytes, &mut samples) {
                // One that is broken must not cost the others.
                tracing::error!(number, %error, "a chunk of raw samples is left out");
                continue;
            }
            let times = || samples.iter().map(|sample| sample.time);
            let (Some(first), Some(last)) = (times().min(), times().max()) else { continue };
            self.newest = self.newest.max(Some(last));
            self.sealed.push_back(SealedChunk { number, span: (first, last), modified: 0, bytes });
        }
        self.next = self.next.max(next);
        self.first = self.sealed.front().map_or(self.next, |chunk| chunk.number);
    }

    /// Puts in samples of which hubs once kept one each second, without those that are there.
    pub(super) fn restore_seconds(&mut self, mut samples: Vec<RawSample>) {
        if samples.is_empty() {
            return;
        }
        let known = merged(&self.pieces(0, Millis::MAX), (0, Millis::MAX)).unwrap_or_default();
        let known: HashSet<Millis> = known.into_iter().map(|sample| sample.time).collect();
        samples.sort_by_key(|sample| sample.time);
        for sample in samples.into_iter().filter(|sample| !known.contains(&sample.time)) {
            self.push(sample, 0);
        }
    }

    /// Offsets above this are given anew.
    pub(super) fn forget_after(&mut self, offset: Offset) {
        for chunk in &mut self.sealed {
            chunk.modified = chunk.modified.min(offset);
        }
        for chunk in self.open.iter_mut().chain(&mut self.late) {
            chunk.modified = chunk.modified.min(offset);
        }
    }
}

impl OpenChunk {
    fn is_over(&self, next: Millis) -> bool {
        let (first, last) = (self.span.0.min(next), self.span.1.max(next));
        let len = self.run.len();
        let is_full =
            len >= MOST_SAMPLES || (len >= SAMPLES && self.span.1 - self.span.0 >= SHORTEST);
        is_full || last - first > LONGEST
    }

    fn bytes(&self) -> Bytes {
        self.run.bytes(self.is_late)
    }

    fn sealed(self) -> SealedChunk {
        let grown = self.bytes();
        let mut samples = Vec::with_capacity(self.run.len());
        let bytes = match read(&grown, &mut samples) {
            Ok(()) => {
                samples.sort_by_key(|sample| sample.time);
                seal(&samples, self.is_late)
            }
            Err(_) => grown,
        };
        SealedChunk { number: self.number, span: self.span, modified: self.modified, bytes }
    }
}

/// The samples of some chunks from `from` to `to`, both included, in order of time; of equal times those that came late
/// last.
pub(super) fn merged(
    pieces: &[Bytes],
    (from, to): (Millis, Millis),
) -> Result<Vec<RawSample>, PackError> {
    let mut samples = Vec::new();
    for piece in pieces {
        read(piece, &mut samples)?;
    }
    samples.retain(|sample| (from..=to).contains(&sample.time));
    if !samples.is_sorted_by_key(|sample| sample.time) {
        samples.sort_by_key(|sample| sample.time);
    }
    Ok(samples)
}

/// Samples in order of time as buckets of a second. What a counter has counted is told from the second sample on.
pub(super) fn by_second(samples: &[RawSample]) -> Vec<(Millis, Bucket)> {
    let mut buckets: Vec<(Millis, Bucket)> = Vec::new();
    let mut before = None;
    for RawSample { time, value } in samples.iter().filter(|sample| !sample.is_stale()).copied() {
        let increase = match before.replace(value) {
            None => 0.0,
            Some(before) if value < before => value,
            Some(before) => value - before,
        };
        let increase = if increase.is_finite() { increase } else { 0.0 };
        let (start, bucket) = (time / 1000 * 1000, Bucket::of(value, increase, time));
        match buckets.last_mut() {
            Some((last, whole)) if *last == start => *whole = whole.and(bucket),
            _ => buckets.push((start, bucket)),
        }
    }
    buckets
}
