//! The writer: one thread that gives offsets, commits, announces and answers, in this order.

use std::{
    collections::HashSet,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{JournalShared, Request, dedupe::Dedupe, state::JournalState, topics::TopicId};
use crate::{
    broker::{codec::Compressor, queue::QueuedBatch},
    position::Offset,
    sqlite::{self, Reserve},
    time::Millis,
};

/// About how much one commit takes in; the rest waits for the next.
const GROUP_BYTES: usize = 4 << 20;
/// How often retention and merging get a turn.
const MAINTENANCE: Duration = Duration::from_millis(500);
/// Written since the last checkpoint, this much asks for the next.
const CHECKPOINT_BYTES: u64 = 4 << 20;
/// Past this the write-ahead log is started anew, whoever has to wait.
const WAL_MAX: u64 = 256 << 20;

pub(super) struct JournalWriter {
    pub(super) shared: Arc<JournalShared>,
    pub(super) connection: Connection,
    queue: mpsc::Receiver<Request>,
    pub(super) path: PathBuf,
    pub(super) dedupe: Dedupe,
    dedupe_key: [u8; 16],
    /// When the newest event was received; the next is not older.
    pub(super) received: Millis,
    /// The stored bodies together, in bytes.
    pub(super) stored_bytes: u64,
    pub(super) compressor: Compressor,
    /// Whether the last commit failed; said once, and once when it is over.
    pub(super) failing: bool,
    /// Whether the disk is full: nothing is stored until there is room for the reserve again.
    pub(super) is_full: bool,
    pub(super) reserve: Reserve,
    /// No earlier the reserve is made again.
    pub(super) grow_at: Instant,
    /// Whether the file knows the epoch; if the disk was full at the start, the first commit notes it.
    pub(super) is_noted: bool,
    /// If the log was kept under other rules: blocks up to here were looked at under these.
    pub(super) looked_through: Option<Offset>,
    /// Whether the file may know more than we do.
    pub(super) unsure: bool,
    pub(super) since_checkpoint: u64,
    /// Topics whose keys in `latest` have not been counted since they changed.
    pub(super) touched: HashSet<TopicId>,
    /// Small blocks up to here were looked at in vain.
    pub(super) merged_through: Offset,
    checkpoints: Option<(mpsc::SyncSender<()>, JoinHandle<()>)>,
    _lock: File,
}

impl JournalWriter {
    #[expect(clippy::too_many_arguments, reason = "its parts, put together in one place only")]
    pub(super) fn new(
        shared: Arc<JournalShared>,
        connection: Connection,
        queue: mpsc::Receiver<Request>,
        path: PathBuf,
        lock: File,
        reserve: Reserve,
        dedupe_key: [u8; 16],
        dedupe: Dedupe,
        received: Millis,
        stored_bytes: u64,
        is_noted: bool,
        looked_through: Option<Offset>,
    ) -> std::io::Result<Self> {
        let checkpoints = start_checkpoints(&path)?;
        Ok(Self {
            shared,
            connection,
            queue,
            path,
            dedupe,
            dedupe_key,
            received,
            stored_bytes,
            compressor: Compressor::new()?,
            failing: false,
            is_full: false,
            reserve,
            grow_at: Instant::now(),
            is_noted,
            looked_through,
            unsure: false,
            since_checkpoint: 0,
            touched: HashSet::new(),
            merged_through: 0,
            checkpoints: Some(checkpoints),
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
            if self.since_checkpoint >= CHECKPOINT_BYTES {
                self.ask_for_checkpoint();
            }
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
        let announced = *shared.head.borrow();
        let missed = super::block_search::blocks_after(&self.connection, announced)?;
        // What was there may be a million topics: it is dropped when nobody waits for the lock.
        let before = std::mem::replace(&mut *shared.topics.write(), state.topics);
        drop(before);
        self.dedupe = state.dedupe;
        self.received = self.received.max(state.received);
        self.stored_bytes = state.stored_bytes;
        for block in missed {
            shared.ring.lock().push(block);
        }
        if state.head > announced {
            shared.head.send_replace(state.head);
        }
        self.unsure = false;
        Ok(())
    }

    fn ask_for_checkpoint(&mut self) {
        self.since_checkpoint = 0;
        if let Some((ask, _)) = &self.checkpoints {
            // Full means that one is asked for already.
            let _ = ask.try_send(());
        }
    }

    fn measure(&mut self) {
        let telemetry = &self.shared.telemetry;
        telemetry.clock(self.shared.clock.jumps(), self.shared.clock.is_settled());
        telemetry.journal_bytes.set(self.stored_bytes as i64);
        let wal = wal_bytes(&self.path);
        telemetry.journal_wal_bytes.set(wal as i64);
        if self.since_checkpoint > 0 {
            self.ask_for_checkpoint();
        }
        if wal > WAL_MAX
            && let Err(error) = checkpoint(&self.connection, "RESTART")
        {
            self.failed("the journal's write-ahead log could not be started anew", &error);
        }
    }

    fn finish(mut self) {
        if let Some((ask, thread)) = self.checkpoints.take() {
            drop(ask);
            if thread.join().is_err() {
                tracing::error!("the journal's checkpoint thread had panicked");
            }
        }
        if let Err(error) = checkpoint(&self.connection, "TRUNCATE") {
            tracing::warn!(%error, "the last checkpoint failed; the next start makes up for it");
        }
    }
}

/// Passive checkpoints on a thread of their own, so that no commit waits for them.
fn start_checkpoints(path: &Path) -> std::io::Result<(mpsc::SyncSender<()>, JoinHandle<()>)> {
    let (ask, asked) = mpsc::sync_channel(1);
    let path = path.to_owned();
    let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(move || {
        let connection = match sqlite::open_again(&path) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::error!(%error, "no checkpoints: the journal could not be opened again");
                return;
            }
        };
        let mut was_failing = false;
        for () in asked {
            let result = checkpoint(&connection, "PASSIVE");
            let is_failing = result.is_err();
            // Of a full disk the writer tells.
            if let Err(error) = result
                && !was_failing
                && !sqlite::is_full(&error)
            {
                tracing::warn!(%error, "a checkpoint of the journal failed; trying again");
            }
            was_failing = is_failing;
        }
    })?;
    Ok((ask, thread))
}

pub(super) fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<()> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
}

pub(super) fn wal_bytes(path: &Path) -> u64 {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    // There is none before the first write.
    std::fs::metadata(wal).map_or(0, |metadata| metadata.len())
}
