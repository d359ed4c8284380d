//! The wall clock, held against the monotonic one: a jump is not believed before it has lasted.

use super::Millis;

/// If they differ by no more than this, the two clocks agree: the wall clock is being slewed.
const SLEW: i64 = 1_000;
/// A jump that has lasted for this long is followed.
const BELIEVED: Millis = 30_000;
/// Nothing is thrown away by a clock that has agreed with the monotonic one for less than this.
const SETTLED: Millis = 600_000;
/// The clock is trusted at start if the newest event is at most this much older.
const NEAR: Millis = 3_600_000;

/// What is known of the wall clock. All times are passed in.
#[derive(Debug)]
pub(super) struct Steady {
    /// The wall clock minus the monotonic clock, as it was last accepted.
    offset: i64,
    /// What it seems to be now, and since when on the monotonic clock.
    seeming: Option<(i64, Millis)>,
    /// Since when on the monotonic clock the offset is what it is; None if nothing speaks against it.
    unsettled_since: Option<Millis>,
    jumps: u64,
}

/// What [`Steady::read`] noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noticed {
    /// The wall clock has jumped by this many milliseconds.
    Jump(i64),
    /// The jump has lasted and is followed from now on.
    Believed(i64),
    /// It is where it was before.
    Back,
}

impl Steady {
    pub(super) fn new(wall: Millis, monotonic: Millis) -> Self {
        let offset = apart(wall, monotonic);
        Self { offset, seeming: None, unsettled_since: None, jumps: 0 }
    }

    /// The time that is believed, and what is worth telling.
    pub(super) fn read(&mut self, wall: Millis, monotonic: Millis) -> (Millis, Option<Noticed>) {
        let found = apart(wall, monotonic);
        let by = found - self.offset;
        let noticed = match self.seeming {
            _ if by.abs() <= SLEW => {
                self.offset = found;
                self.seeming.take().map(|_| Noticed::Back)
            }
            Some((seeming, since)) if (found - seeming).abs() <= SLEW => {
                if monotonic.saturating_sub(since) < BELIEVED {
                    self.seeming = Some((found, since));
                    None
                } else {
                    (self.offset, self.seeming) = (found, None);
                    self.unsettled_since = Some(monotonic);
                    Some(Noticed::Believed(by))
                }
            }
            _ => {
                self.seeming = Some((found, monotonic));
                self.jumps += 1;
                Some(Noticed::Jump(by))
            }
        };
        (monotonic.saturating_add_signed(self.offset), noticed)
    }

    /// Whether old data may be discarded by this clock.
    pub(super) fn is_settled(&self, monotonic: Millis) -> bool {
        self.seeming.is_none()
            && self.unsettled_since.is_none_or(|since| monotonic.saturating_sub(since) >= SETTLED)
    }

    /// What else knows the time says `neighbour`, which is not later than now; false if they disagree.
    pub(super) fn meet(&mut self, neighbour: Millis, monotonic: Millis) -> bool {
        let now = monotonic.saturating_add_signed(self.offset);
        let agrees =
            neighbour <= now.saturating_add_signed(SLEW) && now - neighbour.min(now) <= NEAR;
        if !agrees {
            self.unsettled_since = Some(monotonic);
        }
        agrees
    }

    pub(super) fn jumps(&self) -> u64 {
        self.jumps
    }
}

fn apart(wall: Millis, monotonic: Millis) -> i64 {
    i64::try_from(i128::from(wall) - i128::from(monotonic)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: Millis = 1_800_000_000_000;
    const DAY: Millis = 86_400_000;

    /// Reads every half second from `from` on, for `long`, with the wall clock off by `by`.
    fn run(clock: &mut Steady, from: Millis, long: Millis, by: i64) -> (Millis, Vec<Noticed>) {
        let (mut told, mut at) = (Vec::new(), from);
        let mut now = 0;
        while at < from + long {
            let read = clock.read((WALL + at).saturating_add_signed(by), at);
            now = read.0;
            told.extend(read.1);
            at += 500;
        }
        (now, told)
    }

    #[test]
    fn a_clock_that_is_ahead_for_a_moment_is_not_believed() {
        let mut clock = Steady::new(WALL, 0);
        let two_days = 2 * DAY as i64;
        let (now, told) = run(&mut clock, 0, 8_000, two_days);
        assert_eq!((now, told), (WALL + 7_500, vec![Noticed::Jump(two_days)]));
        assert!(!clock.is_settled(7_500));
        let (now, told) = run(&mut clock, 8_000, 1_000, 0);
        assert_eq!((now, told), (WALL + 8_500, vec![Noticed::Back]));
        assert!(clock.is_settled(8_500));
    }

    #[test]
    fn a_jump_that_lasts_is_followed_and_nothing_is_thrown_away_by_it_for_ten_minutes() {
        for by in [3_600_000, -3_600_000] {
            let mut clock = Steady::new(WALL, 0);
            let (now, told) = run(&mut clock, 0, 31_000, by);
            assert_eq!(now, (WALL + 30_500).saturating_add_signed(by));
            assert_eq!(told, [Noticed::Jump(by), Noticed::Believed(by)]);
            assert!(!clock.is_settled(31_000) && !clock.is_settled(600_000));
            // And when it is put right, that is a jump as well.
            let (now, told) = run(&mut clock, 31_000, 31_000, 0);
            assert_eq!((now, told.len()), (WALL + 61_500, 2));
            assert!(!clock.is_settled(650_000) && clock.is_settled(661_000));
            assert_eq!(clock.jumps(), 2);
        }
    }

    #[test]
    fn a_clock_that_is_slewed_is_followed_step_by_step() {
        let mut clock = Steady::new(WALL, 0);
        for step in 1..=100 {
            let (now, told) = clock.read(WALL + 1_900 * step, 1_000 * step);
            assert_eq!((now, told), (WALL + 1_900 * step, None));
        }
        assert!(clock.is_settled(100_000));
    }

    #[test]
    fn a_clock_that_jumps_about_is_believed_at_no_point() {
        let mut clock = Steady::new(WALL, 0);
        for round in 0..100 {
            let by = if round % 2 == 0 { DAY as i64 } else { -(DAY as i64) };
            let from = round * 10_000;
            let (now, _) = run(&mut clock, from, 10_000, by);
            assert_eq!(now, WALL + from + 9_500);
        }
    }

    #[test]
    fn a_log_far_from_the_clock_makes_retention_wait() {
        for (newest, agrees) in [
            (WALL, true),
            (WALL - 3_600_000, true),
            (WALL + 1_000, true),
            (WALL - 3_600_001, false),
            (WALL - 2 * DAY, false),
            (WALL + DAY, false),
        ] {
            let mut clock = Steady::new(WALL, 0);
            assert_eq!(clock.meet(newest, 0), agrees, "{newest}");
            assert_eq!(clock.is_settled(100), agrees);
            assert!(clock.is_settled(600_000));
        }
    }
}
