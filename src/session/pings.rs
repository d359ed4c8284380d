//! Pings: when one is due, and by when it must be answered.

use std::time::Instant;

use super::SocketConfig;

/// When a session pings next, and what it waits for.
pub(super) struct Pings {
    due: Instant,
    /// While one is to be answered.
    pong_by: Option<Instant>,
}

impl Pings {
    pub(super) fn new(config: &SocketConfig, now: Instant) -> Self {
        Self { due: now + config.ping.0, pong_by: None }
    }

    /// The client lives.
    pub(super) fn answered(&mut self) {
        self.pong_by = None;
    }

    /// Whether the last one was not answered in time.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.pong_by.is_some_and(|by| by <= now)
    }

    /// Takes one if it is due; whether it must be answered is for `is_answered` to say.
    pub(super) fn take(&mut self, config: &SocketConfig, is_answered: bool, now: Instant) -> bool {
        let is_due = self.due <= now;
        if is_due {
            self.due = now + config.ping.0;
            self.pong_by = is_answered.then_some(now + config.pong_timeout.0);
        }
        is_due
    }

    /// When there is something to do next.
    pub(super) fn next_time(&self) -> Instant {
        self.pong_by.map_or(self.due, |by| by.min(self.due))
    }
}
