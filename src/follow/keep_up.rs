//! Keeping something in memory up with the log, that is made anew when events were missed.

use std::{convert::Infallible, fmt::Display, time::Duration};

use super::{Delivery, Feed, Follower, Progress};
use crate::{backoff::Backoff, position::Offset, topic::TopicFilter};

/// Something in memory that is made of the log, and can be made anew.
pub trait Follow: Sync {
    /// Why it cannot be made.
    type Error: Display + Send;

    /// What it is called where a failure is told.
    fn name(&self) -> &'static str;

    /// What of the log it wants.
    fn filter(&self) -> TopicFilter;

    /// Makes it anew of what the log holds; gives the offset up to which everything is in.
    fn rebuild(&self) -> impl Future<Output = Result<Offset, Self::Error>> + Send;

    /// Takes in what comes behind that, of which nothing is missing.
    fn take_in(&self, delivery: &Delivery);
}

/// Keeps something up with the log while it is [run](Self::run).
pub struct KeepingUp<'a, F> {
    feed: Feed,
    follow: &'a F,
    /// None while it has to be made first.
    follower: Option<Follower>,
    progress: Progress,
}

/// The pauses while it cannot be made.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl<'a, F: Follow> KeepingUp<'a, F> {
    pub(super) fn new(
        feed: Feed,
        follow: &'a F,
        built: Option<Offset>,
        progress: Progress,
    ) -> Self {
        let mut this = Self { feed, follow, follower: None, progress };
        this.follower = built.map(|offset| this.follower_after(offset));
        this
    }

    /// For ever.
    pub async fn run(mut self) -> Infallible {
        loop {
            self.step().await;
        }
    }

    /// Takes in what comes next, or makes it anew.
    pub(crate) async fn step(&mut self) {
        let Some(follower) = &mut self.follower else {
            let built = self.rebuild().await;
            self.follower = Some(self.follower_after(built));
            return;
        };
        // What could not be read is tried again, for nobody else would make it.
        let Ok(delivery) = follower.next().await else { return };
        if delivery.has_gap {
            self.follower = None;
        } else {
            self.follow.take_in(&delivery);
        }
    }

    /// How far the log was read.
    #[cfg(test)]
    pub(crate) fn reached(&self) -> Offset {
        self.follower.as_ref().map_or(0, Follower::reached)
    }

    async fn rebuild(&self) -> Offset {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let error = match self.follow.rebuild().await {
                Ok(offset) => return offset,
                Err(error) => error,
            };
            if !backoff.is_failing() {
                let who = self.follow.name();
                tracing::warn!(who, %error, "what is made of the log cannot be made anew; trying again");
            }
            tokio::time::sleep(backoff.failed()).await;
        }
    }

    fn follower_after(&self, offset: Offset) -> Follower {
        let (who, filter) = (self.follow.name(), self.follow.filter());
        self.feed.follow(who, filter, offset).telling(self.progress.clone())
    }
}
