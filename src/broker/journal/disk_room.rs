//! A full disk: the reserve is given up, old events are deleted, and once there is room for the reserve again,
//! events are stored again.

use std::time::{Duration, Instant};

use crate::{
    sqlite::{self, Reserve},
    telemetry::Telemetry,
};

/// How long after an attempt to make the reserve that failed the next one comes.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the part of the hub that released the reserve may use the space before it is rebuilt.
const LEFT_TO_OTHERS: Duration = Duration::from_secs(3);

/// What is known of the room on the disk.
pub(super) struct DiskRoom {
    /// Nothing is stored until there is room for the reserve again.
    is_full: bool,
    /// Whether the last commit failed; said once, and once when it is over.
    failing: bool,
    reserve: Reserve,
    /// No earlier the reserve is made again.
    grow_at: Instant,
    telemetry: Telemetry,
}

impl DiskRoom {
    pub(super) fn new(reserve: Reserve, telemetry: Telemetry) -> Self {
        let grow_at = Instant::now();
        Self { is_full: false, failing: false, reserve, grow_at, telemetry }
    }

    /// Whether nothing is stored until there is room for the reserve again.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// A commit succeeded: says so once, if one had failed.
    pub(super) fn worked(&mut self) {
        if std::mem::take(&mut self.failing) {
            tracing::info!("the journal can be written again");
        }
    }

    /// Makes the reserve, a piece at a time, and notices when another part of the hub gave it up.
    pub(super) fn look_after_the_reserve(&mut self) -> bool {
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
        self.telemetry.disk_full.set(i64::from(is_full));
    }
}
