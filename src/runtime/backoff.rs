//! Pauses between attempts: each twice the one before, up to a longest. Pure: the caller waits, and brings the
//! random number.

use std::time::Duration;

/// How long the pauses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Pause after the first failure.
    pub first: Duration,
    /// No pause is longer, but for jitter.
    pub longest: Duration,
}

impl Backoff {
    /// The pause after a failure that came after `failures` others.
    pub fn pause(&self, failures: u64) -> Duration {
        let factor = u32::try_from(failures).ok().and_then(|n| 1u32.checked_shl(n)).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest)
    }

    /// `pause` plus up to a quarter of it, as `random` says, so that what failed together does not come back together.
    pub fn spread(pause: Duration, random: u32) -> Duration {
        let quarter_ms = pause.as_millis() as u64 / 4;
        pause + Duration::from_millis(u64::from(random) % (quarter_ms + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_stay_there() {
        let backoff = Backoff { first: ms(100), longest: ms(1500) };
        assert_eq!([0, 1, 2, 3, 4, 5].map(|n| backoff.pause(n)), [100, 200, 400, 800, 1500, 1500].map(ms));
        assert_eq!([31, 32, u64::MAX].map(|n| backoff.pause(n)), [ms(1500); 3]);
        let short = Backoff { first: ms(100), longest: ms(30) };
        assert_eq!(short.pause(0), ms(30));
    }

    #[test]
    fn jitter_adds_a_quarter_at_the_most() {
        assert_eq!(
            [0, 1, 25, 26].map(|random| Backoff::spread(ms(100), random)),
            [100, 101, 125, 100].map(ms)
        );
        assert_eq!(Backoff::spread(ms(0), 7), ms(0));
    }
}
