//! Whether the hub works: not by asking its parts, but by an event that really came through.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::TOPIC;
use crate::{
    backoff::Backoff,
    broker::ReadError,
    dialect::Form,
    hub::{Cursor, CursorItem, Hub, Start, SubscribeError, Subscription, TaskWaker},
    position::Offset,
    protocol::Mode,
    tasks::TaskFailures,
    time::{Clock, Millis},
    topic::{TopicError, TopicFilter, TopicPattern},
};

/// How long an event that came through proves that others will.
const FRESH: Duration = Duration::from_secs(3);
/// The pauses before the hub subscribes again.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What is known of the hub's own events on their way. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<ReadinessInner>);

#[derive(Debug, Default)]
struct ReadinessInner {
    accepting: AtomicBool,
    published: AtomicU64,
    published_at: AtomicU64,
    seen: AtomicU64,
    seen_at: AtomicU64,
    failures: TaskFailures,
}

/// What the readiness is at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyState {
    /// Whether new connections are welcome.
    pub accepting: bool,
    /// Whether an event published now will be stored and delivered.
    pub publishing: bool,
    /// What is missing, for people.
    pub reason: Option<String>,
}

impl Readiness {
    /// Of a hub that is not ready once one of these tasks has failed.
    pub fn new(failures: TaskFailures) -> Self {
        Self(Arc::new(ReadinessInner { failures, ..ReadinessInner::default() }))
    }

    /// Says whether new connections are welcome. At first they are not.
    pub fn accept(&self, accepting: bool) {
        self.0.accepting.store(accepting, Ordering::Release);
    }

    /// The hub's tasks that have failed, without which it is not ready.
    pub fn failures(&self) -> &TaskFailures {
        &self.0.failures
    }

    /// One of the hub's own events was stored; `now` is of a clock that never jumps.
    pub fn published(&self, offset: Offset, now: Millis) {
        if self.0.published.fetch_max(offset, Ordering::AcqRel) < offset {
            self.0.published_at.store(now, Ordering::Release);
        }
    }

    /// One of the hub's own events arrived at a subscriber. An old one that comes again proves nothing.
    pub fn seen(&self, offset: Offset, now: Millis) {
        if self.0.seen.fetch_max(offset, Ordering::AcqRel) < offset {
            self.0.seen_at.store(now, Ordering::Release);
        }
    }

    /// How it stands now.
    pub fn state(&self, now: Millis) -> ReadyState {
        let failed = self.0.failures.first();
        let accepting = self.0.accepting.load(Ordering::Acquire) && failed.is_none();
        let (published, seen) =
            (self.0.published.load(Ordering::Acquire), self.0.seen.load(Ordering::Acquire));
        let is_fresh = |at: &AtomicU64| {
            u128::from(now.saturating_sub(at.load(Ordering::Acquire))) <= FRESH.as_millis()
        };
        // What another node stored arrives here too, and proves nothing of this one's publishing.
        let publishing = seen > 0
            && published > 0
            && is_fresh(&self.0.seen_at)
            && is_fresh(&self.0.published_at);
        let reason = if let Some(task) = failed {
            Some(format!("the task {task:?} of this node has failed: restart it"))
        } else if !publishing && published > seen {
            Some(format!("the hub's own event {published} was stored but not delivered"))
        } else if !publishing {
            Some("no event of the hub's own was stored within the last 3 seconds".to_owned())
        } else if !accepting {
            Some("this node is starting, drained or stopping".to_owned())
        } else {
            None
        };
        ReadyState { accepting, publishing, reason }
    }
}

/// Follows the hub's own events as any subscriber would, until `stop`.
pub async fn listen(hub: Hub, readiness: Readiness, clock: Clock, stop: CancellationToken) {
    let follow = async {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            match subscribe(&hub).await {
                Ok((mut cursor, waker)) => {
                    backoff.worked();
                    let Err(error) = follow(&mut cursor, &waker, &readiness, &clock).await;
                    tracing::warn!(%error, "the hub cannot follow its own events; trying again");
                }
                Err(error) => tracing::warn!(%error, "the hub cannot subscribe; trying again"),
            }
            tokio::time::sleep(backoff.failed()).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = follow => {}
    }
}

#[derive(Debug, thiserror::Error)]
enum ListenError {
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
}

async fn subscribe(hub: &Hub) -> Result<(Cursor, Arc<TaskWaker>), ListenError> {
    let waker = Arc::new(TaskWaker::default());
    let subscription = Subscription {
        form: Form::Data,
        filter: TopicFilter::new([TopicPattern::parse(TOPIC)?]),
        mode: Mode::All,
        max_hz: None,
        start: Start::Live,
        owner: None,
    };
    let (cursor, _) = hub.subscribe(subscription, Arc::clone(&waker)).await?;
    Ok((cursor, waker))
}

async fn follow(
    cursor: &mut Cursor,
    waker: &TaskWaker,
    readiness: &Readiness,
    clock: &Clock,
) -> Result<std::convert::Infallible, ListenError> {
    loop {
        let item = poll_fn(|cx| {
            waker.listen(cx.waker());
            cursor.poll_next(cx)
        });
        match item.await {
            CursorItem::Frame(frame) => readiness.seen(frame.through, clock.elapsed()),
            CursorItem::Failed(error) => return Err(error.into()),
            // Neither is an event that came through.
            CursorItem::Gap(_) | CursorItem::Live { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_new_event_that_came_through_lately_proves_anything() {
        let readiness = Readiness::default();
        readiness.accept(true);
        let reason = |now| readiness.state(now).reason.unwrap();
        assert!(reason(0).contains("was stored within"));
        readiness.published(5, 1000);
        assert!(reason(0).contains("event 5 was stored but not delivered"));
        readiness.seen(5, 1000);
        assert_eq!(
            readiness.state(4000),
            ReadyState { accepting: true, publishing: true, reason: None }
        );
        readiness.seen(5, 4000);
        readiness.seen(4, 4000);
        assert!(!readiness.state(4001).publishing, "what came again is no proof");
        readiness.seen(6, 4001);
        assert!(!readiness.state(4001).publishing, "it may be another node's");
        readiness.published(6, 4001);
        assert!(readiness.state(4001).publishing);
        readiness.accept(false);
        assert!(reason(4001).contains("starting, drained or stopping"));
    }

    #[tokio::test]
    async fn a_node_one_of_whose_tasks_had_failed_was_ready() {
        let readiness = Readiness::default();
        readiness.accept(true);
        readiness.published(1, 0);
        readiness.seen(1, 0);
        assert!(readiness.state(0).accepting);
        readiness.failures().watch("dispatch", async { panic!("of the test's making") }).await;
        let state = readiness.state(0);
        assert_eq!((state.accepting, state.publishing), (false, true));
        assert!(state.reason.unwrap().contains("\"dispatch\" of this node has failed"));
    }
}
