//! The log that many nodes share: a stream in Redis, written by scripts, followed by every node.
//!
//! Each node keeps one connection that reads the stream from where the node stands. Nothing is
//! announced in another way: what is missed cannot be missed silently, and after any outage the node
//! goes on reading where it was.

mod batch;
mod clock_check;
mod cut;
mod entry;
mod hellos;
mod latest;
mod names;
mod node_tasks;
mod open;
mod outside;
mod progress;
mod reader;
mod retention;
mod scripts;
mod stored;
mod tail;
mod topic_cache;
mod topics;
mod writer;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use self::{
    clock_check::ClockCheck, hellos::Hellos, latest::RedisLatest, node_tasks::NodeTasks,
    progress::RedisProgress, reader::RedisReader, retention::RedisRetention,
    topic_cache::TopicCache,
};
pub use self::{
    names::KnownNames,
    outside::{check, export},
};
use super::{
    LogHealth, PublishError, Published,
    front::LogFront,
    journal::JournalConfig,
    queue::{PublishReply, QueueRoom, QueuedBatch},
};
use crate::{
    admission::Admitted,
    lease::Fence,
    redis::{RedisOpenError, Server},
    tasks::TaskFailures,
    telemetry::Telemetry,
    time::Clock,
};

/// The log of many nodes. Cheap to clone.
#[derive(Clone)]
pub struct Redis(Arc<RedisInner>);

struct RedisInner {
    /// Tells this node's entries in Redis from others'.
    node: Arc<str>,
    warnings: Vec<String>,
    /// How long Redis may take for an answer.
    patience: Duration,
    requests: mpsc::Sender<RedisBatch>,
    queue: QueueRoom,
    tasks: NodeTasks,
    progress: Arc<RedisProgress>,
    reader: RedisReader,
    latest: Arc<RedisLatest>,
    topics: Arc<TopicCache>,
    hellos: Arc<Hellos>,
    clocks: Arc<ClockCheck>,
    retention: Arc<RedisRetention>,
}

/// How a batch is written.
struct WriteTerms {
    /// The lease under which it is written; such a batch goes alone.
    fence: Option<Fence>,
    /// When its publisher is answered at the latest.
    deadline: Instant,
}

type RedisBatch = QueuedBatch<WriteTerms>;

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
        let mut head = self.front().tail();
        let offset = published.position.offset;
        let seen = head.wait_for(|head| *head >= offset);
        let _ = tokio::time::timeout(self.0.patience, seen).await;
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
        let terms = WriteTerms { fence, deadline: Instant::now() + self.0.patience };
        let batch = queue.enter(events, answer, terms).await?;
        requests.try_send(batch).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => queue.overloaded(),
            mpsc::error::TrySendError::Closed(_) => PublishError::Closed,
        })
    }

    /// What of it is in memory.
    pub(super) fn front(&self) -> &LogFront {
        &self.0.progress.front
    }

    /// Whoever reads the rest of it.
    pub(super) fn reader(&self) -> &RedisReader {
        &self.0.reader
    }

    /// The newest values.
    pub(super) fn latest(&self) -> &RedisLatest {
        &self.0.latest
    }

    /// What is known of the topics.
    pub(super) fn topics(&self) -> &TopicCache {
        &self.0.topics
    }

    /// Whether Redis is heard of, its clock fits, and what a crash of it may cost.
    pub fn health(&self) -> LogHealth<'_> {
        let RedisInner { hellos, clocks, warnings, .. } = &*self.0;
        LogHealth { is_stale: hellos.silence() > STALE, is_apart: clocks.is_apart(), warnings }
    }

    /// Those of its tasks that have failed, without which the log does not go on here.
    pub fn failures(&self) -> &TaskFailures {
        self.0.tasks.failures()
    }

    /// What this node is called in Redis.
    pub fn node(&self) -> &str {
        &self.0.node
    }

    /// Runs retention now, to its end.
    pub async fn maintain(&self) {
        if let Err(error) = self.0.retention.to_the_end().await {
            tracing::warn!(%error, "retention failed; it is tried again");
        }
    }

    /// Stores what is queued and leaves. Later publishes are refused.
    pub async fn close(&self) {
        self.0.queue.close();
        self.0.tasks.close().await;
    }
}
