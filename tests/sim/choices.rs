//! Where every decision of a schedule comes from: numbers of a seed, or a list of them. What was decided is noted, so
//! that it can be repeated and made shorter. Small numbers are meant to be the dull ones.

use std::collections::BTreeMap;

/// Most numbers of a schedule. Chosen: a schedule that needs more does not end, and is told so.
const MOST: usize = 200_000;

/// The decisions of one schedule.
pub(crate) struct Choices {
    state: u64,
    /// Instead of the seed; beyond its end all is dull.
    given: Option<Vec<u32>>,
    /// What was decided so far.
    pub(crate) noted: Vec<u32>,
    /// What came about, and how often.
    pub(crate) reached: BTreeMap<&'static str, u64>,
    /// Tells each step.
    tells: bool,
    /// Of all that was told, so that two runs can be compared.
    pub(crate) digest: u64,
}

impl Choices {
    /// Those that follow from a seed.
    pub(crate) fn of_seed(seed: u64) -> Self {
        // Seeds that are neighbours have nothing in common afterwards.
        let state = mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
        Choices { state, given: None, noted: Vec::new(), reached: BTreeMap::new(), tells: false, digest: 0 }
    }

    /// Those that were noted before.
    pub(crate) fn given(list: Vec<u32>) -> Self {
        Choices { given: Some(list), ..Choices::of_seed(0) }
    }

    /// Tells each step on standard error.
    pub(crate) fn aloud(self) -> Self {
        Choices { tells: true, ..self }
    }

    /// A number below `limit`, which is at least 1.
    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        assert!(self.noted.len() < MOST, "the schedule does not end");
        let number = match &self.given {
            Some(list) => list.get(self.noted.len()).copied().unwrap_or(0).min(limit - 1),
            None => {
                self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                (((mix(self.state) >> 32) * u64::from(limit)) >> 32) as u32
            }
        };
        self.noted.push(number);
        number
    }

    /// A number of `from..to`; the first one is the dull one.
    pub(crate) fn within(&mut self, from: u64, to: u64) -> u64 {
        from + u64::from(self.below(u32::try_from(to - from).unwrap_or(u32::MAX)))
    }

    /// `true` so many times in a thousand.
    pub(crate) fn chance(&mut self, thousandths: u32) -> bool {
        self.below(1000) >= 1000 - thousandths
    }

    /// One of them; the first is the dull one.
    pub(crate) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u32) as usize]
    }

    /// A place in `weights`, as often as its weight says.
    pub(crate) fn weighted(&mut self, weights: &[u32]) -> usize {
        let mut number = self.below(weights.iter().sum());
        for (place, weight) in weights.iter().enumerate() {
            match number.checked_sub(*weight) {
                Some(rest) => number = rest,
                None => return place,
            }
        }
        unreachable!("the number is below the sum")
    }

    /// Something came about that the simulation is meant to reach.
    pub(crate) fn reach(&mut self, what: &'static str) {
        *self.reached.entry(what).or_default() += 1;
    }

    /// Says what happens. The text is made only where it is wanted.
    pub(crate) fn tell(&mut self, number: u64, text: impl FnOnce() -> String) {
        self.digest = mix(self.digest ^ number);
        if self.tells {
            eprintln!("{}", text());
        }
    }
}

/// A permutation of the numbers of 64 bits (SplitMix64's).
fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
