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
pub mod redis;
mod ring;

use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};

use tokio::sync::watch;

pub use self::latest::LatestReader;
use self::{
    journal::Journal,
    latest::{LatestPlace, LatestSearch},
    redis::Redis,
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

/// The answer to a publish that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The highest offset among the batch's.
    pub position: Position,
    /// One offset for each event, in order; a duplicate has its original's.
    pub offsets: Vec<Offset>,
    /// How many events were new.
    pub accepted: usize,
}

/// What became of a batch of which some may have had no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fitted {
    /// Of what was stored, if anything was.
    pub published: Option<Published>,
    /// The topics of the events that were not.
    pub without_room: HashSet<Topic>,
    /// `journal.max_topics`, if that is why.
    pub limit: Option<usize>,
}

/// Why a batch was not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The queue in front of the log is full; nothing of the batch was taken.
    #[error("the hub is taking in events as fast as it can store them")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The log cannot be written to; nothing of the batch was stored.
    #[error("the log cannot be written: {reason}")]
    Unavailable {
        /// What the storage said.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// Nobody can tell whether the batch was stored; with the same ids it can be sent again.
    #[error("the log did not answer, so the events may be stored or not: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
        /// The batch's ids, in order.
        ids: Vec<Box<str>>,
        /// When to try again.
        retry_after: Duration,
    },
    /// The writer's lease has passed to another; nothing of the batch was stored.
    #[error("the lease under which this was written is another's now")]
    Fenced,
    /// The batch would make more topics than the log may hold.
    #[error("the log already holds {limit} topics, its limit")]
    TooManyTopics {
        /// `journal.max_topics`.
        limit: usize,
        /// Those of the batch for which there is no room; without them it would have been stored.
        topics: HashSet<Topic>,
    },
    /// The log is closing; nothing of the batch was taken.
    #[error("the hub is shutting down")]
    Closed,
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
    pub async fn publish(&self, events: Admitted) -> Result<Published, PublishError> {
        match self {
            Self::Journal(journal) => journal.publish(events).await,
            Self::Redis(redis) => redis.publish(events).await,
        }
    }

    /// Stores a batch if the lease is still the writer's; resolves after the commit.
    pub async fn publish_fenced(
        &self,
        events: Admitted,
        fence: &Fence,
    ) -> Result<Published, PublishError> {
        match self {
            // The lock on the data folder lets only one node write.
            Self::Journal(journal) => journal.publish(events).await,
            Self::Redis(redis) => redis.publish_fenced(events, fence).await,
        }
    }

    /// Stores a batch but for the events whose topics the log has no room for, which cost no others; if
    /// there is one, the lease must still be the writer's. Where fewer than `least` would be left,
    /// nothing is stored.
    pub async fn publish_what_fits(
        &self,
        mut events: Admitted,
        fence: Option<&Fence>,
        least: usize,
    ) -> Result<Fitted, PublishError> {
        let mut fitted = Fitted { published: None, without_room: HashSet::new(), limit: None };
        while !events.is_empty() {
            let stored = match fence {
                Some(fence) => self.publish_fenced(events.clone(), fence).await,
                None => self.publish(events.clone()).await,
            };
            let (limit, topics) = match stored {
                Err(PublishError::TooManyTopics { limit, topics }) => (limit, topics),
                stored => return Ok(Fitted { published: Some(stored?), ..fitted }),
            };
            let before = events.len();
            events.retain(|event| !topics.contains(&event.topic));
            if events.len() == before || events.len() < least {
                return Err(PublishError::TooManyTopics { limit, topics });
            }
            fitted.without_room.extend(topics);
            fitted.limit = Some(limit);
        }
        Ok(fitted)
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
