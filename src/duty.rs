//! Duties: what one node at a time does for all. Who holds a duty's lease does it, term by term; when that node dies or
//! stops, another goes on within seconds.
//!
//! Nothing else knows leases. What a duty writes goes under the [`Fence`] of its term, so that of two nodes that both
//! believe to hold it only the later can write. A term begins when this node has read all that earlier terms wrote: the
//! duty restores what it owns, and goes on from there.

use std::{
    convert::Infallible,
    error::Error,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    broker::{Broker, PublishError, ReadError},
    follow::read_up_to,
    lease::{Fence, LEASE},
    position::Offset,
    store::{Store, StoreError},
    telemetry::Telemetry,
};

/// Something that one node at a time does.
pub trait Duty: Send {
    /// What its lease is called, for ever: all nodes have to agree on it.
    fn name(&self) -> String;

    /// Does it until `term` is [over](Term::over). What an earlier term left is restored first. The lease is renewed
    /// meanwhile; when it is lost, this future is dropped where it waits.
    fn serve(&mut self, term: &Term) -> impl Future<Output = Result<(), TermError>> + Send;

    /// What a node does while another holds the lease, if anything: dropped as soon as the lease comes to this one.
    fn stand_by(&mut self) -> impl Future<Output = Result<Infallible, TermError>> + Send {
        std::future::pending()
    }
}

/// One term of a lease.
#[derive(Debug)]
pub struct Term {
    fence: Fence,
    began: Offset,
    stop: CancellationToken,
}

impl Term {
    /// What proves that the lease is ours, for everything that is written.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Everything that earlier terms published lies up to here, and this node has it.
    pub fn began(&self) -> Offset {
        self.began
    }

    /// Resolves when the hub stops: what was begun is to be ended now.
    pub async fn over(&self) {
        self.stop.cancelled().await;
    }
}

/// Why a term ends before it is over.
#[derive(Debug, thiserror::Error)]
pub enum TermError {
    /// Another node has the lease and goes on from what was written.
    #[error("the lease has passed to another node")]
    Lost,
    /// This node cannot read the log, and another may: it is given the lease.
    #[error(transparent)]
    Unread(#[from] ReadError),
    /// The duty cannot be done at present.
    #[error(transparent)]
    Failed(Box<dyn Error + Send + Sync>),
}

impl TermError {
    /// Any other failure.
    pub fn failed(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// Does duties for the node that calls itself `holder`. Cheap to clone.
#[derive(Clone)]
pub struct Duties {
    store: Store,
    broker: Broker,
    /// Who we are, so that we can take our own lease again.
    holder: String,
    telemetry: Telemetry,
}

/// How often a lease is asked for that another holds.
const ASK: Duration = Duration::from_millis(500);
/// A lease is renewed when so much of it has gone by.
const RENEW: Duration = Duration::from_secs(LEASE.as_secs() / 3);
/// The pauses between terms.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// What fails again only after this long had been good meanwhile.
const GOOD_WHILE: Duration = Duration::from_secs(30);

impl Duties {
    /// Duties under leases of `store` that write to `broker`. No two nodes, and no two runs of one, may have the same
    /// `holder`.
    pub fn new(store: Store, broker: Broker, holder: &str, telemetry: Telemetry) -> Self {
        Self { store, broker, holder: holder.to_owned(), telemetry }
    }

    /// Does `duty` whenever its lease is ours, until `stop`; then the lease is given back. A failure is tried again, and
    /// said once for each reason.
    pub async fn run(self, mut duty: impl Duty, stop: CancellationToken) {
        let name = duty.name();
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut failed = None::<(Instant, String)>;
        while !stop.is_cancelled() {
            let mut pause = FIRST_PAUSE;
            match self.term(&name, &mut duty, &stop).await {
                Ok(()) => {}
                Err(TermError::Lost) => tracing::info!(duty = name, "another node does this now"),
                Err(error @ (TermError::Failed(_) | TermError::Unread(_))) => {
                    self.telemetry.duty_failed(&name);
                    let error = error.to_string();
                    let last = failed.take().filter(|(at, _)| at.elapsed() < GOOD_WHILE);
                    if last.is_none() {
                        backoff.worked();
                    }
                    pause = backoff.failed();
                    if last.is_none_or(|(_, said)| said != error) {
                        tracing::warn!(duty = name, error, "a duty cannot be done; trying again");
                    }
                    failed = Some((Instant::now(), error));
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn term(
        &self,
        name: &str,
        duty: &mut impl Duty,
        stop: &CancellationToken,
    ) -> Result<(), TermError> {
        let (fence, renewed) = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            held = self.hold(name) => held?,
            Err(error) = duty.stand_by() => return Err(error),
        };
        let serve = async {
            let began = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                began = self.catch_up() => began?,
            };
            duty.serve(&Term { fence: fence.clone(), began, stop: stop.clone() }).await
        };
        let ended = tokio::select! {
            ended = serve => ended,
            Err(error) = self.keep(&fence, renewed) => Err(error),
        };
        // Otherwise the others wait until it has run out, which is no harm. Whoever failed otherwise tries again before
        // that: the others would have to begin from the store, and may fail as well.
        if matches!(ended, Ok(()) | Err(TermError::Unread(_)))
            && let Err(error) = self.store.release(&fence).await
        {
            tracing::debug!(duty = name, %error, "a lease was not given back");
        }
        ended
    }

    /// Waits until the lease is ours; gives a moment before it began as well.
    async fn hold(&self, name: &str) -> Result<(Fence, Instant), TermError> {
        loop {
            let asked = Instant::now();
            if let Some(fence) = self.store.lease(name, &self.holder, None).await? {
                return Ok((fence, asked));
            }
            tokio::time::sleep(ASK).await;
        }
    }

    /// Waits until this node has read all that was written before: whoever had the lease can write no more.
    async fn catch_up(&self) -> Result<Offset, ReadError> {
        let head = self.broker.head_of_all().await?;
        read_up_to(&self.broker, head).await?;
        Ok(head)
    }

    /// Renews the lease for as long as this is waited for; ends when it is another's.
    async fn keep(&self, fence: &Fence, mut renewed: Instant) -> Result<Infallible, TermError> {
        loop {
            tokio::time::sleep(RENEW.saturating_sub(renewed.elapsed())).await;
            renewed = Instant::now();
            let held = self.store.lease(fence.name(), &self.holder, Some(fence)).await?;
            if held.as_ref() != Some(fence) {
                return Err(TermError::Lost);
            }
        }
    }
}

impl From<StoreError> for TermError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Fenced => Self::Lost,
            error => Self::failed(error),
        }
    }
}

impl From<PublishError> for TermError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Fenced => Self::Lost,
            error => Self::failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use tokio::sync::Notify;

