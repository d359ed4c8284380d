//! How dispatch wakes the tasks whose subscriptions have something new.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Wake, Waker},
};

use parking_lot::Mutex;

use crate::position::Offset;

/// Wakes one task for all its cursors. The task wakes once, however many cursors have something.
///
/// The stream and the timer of the same task use it as their [`Waker`]. It remembers that one of them woke the task, so
/// that a delivery does not have to poll them.
#[derive(Debug, Default)]
pub struct TaskWaker {
    /// Kept from one poll to the next, because a task hardly ever changes its waker. Locked to compare or to wake.
    waker: Mutex<Option<Waker>>,
    notified: AtomicBool,
    woken: AtomicBool,
}

impl TaskWaker {
    /// Makes `waker` the one that is woken. Call it at the start of each poll, before looking at the cursors: what comes
    /// after this call wakes the task again.
    pub fn listen(&self, waker: &Waker) {
        let mut ours = self.waker.lock();
        if !ours.as_ref().is_some_and(|ours| ours.will_wake(waker)) {
            *ours = Some(waker.clone());
        }
        drop(ours);
        // A swap and not a store: its acquire half makes what was written before an earlier notice visible to this task.
        self.notified.swap(false, Ordering::AcqRel);
    }

    /// Wakes the task unless it was woken since it last listened.
    pub fn notify(&self) {
        if !self.notified.swap(true, Ordering::AcqRel)
            && let Some(waker) = &*self.waker.lock()
        {
            waker.wake_by_ref();
        }
    }

    /// Whether the stream or the timer woke the task since this was last asked.
    pub fn take_woken(&self) -> bool {
        // Usually it was not, and a load is cheaper than a swap.
        self.woken.load(Ordering::Acquire) && self.woken.swap(false, Ordering::AcqRel)
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.notify();
    }
}

/// What a view knows of a cursor, kept where dispatch finds it.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) waker: Arc<TaskWaker>,
    /// Whether the view has something the cursor has not looked at.
    pub(super) ready: AtomicBool,
    /// How far the cursor has come, for those who ask how far behind it is.
    pub(super) position: AtomicU64,
}

impl Subscriber {
    pub(super) fn new(waker: Arc<TaskWaker>, position: Offset) -> Self {
        Self { waker, ready: AtomicBool::new(true), position: AtomicU64::new(position) }
    }

    /// Tells the cursor that there is something new.
    pub(super) fn notify(&self) {
        self.ready.store(true, Ordering::Release);
        self.waker.notify();
    }
}
