//! Payloads that were parsed: once for all who follow, as long as their block is among the newest.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use serde_json::Value;

use crate::{
    event::{Block, Record, payload},
    position::Offset,
};

/// The newest blocks of which a payload was asked for.
#[derive(Default)]
pub(super) struct Payloads {
    /// Held for a look-up; payloads are parsed without it.
    newest: Mutex<NewestBlocks>,
    totals: Arc<PayloadTotals>,
}

#[derive(Default)]
struct NewestBlocks {
    blocks: BTreeMap<BlockEnds, (Arc<BlockPayloads>, usize)>,
    /// Of the blocks.
    bytes: usize,
    /// Blocks up to here are not among the newest any more.
    through: Offset,
}

/// A block's last and first offset.
type BlockEnds = (Offset, Offset);

#[derive(Default)]
struct PayloadTotals {
    /// Payloads parsed so far.
    parsed: AtomicU64,
    /// About what all parsed values that are still held take.
    held: AtomicUsize,
}

/// The payloads of one block.
pub(super) struct BlockPayloads {
    values: Box<[(Offset, OnceLock<Value>)]>,
    held: AtomicUsize,
    totals: Arc<PayloadTotals>,
}

/// Bytes of the blocks whose payloads are shared.
const SHARED: usize = 8 << 20;
/// What their parsed values may take: some JSON becomes a hundred times as large, and then fewer blocks are shared.
const HELD: usize = 4 * SHARED;

impl Payloads {
    /// Where the payloads of this block are: with those of everybody who asked, or of one reader far behind alone.
    pub(super) fn of(&self, block: &Block) -> Arc<BlockPayloads> {
        let mut newest = self.newest.lock();
        let ends = (block.last(), block.first());
        // Of one block retention may have left more than of the other.
        if let Some((payloads, _)) =
            newest.blocks.get(&ends).filter(|(known, _)| known.are_of(block))
        {
            return payloads.clone();
        }
        let payloads = Arc::new(BlockPayloads::new(block, self.totals.clone()));
        if block.last() > newest.through {
            newest.bytes += block.bytes();
            let before = newest.blocks.insert(ends, (payloads.clone(), block.bytes()));
            newest.bytes -= before.map_or(0, |(_, bytes)| bytes);
        }
        let is_full = |newest: &NewestBlocks| {
            newest.bytes > SHARED || self.totals.held.load(Ordering::Relaxed) > HELD
        };
        while is_full(&newest) {
            let Some(((last, _), (_, bytes))) = newest.blocks.pop_first() else { break };
            newest.bytes -= bytes;
            newest.through = last;
        }
        payloads
    }

    /// How many were parsed so far.
    #[cfg(test)]
    pub(super) fn parsed(&self) -> u64 {
        self.totals.parsed.load(Ordering::Relaxed)
    }

    /// About what all parsed values that are still held take, in bytes.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.totals.held.load(Ordering::Relaxed)
    }
}

impl BlockPayloads {
    fn new(block: &Block, totals: Arc<PayloadTotals>) -> Self {
        let values: Box<[_]> =
            block.records().map(|record| (record.offset(), OnceLock::new())).collect();
        let held = size_of_val(&*values);
        totals.held.fetch_add(held, Ordering::Relaxed);
        Self { values, held: AtomicUsize::new(held), totals }
    }

    /// About what the values take that were parsed so far, in bytes.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn are_of(&self, block: &Block) -> bool {
        block.records().map(Record::offset).eq(self.values.iter().map(|(offset, _)| *offset))
    }

    /// The payload of the block's record at `index`.
    pub(super) fn get(&self, record: Record<'_>, index: usize) -> &Value {
        self.values[index].1.get_or_init(|| {
            let value = payload(record);
            let size = beside(&value);
            self.held.fetch_add(size, Ordering::Relaxed);
            self.totals.held.fetch_add(size, Ordering::Relaxed);
            self.totals.parsed.fetch_add(1, Ordering::Relaxed);
            value
        })
    }
}

impl Drop for BlockPayloads {
    fn drop(&mut self) {
        self.totals.held.fetch_sub(*self.held.get_mut(), Ordering::Relaxed);
    }
}

/// Members of a node of an object, which is a `BTreeMap`: room is taken for all of them, however few there are. Of
/// several nodes each is half full at least.
const NODE_MEMBERS: usize = 11;
/// What a node takes: its members, and where the nodes above and below it are.
const NODE: usize =
    NODE_MEMBERS * (size_of::<String>() + size_of::<Value>()) + (NODE_MEMBERS + 2) * 8;
/// What the allocator takes for itself, about.
const ALLOCATED: usize = 16;

/// About how many bytes a value takes beside its own.
fn beside(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.capacity() + ALLOCATED,
        Value::Array(items) => {
            let own = items.capacity() * size_of::<Value>() + ALLOCATED;
            own + items.iter().map(beside).sum::<usize>()
        }
        Value::Object(members) => {
            let nodes = match members.len() {
                0 => 0,
                1..=NODE_MEMBERS => 1,
                many => many.div_ceil(NODE_MEMBERS / 2),
            };
            let member =
                |(name, value): (&String, &Value)| name.capacity() + ALLOCATED + beside(value);
            nodes * (NODE + ALLOCATED) + members.iter().map(member).sum::<usize>()
        }
    }
}
