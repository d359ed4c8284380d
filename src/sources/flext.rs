//! A FLEXT daemon, asked over gRPC once for the whole cluster. Published is only what changed; while
//! the daemon is away the last values stay, and `flext.source` says since when and why.

mod daemon;
mod diff;
mod follow;
mod record;
mod topics;

use std::{collections::HashSet, convert::Infallible, time::Duration};

use tokio::time::{Instant, sleep_until};

pub(super) use self::topics::own_topics;
use self::{daemon::FlextDaemon, diff::Diff, follow::Followed};
use super::SourceConfig;
use crate::{
    backoff::Backoff,
    broker::{Batch, Broker, PublishError},
    duty::{Duty, Term, TermError},
    lease::Fence,
    telemetry::Telemetry,
    time::Clock,
};

/// The daemon's messages and calls, made from `proto/flext.proto` by a test (`UPDATE_PROTO=1 cargo test grpc`), so that
/// building a hub builds no compiler for it.
#[expect(missing_docs, reason = "proto/flext.proto says what there is to say")]
pub mod proto {
    include!("../../proto/flext.rs");
}

/// A daemon that is asked, by the node that holds its lease.
pub struct Flext {
    config: SourceConfig,
    broker: Broker,
    telemetry: Telemetry,
    clock: Clock,
    event_bytes: usize,
}

/// The longest pause between two calls to a daemon that does not answer: somebody who has just restarted it looks
/// whether the values are fresh.
const SOON: Duration = Duration::from_secs(5);
/// What comes of an execution is gathered for so long: a pipeline may say a thousand things a second.
const GATHER: Duration = Duration::from_millis(500);
/// How often it is looked at least whether there is something to publish, if only that all is well.
const LOOK: Duration = Duration::from_secs(5);

impl Flext {
    /// The daemon of `config`; no event has more than `event_bytes`.
    pub fn new(
        config: SourceConfig,
        event_bytes: usize,
        broker: Broker,
        telemetry: Telemetry,
        clock: Clock,
    ) -> Self {
        Self { config, broker, telemetry, clock, event_bytes }
    }
}

impl Duty for Flext {
    fn name(&self) -> String {
        format!("source.{}", self.config.name)
    }

    async fn serve(&mut self, term: &Term) -> Result<(), TermError> {
        tokio::select! {
            () = term.over() => Ok(()),
            Err(ended) = self.ask(term.fence()) => Err(ended),
        }
    }
}

impl Flext {
    /// Asks again and again.
    async fn ask(&self, fence: &Fence) -> Result<Infallible, TermError> {
        let mut diff = Diff::read(&self.config, self.event_bytes, &self.broker).await?;
        let mut daemon: Option<FlextDaemon> = None;
        let mut followed = Followed::default();
        let mut backoff = backoff(self.config.interval.0);
        let mut next = Instant::now();
        let mut flush = Instant::now() + LOOK;
        loop {
            tokio::select! {
                () = sleep_until(next) => {
                    let started = Instant::now();
                    let has_answered = self.ask_once(&mut daemon, &mut followed, &mut diff).await;
                    self.publish(&mut diff, fence).await?;
                    flush = Instant::now() + LOOK;
                    next = if has_answered {
                        backoff.worked();
                        started + self.config.interval.0
                    } else {
                        // From now on: a daemon that is too slow to answer must have some rest.
                        Instant::now() + backoff.failed()
                    };
                }
                update = followed.next() => match update {
                    Some((id, update)) => {
                        diff.update(&id, update);
                        flush = flush.min(Instant::now() + GATHER);
                    }
                    None => self.telemetry.source_left_out(self.config.name.as_str(), 1),
                },
                () = sleep_until(flush) => {
                    self.publish(&mut diff, fence).await?;
                    flush = Instant::now() + LOOK;
                }
            }
        }
    }

    /// Asks everything once; false if nothing was answered, and then the connection is made anew.
    async fn ask_once(
        &self,
        daemon: &mut Option<FlextDaemon>,
        followed: &mut Followed,
        diff: &mut Diff,
    ) -> bool {
        let connected = match daemon {
            Some(daemon) => Ok(daemon),
            None => FlextDaemon::connect(&self.config).await.map(|new| daemon.insert(new)),
        };
        let answers = match connected {
            Ok(daemon) => daemon.ask().await,
            Err(trouble) => {
                self.tell(diff, Some(trouble));
                return false;
            }
        };
        let has_answered = answers.any();
        let trouble = diff.take(answers, &self.telemetry);
        self.tell(diff, trouble);
        if let Some(daemon) = daemon.as_ref().filter(|_| has_answered) {
            followed.follow(daemon, &diff.running());
        } else {
            // What was open on a connection that is dead, would never end.
            (*daemon, *followed) = (None, Followed::default());
        }
        has_answered
    }

    /// Notes how the source is.
    fn tell(&self, diff: &mut Diff, trouble: Option<String>) {
        let source = self.config.name.as_str();
        if trouble.is_some() {
            self.telemetry.source_failed(source);
        }
        let is_news = diff.tell(trouble.clone(), self.clock.now());
        match trouble {
            _ if !is_news => {}
            Some(error) => tracing::warn!(source, error, "a source does not answer as it should"),
            None => tracing::info!(source, "the source answers"),
        }
    }

    /// Publishes what changed. What was not stored is still different next time.
    async fn publish(&self, diff: &mut Diff, fence: &Fence) -> Result<(), TermError> {
        let now = self.clock.now();
        let drafts = diff.changed(now, &self.telemetry);
        if drafts.is_empty() {
            return Ok(());
        }
        let events: Batch<'_> = drafts.iter().filter_map(|draft| diff.event(draft, now)).collect();
        match self.broker.publish(events.fenced(fence).what_fits(0)).await {
            Ok(published) => {
                let without_room = published.left_out.map_or_else(HashSet::new, |left| left.topics);
                for topic in diff.stored(drafts, now, without_room) {
                    let source = self.config.name.as_str();
                    tracing::warn!(source, %topic, "the log has no room for the topic of a source");
                }
            }
            // Nobody knows what the log has now: the next term reads it.
            Err(error @ (PublishError::Fenced | PublishError::Unknown { .. })) => {
                return Err(error.into());
            }
            // The broker logs when it begins to fail.
            Err(error) => tracing::debug!(%error, "what a source said was not stored"),
        }
        Ok(())
    }
}

/// The pauses after calls that were not answered. With a short interval they grow, but stay short; with a long interval
/// they are shorter than it.
fn backoff(interval: Duration) -> Backoff {
    Backoff::new(interval.min(SOON), interval.max(SOON))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_does_not_answer_is_soon_asked_again() {
        let pauses = |interval| {
            let interval = Duration::from_millis(interval);
            let mut backoff = backoff(interval);
            let pauses: Vec<_> = (1..=1000).map(|_| backoff.failed().as_millis()).collect();
            [1, 2, 3, 4, 5, 1000].map(|failures| pauses[failures - 1])
        };
        assert_eq!(pauses(1000), [1000, 2000, 4000, 5000, 5000, 5000]);
        assert_eq!(pauses(5000), [5000; 6], "as often as ever");
        assert_eq!(pauses(3_600_000), [5000, 10_000, 20_000, 40_000, 80_000, 3_600_000]);
    }
}
