//! The log behind one interface: publishers write to it, the hub and followers read from it.
//!
//! Whatever the broker behind it, an event is announced to readers only after its commit, and no
//! offset is given twice within an epoch. `tests/broker.rs` holds the contract each broker passes.

mod candidates;
mod codec;
pub mod journal;
mod latest;
mod lineage;
mod look_back;
mod losses;
mod publish;
pub mod redis;
mod ring;

use std::{path::Path, sync::Arc};

use tokio::sync::watch;

use self::{
    journal::Journal,
    latest::{LatestPlace, LatestSearch},
    redis::Redis,
};
pub use self::{
    latest::LatestReader,
    publish::{Batch, LeftOut, PublishError, Published},
};
use crate::{
    admission::Admitted,
    event::{Block, BlockBuilder},
    lease::Fence,
    position::{Epoch, Offset, Position},
    redis::{OpenError, Server},
    telemetry::Telemetry,
    time::{Clock, Millis},
    topic::{Topic, TopicFilter},
};

/// The names of all topics, in order.
pub enum TopicIndex {
    /// Kept up to date.
    Journal(Journal),
    /// As they were at one moment.
    Redis(redis::KnownNames),
}

impl TopicIndex {
    /// The topics that begin with `prefix` and sort after `after`, at most `most`. It may block on a writer for some
    /// milliseconds: call it from no thread of the runtime.
    pub fn page(&self, prefix: &str, after: &str, most: usize) -> Vec<Topic> {
        match self {
            Self::Journal(journal) => journal.topics_page(prefix, after, most),
            Self::Redis(names) => names.page(prefix, after, most),
        }
    }
}

/// Newest values read at a time for those who want all of them, in bytes.
const LATEST_PIECE: usize = 1 << 20;

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
pub struct Chunk {
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

impl Chunk {
    /// Nothing yet, up to `reached`.
    fn empty(reached: Offset) -> Self {
        let blocks = Vec::new();
        Self { blocks, reached, trimmed_through: 0, lost_from: None }
    }
}

/// What a position that a subscriber had means in the log as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumption {
    /// It goes on behind this offset, and has missed nothing up to there.
    From(Offset),
    /// What it had was lost, or never was: it goes on from here.
    Lost(Position),
}

/// A stretch of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The offset before its first.
    pub after: Offset,
    /// Its last.
    pub until: Offset,
    /// The first that was found in it; behind its last if none was.
    pub first: Offset,
    /// Whether what was wanted may lie before it too: the search has a bound.
    pub is_cut: bool,
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

impl Broker {
    /// Opens the log of one node in `folder`, or makes it. Blocks; nothing else may hold the folder.
    pub fn open(
        config: journal::Config,
        folder: &Path,
        clock: Clock,
        telemetry: Telemetry,
    ) -> Result<Self, journal::OpenError> {
        Journal::open(config, folder, clock, telemetry).map(Self::Journal)
    }

    /// Joins the log that many nodes share, or makes it.
    pub async fn join(
        config: journal::Config,
        server: Server,
        clock: Clock,
        telemetry: Telemetry,
    ) -> Result<Self, OpenError> {
        Redis::open(config, server, clock, telemetry).await.map(Self::Redis)
    }

    /// Stores a batch; resolves after the commit.
    pub async fn publish(&self, batch: Batch<'_>) -> Result<Published, PublishError> {
        let Batch { events, fence, least } = batch;
        match least {
            None => self.store(events, fence).await,
            Some(least) => self.store_what_fits(events, fence, least).await,
        }
    }

    async fn store(
        &self,
        events: Admitted,
        fence: Option<&Fence>,
    ) -> Result<Published, PublishError> {
        match self {
            // The lock on the data folder lets only one node write.
            Self::Journal(journal) => journal.publish(events).await,
            Self::Redis(redis) => redis.publish(events, fence).await,
        }
    }

