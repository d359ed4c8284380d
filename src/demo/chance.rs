//! Chance that follows from a seed, and the few distributions that working days are made of.

/// Numbers that look like chance (SplitMix64; Steele, Lea, Flood: Fast splittable pseudorandom number
/// generators, 2014).
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    /// One of many streams of the same seed.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut chance = Self(seed ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93));
        chance.next();
        chance
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to below 1.
    pub(super) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True in that share of all cases.
    pub(super) fn happens(&mut self, share: f64) -> bool {
        self.share() < share
    }

    /// A whole number below `bound`; 0 if there is none.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// One of these; None of nothing.
    pub(super) fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let index = self.below(all.len() as u64);
        all.get(usize::try_from(index).unwrap_or(0))
    }

    /// Around 0, most within 1 (Box and Muller, 1958).
    pub(super) fn normal(&mut self) -> f64 {
        let (one, two) = (1.0 - self.share(), self.share());
        (-2.0 * one.ln()).sqrt() * (std::f64::consts::TAU * two).cos()
    }

    /// How long such things take: half of them less than `median`, a few of them much more.
    pub(super) fn duration(&mut self, median: f64, spread: f64) -> f64 {
        median * (spread * self.normal()).exp()
    }

    /// How many of what comes `mean` times on average and by itself (Knuth; above 30 by the normal curve).
    pub(super) fn count(&mut self, mean: f64) -> u64 {
        if mean > 30.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0) as u64;
        }
        let limit = (-mean.max(0.0)).exp();
        let (mut product, mut count) = (self.share(), 0);
        while product > limit {
            product *= self.share();
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_throws_the_same() {
        let throw = |seed, stream| Chance::new(seed, stream).next();
        assert_eq!(throw(1, 1), throw(1, 1));
        assert_ne!(throw(1, 1), throw(1, 2));
        assert_ne!(throw(1, 1), throw(2, 1));
    }

    #[test]
    fn counts_and_durations_are_what_they_should_be_on_average() {
        let mut chance = Chance::new(7, 1);
        for mean in [0.0, 0.3, 5.0, 80.0] {
            let sum: u64 = (0..20_000).map(|_| chance.count(mean)).sum();
            let found = sum as f64 / 20_000.0;
            assert!((found - mean).abs() <= mean * 0.05, "{found} instead of {mean}");
        }
        let below = (0..20_000).filter(|_| chance.duration(180.0, 0.6) < 180.0).count();
        assert!((9_000..11_000).contains(&below), "{below}");
        let long = (0..20_000).filter(|_| chance.duration(180.0, 0.6) > 600.0).count();
        assert!((200..800).contains(&long), "{long}");
    }
}
