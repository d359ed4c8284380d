//! The writer: one thread that gives offsets, commits, announces and answers, in this order.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{
    JournalShared, Request,
    checkpoints::{Checkpoints, checkpoint},
    dedupe::Dedupe,
    disk_room::DiskRoom,
    folder_lock::FolderLock,
    state::JournalState,
    topics::TopicId,
};
use crate::{
    broker::{codec::Compressor, queue::QueuedBatch},
    position::Offset,
    sqlite::Reserve,
    time::Millis,
};

/// About how much one commit takes in; the rest waits for the next.
const GROUP_BYTES: usize = 4 << 20;
/// How often retention and merging get a turn.
const MAINTENANCE: Duration = Duration::from_millis(500);
/// Past this the write-ahead log is started anew, whoever has to wait.
const WAL_MAX: u64 = 256 << 20;

pub(super) struct JournalWriter {
    pub(super) shared: Arc<JournalShared>,
    pub(super) connection: Connection,
    queue: mpsc::Receiver<Request>,
    pub(super) dedupe: Dedupe,
    dedupe_key: [u8; 16],
    /// When the newest event was received; the next is not older.
    pub(super) received: Millis,
    /// The stored bodies together, in bytes.
    pub(super) stored_bytes: u64,
    pub(super) compressor: Compressor,
    pub(super) disk: DiskRoom,
    /// Whether the file knows the epoch; if the disk was full at the start, the first commit notes it.
    pub(super) is_noted: bool,
    /// Whether the file may know more than we do.
    pub(super) unsure: bool,
    pub(super) upkeep: UpkeepProgress,
    pub(super) checkpoints: Checkpoints,
    _lock: FolderLock,
}

/// How far upkeep has come.
pub(super) struct UpkeepProgress {
    /// If the log was kept under other rules: blocks up to here were looked at under these.
    pub(super) looked_through: Option<Offset>,
    /// Topics whose keys in `latest` have not been counted since they changed.
    pub(super) touched: HashSet<TopicId>,
    /// Small blocks up to here were looked at in vain.
    pub(super) merged_through: Offset,
}

impl JournalWriter {
    #[expect(clippy::too_many_arguments, reason = "its parts, put together in one place only")]
    pub(super) fn new(
        shared: Arc<JournalShared>,
        connection: Connection,
        queue: mpsc::Receiver<Request>,
        path: PathBuf,
        lock: FolderLock,
        reserve: Reserve,
        dedupe_key: [u8; 16],
        dedupe: Dedupe,
        received: Millis,
        stored_bytes: u64,
        is_noted: bool,
        looked_through: Option<Offset>,
    ) -> std::io::Result<Self> {
        let disk = DiskRoom::new(reserve, shared.telemetry.clone());
        Ok(Self {
            shared,
            connection,
            queue,
            dedupe,
            dedupe_key,
            received,
            stored_bytes,
            compressor: Compressor::new()?,
            disk,
            is_noted,
            unsure: false,
            upkeep: UpkeepProgress { looked_through, touched: HashSet::new(), merged_through: 0 },
            checkpoints: Checkpoints::start(path)?,
            _lock: lock,
        })
    }

    pub(super) fn run(mut self) {
        let mut maintenance = Instant::now() + MAINTENANCE;
        loop {
            let wait = maintenance.saturating_duration_since(Instant::now());
            let mut request = self.queue.recv_timeout(wait);
            if let Ok(Request::Publish(first)) = request {
                let (group, next) = self.gather(first);
                self.commit(group);
                request = next.ok_or(mpsc::RecvTimeoutError::Timeout);
            }
            match request {
                Ok(Request::Maintain(done)) => {
                    while self.maintain() {}
                    // Whoever asked may have gone.
                    let _ = done.send(());
                }
                Ok(Request::Close) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Ok(Request::Publish(_)) | Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() >= maintenance {
                let more = self.look_after();
                let pause = if more { MAINTENANCE / 50 } else { MAINTENANCE };
                maintenance = Instant::now() + pause;
                self.measure();
            }
            self.checkpoints.ask_if_due();
        }
        self.finish();
    }

    /// What else is queued, up to the size of a group, and the first request of another kind.
    fn gather(&self, first: QueuedBatch) -> (Vec<QueuedBatch>, Option<Request>) {
        let mut bytes = first.bytes;
        let mut group = vec![first];
        while bytes < GROUP_BYTES {
            match self.queue.try_recv() {
                Ok(Request::Publish(batch)) => {
                    bytes += batch.bytes;
                    group.push(batch);
                }
                Ok(other) => return (group, Some(other)),
                Err(_) => break,
            }
        }
        (group, None)
    }

    /// Reads back what the file holds after a commit whose outcome is unknown.
    pub(super) fn reload(&mut self) -> rusqlite::Result<()> {
        let shared = self.shared.clone();
        let (config, rules, clock) = (&shared.config, &shared.rules, &shared.clock);
        let state = JournalState::load(&self.connection, config, rules, self.dedupe_key, clock)?;
        let announced = shared.front.offset();
        let missed = super::block_search::blocks_after(&self.connection, announced)?;
        // What was there may be a million topics: it is dropped when nobody waits for the lock.
        let before = std::mem::replace(&mut *shared.topics.write(), state.topics);
        drop(before);
        self.dedupe = state.dedupe;
        self.received = self.received.max(state.received);
        self.stored_bytes = state.stored_bytes;
        for block in missed {
            shared.front.lock().ring.push(block);
        }
        if state.head > announced {
            shared.front.move_to(state.head);
        }
        self.unsure = false;
        Ok(())
    }

    fn measure(&mut self) {
        let telemetry = &self.shared.telemetry;
        telemetry.clock(self.shared.clock.jumps(), self.shared.clock.is_settled());
        telemetry.journal_bytes.set(self.stored_bytes as i64);
        let wal = self.checkpoints.wal_bytes();
        telemetry.journal_wal_bytes.set(wal as i64);
        self.checkpoints.ask();
        if wal > WAL_MAX
            && let Err(error) = checkpoint(&self.connection, "RESTART")
        {
            self.disk.failed("the journal's write-ahead log could not be started anew", &error);
        }
    }

    fn finish(mut self) {
        self.checkpoints.end();
        if let Err(error) = checkpoint(&self.connection, "TRUNCATE") {
            tracing::warn!(%error, "the last checkpoint failed; the next start makes up for it");
        }
    }
}
