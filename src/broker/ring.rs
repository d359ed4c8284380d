//! The newest blocks, decoded, so that recent history is read without touching the file.

use std::{collections::VecDeque, sync::Arc};

use super::LogChunk;
use crate::{event::Block, position::Offset};

/// Every block above `from`, bounded by bytes.
#[derive(Debug)]
pub(super) struct Ring {
    blocks: VecDeque<Arc<Block>>,
    bytes: usize,
    most: usize,
    from: Offset,
}

/// What a block costs beside its JSON, by record: the index entry.
const RECORD_OVERHEAD: usize = 40;

impl Ring {
    pub(super) fn new(from: Offset, most: usize) -> Self {
        Self { blocks: VecDeque::new(), bytes: 0, most, from }
    }

    pub(super) fn push(&mut self, block: Arc<Block>) {
        self.bytes += cost(&block);
        self.blocks.push_back(block);
        while self.bytes > self.most && self.blocks.len() > 1 {
            if let Some(oldest) = self.blocks.pop_front() {
                self.bytes -= cost(&oldest);
                self.from = oldest.last();
            }
        }
    }

    /// Forgets what lies up to `through`: retention has taken some of it.
    pub(super) fn forget(&mut self, through: Offset) {
        while self.blocks.front().is_some_and(|block| block.last() <= through) {
            if let Some(oldest) = self.blocks.pop_front() {
                self.bytes -= cost(&oldest);
            }
        }
        self.from = self.from.max(through);
    }

    /// The blocks with records above `after`, in order; None if the ring does not reach back there.
    pub(super) fn after(&self, after: Offset) -> Option<impl Iterator<Item = &Arc<Block>>> {
        (after >= self.from).then(|| {
            let start = self.blocks.partition_point(|block| block.last() <= after);
            self.blocks.range(start..)
        })
    }

    /// What lies above `after` up to `until`, about `budget` bytes of it, at least one block.
    pub(super) fn read(&self, after: Offset, until: Offset, budget: usize) -> Option<LogChunk> {
        let mut blocks: Vec<Arc<Block>> = Vec::new();
        let mut reached = until;
        let mut bytes = 0;
        for block in self.after(after)? {
            if block.first() > until {
                break;
            }
            if bytes > 0 && bytes + block.bytes() > budget {
                reached = blocks.last().map_or(until, |block| block.last().min(until));
                break;
            }
            bytes += block.bytes();
            blocks.push(block.clone());
        }
        Some(LogChunk { blocks, ..LogChunk::empty(reached) })
    }

    /// Blocks with records below `before`, newest first: about `records` of them, at least one block.
    pub(super) fn below(&self, before: Offset, records: usize) -> Vec<Arc<Block>> {
        let end = self.blocks.partition_point(|block| block.first() < before);
        let mut count = 0;
        let wanted = self.blocks.range(..end).rev().take_while(|block| {
            let fits = count < records;
            count += block.len();
            fits
        });
        wanted.cloned().collect()
    }

    /// The ring holds everything above this.
    pub(super) fn from(&self) -> Offset {
        self.from
    }
}

fn cost(block: &Block) -> usize {
    block.bytes() + block.len() * RECORD_OVERHEAD
}
