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

/// Wakes one task for all its cursors: however many have something, the task wakes once.
///
/// The stream and the timer of the same task have it as their [`Waker`]: what wakes the task this way is told apart, so
/// that a delivery does not have to look at them.
#[derive(Debug, Default)]
pub struct TaskWaker {
    /// Kept from one turn to the next, since a task hardly ever changes its waker. Locked to compare
    /// or to wake.
    waker: Mutex<Option<Waker>>,
    notified: AtomicBool,
    woken: AtomicBool,
}

impl TaskWaker {
    /// From now on, `waker` is woken. To be called before looking at the cursors.
    pub fn listen(&self, waker: &Waker) {
        let mut ours = self.waker.lock();
        if !ours.as_ref().is_some_and(|ours| ours.will_wake(waker)) {
            *ours = Some(waker.clone());
        }
        drop(ours);
        // A swap, so that what came before a notice that woke nobody is seen from here on.
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
        // Most often it was not: a look is cheaper than a swap.
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

/// What a view knows of a cursor, where dispatch finds it.
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
