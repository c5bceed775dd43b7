//! How many work requests may still be posted on one completion queue.

use crate::runtime::sync::atomic::{AtomicI64, Ordering};

/// Credit of a completion queue. Counted in work requests, not in signalled ones: a flush makes a completion for each,
/// and a queue that overruns takes all its queue pairs down.
pub(super) struct Credit {
    depth: i64,
    free: AtomicI64,
}

impl Credit {
    /// For a completion queue of `depth` entries.
    pub(super) fn new(depth: u32) -> Self {
        Credit { depth: i64::from(depth), free: AtomicI64::new(i64::from(depth)) }
    }

    /// Takes credit for up to `wanted` work requests; returns how many may be posted.
    pub(super) fn reserve(&self, wanted: usize) -> usize {
        // Never more than there is, not even for a moment: whoever gives some back would see none, and serve nobody.
        let wanted = wanted as i64;
        let mut free = self.free.load(Ordering::SeqCst);
        loop {
            let granted = wanted.min(free);
            if granted <= 0 {
                return 0;
            }
            let left = free - granted;
            match self.free.compare_exchange_weak(free, left, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return granted as usize,
                Err(now) => free = now,
            }
        }
    }

    /// Gives credit back.
    pub(super) fn release(&self, count: usize) {
        self.free.fetch_add(count as i64, Ordering::SeqCst);
    }

    /// Some may be posted.
    pub(super) fn is_left(&self) -> bool {
        self.free.load(Ordering::SeqCst) > 0
    }

    /// Work requests under way.
    pub(super) fn outstanding(&self) -> usize {
        (self.depth - self.free.load(Ordering::SeqCst)).max(0) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_lent_than_the_queue_holds() {
        let credit = Credit::new(5);
        assert_eq!((credit.reserve(3), credit.reserve(3), credit.reserve(1)), (3, 2, 0));
        assert_eq!(credit.outstanding(), 5);
        credit.release(2);
        assert_eq!((credit.outstanding(), credit.reserve(9)), (3, 2));
    }
}
