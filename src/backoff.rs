//! How long to wait before what failed is tried again: the one place that knows.
//!
//! What is tried again here lives long — a connection, a term, a subscription. It breaks off, begins anew, and counts as
//! well again once it has worked; whoever runs it wants to stop meanwhile. So this tells the pauses and leaves the loop
//! to its owner, where crates for it (backon) wrap one call.

use std::time::Duration;

/// Pauses that double with each failure up to the longest, and start again once something has worked.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    /// Since it worked last.
    failures: u32,
    is_spread: bool,
}

impl Backoff {
    /// Pauses from `first` to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0, is_spread: false }
    }

    /// The same, each between half as long and as long, by chance: so that many do not come at once.
    pub const fn spread(self) -> Self {
        Self { is_spread: true, ..self }
    }

    /// Counts a failure; gives the pause after it.
    pub fn failed(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(2u32.saturating_pow(self.failures));
        let longest = doubled.min(self.longest);
        self.failures = self.failures.saturating_add(1);
        if !self.is_spread {
            return longest;
        }
        let random = getrandom::u32().unwrap_or(u32::MAX);
        longest / 2 + (longest / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// It has worked; gives whether it had failed before.
    pub fn worked(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }

    /// Whether it has failed since it worked last.
    pub const fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_once_it_works() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, second * 5);
        let mut pauses = |count| (0..count).map(|_| backoff.failed().as_secs()).collect::<Vec<_>>();
        assert_eq!(pauses(5), [1, 2, 4, 5, 5]);
        assert!(pauses(100).iter().all(|pause| *pause == 5));
        assert!(backoff.is_failing() && backoff.worked() && !backoff.worked());
        assert_eq!(backoff.failed(), second);
    }

    #[test]
    fn pauses_that_are_spread_are_half_as_long_at_least() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, second).spread();
        let pauses: Vec<_> = (0..100).map(|_| backoff.failed()).collect();
        assert!(pauses.iter().all(|pause| (second / 2..=second).contains(pause)), "{pauses:?}");
        assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{pauses:?}");
    }
}
