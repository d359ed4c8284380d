//! The log behind one interface: publishers write to it, the hub and followers read from it.
//!
//! Whatever the broker behind it, an event is announced to readers only after its commit, and no
//! offset is given twice within an epoch. `tests/broker.rs` holds the contract each broker passes.

mod candidates;
mod codec;
mod epochs;
mod front;
pub mod journal;
mod latest;
mod lineage;
mod look_back;
mod losses;
mod newest;
mod publish;
mod queue;
pub mod redis;
mod ring;
mod topics;

use std::{path::Path, sync::Arc};

use tokio::sync::watch;

pub use self::{
    epochs::{Epochs, Resumption},
    latest::LatestReader,
    look_back::NewestStretch,
    newest::NewestSearch,
    publish::{Batch, LeftOut, PublishError, Published},
    topics::{TopicCatalog, TopicIndex},
};
use self::{front::LogFront, journal::Journal, redis::Redis};
use crate::{
    admission::Admitted,
    event::Block,
    position::{Offset, Position},
    redis::{RedisOpenError, Server},
    telemetry::Telemetry,
    time::{Clock, Millis},
    topic::{Topic, TopicFilter},
};

/// The log. Cheap to clone.
#[derive(Clone)]
pub enum Broker {
    /// Of one node: a file.
    Journal(Journal),
    /// Of many nodes: a Redis.
    Redis(Redis),
}

/// Why the log could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the log cannot be read: {0}")]
pub struct ReadError(pub String);

/// A piece of history.
#[derive(Debug, Clone)]
pub struct LogChunk {
    /// Blocks in order. They hold every matching record of the range read, and may hold others.
    pub blocks: Vec<Arc<Block>>,
    /// Everything that matches and is retained, up to and including this offset, is in `blocks`.
    pub reached: Offset,
    /// Events that match, up to and including this offset, have been trimmed: what lies between
    /// the start of the range and here may be incomplete. 0 when nothing was lost to the filter.
    pub trimmed_through: Offset,
    /// When that was lost with its epoch and not by retention: the first that may be missing.
    pub lost_from: Option<Position>,
}

impl LogChunk {
    /// Nothing yet, up to `reached`.
    fn empty(reached: Offset) -> Self {
        let blocks = Vec::new();
        Self { blocks, reached, trimmed_through: 0, lost_from: None }
    }
}

/// What the log knows of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// The topic.
    pub topic: Topic,
    /// Retained events.
    pub events: u64,
    /// Their outward JSON, in bytes before compression.
    pub bytes: u64,
    /// The newest event's offset.
    pub last_offset: Offset,
    /// When the newest event was received.
    pub last_received: Millis,
    /// The newest event of the topic that retention has removed; 0 if none was.
    pub trimmed_through: Offset,
    /// How long its events are kept at least, in milliseconds.
    pub max_age: Millis,
}

/// What weakens the promises of a log.
#[derive(Debug, Default)]
pub struct LogHealth<'a> {
    /// Nothing has been heard of it for a second.
    pub is_stale: bool,
    /// This node's clock and that of the log disagree.
    pub is_apart: bool,
    /// What is so as long as the log is set up like this, a sentence each.
    pub warnings: &'a [String],
}

impl Broker {
    /// Opens the log of one node in `folder`, or makes it. Blocks; nothing else may hold the folder.
    pub fn open(
        config: journal::JournalConfig,
        folder: &Path,
        clock: Clock,
        telemetry: Telemetry,
    ) -> Result<Self, journal::JournalOpenError> {
        Journal::open(config, folder, clock, telemetry).map(Self::Journal)
    }

    /// Joins the log that many nodes share, or makes it.
    pub async fn join(
        config: journal::JournalConfig,
        server: Server,
        clock: Clock,
        telemetry: Telemetry,
    ) -> Result<Self, RedisOpenError> {
        Redis::open(config, server, clock, telemetry).await.map(Self::Redis)
    }

    /// Stores a batch; resolves after the commit.
    pub async fn publish(&self, batch: Batch<'_>) -> Result<Published, PublishError> {
        batch.store(self).await
    }

    /// Takes a batch to be stored soon; resolves when it is queued.
    pub async fn enqueue(&self, events: Admitted) -> Result<(), PublishError> {
        match self {
            Self::Journal(journal) => journal.enqueue(events).await,
            Self::Redis(redis) => redis.enqueue(events).await,
        }
    }

    /// The newest committed position.
    pub fn head(&self) -> Position {
        self.front().head()
    }

    /// The head on whatever node: everything that anybody stored before this call lies up to it. This node may not have
    /// read so far yet.
    pub async fn head_of_all(&self) -> Result<Offset, ReadError> {
        match self {
            Self::Journal(journal) => Ok(journal.front().offset()),
            Self::Redis(redis) => redis.reader().head_of_all().await,
        }
    }

    /// Changes after each commit, when its blocks can be read.
    pub fn tail(&self) -> watch::Receiver<Offset> {
        self.front().tail()
    }

    /// The log's epochs, and what offsets, positions and times mean in them.
    pub fn epochs(&self) -> Epochs<'_> {
        Epochs::new(self)
    }

    /// What weakens the log's promises at the moment, and what does so always.
    pub fn health(&self) -> LogHealth<'_> {
        match self {
            Self::Journal(_) => LogHealth::default(),
            Self::Redis(redis) => redis.health(),
        }
    }

    /// The blocks in memory with records above `after`; None if memory does not reach back there.
    pub fn recent(&self, after: Offset) -> Option<Vec<Arc<Block>>> {
        self.front().recent(after)
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
        match self {
            Self::Journal(journal) => journal.read(after, until, filter, budget).await,
            Self::Redis(redis) => redis.reader().read(after, until, filter, budget).await,
        }
    }

    /// A search for the last `count` that match and are not above `until`.
    pub fn newest(&self, filter: &TopicFilter, count: usize, until: Offset) -> NewestSearch {
        NewestSearch::new(self.clone(), filter, count, until)
    }

    /// The newest record of each matching (topic, key), to be read in pieces.
    pub fn latest(&self, filter: TopicFilter) -> LatestReader {
        LatestReader::new(self.clone(), filter)
    }

    /// Which topics there are, what is known of them, and what they lost.
    pub fn topics(&self) -> TopicCatalog<'_> {
        TopicCatalog::new(self)
    }

    /// Runs retention now, to its end.
    pub async fn maintain(&self) {
        match self {
            Self::Journal(journal) => journal.maintain().await,
            Self::Redis(redis) => redis.maintain().await,
        }
    }

    /// Stores what is queued and ends. Later publishes are refused.
    pub async fn close(&self) {
        match self {
            Self::Journal(journal) => journal.close().await,
            Self::Redis(redis) => redis.close().await,
        }
    }

    /// What of it is in memory.
    fn front(&self) -> &LogFront {
        match self {
            Self::Journal(journal) => journal.front(),
            Self::Redis(redis) => redis.front(),
        }
    }
}