    async fn store_what_fits(
        &self,
        mut events: Admitted,
        fence: Option<&Fence>,
        least: usize,
    ) -> Result<Published, PublishError> {
        let mut left_out: Option<Box<LeftOut>> = None;
        while !events.is_empty() {
            let (limit, topics) = match self.store(events.clone(), fence).await {
                Err(PublishError::TooManyTopics { limit, topics }) => (limit, topics),
                stored => return Ok(Published { left_out, ..stored? }),
            };
            let before = events.len();
            events.retain(|event| !topics.contains(&event.topic));
            if events.len() == before || events.len() < least {
                return Err(PublishError::TooManyTopics { limit, topics });
            }
            match &mut left_out {
                Some(left_out) => left_out.topics.extend(topics),
                None => left_out = Some(Box::new(LeftOut { topics, limit })),
            }
        }
        Ok(Published { position: self.head(), offsets: Vec::new(), accepted: 0, left_out })
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
        match self {
            Self::Journal(journal) => journal.head(),
            Self::Redis(redis) => redis.head(),
        }
    }

    /// The head on whatever node: everything that anybody stored before this call lies up to it. This node may not have
    /// read so far yet.
    pub async fn head_of_all(&self) -> Result<Offset, ReadError> {
        match self {
            Self::Journal(journal) => Ok(journal.head().offset),
            Self::Redis(redis) => redis.head_of_all().await,
        }
    }

    /// Names the history that the log is in.
    pub fn epoch(&self) -> Epoch {
        match self {
            Self::Journal(journal) => journal.epoch(),
            Self::Redis(redis) => redis.epoch(),
        }
    }

    /// How many offsets were given out above `after` up to `until`; between two epochs lies a hole.
    pub fn offsets_between(&self, after: Offset, until: Offset) -> u64 {
        match self {
            Self::Journal(journal) => journal.offsets_between(after, until),
            Self::Redis(redis) => redis.offsets_between(after, until),
        }
    }

    /// Changes after each commit, when its blocks can be read.
    pub fn tail(&self) -> watch::Receiver<Offset> {
        match self {
            Self::Journal(journal) => journal.tail(),
            Self::Redis(redis) => redis.tail(),
        }
    }

    /// Whether nothing has been heard of the log for a second.
    pub fn is_stale(&self) -> bool {
        match self {
            Self::Journal(_) => false,
            Self::Redis(redis) => redis.is_stale(),
        }
    }

    /// Whether this node's clock and that of the log disagree.
    pub fn is_apart(&self) -> bool {
        match self {
            Self::Journal(_) => false,
            Self::Redis(redis) => redis.is_apart(),
        }
    }

    /// What weakens the log's promises, a sentence each.
    pub fn warnings(&self) -> &[String] {
        match self {
            Self::Journal(_) => &[],
            Self::Redis(redis) => redis.warnings(),
        }
    }

    /// The blocks in memory with records above `after`; None if memory does not reach back there.
    pub fn recent(&self, after: Offset) -> Option<Vec<Arc<Block>>> {
        match self {
            Self::Journal(journal) => journal.recent(after),
            Self::Redis(redis) => redis.recent(after),
        }
    }

    /// Reads what lies above `after` up to `until`: blocks that hold all that matches `filter`,
    /// about `budget` bytes of them, at least one.
    pub async fn read(
        &self,
        after: Offset,
        until: Offset,
        filter: &TopicFilter,
        budget: usize,
    ) -> Result<Chunk, ReadError> {
        match self {
            Self::Journal(journal) => journal.read(after, until, filter, budget).await,
            Self::Redis(redis) => redis.read(after, until, filter, budget).await,
        }
    }

    /// Before the first record received at or after `since`: the offset to read after.
    pub async fn locate(&self, since: Millis, until: Offset) -> Result<Offset, ReadError> {
        match self {
            Self::Journal(journal) => journal.locate(since, until).await,
            Self::Redis(redis) => redis.locate(since, until).await,
        }
    }

    /// Where the last `count` that match and are not above `until` lie; fewer of them where about
    /// `budget` bytes were looked through before. What lies above it, up to `until`, does not match. Some of what
    /// matches in between may have been lost: reading it tells.
    pub async fn newest(
        &self,
        filter: &TopicFilter,
        count: usize,
        until: Offset,
        budget: usize,
    ) -> Result<Stretch, ReadError> {
        match self {
            Self::Journal(journal) => journal.newest(filter, count, until, budget).await,
            Self::Redis(redis) => redis.newest(filter, count, until, budget).await,
        }
    }

