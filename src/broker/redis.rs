//! The log that many nodes share: a stream in Redis, written by scripts, followed by every node.
//!
//! Each node keeps one connection that reads the stream from where the node stands. Nothing is
//! announced in another way: what is missed cannot be missed silently, and after any outage the node
//! goes on reading where it was.

mod batch;
mod hellos;
mod names;
mod newest;
mod open;
mod outside;
mod progress;
mod reader;
mod retention;
mod scripts;
mod tail;
mod topics;
mod writer;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{hellos::Hellos, names::TopicNames, scripts::LogScripts};
pub use self::{
    names::KnownNames,
    outside::{check, export},
};
use super::{
    LogChunk, LogHealth, NewestStretch, PublishError, Published, ReadError, Resumption, TopicInfo,
    journal::{JournalConfig, RetentionRules},
    latest::{LatestPlace, LatestSearch},
    lineage::Lineage,
    look_back::{LookBack, RecentPiece},
    queue::{PublishReply, QueueRoom, QueuedBatch},
    ring::Ring,
};
use crate::{
    admission::Admitted,
    event::Block,
    lease::Fence,
    position::{Epoch, Offset, Position},
    redis::{Keys, Link, RedisOpenError, Server},
    tasks::TaskFailures,
    telemetry::Telemetry,
    time::{Clock, Millis},
    topic::{Topic, TopicFilter},
};

/// The log of many nodes. Cheap to clone.
#[derive(Clone)]
pub struct Redis(Arc<RedisInner>);

struct RedisInner {
    shared: Arc<RedisShared>,
    requests: mpsc::Sender<RedisBatch>,
    queue: QueueRoom,
    /// Ends the tail and the maintenance.
    following: CancellationToken,
    /// The writer ends by itself when it has stored what is queued.
    writing: TaskTracker,
    tasks: TaskTracker,
    failures: TaskFailures,
}

/// What the tasks and the readers all see.
struct RedisShared {
    config: JournalConfig,
    rules: RetentionRules,
    server: Server,
    keys: Keys,
    scripts: LogScripts,
    clock: Clock,
    telemetry: Telemetry,
    /// Tells this node's entries in Redis from others'.
    node: String,
    /// For everything but the tail and the writer.
    link: Link,
    /// Held to look up or to add a block.
    log: Mutex<RedisLog>,
    head: watch::Sender<Offset>,
    /// Held to look up, to add or to copy names.
    names: Mutex<TopicNames>,
    /// Redis is asked for all topics by one at a time.
    asking: Semaphore,
    /// How often retention took something, as far as is known, and what it took from the stream.
    trims: AtomicU64,
    trimmed: AtomicU64,
    hellos: Hellos,
    /// The highest offset this node was given for an event; its publisher may have been answered
    /// before the tail has read it.
    given: AtomicU64,
    /// The queue takes no more.
    closing: CancellationToken,
    /// Topics with more newest values than they may have.
    full: Mutex<HashSet<Topic>>,
    warnings: Vec<String>,
    /// Whether this node's clock and Redis' are apart; said once, and once when it is over.
    apart: AtomicBool,
}

/// Where this node stands.
struct RedisLog {
    epoch: Epoch,
    lineage: Lineage,
    ring: Ring,
}

/// How a batch is written.
struct WriteTerms {
    /// The lease under which it is written; such a batch goes alone.
    fence: Option<Fence>,
    /// When its publisher is answered at the latest.
    deadline: Instant,
}

type RedisBatch = QueuedBatch<WriteTerms>;

/// Topics asked for at a time.
const INFOS: usize = 1000;
/// A node that has heard nothing for so long says so.
const STALE: Duration = Duration::from_secs(1);

impl Redis {
    /// Joins the log, or makes it. Refuses a Redis that would break promises.
    pub async fn open(
        config: JournalConfig,
        server: Server,
        clock: Clock,
        telemetry: Telemetry,
    ) -> Result<Self, RedisOpenError> {
        open::open(config, server, clock, telemetry).await
    }

    /// Stores a batch; resolves when Redis has it and this node's readers have heard of it.
    /// If it is fenced, the lease must still be the writer's.
    pub async fn publish(
        &self,
        events: Admitted,
        fence: Option<&Fence>,
    ) -> Result<Published, PublishError> {
        let (answer, answered) = oneshot::channel();
        self.queue(events, fence.cloned(), Some(answer)).await?;
        let published = answered.await.unwrap_or(Err(PublishError::Closed))?;
        // What is stored is answered so in any case: the tail may have trouble of its own.
        let mut head = self.tail();
        let offset = published.position.offset;
        let seen = head.wait_for(|head| *head >= offset);
        let _ = tokio::time::timeout(self.timeout(), seen).await;
        Ok(published)
    }

    /// Takes a batch to be stored soon; resolves when it is queued.
    pub async fn enqueue(&self, events: Admitted) -> Result<(), PublishError> {
        self.queue(events, None, None).await
    }

