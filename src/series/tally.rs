//! What became of samples, each counted once however often its piece of the log is read: after an
//! error, or when the lease has come, that begins at the last save.

use std::collections::BTreeMap;

use super::sample::Dropped;
use crate::{position::Offset, telemetry::Telemetry};

/// What was counted since the hub started.
#[derive(Default)]
pub(super) struct Tally {
    /// Everything up to here is counted.
    counted: Offset,
    /// How many samples were left out, by reason.
    pub(super) dropped: BTreeMap<&'static str, u64>,
}

/// What one delivery brings of what is not counted yet.
#[derive(Default)]
pub(super) struct Count {
    above: Offset,
    samples: u64,
    retimed: u64,
    dropped: Vec<Dropped>,
}

impl Tally {
    /// A count of what comes next. An offset is enough to tell what is new: to a hub that runs, none
    /// is given twice, even when the log is lost.
    pub(super) fn begin(&self) -> Count {
        Count { above: self.counted, ..Count::default() }
    }

    /// Adds what came up to `reached`, all of which is in the series now.
    pub(super) fn add(&mut self, count: Count, reached: Offset, telemetry: &Telemetry) {
        telemetry.series_samples.inc_by(count.samples);
        telemetry.series_retimed.inc_by(count.retimed);
        for reason in count.dropped {
            telemetry.series_dropped(reason.name());
            *self.dropped.entry(reason.name()).or_default() += 1;
        }
        self.counted = self.counted.max(reached);
    }
}

impl Count {
    /// A sample of the event at `offset` was put into its series, or was not.
    pub(super) fn put(&mut self, offset: Offset, result: Result<(), Dropped>) {
        if offset > self.above {
            match result {
                Ok(()) => self.samples += 1,
                Err(reason) => self.dropped.push(reason),
            }
        }
    }

    /// The time of a sample of the event at `offset` could not be true.
    pub(super) fn retime(&mut self, offset: Offset) {
        self.retimed += u64::from(offset > self.above);
    }
}
