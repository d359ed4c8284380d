//! The file as its writer has it open.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rusqlite::Connection;

use super::{
    JournalShared,
    checkpoints::{Checkpoints, checkpoint},
};
use crate::{broker::codec::Compressor, sqlite};

/// What a commit writes beside bodies, about.
const PAGE: u64 = 4096;
/// Pages given back to the file system in one step.
const VACUUM_PAGES: u32 = 256;
/// How long truncating the write-ahead log waits for readers.
const READERS: Duration = Duration::from_millis(100);
/// Past this the write-ahead log is started anew, whoever has to wait.
const WAL_MAX: u64 = 256 << 20;

/// The open file, and what is counted of it.
pub(super) struct JournalFile {
    pub(super) shared: Arc<JournalShared>,
    pub(super) connection: Connection,
    pub(super) compressor: Compressor,
    /// The stored bodies together, in bytes.
    pub(super) stored_bytes: u64,
    /// Whether it may hold more than is known.
    pub(super) is_unsure: bool,
    checkpoints: Checkpoints,
}

impl JournalFile {
    pub(super) fn new(
        shared: Arc<JournalShared>,
        connection: Connection,
        path: PathBuf,
        stored_bytes: u64,
    ) -> std::io::Result<Self> {
        let (compressor, checkpoints) = (Compressor::new()?, Checkpoints::start(path)?);
        Ok(Self { shared, connection, compressor, stored_bytes, is_unsure: false, checkpoints })
    }

    /// Bodies of so many bytes were committed, in the place of others.
    pub(super) fn wrote(&mut self, added: u64, freed: u64) {
        self.stored_bytes = (self.stored_bytes + added).saturating_sub(freed);
        self.checkpoints.wrote(added + PAGE);
    }

    /// Asks for a checkpoint where much was written.
    pub(super) fn ask_for_checkpoint(&mut self) {
        self.checkpoints.ask_if_due();
    }

    /// Shows its numbers, and keeps the write-ahead log short.
    pub(super) fn measure(&mut self) -> rusqlite::Result<()> {
        let JournalShared { telemetry, clock, .. } = &*self.shared;
        telemetry.clock(clock.jumps(), clock.is_settled());
        telemetry.journal_bytes.set(self.stored_bytes as i64);
        let wal = self.checkpoints.wal_bytes();
        telemetry.journal_wal_bytes.set(wal as i64);
        self.checkpoints.ask();
        if wal > WAL_MAX { checkpoint(&self.connection, "RESTART") } else { Ok(()) }
    }

    /// What was deleted stands in the write-ahead log first: on a full disk its end frees room for more.
    pub(super) fn truncate_log(&self) -> rusqlite::Result<()> {
        if self.checkpoints.wal_bytes() == 0 {
            return Ok(());
        }
        self.connection.busy_timeout(READERS)?;
        let done = checkpoint(&self.connection, "TRUNCATE");
        self.connection.busy_timeout(sqlite::BUSY_TIMEOUT)?;
        done
    }

    /// Gives pages of what was trimmed back to the file system, where more than `kept` are free; true if it did.
    pub(super) fn vacuum(&self, kept: u32) -> rusqlite::Result<bool> {
        let free: u32 = self.connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
        if free <= kept {
            return Ok(false);
        }
        let mut vacuum = self
            .connection
            .prepare_cached(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        let mut rows = vacuum.query([])?;
        while rows.next()?.is_some() {}
        Ok(true)
    }

    /// Tidies up at the end.
    pub(super) fn finish(mut self) {
        self.checkpoints.end();
        if let Err(error) = checkpoint(&self.connection, "TRUNCATE") {
            tracing::warn!(%error, "the last checkpoint failed; the next start makes up for it");
        }
    }
}
