//! Conflation: of each (topic, key) only the newest record, for subscriptions in mode `latest`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use super::pace::{Pace, WakeTime};
use crate::{
    dialect::{Form, Frame},
    event::{Block, Record},
    position::{Epoch, Offset, Position},
};

/// The newest record of each (topic, key) above where it began, and how many went by.
#[derive(Debug)]
pub(super) struct Conflated {
    newest: BTreeMap<Offset, LatestValue>,
    by_key: HashMap<Arc<[u8]>, Offset>,
    room: Room,
    bytes: usize,
    /// What it holds, among what all views hold.
    charge: LatestCharge,
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

/// A record of its own, so that it does not keep its whole block in memory. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct LatestValue {
    /// What it is the newest of: topic and key.
    slot: Arc<[u8]>,
    block: Arc<Block>,
}

/// What a value costs beside its bytes, in each view that holds it.
const VALUE_OVERHEAD: usize = 256;

impl LatestValue {
    pub(super) fn of(record: Record<'_>) -> Self {
        let mut slot = record.topic().as_bytes().to_vec();
        slot.push(0); // in no topic
        slot.extend_from_slice(record.key().unwrap_or_default());
        Self { slot: slot.into(), block: record.alone() }
    }

    fn cost(&self) -> usize {
        self.block.bytes() + self.slot.len() + VALUE_OVERHEAD
    }
}

/// The records of one block as values: each is made once, however many views take it in.
pub(super) struct Values<'a> {
    block: &'a Block,
    made: HashMap<u32, LatestValue>,
}

impl<'a> Values<'a> {
    pub(super) fn of(block: &'a Block) -> Self {
        Self { block, made: HashMap::new() }
    }

    pub(super) fn get(&mut self, index: u32) -> Option<(Offset, &LatestValue)> {
        let record = self.block.record(index as usize)?;
        let value = self.made.entry(index).or_insert_with(|| LatestValue::of(record));
        Some((record.offset(), value))
    }
}

/// Bytes that all conflations hold. Apart from each other, since values are only given up for what values take.
#[derive(Debug, Default)]
pub(super) struct LatestBytes {
    pub(super) values: AtomicUsize,
    /// The frame each has made last.
    pub(super) frames: AtomicUsize,
}

/// Bytes of one conflation among those of all, given back when it ends.
#[derive(Debug)]
struct LatestCharge {
    all: Arc<LatestBytes>,
    values: usize,
    frame: usize,
}

impl LatestCharge {
    fn set(&mut self, values: usize, frame: usize) {
        change(&self.all.values, &mut self.values, values);
        change(&self.all.frames, &mut self.frame, frame);
    }
}

fn change(all: &AtomicUsize, ours: &mut usize, bytes: usize) {
    if bytes > *ours {
        all.fetch_add(bytes - *ours, Ordering::Relaxed);
    } else if bytes < *ours {
        all.fetch_sub(*ours - bytes, Ordering::Relaxed);
    }
    *ours = bytes;
}

impl Drop for LatestCharge {
    fn drop(&mut self) {
        self.set(0, 0);
    }
}

impl Conflated {
    /// What it holds is counted in `all` too.
    pub(super) fn new(began: Offset, room: Room, all: Arc<LatestBytes>) -> Self {
        Self {
            newest: BTreeMap::new(),
            by_key: HashMap::new(),
            room,
            bytes: 0,
            charge: LatestCharge { all, values: 0, frame: 0 },
            matched: 0,
            through: began,
            evicted_through: began,
            cached: None,
            last_tick: None,
            scheduled: false,
        }
    }

    /// Takes in the next matching record.
    pub(super) fn take_in(&mut self, offset: Offset, value: &LatestValue) {
        self.matched += 1;
        self.through = offset;
        self.cached = None;
        if let Some(before) = self.by_key.insert(value.slot.clone(), offset)
            && let Some(held) = self.newest.remove(&before)
        {
            self.bytes -= held.cost();
        }
        self.bytes += value.cost();
        self.newest.insert(offset, value.clone());
        self.shrink(self.room);
    }

    /// Gives up the values that changed longest ago until the others have at most `bytes`.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        self.cached = None;
        self.shrink(Room { bytes, ..self.room });
    }

    fn shrink(&mut self, room: Room) {
        while self.newest.len() > room.keys || self.bytes > room.bytes {
            let Some((offset, held)) = self.newest.pop_first() else { break };
            self.by_key.remove(&held.slot);
            self.bytes -= held.cost();
            self.evicted_through = offset;
        }
        self.charge.set(self.bytes, 0);
    }

    /// Gives up all values: whoever is not beyond `offset` reads history.
    pub(super) fn evict_through(&mut self, offset: Offset) {
        self.newest.clear();
        self.by_key.clear();
        self.bytes = 0;
        self.cached = None;
        self.charge.set(0, 0);
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
        self.charge.set(self.bytes, frame.bytes.len());
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
    pub(super) fn schedule(&mut self, now: Instant, pace: Pace) -> WakeTime {
        if self.scheduled {
            return WakeTime::Scheduled;
        }
        match self.last_tick.map(|last| last + pace.interval()) {
            Some(due) if due > now => {
                self.scheduled = true;
                WakeTime::At(due)
            }
            _ => {
                self.last_tick = Some(now);
                WakeTime::Now
            }
        }
    }

    pub(super) fn ticked(&mut self, now: Instant) {
        self.scheduled = false;
        self.last_tick = Some(now);
    }
}
