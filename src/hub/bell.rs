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

/// One task's bell, shared by all its cursors: however many ring it, the task wakes once.
///
/// A bell is also a waker, for the stream and the timer of the same task: what wakes the task
/// this way is told apart, so that a delivery does not have to look at them.
#[derive(Debug, Default)]
pub struct Bell {
    /// Kept from one turn to the next, since a task hardly ever changes its waker. Locked to compare
    /// or to wake.
    waker: Mutex<Option<Waker>>,
    rung: AtomicBool,
    woken: AtomicBool,
}

impl Bell {
    /// From now on, ringing wakes `waker`. To be called before looking at the cursors.
    pub fn listen(&self, waker: &Waker) {
        let mut ours = self.waker.lock();
        if !ours.as_ref().is_some_and(|ours| ours.will_wake(waker)) {
            *ours = Some(waker.clone());
        }
        drop(ours);
        // A swap, so that what came before a ring that woke nobody is seen from here on.
        self.rung.swap(false, Ordering::AcqRel);
    }

    /// Wakes the task unless it was woken since it last listened.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel)
            && let Some(waker) = &*self.waker.lock()
        {
            waker.wake_by_ref();
        }
    }

    /// Whether the bell was used as a waker since it was last asked.
    pub fn take_woken(&self) -> bool {
        // Most often it was not: a look is cheaper than a swap.
        self.woken.load(Ordering::Acquire) && self.woken.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.ring();
    }
}

/// A cursor's place in its view, where dispatch finds it.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) bell: Arc<Bell>,
    /// Whether the view has something the cursor has not looked at.
    pub(super) ready: AtomicBool,
    /// How far the cursor has come, for those who ask how far behind it is.
    pub(super) position: AtomicU64,
}

impl Seat {
    pub(super) fn new(bell: Arc<Bell>, position: Offset) -> Self {
        Self { bell, ready: AtomicBool::new(true), position: AtomicU64::new(position) }
    }

    /// Tells the cursor that there is something new.
    pub(super) fn call(&self) {
        self.ready.store(true, Ordering::Release);
        self.bell.ring();
    }
}
