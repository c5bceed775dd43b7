//! What a peer has told may be read of its memory: regions, each with the word that says whether it is still registered.

use super::pull::Check;

/// A region of the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// First byte.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// Its word.
    pub check: Check,
    /// The id of the shared memory that it is in; 0: none.
    pub memory: u64,
}

impl Grant {
    /// Whether the whole range lies in it.
    pub(super) fn covers(&self, addr: u64, len: u64) -> bool {
        addr >= self.addr && addr - self.addr < self.len && len <= self.len - (addr - self.addr)
    }
}

/// Those of one connection, by first byte; no two overlap.
#[derive(Default)]
pub(super) struct Grants(Vec<Grant>);

impl Grants {
    /// The one that covers the range.
    #[inline]
    pub(super) fn find(&self, addr: u64, len: u64) -> Option<Grant> {
        let after = self.0.partition_point(|grant| grant.addr <= addr);
        let grant = self.0[..after].last()?;
        grant.covers(addr, len).then_some(*grant)
    }

    /// Takes one in place of those that it overlaps. `false`: there is no memory.
    pub(super) fn add(&mut self, grant: Grant) -> bool {
        let end = grant.addr.saturating_add(grant.len);
        self.0.retain(|old| old.addr >= end || old.addr.saturating_add(old.len) <= grant.addr);
        let fits = self.0.try_reserve(1).is_ok();
        if fits {
            let at = self.0.partition_point(|old| old.addr < grant.addr);
            self.0.insert(at, grant);
        }
        fits
    }

    /// Forgets the region that the word belongs to.
    pub(super) fn forget(&mut self, check: Check) {
        self.0.retain(|grant| grant.check != check);
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_on_both_sides_are_kept() {
        let grant = |addr, len, number| Grant { addr, len, check: (1, number), memory: 0 };
        let mut grants = Grants::default();
        for (addr, number) in [(100, 1), (200, 2), (0, 3), (300, 4)] {
            assert!(grants.add(grant(addr, 100, number)));
        }
        let found = [0, 99, 100, 199, 200, 299, 300, 399, 400].map(|addr| grants.find(addr, 1));
        let numbers = found.map(|found| found.map_or(0, |found| found.check.1));
        assert_eq!(numbers, [3, 3, 1, 1, 2, 2, 4, 4, 0]);
        grants.clear();
        assert_eq!(grants.find(100, 1), None);
    }

    #[test]
    fn a_new_grant_replaces_those_that_it_overlaps() {
        let grant = |addr, len, number| Grant { addr, len, check: (1, number), memory: 0 };
        let mut grants = Grants::default();
        for (addr, len, number) in [(100, 50, 1), (200, 50, 2), (150, 50, 3)] {
            assert!(grants.add(grant(addr, len, number)));
        }
        assert_eq!(grants.find(150, 50).map(|found| found.check.1), Some(3));
        assert_eq!(grants.find(149, 1).map(|found| found.check.1), Some(1));
        for (addr, len) in [(149, 2), (99, 1), (250, 1), (249, 2), (120, u64::MAX)] {
            assert_eq!(grants.find(addr, len), None, "{addr}+{len}");
        }
        assert!(grants.add(grant(149, 52, 4)));
        assert_eq!(
            [100, 149, 200, 201].map(|addr| grants.find(addr, 1).map(|found| found.check.1)),
            [None, Some(4), Some(4), None]
        );
        grants.forget((1, 4));
        assert_eq!(grants.find(150, 1), None);
    }
}