    use super::*;
    use crate::{config::Config, time::Clock};

    /// Fails the first time, serves the second.
    struct Shaky {
        terms: Arc<AtomicU32>,
        serves: Arc<Notify>,
        has_ended: Arc<AtomicU32>,
    }

    impl Duty for Shaky {
        fn name(&self) -> String {
            "shaky".to_owned()
        }

        async fn serve(&mut self, term: &Term) -> Result<(), TermError> {
            if self.terms.fetch_add(1, Ordering::Relaxed) == 0 {
                return Err(ReadError("broken".to_owned()).into());
            }
            self.serves.notify_one();
            term.over().await;
            self.has_ended.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_failure_is_counted_and_tried_again_and_what_was_begun_is_ended_at_the_stop() {
        let folder = tempfile::tempdir().unwrap();
        let (terms, serves) = (Arc::default(), Arc::<Notify>::default());
        let (has_ended, telemetry) = (Arc::<AtomicU32>::default(), Telemetry::new());
        let duty = Shaky { terms, serves: serves.clone(), has_ended: has_ended.clone() };
        let clock = Clock::manual(0);
        let store = Store::open(folder.path(), clock.clone()).unwrap();
        let journal = Config::load(None, [], &[]).unwrap().journal;
        let broker = Broker::open(journal, folder.path(), clock, Telemetry::new()).unwrap();
        let (duties, stop) =
            (Duties::new(store, broker, "here", telemetry.clone()), CancellationToken::new());
        let running = tokio::spawn(duties.run(duty, stop.clone()));
        serves.notified().await;
        let failures = "pulsehub_duty_failures_total{duty=\"shaky\"} 1\n";
        assert!(telemetry.openmetrics().unwrap().contains(failures));
        assert_eq!(has_ended.load(Ordering::Relaxed), 0);
        stop.cancel();
        running.await.unwrap();
        assert_eq!(has_ended.load(Ordering::Relaxed), 1);
    }
}
