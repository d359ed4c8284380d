//! How many messages a client may still send.

use std::time::Instant;

use crate::limits::Limits;

/// Messages that may still come, which time makes more.
pub(super) struct Allowance {
    left: f64,
    /// When they were last made more.
    at: Instant,
}

impl Allowance {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Self { left: most(limits), at: now }
    }

    /// Takes `count` of them; false if there are not so many.
    pub(super) fn take(&mut self, count: u32, limits: &Limits, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at);
        self.at = now;
        let refilled = self.left + passed.as_secs_f64() * f64::from(limits.messages_per_second);
        self.left = refilled.min(most(limits)) - f64::from(count);
        self.left >= 0.0
    }
}

/// Messages that may come at once: a client that comes back may name and drop every subscription it may
/// have one by one, beside what it says in a second.
fn most(limits: &Limits) -> f64 {
    f64::from(limits.messages_per_second) + 2.0 * limits.subscriptions as f64
}