    async fn queue(
        &self,
        events: Admitted,
        fence: Option<Fence>,
        answer: Option<PublishReply>,
    ) -> Result<(), PublishError> {
        let RedisInner { queue, requests, .. } = &*self.0;
        let terms = WriteTerms { fence, deadline: Instant::now() + self.timeout() };
        let batch = queue.enter(events, answer, terms).await?;
        requests.try_send(batch).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => queue.overloaded(),
            mpsc::error::TrySendError::Closed(_) => PublishError::Closed,
        })
    }

    fn timeout(&self) -> Duration {
        self.0.shared.server.config().timeout.0
    }

    /// The newest position this node knows.
    pub fn head(&self) -> Position {
        // The offset first: an epoch that is newer than its offset does no harm.
        let offset = *self.0.shared.head.borrow();
        Position { epoch: self.epoch(), offset }
    }

    /// The newest offset that Redis knows.
    pub async fn head_of_all(&self) -> Result<Offset, ReadError> {
        self.0.shared.ask_head().await
    }

    /// Names the history that this node is in.
    pub fn epoch(&self) -> Epoch {
        self.0.shared.log.lock().epoch
    }

    /// The position of an offset, in the epoch that gave it out.
    pub fn position(&self, offset: Offset) -> Position {
        Position { epoch: self.0.shared.log.lock().lineage.epoch_of(offset), offset }
    }

    /// How many offsets were given out above `after` up to `until`.
    pub fn offsets_between(&self, after: Offset, until: Offset) -> u64 {
        self.0.shared.log.lock().lineage.between(after, until)
    }

    /// Changes when this node has something new to read.
    pub fn tail(&self) -> watch::Receiver<Offset> {
        self.0.shared.head.subscribe()
    }

    /// Whether Redis is heard of, its clock fits, and what a crash of it may cost.
    pub fn health(&self) -> LogHealth<'_> {
        let shared = &self.0.shared;
        LogHealth {
            is_stale: shared.hellos.silence() > STALE,
            is_apart: shared.apart.load(Ordering::Acquire),
            failed: self.0.failures.first(),
            warnings: &shared.warnings,
        }
    }

    /// What this node is called in Redis.
    pub fn node(&self) -> &str {
        &self.0.shared.node
    }

    /// The blocks in memory with records above `after`; None if memory does not reach back there.
    pub fn recent(&self, after: Offset) -> Option<Vec<Arc<Block>>> {
        self.0.shared.log.lock().ring.after(after).map(|blocks| blocks.cloned().collect())
    }

    /// Reads what lies above `after` up to `until`: blocks that hold all that matches `filter`,
    /// about `budget` bytes of them, at least one.
    pub async fn read(
        &self,
        after: Offset,
        until: Offset,
        filter: &TopicFilter,
        budget: usize,
    ) -> Result<LogChunk, ReadError> {
        self.0.shared.read(after, until, filter, budget).await
    }

    /// Before the first record received at or after `since`: the offset to read after.
    pub async fn locate(&self, since: Millis, until: Offset) -> Result<Offset, ReadError> {
        self.0.shared.locate_since(since, until).await
    }

    /// What a search backwards looks through next, of what is in memory.
    pub(super) fn recent_piece(&self, back: &LookBack) -> RecentPiece {
        self.0.shared.recent_piece(back)
    }

    /// Goes on with a search for the last that match, through memory and then about `budget` bytes of the stream.
    pub(super) async fn newest(
        &self,
        back: LookBack,
        budget: usize,
    ) -> Result<NewestStretch, ReadError> {
        self.0.shared.newest(back, budget).await
    }

    /// Searches the topics for the newest values.
    pub(super) async fn search_latest(
        &self,
        filter: &TopicFilter,
        search: LatestSearch,
    ) -> Result<LatestSearch, ReadError> {
        self.0.shared.search_latest(filter, search).await
    }

    /// The newest values at these places.
    pub(super) async fn latest_at(
        &self,
        places: &[LatestPlace],
    ) -> Result<Vec<Arc<Block>>, ReadError> {
        self.0.shared.latest_at(places).await
    }

    /// The names of all topics, as they are.
    pub async fn topic_names(&self) -> Result<KnownNames, ReadError> {
        Ok(self.0.shared.names().await?)
    }

    /// What is known of some topics, in order.
    pub async fn topic_infos(&self, topics: &[Topic]) -> Result<Vec<TopicInfo>, ReadError> {
        let mut infos = Vec::new();
        for topics in topics.chunks(INFOS) {
            let known = self.0.shared.topics_named(topics).await?;
            infos.extend(known.infos(&self.0.shared.rules));
        }
        Ok(infos)
    }

    /// The last offset that retention took from the filter; 0 if it took nothing.
    pub async fn trimmed_through(&self, filter: &TopicFilter) -> Result<Offset, ReadError> {
        let shared = &self.0.shared;
        Ok(shared.lost(&shared.topics_for(filter).await?, filter, 0).await?)
    }

    /// Whether something that matches was lost above `after`, for whatever reason.
    pub async fn has_lost(&self, filter: &TopicFilter, after: Offset) -> Result<bool, ReadError> {
        let shared = &self.0.shared;
        let head = *shared.head.borrow();
        let loss = shared.log.lock().lineage.loss_above(after);
        if loss.is_some_and(|loss| loss.to.offset <= head) {
            return Ok(true);
        }
        let topics = shared.topics_for(filter).await?;
        Ok(shared.lost(&topics, filter, after).await? > after)
    }

    /// What a position of any epoch means here.
    pub async fn resume(&self, position: Position) -> Result<Resumption, ReadError> {
        self.0.shared.resume(position).await
    }

    /// Runs retention now, to its end.
    pub async fn maintain(&self) {
        if let Err(error) = retention::to_the_end(&self.0.shared).await {
            tracing::warn!(%error, "retention failed; it is tried again");
        }
    }

    /// Stores what is queued and leaves. Later publishes are refused.
    pub async fn close(&self) {
        let inner = &self.0;
        inner.queue.close();
        inner.writing.close();
        inner.tasks.close();
        inner.shared.closing.cancel();
        inner.writing.wait().await;
        inner.following.cancel();
        inner.tasks.wait().await;
    }
}

impl Drop for RedisInner {
    fn drop(&mut self) {
        self.following.cancel();
    }
}
