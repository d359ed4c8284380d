//! How often a view in mode `latest` makes a frame: one of a few steps, so that equal wishes share a view.

use std::time::{Duration, Instant};

/// The possible rates, in frames a second. Any other rate is rounded down to the next one.
const STEPS: [f64; 13] =
    [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, super::HIGHEST_HZ];

/// One of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Pace(usize);

/// When those who listen are to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WakeTime {
    /// At once.
    Now,
    /// At this time, and the caller sees to it.
    At(Instant),
    /// Somebody sees to it already.
    Scheduled,
}

impl Pace {
    /// The highest step that is not above `max_hz`; the lowest step for what lies below all.
    pub(super) fn of(max_hz: f64) -> Self {
        Self(STEPS.partition_point(|step| *step <= max_hz).saturating_sub(1))
    }

    /// Frames a second, at most.
    pub(super) fn hz(self) -> f64 {
        STEPS[self.0]
    }

    /// The time between two frames, at least.
    pub(super) fn interval(self) -> Duration {
        Duration::from_secs_f64(1.0 / self.hz())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_between_two_steps_is_the_lower_one() {
        let given = [0.01, 0.03, 0.99, 1.0, 9.99, 10.0, 29.5, 59.9, 60.0];
        let steps = given.map(|hz| Pace::of(hz).hz());
        assert_eq!(steps, [0.01, 0.02, 0.5, 1.0, 5.0, 10.0, 20.0, 30.0, 60.0]);
    }
}
