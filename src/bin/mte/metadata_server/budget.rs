//! How much memory keys and values may take in all. Bodies that are still arriving count, and so do values that were
//! replaced while a slow client still reads them.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

use hyper::body::Bytes;

/// Bytes that may be held at once. The counter publishes nothing but itself.
pub(super) struct Budget {
    most: usize,
    used: AtomicUsize,
}

impl Budget {
    /// `most` bytes.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Budget { most, used: AtomicUsize::new(0) })
    }

    /// How much is taken, and how much there is in all.
    pub(super) fn used_of(&self) -> (usize, usize) {
        (self.used.load(Relaxed), self.most)
    }

    /// Takes a part of it, if there is as much left.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        let mut share = Share { budget: self.clone(), bytes: 0 };
        share.grow(bytes).then_some(share)
    }
}

/// A part of the budget, given back when it is dropped.
pub(super) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    /// Takes more; `false`, and nothing is taken, if there is not as much left.
    pub(super) fn grow(&mut self, more: usize) -> bool {
        let most = self.budget.most;
        let fits = |used: usize| used.checked_add(more).filter(|sum| *sum <= most);
        let taken = self.budget.used.fetch_update(Relaxed, Relaxed, fits).is_ok();
        self.bytes += if taken { more } else { 0 };
        taken
    }

    /// Ties the share to a value: it is given back when the last copy of the value is gone.
    pub(super) fn hold(self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Held { bytes, _share: self })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Relaxed);
    }
}

struct Held {
    bytes: Vec<u8>,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_until_its_last_copy_is_gone() {
        let budget = Budget::new(10);
        let mut share = budget.take(4).unwrap();
        assert!(share.grow(6) && !share.grow(1) && budget.take(1).is_none());
        let value = share.hold(b"text".to_vec());
        let copy = value.clone();
        drop(value);
        assert!(budget.take(1).is_none());
        drop(copy);
        assert!(budget.take(10).is_some());
    }
}
