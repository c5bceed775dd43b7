//! Which of two descriptors is the newer one. A reading that began later counts; where the store counts revisions, the higher one. Pure.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Instant;

use crate::runtime::instant;

/// A reading, from when it begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// Higher than those of all readings of this engine that began earlier. News that the store tells have one too.
    pub number: u64,
    /// What it brings may have been over since then.
    pub began: Instant,
}

/// Numbers the readings of an engine.
#[derive(Default)]
pub(crate) struct Readings(AtomicU64);

impl Readings {
    /// A reading begins.
    pub(crate) fn begin(&self) -> Reading {
        Reading { number: self.0.fetch_add(1, SeqCst) + 1, began: instant::now() }
    }

    /// The last one that has begun.
    pub(super) fn last(&self) -> u64 {
        self.0.load(SeqCst)
    }
}

/// The newest descriptor of a segment.
pub(super) struct Newest {
    reading: u64,
    /// Its revision; 0 if there are none, or those that were known say nothing any more.
    revision: i64,
    /// The last reading that had begun when the store may have begun to count anew: revisions up to this one cannot be compared with
    /// later ones.
    old: u64,
    /// There may have been changes since.
    is_unknown: bool,
}

impl Newest {
    /// The first one.
    pub(super) fn new(reading: Reading, revision: i64) -> Self {
        Newest { reading: reading.number, revision, old: 0, is_unknown: false }
    }

    /// The store may have begun to count anew, or changes were missed. `begun`: the last reading that has begun.
    pub(super) fn forget_revisions(&mut self, begun: u64) {
        self.revision = 0;
        self.old = begun;
        self.is_unknown = true;
    }

    /// There may have been changes that nobody has read.
    pub(super) fn is_unknown(&self) -> bool {
        self.is_unknown
    }

    /// Whether what a reading has found is newer. Then it is the newest.
    pub(super) fn takes(&mut self, reading: Reading, revision: i64) -> bool {
        let is_comparable = revision != 0 && reading.number > self.old;
        // Without revisions, a reading that began earlier may bring what a dead predecessor has answered.
        let is_newer = match is_comparable {
            true => revision >= self.revision,
            false => reading.number >= self.reading,
        };
        if !is_newer {
            return false;
        }
        self.reading = self.reading.max(reading.number);
        self.is_unknown &= reading.number <= self.old;
        if is_comparable {
            self.revision = revision;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(number: u64) -> Reading {
        Reading { number, began: Instant::now() }
    }

    #[test]
    fn the_later_reading_counts_where_there_are_no_revisions() {
        let mut newest = Newest::new(reading(1), 0);
        let taken = [3, 2, 3, 4].map(|number| newest.takes(reading(number), 0));
        assert_eq!(taken, [true, false, true, true]);
    }

    #[test]
    fn the_higher_revision_counts_whoever_brings_it() {
        let mut newest = Newest::new(reading(1), 7);
        assert!(!newest.takes(reading(2), 6), "the first one's revision counts too");
        assert!(newest.takes(reading(4), 9));
        assert!(newest.takes(reading(3), 10));
        assert!(!newest.takes(reading(5), 9));
    }

    /// The store was emptied. The answer of before, on its way since, comes between that news and the reading that these ask for.
    #[test]
    fn a_revision_of_a_store_that_counts_anew_is_not_compared_with_those_before() {
        let mut newest = Newest::new(reading(1), 100);
        newest.forget_revisions(2);
        assert!(newest.takes(reading(2), 101), "nothing newer is known");
        assert!(newest.is_unknown(), "but something newer may be there");
        assert!(newest.takes(reading(3), 4));
        assert!(!newest.is_unknown());
        assert!(newest.takes(reading(4), 5), "news");
        assert!(!newest.takes(reading(2), 101), "one that is later still");
    }
}
