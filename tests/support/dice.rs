//! Chance that can be thrown again: numbers that follow from a seed.

/// Numbers that look like chance and follow from the seed (SplitMix64, Steele et al., 2014).
#[derive(Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed a run begins with: `TEST_SEED`, so that a failure can be thrown again, or this one.
    pub(crate) fn first_seed(otherwise: u64) -> u64 {
        let given = std::env::var("TEST_SEED").ok();
        given.map_or(otherwise, |text| text.parse().expect("TEST_SEED is a whole number"))
    }

    /// Dice of their own for a part of the run, so that its throws do not depend on the others'.
    pub(crate) fn split(&mut self) -> Self {
        Self(self.next())
    }

    /// A number in the range.
    pub(crate) fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// True once in `times` throws.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.next().is_multiple_of(times)
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.within(0..choices.len() as u64) as usize]
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
