//! The log of one node: one SQLite file, one writer thread, a ring of the newest blocks.
//!
//! Writes are gathered and committed together; after the commit they are announced and answered.

mod block_rows;
mod block_search;
mod check;
mod checkpoints;
mod commit;
mod commit_group;
mod config;
mod dedupe;
mod disk_room;
mod file;
mod folder_lock;
mod forget;
mod latest_cap;
mod merge;
mod meta;
mod new_topics;
mod open;
mod reader;
mod schema;
mod state;
mod topics;
mod trim;
mod upkeep;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, oneshot};

pub(super) use self::config::RetentionRules;
pub use self::{
    check::{Report, check, export},
    config::{JournalConfig, RetentionRule, Sync},
};
use self::{reader::Readers, topics::JournalTopics};
use super::{
    LogChunk, NewestStretch, PublishError, Published, ReadError, Resumption, TopicInfo,
    front::LogFront,
    latest::{LatestPlace, LatestSearch},
    look_back::LookBack,
    queue::{PublishReply, QueueRoom, QueuedBatch},
};
use crate::{
    admission::Admitted,
    event::Block,
    position::{Offset, Position},
    sqlite,
    telemetry::Telemetry,
    time::{Clock, Millis},
    topic::{Topic, TopicFilter},
};

/// Why the journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalOpenError {
    /// The file or folder.
    #[error(transparent)]
    File(#[from] sqlite::OpenError),
    /// Another process holds the folder.
    #[error("another pulsehub already uses {0}; stop it, or choose another data folder")]
    Locked(PathBuf),
    /// The lock or the writer could not be set up.
    #[error("cannot set up the journal in {path}: {error}")]
    Setup {
        /// The data folder.
        path: PathBuf,
        /// What went wrong.
        error: String,
    },
}

/// The log of one node. Cheap to clone.
#[derive(Clone)]
pub struct Journal(Arc<JournalInner>);

struct JournalInner {
    shared: Arc<JournalShared>,
    readers: Arc<Readers>,
    /// For those who read the file: each has a connection of its own meanwhile, with some MB of pages.
    reading: Arc<Semaphore>,
    requests: mpsc::SyncSender<Request>,
    queue: QueueRoom,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the writer and the readers both see.
struct JournalShared {
    /// The newest epoch began with this start.
    front: LogFront,
    config: JournalConfig,
    rules: RetentionRules,
    clock: Clock,
    telemetry: Telemetry,
    /// Held for look-ups and updates in memory only.
    topics: RwLock<JournalTopics>,
}

enum Request {
    Publish(QueuedBatch),
    /// Looks after retention now; used by tests and when the journal closes.
    Maintain(oneshot::Sender<()>),
    Close,
}

impl Journal {
    /// Opens the journal in `folder`, or makes it. Blocks; nothing else may hold the folder.
    pub fn open(
        config: JournalConfig,
        folder: &Path,
        clock: Clock,
        telemetry: Telemetry,
    ) -> Result<Self, JournalOpenError> {
        open::open(config, folder, clock, telemetry)
    }

    /// Stores a batch; resolves after the commit.
    pub async fn publish(&self, events: Admitted) -> Result<Published, PublishError> {
        let (answer, answered) = oneshot::channel();
        self.queue(events, Some(answer)).await?;
        answered.await.unwrap_or(Err(PublishError::Closed))
    }

    /// Takes a batch to be stored soon; resolves when it is queued.
    pub async fn enqueue(&self, events: Admitted) -> Result<(), PublishError> {
        self.queue(events, None).await
    }

