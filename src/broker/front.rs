//! The front of the log on this node: the newest blocks, how far they reach, and in which epoch.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::{
    LogChunk,
    lineage::Lineage,
    look_back::{LookBack, RecentPiece},
    ring::Ring,
};
use crate::{
    event::Block,
    position::{Epoch, Offset, Position},
};

/// What readers find in memory, whatever the broker behind it.
pub(super) struct LogFront {
    /// Held to look up or to add a block, or to copy a few pointers.
    state: Mutex<FrontState>,
    head: watch::Sender<Offset>,
}

/// What changes together.
pub(super) struct FrontState {
    /// Names the history that this node is in; of a shared log there may be a newer one.
    pub(super) epoch: Epoch,
    pub(super) lineage: Lineage,
    pub(super) ring: Ring,
}

impl LogFront {
    /// Of a log that has come to `head`; about `room` bytes of its blocks are kept.
    pub(super) fn new(lineage: Lineage, head: Offset, room: usize) -> Self {
        let state = FrontState { epoch: lineage.newest(), lineage, ring: Ring::new(head, room) };
        Self { state: Mutex::new(state), head: watch::Sender::new(head) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, FrontState> {
        self.state.lock()
    }

    /// The newest position this node knows.
    pub(super) fn head(&self) -> Position {
        let state = self.lock();
        Position { epoch: state.epoch, offset: self.offset() }
    }

    /// The newest offset this node knows.
    pub(super) fn offset(&self) -> Offset {
        *self.head.borrow()
    }

    /// Everything up to `offset` can be read now; those who wait for it are woken.
    pub(super) fn move_to(&self, offset: Offset) {
        self.head.send_replace(offset);
    }

    /// Changes when there is something new to read.
    pub(super) fn tail(&self) -> watch::Receiver<Offset> {
        self.head.subscribe()
    }

    /// The position of an offset, in the epoch that gave it out.
    pub(super) fn position(&self, offset: Offset) -> Position {
        Position { epoch: self.lock().lineage.epoch_of(offset), offset }
    }

    /// How many offsets were given out above `after` up to `until`.
    pub(super) fn offsets_between(&self, after: Offset, until: Offset) -> u64 {
        self.lock().lineage.between(after, until)
    }

    /// The blocks with records above `after`; None if memory does not reach back there.
    pub(super) fn recent(&self, after: Offset) -> Option<Vec<Arc<Block>>> {
        self.lock().ring.after(after).map(|blocks| blocks.cloned().collect())
    }

    /// What lies above `after` up to `until`, about `budget` bytes of it; None if memory does not reach back there.
    pub(super) fn read(&self, after: Offset, until: Offset, budget: usize) -> Option<LogChunk> {
        self.lock().ring.read(after, until, budget)
    }

    /// What a search backwards looks through next, of what is in memory.
    pub(super) fn piece(&self, back: &LookBack) -> RecentPiece {
        back.piece(&self.lock().ring)
    }
}
