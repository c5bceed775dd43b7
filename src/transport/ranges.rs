//! Which addresses of a peer a request may lie in.

use crate::error::{Error, Result};

/// Published ranges by address, and whether a request may cross from one into the next. Built once per descriptor; a
/// look-up is a binary search.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// `(addr, length)`, sorted. None wraps around.
    sorted: Vec<(u64, u64)>,
    joined: bool,
    /// How many buffers they were made of.
    count: usize,
}

impl Ranges {
    /// A request has to lie inside one of `buffers`, given as `(addr, length)`. `ERR_MEMORY` if they do not fit.
    pub fn single(buffers: impl ExactSizeIterator<Item = (u64, u64)>) -> Result<Self> {
        let mut sorted = Vec::new();
        let count = buffers.len();
        sorted.try_reserve_exact(count).map_err(|_| Error::out_of_memory("a descriptor"))?;
        sorted.extend(buffers);
        sorted.sort_unstable();
        Ok(Ranges { sorted, joined: false, count })
    }

    /// A request may cross from one buffer into the next where they adjoin or overlap.
    pub fn joined(buffers: impl ExactSizeIterator<Item = (u64, u64)>) -> Result<Self> {
        let mut ranges = Self::single(buffers)?;
        ranges.joined = true;
        ranges.sorted.dedup_by(|next, kept| {
            let adjoins = next.0 <= kept.0.saturating_add(kept.1);
            if adjoins {
                kept.1 = kept.1.max(next.0.saturating_add(next.1) - kept.0);
            }
            adjoins
        });
        Ok(ranges)
    }

    /// `[addr, addr+len)` may be accessed by one request.
    #[cfg(test)]
    pub fn covers(&self, addr: u64, len: u64) -> bool {
        self.around(addr).is_some_and(|(start, length)| len <= length - (addr - start))
    }

    /// The range, as `(addr, length)`, that holds the byte at `addr`: a request has to end inside.
    pub fn around(&self, addr: u64) -> Option<(u64, u64)> {
        let after = self.sorted.partition_point(|(start, _)| *start <= addr);
        let (start, length) = *self.sorted.get(after.checked_sub(1)?)?;
        (addr - start < length).then_some((start, length))
    }

    /// For messages: what a request has to lie in.
    pub fn rule(&self) -> String {
        let one = if self.joined { "adjoining buffers" } else { "one buffer" };
        format!("{one} of the {}", self.count)
    }
}

#[cfg(test)]
mod random;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_may_cross_adjoining_buffers_only_where_they_are_joined() {
        let buffers = || [(2000, 100), (1000, 1000), (5000, 10)].into_iter();
        let (joined, single) = (Ranges::joined(buffers()).unwrap(), Ranges::single(buffers()).unwrap());
        for (addr, len, with_joined, with_single) in [
            (1000, 1000, true, true),
            (1990, 20, true, false),
            (1000, 1100, true, false),
            (1000, 1101, false, false),
            (999, 2, false, false),
            (2050, 50, true, true),
            (2050, 51, false, false),
            (5000, 10, true, true),
            (5009, u64::MAX, false, false),
        ] {
            assert_eq!(joined.covers(addr, len), with_joined, "joined {addr}+{len}");
            assert_eq!(single.covers(addr, len), with_single, "single {addr}+{len}");
        }
        assert_eq!(joined.rule(), "adjoining buffers of the 3");
        assert_eq!(single.rule(), "one buffer of the 3");
    }

    #[test]
    fn ranges_at_the_end_of_the_address_space_are_joined_without_overflow() {
        let ranges = Ranges::joined([(u64::MAX - 20, 10), (u64::MAX - 10, 10)].into_iter()).unwrap();
        assert!(ranges.covers(u64::MAX - 20, 20) && !ranges.covers(u64::MAX - 20, 21));
    }

    #[test]
    fn nothing_published_covers_nothing() {
        assert!(!Ranges::default().covers(0, 0) && !Ranges::default().covers(1, 1));
    }
}