    async fn queue(
        &self,
        events: Admitted,
        answer: Option<PublishReply>,
    ) -> Result<(), PublishError> {
        let JournalInner { queue, requests, .. } = &*self.0;
        let batch = queue.enter(events, answer, ()).await?;
        requests.try_send(Request::Publish(batch)).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => queue.overloaded(),
            mpsc::TrySendError::Disconnected(_) => PublishError::Closed,
        })
    }

    /// What of it is in memory.
    pub(super) fn front(&self) -> &LogFront {
        &self.0.shared.front
    }

    /// What a position of any epoch means here.
    pub fn resume(&self, position: Position) -> Resumption {
        let head = self.front().head();
        let meaning = self.front().lock().lineage.resume(position);
        match meaning {
            Some(Ok(offset)) if offset <= head.offset => Resumption::From(offset),
            Some(Err(to)) => Resumption::Lost(to),
            // Of an epoch that this log never was in, or never given out.
            Some(Ok(_)) | None => Resumption::Lost(head),
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
    ) -> Result<LogChunk, ReadError> {
        if let Some(chunk) = self.front().read(after, until, budget) {
            return Ok(chunk);
        }
        let filter = filter.clone();
        self.blocking(move |readers| readers.read(after, until, &filter, budget)).await
    }

    /// Before the first record received at or after `since`: the offset to read after.
    pub async fn locate(&self, since: Millis, until: Offset) -> Result<Offset, ReadError> {
        self.blocking(move |readers| readers.locate_since(since, until)).await
    }

    /// Goes on with a search for the last that match, through memory and then about `budget` bytes of the file.
    pub(super) async fn newest(
        &self,
        back: LookBack,
        budget: usize,
    ) -> Result<NewestStretch, ReadError> {
        self.blocking(move |readers| readers.newest(back, budget)).await
    }

    /// Searches the topics for the newest values.
    pub(super) async fn search_latest(
        &self,
        filter: &TopicFilter,
        search: LatestSearch,
    ) -> Result<LatestSearch, ReadError> {
        let filter = filter.clone();
        self.blocking(move |readers| readers.search_latest(&filter, search)).await
    }

    /// The newest values at these places.
    pub(super) async fn latest_at(
        &self,
        places: Vec<LatestPlace>,
    ) -> Result<Vec<Arc<Block>>, ReadError> {
        self.blocking(move |readers| readers.latest_at(&places)).await
    }

    /// The topics that begin with `prefix` and sort after `after`, in order, at most `most`. It may block on the writer.
    pub fn topics_page(&self, prefix: &str, after: &str, most: usize) -> Vec<Topic> {
        self.0.shared.topics.read().page(prefix, after, most)
    }

    /// What is known of some topics.
    pub async fn topic_infos(&self, topics: Vec<Topic>) -> Result<Vec<TopicInfo>, ReadError> {
        self.blocking(move |readers| Ok(readers.infos(&topics))).await
    }

    /// The last offset that retention took from the filter above `after`; 0 if it took nothing.
    pub async fn trimmed_through(
        &self,
        filter: &TopicFilter,
        after: Offset,
    ) -> Result<Offset, ReadError> {
        if let Some(lost) = self.0.shared.topics.read().lost(filter, after) {
            return Ok(lost);
        }
        // There may be a million topics to look at, which is no work for a runtime worker.
        let filter = filter.clone();
        self.blocking(move |readers| Ok(readers.trimmed_through(&filter, after))).await
    }

    /// Runs retention and merging now, to their end.
    pub async fn maintain(&self) {
        let (done, is_done) = oneshot::channel();
        if self.0.requests.try_send(Request::Maintain(done)).is_ok() {
            // An error means that the writer has ended: then nothing is left to maintain.
            let _ = is_done.await;
        }
    }

    /// Stores what is queued, tidies the file and ends the writer. Later publishes are refused.
    pub async fn close(&self) {
        self.0.queue.close();
        let inner = self.0.clone();
        let closed = tokio::task::spawn_blocking(move || inner.end_writer()).await;
        if closed.is_err() {
            tracing::error!("the journal's writer ended with a panic");
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Readers) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let readers = self.0.readers.clone();
        // Never closed. It goes with the work, which goes on when whoever asked is gone.
        let reading = self.0.reading.clone().acquire_owned().await;
        let work = move || {
            let _reading = reading;
            read(&readers)
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| ReadError(error.to_string()))?
    }
}

impl JournalInner {
    fn end_writer(&self) {
        if let Some(writer) = self.writer.lock().take() {
            // A writer that has ended already takes no message, and joining it is all there is.
            let _ = self.requests.send(Request::Close);
            if writer.join().is_err() {
                tracing::error!("the journal's writer had panicked");
            }
        }
    }
}

impl Drop for JournalInner {
    fn drop(&mut self) {
        self.end_writer();
    }
}
