//! What has deadlines. Most of what a thread looks after is idle, and there may be tens of thousands of it, so ticks pass only what has
//! had something to do since the last one.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

pub(super) struct Due<T: ?Sized> {
    /// Guards the list.
    list: Mutex<Vec<Weak<T>>>,
    /// Something could not be listed for want of memory: from then on every tick passes all.
    is_lost: AtomicBool,
}

impl<T: ?Sized> Default for Due<T> {
    fn default() -> Self {
        Due { list: Mutex::default(), is_lost: AtomicBool::new(false) }
    }
}

impl<T: ?Sized> Due<T> {
    /// Lists something that is not listed.
    pub(super) fn add(&self, watched: Weak<T>) {
        let mut list = self.list.lock();
        match list.try_reserve(1) {
            Ok(()) => list.push(watched),
            Err(_) => self.is_lost.store(true, Relaxed),
        }
    }

    /// The list is not complete.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Relaxed)
    }

    /// Calls `check` with each that still is; those for which it answers `false` are not listed any more. It may add others.
    pub(super) fn pass(&self, mut check: impl FnMut(Arc<T>) -> bool) {
        let mut passed = std::mem::take(&mut *self.list.lock());
        passed.retain(|watched| watched.upgrade().is_some_and(&mut check));
        let mut list = self.list.lock();
        let mut added = std::mem::replace(&mut *list, passed);
        match list.try_reserve(added.len()) {
            Ok(()) => list.append(&mut added),
            Err(_) => self.is_lost.store(true, Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn only_what_is_busy_is_passed() {
        // Each has deadlines for so many ticks.
        let all = [1, 3, 2].map(|ticks| Arc::new(AtomicUsize::new(ticks)));
        let due = Due::default();
        all.iter().for_each(|busy| due.add(Arc::downgrade(busy)));
        let passed = |added: Option<&Arc<AtomicUsize>>| {
            let mut count = 0;
            due.pass(|busy| {
                count += 1;
                added.filter(|_| count == 1).into_iter().for_each(|added| due.add(Arc::downgrade(added)));
                busy.fetch_sub(1, Relaxed) > 1
            });
            count
        };
        assert_eq!([passed(None), passed(None), passed(None), passed(None)], [3, 2, 1, 0]);
        // One that comes while the others are passed is passed the next time.
        all[0].store(1, Relaxed);
        all[1].store(2, Relaxed);
        due.add(Arc::downgrade(&all[0]));
        assert_eq!([passed(Some(&all[1])), passed(None), passed(None), passed(None)], [1, 1, 1, 0]);
        due.add(Arc::downgrade(&all[1]));
        drop(all);
        assert_eq!(passed(None), 0, "it is gone");
        assert!(!due.is_lost());
    }
}
