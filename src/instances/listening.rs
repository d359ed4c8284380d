//! Since when this node has been able to hear anybody: its own start, and the end of its last suspension.

use std::time::{Duration, Instant, SystemTime};

use crate::time::Millis;

/// A pause between two looks above which the process did not run, or one of the clocks was moved.
const PAUSE: Duration = Duration::from_secs(5);

/// Told of the time every now and then; a longer pause begins it anew, and so does a clock that is moved.
#[derive(Debug)]
pub(super) struct Listening {
    since: Millis,
    last: (Instant, SystemTime),
    /// The time that was told last, less the one of a clock that never jumps.
    offset: i128,
}

impl Listening {
    pub(super) fn new(now: Millis, elapsed: Millis) -> Self {
        let offset = i128::from(now) - i128::from(elapsed);
        Self { since: now, last: (Instant::now(), SystemTime::now()), offset }
    }

    /// The time now: `now` by the hub's clock, `elapsed` by a clock that never jumps. Returns since when it has
    /// listened.
    ///
    /// Both clocks are needed: after a stopped process both have advanced, after a suspended machine only the first.
    pub(super) fn look(
        &mut self,
        now: Millis,
        elapsed: Millis,
        clocks: (Instant, SystemTime),
    ) -> Millis {
        let offset = i128::from(now) - i128::from(elapsed);
        let moved = offset - std::mem::replace(&mut self.offset, offset);
        if moved.unsigned_abs() > PAUSE.as_millis() {
            // Silence cannot be measured across a change of the clock.
            self.since = now;
        }
        let (instant, system) = std::mem::replace(&mut self.last, clocks);
        let passed = clocks.0.saturating_duration_since(instant);
        let by_the_clock = clocks.1.duration_since(system).unwrap_or_default();
        if passed.max(by_the_clock) > PAUSE {
            tracing::info!(
                ?passed,
                ?by_the_clock,
                "the process was suspended or the clock was set; instances are not marked late for that time"
            );
            self.since = now;
        }
        self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_stopped_process_nor_a_suspended_machine_has_listened() {
        let mut listening = Listening::new(1000, 1000);
        let (instant, system) = listening.last;
        let second = Duration::from_secs(1);
        let mut look = |now, passed: u32, by_the_clock: u32| {
            listening.look(now, now, (instant + second * passed, system + second * by_the_clock))
        };
        assert_eq!(look(2000, 1, 1), 1000);
        assert_eq!(look(62_000, 61, 61), 62_000, "a stopped process");
        assert_eq!(look(63_000, 62, 62), 62_000);
        assert_eq!(look(999_000, 63, 998), 999_000, "a suspended machine");
        assert_eq!(look(990_000, 64, 990), 999_000, "a clock put back");
    }

    #[test]
    fn a_clock_that_is_moved_makes_nobody_late_and_keeps_nobody_from_being_missed() {
        let mut listening = Listening::new(1000, 0);
        let (instant, system) = listening.last;
        let mut look = |now, elapsed| listening.look(now, elapsed, (instant, system));
        assert_eq!(look(2000, 1000), 1000);
        assert_eq!(look(900_000, 2000), 900_000, "forward");
        assert_eq!(look(901_000, 3000), 900_000);
        assert_eq!(look(5000, 4000), 5000, "and back");
    }
}
