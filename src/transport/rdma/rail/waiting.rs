//! What waits on a rail for room or for a connection, oldest first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::super::flight::Flight;

/// The list. Any thread.
#[derive(Default)]
pub(super) struct Waiting {
    list: Mutex<VecDeque<Flight>>,
    /// Its length, to be read without waiting for the lock; written under it.
    len: AtomicUsize,
}

impl Waiting {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::SeqCst)
    }

    /// None waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds all of `flights` at the end.
    pub(super) fn append(&self, flights: &mut VecDeque<Flight>) {
        self.change(|list| list.append(flights));
    }

    /// Works on the list under its lock.
    pub(super) fn change<T>(&self, work: impl FnOnce(&mut MutexGuard<'_, VecDeque<Flight>>) -> T) -> T {
        let mut list = self.list.lock();
        let result = work(&mut list);
        self.len.store(list.len(), Ordering::SeqCst);
        result
    }

    /// The link of the oldest.
    pub(super) fn link(&self) -> Option<u32> {
        self.list.lock().front().map(|flight| flight.link)
    }

    /// Takes out all of them, in a time that does not depend on how many there are.
    pub(super) fn take_all(&self) -> VecDeque<Flight> {
        self.change(|list| std::mem::take(&mut **list))
    }

    /// Takes out the flights for which `wanted` holds. None if `no_more` turns true meanwhile: there may be millions.
    pub(super) fn take(&self, wanted: impl Fn(&Flight) -> bool, no_more: impl Fn() -> bool) -> Vec<Flight> {
        self.change(|list| {
            let found = list.iter().any(|flight| no_more() || wanted(flight));
            if !found || no_more() {
                return Vec::new();
            }
            let (taken, left): (Vec<Flight>, Vec<Flight>) = list.drain(..).partition(wanted);
            **list = left.into();
            taken
        })
    }
}
