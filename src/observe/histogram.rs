//! Histograms: how many values fell below each bound.

/// Most bounds that a histogram has. Its last bucket, beyond them, is for what is larger than all.
const MOST: usize = 12;

/// Upper bounds for latencies, in microseconds; upstream's.
pub const LATENCY_US: &[u64] = &[100, 500, 1_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000];

/// Those bounds and finer ones below the first, in microseconds. Chosen: a small request takes a few microseconds over RDMA and some tens
/// over TCP.
pub const FINE_LATENCY_US: &[u64] =
    &[5, 20, 50, 100, 500, 1_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000];

/// Upper bounds for sizes, in bytes; upstream's.
pub const SIZE_BYTES: &[u64] =
    &[1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28, 1 << 30];

/// Values by size. Not for several threads: whoever shares one locks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    bounds: &'static [u64],
    counts: [u64; MOST + 1],
    sum: u64,
}

impl Histogram {
    /// An empty one. `bounds` ascend; a value that equals a bound falls below it.
    pub const fn new(bounds: &'static [u64]) -> Self {
        assert!(bounds.len() <= MOST);
        Histogram { bounds, counts: [0; MOST + 1], sum: 0 }
    }

    /// Counts `value`.
    pub fn add(&mut self, value: u64) {
        self.add_at(self.bounds.partition_point(|bound| *bound < value), 1, value);
    }

    /// Counts `count` values of the bucket number `place`, with their sum. For whoever knows the bucket: it is not looked for.
    pub fn add_at(&mut self, place: usize, count: u64, sum: u64) {
        self.counts[place.min(MOST)] += count;
        self.sum = self.sum.saturating_add(sum);
    }

    /// Counts what `other`, which has the same bounds, has counted.
    pub fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// Takes from `other` whatever is higher there.
    pub fn raise(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, old)| *count = old.max(*count));
        self.sum = self.sum.max(other.sum);
    }

    /// The same values by `bounds`, all of which this one has too.
    pub fn coarser(&self, bounds: &'static [u64]) -> Self {
        let mut coarser = Histogram::new(bounds);
        // What is beyond the last bound of this one is beyond every one of the other.
        let all = self.bounds.iter().copied().chain([u64::MAX]).zip(self.counts);
        for (bound, count) in all {
            coarser.add_at(bounds.partition_point(|coarse| *coarse < bound), count, 0);
        }
        coarser.sum = self.sum;
        coarser
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Each bound with how many values fell between the one before and it.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.bounds.iter().copied().zip(self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_below_the_next_bound() {
        let mut histogram = Histogram::new(&[10, 20]);
        [0, 10, 11, 20, 21, u64::MAX].into_iter().for_each(|value| histogram.add(value));
        assert_eq!(histogram.buckets().collect::<Vec<_>>(), [(10, 2), (20, 2)]);
        assert_eq!((histogram.count(), histogram.sum()), (6, u64::MAX));
    }

    #[test]
    fn a_coarser_histogram_has_the_same_values() {
        let mut fine = Histogram::new(&[5, 10, 20]);
        let mut coarse = Histogram::new(&[10, 20]);
        for value in [1, 5, 6, 10, 11, 20, 21, 1000] {
            fine.add(value);
            coarse.add(value);
        }
        assert_eq!(fine.coarser(&[10, 20]), coarse);
        let shared = LATENCY_US.iter().all(|bound| FINE_LATENCY_US.contains(bound));
        assert!(shared, "upstream's bounds are among the finer ones");
    }

    #[test]
    fn merging_adds_and_raising_never_lowers() {
        let of = |values: &[u64]| {
            let mut histogram = Histogram::new(&[10, 20]);
            values.iter().for_each(|value| histogram.add(*value));
            histogram
        };
        let mut merged = of(&[1, 15]);
        merged.merge(&of(&[2, 99]));
        assert_eq!(merged, of(&[1, 2, 15, 99]));
        let mut raised = of(&[1]);
        raised.raise(&of(&[1, 2, 15]));
        assert_eq!(raised, of(&[1, 2, 15]));
        raised.raise(&of(&[]));
        assert_eq!(raised, of(&[1, 2, 15]));
    }
}
