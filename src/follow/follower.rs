//! A follower: a place in the log that moves on at its owner's pace.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Delivery, Feed, Progress};
use crate::{backoff::Backoff, broker::ReadError, position::Offset, topic::TopicFilter};

/// A place in the log that moves on.
pub struct Follower {
    feed: Feed,
    who: &'static str,
    filter: TopicFilter,
    at: Offset,
    /// Whether the next delivery has to say that something is missing.
    has_gap: bool,
    /// What retention took up to here has been said.
    told: Offset,
    progress: Progress,
    backoff: Backoff,
    /// When the log is to be read again, after it could not be, and since when it could not.
    again_at: Option<Instant>,
    failing_since: Option<Instant>,
}

/// About how much one delivery holds, in bytes.
const CHUNK: usize = 256 << 10;
/// The pauses while the log cannot be read.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Follower {
    pub(super) fn new(feed: Feed, who: &'static str, filter: TopicFilter, after: Offset) -> Self {
        Self {
            feed,
            who,
            filter,
            at: after,
            has_gap: false,
            told: after,
            progress: Progress::default(),
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            again_at: None,
            failing_since: None,
        }
    }

    /// The same, where something before its beginning is known to be missing.
    pub fn behind_gap(mut self) -> Self {
        self.has_gap = true;
        self
    }

    /// The same, which tells `progress` how far it has come.
    pub fn telling(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// Everything up to here was given or does not match.
    pub fn reached(&self) -> Offset {
        self.at
    }

    /// Waits for what comes next: whoever asks is done with what came before. Where the log cannot be read, that is tried
    /// again for a while before it fails. Nothing is skipped then, nor when the wait is broken off.
    pub async fn next(&mut self) -> Result<Delivery, ReadError> {
        self.progress.reach(self.at);
        let mut tail = self.feed.broker().tail();
        loop {
            if let Some(again_at) = self.again_at {
                sleep_until(again_at).await;
                self.again_at = None;
            }
            let head = *tail.borrow_and_update();
            match self.next_up_to(head).await {
                Ok(found) => {
                    self.failing_since = None;
                    let who = self.who;
                    if self.backoff.worked() {
                        tracing::info!(who, "the log can be read again");
                    }
                    if let Some(delivery) = found {
                        return Ok(delivery);
                    }
                    self.progress.reach(self.at);
                    // A closed log sends no more, and nothing is left to wait for.
                    if tail.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                Err(error) => {
                    if !self.backoff.is_failing() {
                        tracing::warn!(who = self.who, %error, "the log cannot be followed; trying again");
                    }
                    let now = Instant::now();
                    self.again_at = Some(now + self.backoff.failed());
                    let since = *self.failing_since.get_or_insert(now);
                    if now - since >= self.feed.patience {
                        self.failing_since = None;
                        return Err(error);
                    }
                }
            }
        }
    }

    /// What comes next and lies no further than `head`, which is in the log; None if nothing does.
    pub async fn next_up_to(&mut self, head: Offset) -> Result<Option<Delivery>, ReadError> {
        let broker = self.feed.broker().clone();
        if self.filter.patterns().is_empty() {
            self.at = self.at.max(head);
        }
        while self.at < head {
            let chunk = broker.read(self.at, head, &self.filter, CHUNK).await?;
            // What is left beside what retention took is given all the same.
            if chunk.trimmed_through > self.told.max(self.at) {
                self.has_gap = true;
                self.told = chunk.trimmed_through;
            }
            let after = std::mem::replace(&mut self.at, chunk.reached);
            let range = (after, broker.epochs().position(self.at));
            let delivery =
                Delivery::new(&self.feed, chunk.blocks, self.filter.clone(), range, self.has_gap);
            if self.has_gap || delivery.records().next().is_some() {
                self.has_gap = false;
                return Ok(Some(delivery));
            }
        }
        Ok(None)
    }
}
