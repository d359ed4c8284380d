//! How far a node has come in the log, and how it goes on when it hears how the log does.

use std::sync::atomic::Ordering;

use super::{RedisLog, RedisShared, scripts::LogState};
use crate::position::{Offset, Position};

impl RedisShared {
    /// Takes in what a hello told that began when `asked` had been asked for.
    pub(super) fn learn(&self, state: LogState, asked: u64) {
        self.telemetry.journal_bytes.set(i64::try_from(state.bytes).unwrap_or(i64::MAX));
        let mut log = self.log.lock();
        log.lineage = state.lineage;
        // What retention took from Redis must not be read from memory either.
        log.ring.forget(self.whole_blocks_through(state.trimmed));
        self.trimmed.store(state.trimmed, Ordering::Release);
        self.trims.store(state.trims, Ordering::Release);
        self.cross(&mut log);
        drop(log);
        self.hellos.told(state.head, asked);
    }

    /// Retention takes whole entries, and the head is never taken back.
    pub(super) fn whole_blocks_through(&self, trimmed: Offset) -> Offset {
        trimmed.min(*self.head.borrow())
    }

    /// Goes on into the next epoch where this node's has ended.
    pub(super) fn cross(&self, log: &mut RedisLog) {
        loop {
            // Not in one expression: the head must not be borrowed while it is moved.
            let head = *self.head.borrow();
            let Some(crossing) = log.lineage.crossing(log.epoch, head) else { return };
            tracing::info!(from = %log.epoch, to = %crossing.to, lossy = crossing.is_lossy,
                "the log goes on in a new epoch");
            // The epoch before the head: see `Redis::head`.
            log.epoch = crossing.to.epoch;
            self.names.lock().doubt();
            if crossing.is_lossy {
                log.ring.forget(crossing.to.offset);
            }
            self.head.send_replace(crossing.to.offset);
        }
    }

    /// Where this node is.
    pub(super) fn reached(&self) -> Position {
        let log = self.log.lock();
        Position { epoch: log.epoch, offset: *self.head.borrow() }
    }

    /// The furthest this node knows the log to have come: what was answered counts, whether it was
    /// read back yet or not.
    pub(super) fn furthest(&self) -> Position {
        let reached = self.reached();
        let given = self.given.load(Ordering::Acquire);
        if given <= reached.offset {
            return reached;
        }
        Position { epoch: self.log.lock().lineage.epoch_of(given), offset: given }
    }
}
