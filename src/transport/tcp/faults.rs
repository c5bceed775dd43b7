//! Ranges of registered regions that turned out not to be mapped. A peer that asked for one is refused when it asks again,
//! instead of being hung up on for ever without a reason. They are forgotten soon: the host may map them anew. Each counts for
//! one direction: memory that cannot be written may be read.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::transport::slice::Op;

/// How long a range is refused. Chosen: whoever was hung up on asks again within milliseconds.
const MEMORY: Duration = Duration::from_secs(5);
/// Ranges that are remembered. Chosen: more than a peer has lanes.
const MOST: usize = 64;

/// The ranges.
#[derive(Default)]
pub(super) struct Faults {
    /// There may be some. So that requests do not take the lock: in a host without faults there are none.
    any: AtomicBool,
    /// Oldest first: when, what the peer wanted, first byte, bytes.
    ranges: Mutex<VecDeque<(Instant, Op, u64, u64)>>,
}

impl Faults {
    /// Remembers a range that could not be read, or written.
    pub(super) fn note(&self, op: Op, addr: u64, len: u64) {
        let mut ranges = self.ranges.lock();
        if ranges.len() == MOST {
            ranges.pop_front();
        }
        ranges.push_back((Instant::now(), op, addr, len));
        self.any.store(true, Relaxed);
    }

    /// Whether a range overlaps one that is remembered of the same direction.
    pub(super) fn meet(&self, op: Op, addr: u64, len: u64) -> bool {
        self.any.load(Relaxed) && self.look(op, addr, len, Instant::now())
    }

    fn look(&self, op: Op, addr: u64, len: u64, now: Instant) -> bool {
        let mut ranges = self.ranges.lock();
        while ranges.front().is_some_and(|(when, ..)| now.saturating_duration_since(*when) > MEMORY) {
            ranges.pop_front();
        }
        self.any.store(!ranges.is_empty(), Relaxed);
        let overlaps = |at: u64, bytes: u64| addr < at.saturating_add(bytes) && at < addr.saturating_add(len);
        ranges.iter().any(|(_, of, at, bytes)| *of == op && overlaps(*at, *bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overlaps_a_fault_is_refused_for_a_while() {
        let faults = Faults::default();
        assert!(!faults.meet(Op::Read, 0, u64::MAX));
        faults.note(Op::Read, 4096, 4096);
        for (addr, len, refused) in [
            (0, 4096, false),
            (0, 4097, true),
            (8191, 1, true),
            (8192, 10, false),
            (u64::MAX - 1, 1, false),
            (5000, u64::MAX, true),
        ] {
            assert_eq!(faults.meet(Op::Read, addr, len), refused, "{addr} {len}");
            assert!(!faults.meet(Op::Write, addr, len), "what cannot be read may be written");
        }
        assert!(!faults.look(Op::Read, 4096, 1, Instant::now() + MEMORY + Duration::from_millis(1)));
        assert!(!faults.any.load(Relaxed));
    }

    #[test]
    fn only_the_latest_are_remembered() {
        let faults = Faults::default();
        (0..=MOST as u64).for_each(|n| faults.note(Op::Write, n * 10, 1));
        let meets = [0, 10, 10 * MOST as u64].map(|addr| faults.meet(Op::Write, addr, 1));
        assert_eq!(meets, [false, true, true]);
    }
}
