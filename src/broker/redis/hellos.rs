//! Hellos: by which the tail hears how the log does, and who waits for the next.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::timeout};

use crate::position::Offset;

/// What was asked for and said.
pub(super) struct Hellos {
    /// How often the tail was asked to say hello before its time, and up to which of those it has.
    asked: AtomicU64,
    said: watch::Sender<u64>,
    /// The head when Redis last told it.
    head: AtomicU64,
    /// When Redis was last heard of, in milliseconds since `began`.
    heard: AtomicU64,
    began: Instant,
}

impl Hellos {
    /// None yet but the first, which told this head.
    pub(super) fn new(head: Offset) -> Self {
        Self {
            asked: AtomicU64::new(0),
            said: watch::Sender::new(0),
            head: AtomicU64::new(head),
            heard: AtomicU64::new(0),
            began: Instant::now(),
        }
    }

    /// Asks the tail to say hello before its time; returns the request's number.
    pub(super) fn ask(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// How many were asked for.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    /// Whether one is to be said before its time.
    pub(super) fn is_wanted(&self) -> bool {
        self.asked() > *self.said.borrow()
    }

    /// Redis told the head to one that began when so many had been asked for.
    pub(super) fn told(&self, head: Offset, asked: u64) {
        self.head.store(head, Ordering::Release);
        self.said.send_replace(asked);
    }

    /// Whether Redis answers to one that begins after this call, in time.
    pub(super) async fn is_answered(&self, patience: Duration) -> bool {
        // One that is under way already does not count.
        let (asked, mut said) = (self.ask(), self.said.subscribe());
        let answered = said.wait_for(|said| *said >= asked);
        timeout(patience, answered).await.is_ok_and(|answered| answered.is_ok())
    }

    /// The head when Redis last told it.
    pub(super) fn head(&self) -> Offset {
        self.head.load(Ordering::Acquire)
    }

    /// Redis has answered, whatever it was asked.
    pub(super) fn heard(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(now, Ordering::Release);
    }

    /// How long nothing was heard of Redis.
    pub(super) fn silence(&self) -> Duration {
        let heard = Duration::from_millis(self.heard.load(Ordering::Acquire));
        self.began.elapsed().saturating_sub(heard)
    }
}
