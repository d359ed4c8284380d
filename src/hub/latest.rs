//! Conflation: of each (topic, key) only the newest record, for subscriptions in mode `latest`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    frame::{Form, Frame},
    view::Due,
};
use crate::{
    event::{Block, BlockBuilder, Record},
    position::{Epoch, Offset, Position},
};

/// The newest record of each (topic, key) above where it began, and how many went by.
#[derive(Debug)]
pub(super) struct Conflated {
    newest: BTreeMap<Offset, Held>,
    by_key: HashMap<Box<[u8]>, Offset>,
    room: Room,
    bytes: usize,
    /// How many matching records were ever taken in.
    matched: u64,
    /// The last record taken in, or where it began.
    through: Offset,
    /// Values up to here were given up for want of room; history still has them.
    evicted_through: Offset,
    /// The frame made last, for the cursors that want the same.
    cached: Option<(u64, Frame)>,
    last_tick: Option<Instant>,
    scheduled: bool,
}

/// How much a conflation may hold; beyond it the values that changed longest ago are left to history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) keys: usize,
    pub(super) bytes: usize,
}

/// A record of its own, so that it does not keep its whole block in memory.
#[derive(Debug)]
struct Held {
    slot: Box<[u8]>,
    block: Arc<Block>,
}

impl Conflated {
    pub(super) fn new(began: Offset, room: Room) -> Self {
        Self {
            newest: BTreeMap::new(),
            by_key: HashMap::new(),
            room,
            bytes: 0,
            matched: 0,
            through: began,
            evicted_through: began,
            cached: None,
            last_tick: None,
            scheduled: false,
        }
    }

    /// Takes in the next matching record.
    pub(super) fn take_in(&mut self, record: Record<'_>) {
        self.matched += 1;
        self.through = record.offset();
        let mut slot = record.topic().as_bytes().to_vec();
        slot.push(0); // in no topic
        slot.extend_from_slice(record.key().unwrap_or_default());
        let slot = slot.into_boxed_slice();
        if let Some(before) = self.by_key.insert(slot.clone(), record.offset())
            && let Some(held) = self.newest.remove(&before)
        {
            self.bytes -= held.block.bytes();
        }
        let mut single = BlockBuilder::default();
        single.push_record(record);
        self.bytes += single.bytes();
        self.newest.insert(record.offset(), Held { slot, block: single.finish() });
        while self.newest.len() > self.room.keys || self.bytes > self.room.bytes {
            let Some((offset, held)) = self.newest.pop_first() else { break };
            self.by_key.remove(&held.slot);
            self.bytes -= held.block.bytes();
            self.evicted_through = offset;
        }
    }

    /// Gives up all values: whoever is not beyond `offset` reads history.
    pub(super) fn evict_through(&mut self, offset: Offset) {
        self.newest.clear();
        self.by_key.clear();
        self.bytes = 0;
        self.through = self.through.max(offset);
        self.evicted_through = self.evicted_through.max(offset);
    }

    /// One frame of the values that changed after `position`, oldest change first; `seen` is what
    /// [`matched`](Self::matched) was there. None if nothing changed.
    pub(super) fn changed(
        &mut self,
        form: &Form,
        epoch: Epoch,
        position: Offset,
        seen: u64,
    ) -> Option<Frame> {
        let (first, _) = self.newest.range(position + 1..).next()?;
        let skipped = self
            .matched
            .saturating_sub(seen)
            .saturating_sub(self.newest.range(first..).count() as u64);
        if let Some((cached_skipped, frame)) = &self.cached
            && (frame.first, frame.through, *cached_skipped) == (*first, self.through, skipped)
        {
            return Some(frame.clone());
        }
        let records = self.newest.range(first..).filter_map(|(_, held)| held.block.record(0));
        let frame = form.frame(Position { epoch, offset: self.through }, records, Some(skipped));
        self.cached = Some((skipped, frame.clone()));
        Some(frame)
    }

    pub(super) fn matched(&self) -> u64 {
        self.matched
    }

    pub(super) fn through(&self) -> Offset {
        self.through
    }

    pub(super) fn evicted_through(&self) -> Offset {
        self.evicted_through
    }

    /// The values held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the values taken in since the last tick are due.
    pub(super) fn schedule(&mut self, now: Instant, pace: u64) -> Due {
        if self.scheduled {
            return Due::Scheduled;
        }
        match self.last_tick.map(|last| last + Duration::from_millis(pace)) {
            Some(due) if due > now => {
                self.scheduled = true;
                Due::At(due)
            }
            _ => {
                self.last_tick = Some(now);
                Due::Now
            }
        }
    }

    pub(super) fn ticked(&mut self, now: Instant) {
        self.scheduled = false;
        self.last_tick = Some(now);
    }
}
