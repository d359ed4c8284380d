//! The log behind one interface: publishers write to it, the hub and consumers read from it.
//!
//! Whatever the broker behind it, an event is announced to readers only after its commit, and no
//! offset is given twice within an epoch. `tests/broker.rs` holds the contract each broker passes.

pub mod journal;

use std::{sync::Arc, time::Duration};

pub use journal::Journal as Broker;

use crate::{
    event::Block,
    position::{Offset, Position},
    time::Millis,
    topic::Topic,
};

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
    /// The batch would make more topics than the log may hold.
    #[error("the log already holds {limit} topics, its limit")]
    TooManyTopics {
        /// `journal.max_topics`.
        limit: usize,
    },
    /// The log is closing; nothing of the batch was taken.
    #[error("the hub is shutting down")]
    Closed,
}

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the log cannot be read: {0}")]
pub struct ReadError(pub String);

/// A piece of history.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// Blocks in order that hold every matching record in the range read, and others beside them.
    pub blocks: Vec<Arc<Block>>,
    /// Everything that matches and is retained, up to and including this offset, is in `blocks`.
    pub reached: Offset,
    /// Events that match, up to and including this offset, have been trimmed: what lies between
    /// the start of the range and here may be incomplete. 0 when nothing was lost to the filter.
    pub trimmed_through: Offset,
}

/// Where a replay begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayStart {
    /// Before the last `n` matching records.
    Last(usize),
    /// Before the first record received at or after this time.
    Since(Millis),
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
