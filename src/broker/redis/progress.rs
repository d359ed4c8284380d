//! How far a node has come in the log, and how it goes on when it hears how the log does.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{entry::StreamEntry, scripts::LogState, topic_cache::TopicCache};
use crate::{
    broker::front::{FrontState, LogFront},
    position::{Offset, Position},
};

/// Where this node stands.
pub(super) struct RedisProgress {
    pub(super) front: LogFront,
    topics: Arc<TopicCache>,
    /// The highest offset this node was given for an event; its publisher may have been answered
    /// before the tail has read it.
    given: AtomicU64,
}

impl RedisProgress {
    /// At the head that a first hello told; about `room` bytes of blocks are kept in memory.
    pub(super) fn new(state: &LogState, topics: Arc<TopicCache>, room: usize) -> Self {
        topics.set_trimmed(state.trims, state.trimmed);
        let front = LogFront::new(state.lineage.clone(), state.head, room);
        Self { front, topics, given: AtomicU64::new(0) }
    }

    /// Takes in what a hello told.
    pub(super) fn learn(&self, state: &LogState) {
        let mut front = self.front.lock();
        front.lineage = state.lineage.clone();
        self.topics.set_trimmed(state.trims, state.trimmed);
        self.forget_trimmed(&mut front);
        self.cross(&mut front);
    }

    /// Takes in the next entry; false if it belongs to an epoch that is not known.
    pub(super) fn take(&self, entry: &StreamEntry) -> bool {
        // Before anybody hears of the events: their topics are found then.
        self.topics.meet(&entry.block);
        let mut front = self.front.lock();
        self.cross(&mut front);
        let head = self.front.offset();
        if entry.block.last() <= head {
            return true; // read before
        }
        if front.lineage.epoch_of(entry.block.last()) != entry.epoch {
            return false;
        }
        if entry.before != head {
            // Retention was here before us. Readers find out what they miss when they read on.
            tracing::warn!(
                head,
                before = entry.before,
                "a stretch of the log was gone before it was read"
            );
            front.ring.forget(entry.before);
            front.epoch = entry.epoch;
        }
        front.ring.push(entry.block.clone());
        self.front.move_to(entry.block.last());
        self.cross(&mut front);
        true
    }

    /// What retention took from Redis must not be read from memory either.
    pub(super) fn trimmed(&self) {
        self.forget_trimmed(&mut self.front.lock());
    }

    /// Retention takes whole entries, and the head is never taken back.
    fn forget_trimmed(&self, front: &mut FrontState) {
        front.ring.forget(self.topics.trimmed().min(self.front.offset()));
    }

    /// Goes on into the next epoch where this node's has ended.
    fn cross(&self, front: &mut FrontState) {
        while let Some(crossing) = front.lineage.crossing(front.epoch, self.front.offset()) {
            tracing::info!(from = %front.epoch, to = %crossing.to, lossy = crossing.is_lossy,
                "the log goes on in a new epoch");
            front.epoch = crossing.to.epoch;
            self.topics.doubt();
            if crossing.is_lossy {
                front.ring.forget(crossing.to.offset);
            }
            self.front.move_to(crossing.to.offset);
        }
    }

    /// This node was given offsets up to `offset`.
    pub(super) fn given(&self, offset: Offset) {
        self.given.fetch_max(offset, Ordering::AcqRel);
    }

    /// The furthest this node knows the log to have come: what was answered counts, whether it was
    /// read back yet or not.
    pub(super) fn furthest(&self) -> Position {
        let head = self.front.head();
        let given = self.given.load(Ordering::Acquire);
        if given <= head.offset { head } else { self.front.position(given) }
    }
}
