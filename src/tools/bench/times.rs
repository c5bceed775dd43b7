//! Times on a log scale: each power of two of nanoseconds has 32 buckets, so that a time is known to 3 %.

use std::time::Duration;

/// Bits of a time below its highest one that are kept.
const BITS: u32 = 5;
const PER_POWER: usize = 1 << BITS;
/// Buckets for every number of 64 bits.
const BUCKETS: usize = (64 - BITS as usize + 1) * PER_POWER;

/// How many times fell into each bucket.
pub(super) struct Times {
    counts: Vec<u64>,
    max_ns: u64,
}

impl Default for Times {
    fn default() -> Self {
        Times { counts: vec![0; BUCKETS], max_ns: 0 }
    }
}

impl Times {
    pub(super) fn add(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket(ns)) {
            *count += 1;
        }
        self.max_ns = self.max_ns.max(ns);
    }

    pub(super) fn merge(&mut self, other: &Times) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// Half of the times were at most the first, 99 of 100 at most the second, all at most the third; `None` if there are none.
    pub(super) fn summary(&self) -> Option<[Duration; 3]> {
        let total: u64 = self.counts.iter().sum();
        let at = |percent: u64| {
            let wanted = (u128::from(total) * u128::from(percent)).div_ceil(100);
            let mut seen = 0;
            let found = self.counts.iter().position(|count| {
                seen += u128::from(*count);
                seen >= wanted
            });
            found.map_or(self.max_ns, last_of).min(self.max_ns)
        };
        (total > 0).then(|| [at(50), at(99), self.max_ns].map(Duration::from_nanos))
    }
}

fn bucket(ns: u64) -> usize {
    // Below 32 each number has its own bucket, as in the first power after that.
    let shift = (ns | PER_POWER as u64).ilog2() - BITS;
    shift as usize * PER_POWER + (ns >> shift) as usize
}

/// The largest time of a bucket.
fn last_of(bucket: usize) -> u64 {
    let shift = (bucket / PER_POWER).saturating_sub(1);
    let first = (bucket - shift * PER_POWER) as u64;
    (first << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_a_bucket_that_ends_at_most_a_thirtieth_above_it() {
        for power in 0..64 {
            for ns in [1u64 << power, (1 << power) + (1 << power) / 3, (1 << power) - 1 + (1 << power)] {
                let last = last_of(bucket(ns));
                assert!(bucket(ns) < BUCKETS && last >= ns && last - ns <= ns / 30, "{ns}: {last}");
            }
        }
        assert_eq!((bucket(0), last_of(0)), (0, 0));
    }

    #[test]
    fn half_and_nearly_all_of_the_times_are_told_with_the_longest() {
        let mut times = Times::default();
        assert_eq!(times.summary(), None);
        (1..=1000).for_each(|us| times.add(Duration::from_micros(us)));
        let [half, most, max] = times.summary().unwrap().map(|time| time.as_secs_f64() * 1e6);
        assert!((500.0..520.0).contains(&half) && (990.0..=1000.0).contains(&most), "{half} {most}");
        assert_eq!(max, 1000.0);
    }
}
