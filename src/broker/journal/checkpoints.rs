//! Checkpoints: what was committed goes from the write-ahead log into the file, on a thread of its own.

use std::{
    path::{Path, PathBuf},
    sync::mpsc,
    thread::JoinHandle,
};

use rusqlite::Connection;

use crate::sqlite;

/// Written since the last checkpoint, this much asks for the next.
const CHECKPOINT_BYTES: u64 = 4 << 20;

/// Who makes the checkpoints, and when it is asked to.
pub(super) struct Checkpoints {
    path: PathBuf,
    /// Written since it was asked, in bytes, about.
    written: u64,
    /// None once it has ended.
    thread: Option<(mpsc::SyncSender<()>, JoinHandle<()>)>,
}

impl Checkpoints {
    /// Of the file at `path`.
    pub(super) fn start(path: PathBuf) -> std::io::Result<Self> {
        let thread = start_checkpoints(&path)?;
        Ok(Self { path, written: 0, thread: Some(thread) })
    }

    /// So many bytes were committed.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.written += bytes;
    }

    /// Asks for one where much was written.
    pub(super) fn ask_if_due(&mut self) {
        if self.written >= CHECKPOINT_BYTES {
            self.ask();
        }
    }

    /// Asks for one where anything was written.
    pub(super) fn ask(&mut self) {
        if self.written == 0 {
            return;
        }
        self.written = 0;
        if let Some((ask, _)) = &self.thread {
            // Full means that one is asked for already.
            let _ = ask.try_send(());
        }
    }

    /// How long the write-ahead log is.
    pub(super) fn wal_bytes(&self) -> u64 {
        let mut wal = self.path.as_os_str().to_owned();
        wal.push("-wal");
        // There is none before the first write.
        std::fs::metadata(wal).map_or(0, |metadata| metadata.len())
    }

    /// Ends the thread.
    pub(super) fn end(&mut self) {
        let Some((ask, thread)) = self.thread.take() else { return };
        drop(ask);
        if thread.join().is_err() {
            tracing::error!("the journal's checkpoint thread had panicked");
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
