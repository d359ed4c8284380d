//! Whether this node's clock and Redis' agree: by a clock that is in doubt nothing is removed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use ::redis::cmd;

use super::stored::StoredLog;
use crate::{
    redis::RedisFailure,
    telemetry::Telemetry,
    time::{Clock, Millis, rfc3339},
};

/// So far apart the clocks of Redis and of a node may be.
const MOST_APART: Millis = 60_000;

/// Both clocks.
pub(super) struct ClockCheck {
    stored: Arc<StoredLog>,
    clock: Clock,
    telemetry: Telemetry,
    /// Said once, and once when it is over.
    is_apart: AtomicBool,
}

impl ClockCheck {
    pub(super) fn new(stored: Arc<StoredLog>, clock: Clock, telemetry: Telemetry) -> Self {
        Self { stored, clock, telemetry, is_apart: AtomicBool::new(false) }
    }

    /// The time by Redis, if this node's clock bears it out; without it nothing is removed by its age.
    pub(super) async fn time(&self) -> Result<Option<Millis>, RedisFailure> {
        if let Some(hand) = self.clock.hand() {
            return Ok(Some(hand));
        }
        let (seconds, micros): (u64, u64) = self.stored.link.run(&cmd("TIME")).await?;
        let (now, ours) = (seconds * 1000 + micros / 1000, self.clock.now());
        let is_apart = now.abs_diff(ours) > MOST_APART;
        let was_apart = self.is_apart.swap(is_apart, Ordering::AcqRel);
        if is_apart && !was_apart {
            let (redis, node) = (rfc3339(now), rfc3339(ours));
            tracing::warn!(%redis, %node,
                "the clocks of Redis and of this node disagree: this node removes nothing by its age; check both");
        }
        if was_apart && !is_apart {
            tracing::info!("the clocks of Redis and of this node agree again");
        }
        let is_settled = !is_apart && self.clock.is_settled();
        self.telemetry.clock(self.clock.jumps(), is_settled);
        Ok(is_settled.then_some(now))
    }

    /// Whether they disagree.
    pub(super) fn is_apart(&self) -> bool {
        self.is_apart.load(Ordering::Acquire)
    }
}
