//! A full disk: the reserve is given up, old events are deleted, and once there is room for the reserve again,
//! events are stored again.

use std::time::{Duration, Instant};

use super::writer::{JournalWriter, checkpoint, wal_bytes};
use crate::sqlite;

/// How long after an attempt to make the reserve that failed the next one comes.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the part of the hub that released the reserve may use the space before it is rebuilt.
const LEFT_TO_OTHERS: Duration = Duration::from_secs(3);
/// How long truncating the write-ahead log waits for readers.
const READERS: Duration = Duration::from_millis(100);

impl JournalWriter {
    /// Keeps the file and the reserve in order; true if there is more to do at once.
    pub(super) fn look_after(&mut self) -> bool {
        let more = self.maintain();
        // On a full disk the room is needed for what deletes, until there is nothing left to delete.
        let waits = self.is_full && more;
        if waits { more } else { self.look_after_the_reserve() | more }
    }

    /// Makes the reserve, a piece at a time, and notices when another part of the hub gave it up.
    fn look_after_the_reserve(&mut self) -> bool {
        if self.reserve.was_given_up() {
            self.disk_is_full("the reserve was given up");
            self.grow_at = Instant::now() + LEFT_TO_OTHERS;
        }
        if Instant::now() < self.grow_at {
            return false;
        }
        match self.reserve.grow() {
            Ok(false) => true,
            Ok(true) => {
                self.set_full(false);
                false
            }
            Err(error) => {
                self.grow_at = Instant::now() + PAUSE;
                self.disk_is_full(&error.to_string());
                false
            }
        }
    }

    /// Says once what failed, until a commit succeeds.
    pub(super) fn failed(&mut self, what: &str, error: &rusqlite::Error) {
        if sqlite::is_full(error) {
            return self.disk_is_full(&error.to_string());
        }
        if !self.failing {
            tracing::error!(%error, "{what}");
            self.failing = true;
        }
    }

    /// What was deleted stands in the write-ahead log first: on a full disk its end frees room for more.
    pub(super) fn truncate_log(&self) -> rusqlite::Result<()> {
        if !self.is_full || wal_bytes(&self.path) == 0 {
            return Ok(());
        }
        self.connection.busy_timeout(READERS)?;
        let done = checkpoint(&self.connection, "TRUNCATE");
        self.connection.busy_timeout(sqlite::BUSY_TIMEOUT)?;
        done
    }

    fn disk_is_full(&mut self, error: &str) {
        if !self.failing {
            let reserve = self.reserve.size();
            tracing::error!(
                error,
                reserve,
                "the disk is full or cannot be written: publishes are answered 503 until there is room for \
                 the reserve and half as much again"
            );
            self.failing = true;
        }
        self.set_full(true);
        self.reserve.give_up();
    }

    fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
        self.shared.telemetry.disk_full.set(i64::from(is_full));
    }
}
