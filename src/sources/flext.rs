//! A FLEXT daemon, asked over gRPC once for the whole cluster. Published is only what changed; while
//! the daemon is away the last values stay, and `flext.source` says since when and why.

mod board;
mod daemon;
mod follow;
mod record;

use std::{convert::Infallible, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use self::{
    board::{Board, BoardError},
    daemon::Daemon,
    follow::Followed,
};
use super::Config;
use crate::{
    broker::{Broker, PublishError},
    consumer::{ConsumerError, Lease},
    lease::Fence,
    store::Store,
    telemetry::Telemetry,
    time::Clock,
};

/// The daemon's messages and calls, made from `proto/flext.proto`.
#[expect(missing_docs, reason = "proto/flext.proto says what there is to say")]
pub mod proto {
    tonic::include_proto!("flext");
}

/// A daemon that is asked, by the node that holds its lease.
pub struct Flext {
    config: Config,
    lease: Lease,
    broker: Broker,
    telemetry: Telemetry,
    clock: Clock,
    event_bytes: usize,
}

/// Why this node stops asking, for now.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Lease(#[from] ConsumerError),
    #[error(transparent)]
    Board(#[from] BoardError),
}

/// Between two attempts to take up the work.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest that a daemon which does not answer is left alone, unless its interval is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What comes of an execution is gathered for so long: a pipeline may say a thousand things a second.
const GATHER: Duration = Duration::from_millis(500);

impl Flext {
    /// The daemon of `config`, for the node called `node`; no event has more than `event_bytes`.
    pub fn new(
        config: Config,
        node: &str,
        event_bytes: usize,
        broker: Broker,
        store: Store,
        telemetry: Telemetry,
        clock: Clock,
    ) -> Self {
        let lease = Lease::new(&format!("source.{}", config.name), node, store);
        Self { config, lease, broker, telemetry, clock, event_bytes }
    }

    /// Asks and publishes while the lease is this node's, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut is_failing = false;
        while let Err(error) = self.serve(&stop, &mut is_failing).await {
            if matches!(error, Ended::Lease(ConsumerError::Lost)) {
                tracing::info!(source = %self.config.name, "another node asks this source now");
            } else if !std::mem::replace(&mut is_failing, true) {
                tracing::warn!(source = %self.config.name, %error, "a source cannot be served; trying again");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(AGAIN) => {}
            }
        }
    }

    /// One term of the lease; Ok when it ended because of `stop`.
    async fn serve(&self, stop: &CancellationToken, is_failing: &mut bool) -> Result<(), Ended> {
        let mut held = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            held = self.lease.hold() => held?,
        };
        *is_failing = false;
        let fence = held.fence().clone();
        tokio::select! {
            () = stop.cancelled() => {}
            Err(lost) = held.keep() => return Err(lost.into()),
            Err(ended) = self.ask(&fence) => return Err(ended),
        }
        if let Err(error) = held.release().await {
            tracing::debug!(source = %self.config.name, %error, "the lease was not given back");
        }
        Ok(())
    }

    /// Asks again and again.
    async fn ask(&self, fence: &Fence) -> Result<Infallible, Ended> {
        let mut board = Board::read(&self.config, self.event_bytes, &self.broker).await?;
        let mut daemon: Option<Daemon> = None;
        let mut followed = Followed::default();
        let mut failures = 0;
        let mut next = Instant::now();
        let mut flush: Option<Instant> = None;
        loop {
            tokio::select! {
                () = sleep_until(next) => {
                    let started = Instant::now();
                    let has_answered = self.ask_once(&mut daemon, &mut followed, &mut board).await;
                    failures = if has_answered { 0 } else { failures + 1 };
                    self.publish(&mut board, fence).await?;
                    next = started + pause(self.config.interval.0, failures);
                }
                (id, update) = followed.next() => {
                    board.update(&id, update);
                    flush.get_or_insert_with(|| Instant::now() + GATHER);
                }
                () = sleep_until(flush.unwrap_or(next)), if flush.is_some() => {
                    flush = None;
                    self.publish(&mut board, fence).await?;
                }
            }
        }
    }

    /// Asks everything once; false if nothing was answered, and then the connection is made anew.
    async fn ask_once(
        &self,
        daemon: &mut Option<Daemon>,
        followed: &mut Followed,
        board: &mut Board,
    ) -> bool {
        let connected = match daemon {
            Some(daemon) => Ok(daemon),
            None => Daemon::connect(&self.config).await.map(|new| daemon.insert(new)),
        };
        let answers = match connected {
            Ok(daemon) => daemon.ask().await,
            Err(trouble) => {
                self.tell(board, Some(trouble));
                return false;
            }
        };
        let has_answered = answers.any();
        let trouble = board.take(answers, &self.telemetry);
        self.tell(board, trouble);
        if let Some(daemon) = daemon.as_ref().filter(|_| has_answered) {
            followed.follow(daemon, &board.running());
        } else {
            // What was open on a connection that is dead, would never end.
            (*daemon, *followed) = (None, Followed::default());
        }
        has_answered
    }

    /// Notes how the source is.
    fn tell(&self, board: &mut Board, trouble: Option<String>) {
        let source = self.config.name.as_str();
        if trouble.is_some() {
            self.telemetry.source_failed(source);
        }
        let is_news = board.tell(trouble.clone(), self.clock.now());
        match trouble {
            _ if !is_news => {}
            Some(error) => tracing::warn!(source, error, "a source does not answer as it should"),
            None => tracing::info!(source, "the source answers"),
        }
    }

    /// Publishes what changed. What was not stored is still different next time.
    async fn publish(&self, board: &mut Board, fence: &Fence) -> Result<(), ConsumerError> {
        let drafts = board.changed(&self.telemetry);
        if drafts.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let events = drafts.iter().filter_map(|draft| board.event(draft, now)).collect();
        match self.broker.publish_fenced(events, fence).await {
            Ok(_) => board.stored(drafts),
            Err(PublishError::Fenced) => return Err(ConsumerError::Lost),
            // The broker logs when it begins to fail.
            Err(error) => tracing::debug!(%error, "what a source said was not stored"),
        }
        Ok(())
    }
}

/// How long to wait after so many questions in a row that were not answered.
fn pause(interval: Duration, failures: u32) -> Duration {
    let backed_off = interval.saturating_mul(2u32.saturating_pow(failures));
    backed_off.min(LONGEST_PAUSE.max(interval))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_does_not_answer_is_asked_more_and_more_seldom() {
        let second = Duration::from_secs(1);
        let pauses = [0, 1, 2, 4, 5, 1000].map(|failures| pause(5 * second, failures) / 5);
        assert_eq!(pauses, [1, 2, 4, 6, 6, 6].map(|fives| fives * second));
        let hour = Duration::from_secs(3600);
        assert_eq!(pause(hour, 3), hour, "never more often than it should be");
    }
}
