//! The log in one SQLite file: one writer thread, committed blocks, a ring of the newest in memory.

mod config;

use std::{path::Path, sync::Arc};

use tokio::sync::watch;

pub use config::{Config, RetentionRule, Sync};

use super::{Chunk, PublishError, Published, ReadError, ReplayStart, TopicInfo};
use crate::{
    event::{Block, Event},
    position::{Epoch, Offset, Position},
    telemetry::Telemetry,
    time::Clock,
    topic::TopicFilter,
};

/// The log in one data folder, which it owns alone. Cheap to clone.
#[derive(Clone)]
pub struct Journal;

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {}

impl Journal {
    /// Opens the journal in `data_dir`, making it where there is none. Blocks; for start-up.
    pub fn open(
        _config: Config,
        _data_dir: &Path,
        _clock: Clock,
        _telemetry: Telemetry,
    ) -> Result<Self, OpenError> {
        unimplemented!()
    }

    /// Stores `events`, all or none, and answers once they are committed.
    pub async fn publish(&self, _events: Vec<Event>) -> Result<Published, PublishError> {
        unimplemented!()
    }

    /// Queues `events` to be stored, all or none, and answers before they are.
    pub async fn enqueue(&self, _events: Vec<Event>) -> Result<(), PublishError> {
        unimplemented!()
    }

    /// The last committed event's position.
    pub fn head(&self) -> Position {
        unimplemented!()
    }

    /// Names the history in the file.
    pub fn epoch(&self) -> Epoch {
        unimplemented!()
    }

    /// The head's offset as it moves; what it names can be read when it is seen here.
    pub fn tail(&self) -> watch::Receiver<Offset> {
        unimplemented!()
    }

    /// The newest blocks, those with records above `after`; `None` when memory no longer reaches
    /// back that far.
    pub fn recent(&self, _after: Offset) -> Option<Vec<Arc<Block>>> {
        unimplemented!()
    }

    /// Reads history in `(after, until]`, about `budget_bytes` of JSON but at least one block.
    ///
    /// `reached` is `until` (or the head, if that is lower) when all was looked at.
    pub async fn read(
        &self,
        _after: Offset,
        _until: Offset,
        _filter: &TopicFilter,
        _budget_bytes: usize,
    ) -> Result<Chunk, ReadError> {
        unimplemented!()
    }

    /// The offset after which to read so that a replay up to `until` begins at `start`.
    pub async fn locate(
        &self,
        _filter: &TopicFilter,
        _start: ReplayStart,
        _until: Offset,
    ) -> Result<Offset, ReadError> {
        unimplemented!()
    }

    /// The newest record of each (topic, key) that matches, in order of offset.
    ///
    /// Holds at least everything up to the head at the time of the call; it may hold newer records.
    pub async fn latest(&self, _filter: &TopicFilter) -> Result<Arc<Block>, ReadError> {
        unimplemented!()
    }

    /// Every topic the log knows.
    pub fn topics(&self) -> Vec<TopicInfo> {
        unimplemented!()
    }

    /// The newest matching event that retention has removed; 0 if none was.
    pub fn trimmed_through(&self, _filter: &TopicFilter) -> Offset {
        unimplemented!()
    }

    /// Stores what is queued and closes the file; publishing afterwards is refused as closed.
    pub async fn close(&self) {
        unimplemented!()
    }
}
