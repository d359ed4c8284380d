//! Rollups: the chunks of one series in one resolution, those in memory and word of those in the store.

use std::{borrow::Cow, collections::VecDeque};

use bytes::Bytes;

use super::{
    chunk::{Bucket, Chunk},
    pack::{PackError, Packer},
    resolution::Resolution,
    sample::Kind,
};
use crate::{position::Offset, time::Millis};

/// One resolution's chunks, in order. What is here of a chunk is all of it: samples for one that is only
/// in the store have it read first.
#[derive(Default)]
pub(super) struct Rollups {
    slots: VecDeque<Slot>,
    /// The oldest and the newest chunk there are, here or in the store.
    pub(super) known: Option<(u64, u64)>,
}

struct Slot {
    /// Which chunk since 1970.
    number: u64,
    /// The newest sample that was added to it here.
    modified: Offset,
    /// Everything up to here was in it when it was read from the store.
    through: Offset,
    body: Body,
}

enum Body {
    Open(Box<Chunk>),
    Packed(Bytes),
}

impl Rollups {
    /// Whether a chunk may be in the store and is not here.
    pub(super) fn lacks(&self, number: u64) -> bool {
        self.known.is_some_and(|(oldest, newest)| (oldest..=newest).contains(&number))
            && self.find(number).is_err()
    }

    /// Puts in what the store has of a chunk, up to `through`; gives the bytes that memory grew by.
    pub(super) fn fill(&mut self, number: u64, stored: Option<Bytes>, through: Offset) -> usize {
        let Err(at) = self.find(number) else { return 0 };
        let body = stored.map_or_else(|| Body::Open(Box::default()), Body::Packed);
        let slot = Slot { number, modified: 0, through, body };
        let size = slot.size();
        self.slots.insert(at, slot);
        size
    }

    /// Adds a sample to its chunk, which is not [lacking](Self::lacks); gives the bytes that memory
    /// grew by.
    pub(super) fn add(
        &mut self,
        resolution: Resolution,
        kind: Kind,
        sample: Bucket,
        offset: Offset,
    ) -> usize {
        let (number, index) = resolution.place(sample.made_at());
        let (at, before) = match self.find(number) {
            Ok(at) => (at, self.slots[at].size()),
            Err(at) => {
                let body = Body::Open(Box::default());
                self.slots.insert(at, Slot { number, modified: 0, through: 0, body });
                let known = self.known.map_or((number, number), |(oldest, newest)| {
                    (oldest.min(number), newest.max(number))
                });
                self.known = Some(known);
                (at, 0)
            }
        };
        let slot = &mut self.slots[at];
        if offset <= slot.through {
            return 0; // whoever wrote what we read had added it
        }
        slot.modified = slot.modified.max(offset);
        let inside = |time| time % resolution.width;
        let (last_at, ended_at) = (inside(sample.last_at), sample.ended_at.map(inside));
        let bucket = Bucket { last_at, ended_at, ..sample };
        slot.body.open(kind).add(index, bucket);
        slot.size().saturating_sub(before)
    }

    /// Copies the buckets that begin in `[from, to)`, as far as they are in memory; gives the
    /// numbers of the chunks that are not.
    pub(super) fn read(
        &self,
        resolution: Resolution,
        kind: Kind,
        (from, to): (Millis, Millis),
        buckets: &mut Vec<(Millis, Bucket)>,
    ) -> Vec<u64> {
        let mut missing = Vec::new();
        let (Some((oldest, newest)), true) = (self.known, from < to) else { return missing };
        for number in
            (from / resolution.span()).max(oldest)..=((to - 1) / resolution.span()).min(newest)
        {
            match self.find(number) {
                Ok(at) => {
                    let chunk = self.slots[at].body.chunk(kind);
                    read_chunk(resolution, number, &chunk, (from, to), buckets);
                }
                Err(_) => missing.push(number),
            }
        }
        missing
    }

    /// Looks after the chunks: what changed since `clean`, up to where the store has everything, is
    /// packed for the store, what is over and stored leaves memory, what is too old leaves both.
    /// Gives what is to be written, by number; None takes a chunk away.
    pub(super) fn tend(
        &mut self,
        resolution: Resolution,
        clean: Offset,
        keep: Millis,
        now: Millis,
        packer: &mut Packer,
    ) -> Result<Vec<(u64, Option<Bytes>)>, PackError> {
        let mut changes = Vec::new();
        while let Some((oldest, newest)) = self.known
            && !resolution.is_kept(oldest, keep, now)
        {
            changes.push((oldest, None));
            self.known = (oldest < newest).then_some((oldest + 1, newest));
            self.slots.retain(|slot| slot.number > oldest);
        }
        let newest = self.known.map_or(0, |(_, newest)| newest);
        for slot in &mut self.slots {
            let (is_over, is_dirty) = (slot.number < newest, slot.modified > clean);
            if !(is_over || is_dirty) {
                continue;
            }
            let packed = slot.body.packed(packer)?;
            if is_dirty {
                changes.push((slot.number, Some(packed.clone())));
            }
            if is_over {
                slot.body = Body::Packed(packed);
            }
        }
        self.slots.retain(|slot| slot.modified > clean || resolution.lingers(slot.number, now));
        Ok(changes)
    }

    /// Offsets above this are given anew.
    pub(super) fn forget_after(&mut self, offset: Offset) {
        for slot in &mut self.slots {
            slot.modified = slot.modified.min(offset);
            slot.through = slot.through.min(offset);
        }
    }

    fn find(&self, number: u64) -> Result<usize, usize> {
        match self.slots.back() {
            Some(slot) if slot.number == number => Ok(self.slots.len() - 1),
            _ => self.slots.binary_search_by_key(&number, |slot| slot.number),
        }
    }
}

/// Copies the buckets of a chunk that begin in `[from, to)`.
pub(super) fn read_chunk(
    resolution: Resolution,
    number: u64,
    chunk: &Chunk,
    (from, to): (Millis, Millis),
    buckets: &mut Vec<(Millis, Bucket)>,
) {
    let timed = chunk.buckets().map(|(index, bucket)| {
        let start = resolution.start(number, index);
        let ended_at = bucket.ended_at.map(|time| start + time);
        (start, Bucket { last_at: start + bucket.last_at, ended_at, ..bucket })
    });
    buckets.extend(timed.filter(|(start, _)| (from..to).contains(start)));
}

impl Slot {
    fn size(&self) -> usize {
        let body = match &self.body {
            Body::Open(chunk) => chunk.size(),
            Body::Packed(bytes) => bytes.len(),
        };
        size_of::<Self>() + body
    }
}

impl Body {
    fn chunk(&self, kind: Kind) -> Cow<'_, Chunk> {
        match self {
            Self::Open(chunk) => Cow::Borrowed(chunk),
            Self::Packed(bytes) => Cow::Owned(unpacked(bytes, kind)),
        }
    }

    fn open(&mut self, kind: Kind) -> &mut Chunk {
        if let Self::Packed(bytes) = self {
            *self = Self::Open(Box::new(unpacked(bytes, kind)));
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

/// Reads what was packed here or came from the store. One that is broken costs only itself.
fn unpacked(bytes: &[u8], kind: Kind) -> Chunk {
    Chunk::unpack(bytes, kind).unwrap_or_else(|error| {
        tracing::error!(%error, "a chunk is broken and begins anew");
        Chunk::default()
    })
}
