//! The epochs of the log: which history each offset counts in.

use super::{Broker, ReadError};
use crate::{
    position::{Epoch, Offset, Position},
    time::Millis,
};

/// The epochs of a log.
pub struct Epochs<'a>(&'a Broker);

/// What a position that a subscriber had means in the log as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumption {
    /// It goes on behind this offset, and has missed nothing up to there.
    From(Offset),
    /// What it had was lost, or never was: it goes on from here.
    Lost(Position),
}

impl<'a> Epochs<'a> {
    pub(super) fn new(broker: &'a Broker) -> Self {
        Self(broker)
    }

    /// Names the history that the log is in.
    pub fn newest(&self) -> Epoch {
        self.0.front().head().epoch
    }

    /// The position of an offset, in the epoch that gave it out.
    pub fn position(&self, offset: Offset) -> Position {
        self.0.front().position(offset)
    }

    /// How many offsets were given out above `after` up to `until`; between two epochs lies a hole.
    pub fn offsets_between(&self, after: Offset, until: Offset) -> u64 {
        self.0.front().offsets_between(after, until)
    }

    /// Before the first record received at or after `since`: the offset to read after.
    pub async fn locate(&self, since: Millis, until: Offset) -> Result<Offset, ReadError> {
        match self.0 {
            Broker::Journal(journal) => journal.locate(since, until).await,
            Broker::Redis(redis) => redis.reader().locate(since, until).await,
        }
    }

    /// What a position means here that somebody had before, of whatever epoch.
    pub async fn resume(&self, position: Position) -> Result<Resumption, ReadError> {
        match self.0 {
            Broker::Redis(redis) => redis.reader().resume(position).await,
            Broker::Journal(journal) => Ok(journal.resume(position)),
        }
    }
}
