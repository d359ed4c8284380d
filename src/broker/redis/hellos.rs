//! Hellos: how the tail learns the state of the log, and who waits for the next one.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::timeout};

use crate::position::Offset;

/// The hellos that were requested and sent.
pub(super) struct Hellos {
    /// How many early hellos were requested from the tail, and up to which of these requests it has sent one.
    asked: AtomicU64,
    said: watch::Sender<u64>,
    /// The head in the newest answer of Redis.
    head: AtomicU64,
    /// When Redis last answered, in milliseconds since `began`.
    heard: AtomicU64,
    began: Instant,
}

impl Hellos {
    /// After the first hello, whose answer was this head.
    pub(super) fn new(head: Offset) -> Self {
        Self {
            asked: AtomicU64::new(0),
            said: watch::Sender::new(0),
            head: AtomicU64::new(head),
            heard: AtomicU64::new(0),
            began: Instant::now(),
        }
    }

    /// Asks the tail for an early hello; returns the number of the request.
    pub(super) fn ask(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// How many early hellos were requested.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    /// Whether an early hello is still to be sent.
    pub(super) fn is_wanted(&self) -> bool {
        self.asked() > *self.said.borrow()
    }

    /// Redis answered a hello with this head; `asked` is how many had been requested when it was sent.
    pub(super) fn told(&self, head: Offset, asked: u64) {
        self.head.store(head, Ordering::Release);
        self.said.send_replace(asked);
    }

    /// Whether Redis answers a hello that is sent after this call, within `patience`.
    pub(super) async fn is_answered(&self, patience: Duration) -> bool {
        // A hello that was sent before does not count.
        let (asked, mut said) = (self.ask(), self.said.subscribe());
        let answered = said.wait_for(|said| *said >= asked);
        timeout(patience, answered).await.is_ok_and(|answered| answered.is_ok())
    }

    /// The head in the newest answer of Redis.
    pub(super) fn head(&self) -> Offset {
        self.head.load(Ordering::Acquire)
    }

    /// Notes that Redis has answered, whatever the question was.
    pub(super) fn heard(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(now, Ordering::Release);
    }

    /// How long ago Redis last answered.
    pub(super) fn silence(&self) -> Duration {
        let heard = Duration::from_millis(self.heard.load(Ordering::Acquire));
        self.began.elapsed().saturating_sub(heard)
    }
}