    /// Whether the newest blocks in memory hold the last `count`, so that finding them takes no long search.
    pub fn holds_newest(&self, filter: &TopicFilter, count: usize, until: Offset) -> bool {
        match self {
            Self::Journal(journal) => journal.holds_newest(filter, count, until),
            Self::Redis(redis) => redis.holds_newest(filter, count, until),
        }
    }

    /// What a position means here that somebody had before, of whatever epoch.
    pub async fn resume(&self, position: Position) -> Result<Resumption, ReadError> {
        match self {
            Self::Redis(redis) => redis.resume(position).await,
            Self::Journal(journal) => Ok(journal.resume(position)),
        }
    }

    /// The newest record of each matching (topic, key), in the order of their offsets. For topics of which it is known that
    /// there is little: of others they are to be read in pieces, with a [`LatestReader`].
    pub async fn latest(&self, filter: &TopicFilter) -> Result<Arc<Block>, ReadError> {
        let mut reader = LatestReader::new(self.clone(), filter.clone(), Offset::MAX);
        let mut builder = BlockBuilder::default();
        while let Some(values) = reader.next(LATEST_PIECE).await? {
            values.records().for_each(|record| builder.push_record(record));
        }
        Ok(builder.finish())
    }

    /// Searches the topics for the newest values, which `search` takes in.
    async fn search_latest(
        &self,
        filter: &TopicFilter,
        search: LatestSearch,
    ) -> Result<LatestSearch, ReadError> {
        match self {
            Self::Journal(journal) => journal.search_latest(filter, search).await,
            Self::Redis(redis) => redis.search_latest(filter, search).await,
        }
    }

    /// The newest values at these places, in order; one that has changed meanwhile is left out.
    async fn latest_at(&self, places: Vec<LatestPlace>) -> Result<Vec<Arc<Block>>, ReadError> {
        match self {
            Self::Journal(journal) => journal.latest_at(places).await,
            Self::Redis(redis) => redis.latest_at(&places).await,
        }
    }

    /// All topics, in order.
    pub async fn topics(&self) -> Result<Vec<TopicInfo>, ReadError> {
        let names = self.topic_index().await?.page("", "", usize::MAX);
        self.topic_infos(names).await
    }

    /// The names of all topics, to page through.
    pub async fn topic_index(&self) -> Result<TopicIndex, ReadError> {
        match self {
            Self::Journal(journal) => Ok(TopicIndex::Journal(journal.clone())),
            Self::Redis(redis) => redis.topic_names().await.map(TopicIndex::Redis),
        }
    }

    /// What is known of some topics, which are given in order; one that was forgotten is left out.
    pub async fn topic_infos(&self, topics: Vec<Topic>) -> Result<Vec<TopicInfo>, ReadError> {
        match self {
            Self::Journal(journal) => journal.topic_infos(topics).await,
            Self::Redis(redis) => redis.topic_infos(&topics).await,
        }
    }

    /// The last offset that retention took from the filter; 0 if it took nothing.
    pub async fn trimmed_through(&self, filter: &TopicFilter) -> Result<Offset, ReadError> {
        match self {
            Self::Journal(journal) => journal.trimmed_through(filter, 0).await,
            Self::Redis(redis) => redis.trimmed_through(filter).await,
        }
    }

    /// Whether something that matches was lost above `after`, for whatever reason.
    pub async fn has_lost(&self, filter: &TopicFilter, after: Offset) -> Result<bool, ReadError> {
        match self {
            Self::Journal(journal) => Ok(journal.trimmed_through(filter, after).await? > after),
            Self::Redis(redis) => redis.has_lost(filter, after).await,
        }
    }

    /// The position of an offset, in the epoch that gave it out.
    pub fn position(&self, offset: Offset) -> Position {
        match self {
            Self::Journal(journal) => journal.position(offset),
            Self::Redis(redis) => redis.position(offset),
        }
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
}
