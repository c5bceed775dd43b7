//! The simulated clock, and what is to happen when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// What is to happen, in the order of time; what is due at the same time comes in the order in which it was planned.
pub(crate) struct Agenda<T> {
    now_us: u64,
    planned: u64,
    due: BinaryHeap<Reverse<(u64, u64, Entry<T>)>>,
}

/// Not compared: the number before it is never the same twice.
struct Entry<T>(T);

impl<T> PartialEq for Entry<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl<T> Agenda<T> {
    /// Nothing is planned, and no time has passed.
    pub(crate) fn new() -> Self {
        Agenda { now_us: 0, planned: 0, due: BinaryHeap::new() }
    }

    /// Microseconds since the beginning.
    pub(crate) fn now_us(&self) -> u64 {
        self.now_us
    }

    /// As long after the beginning.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_micros(self.now_us)
    }

    /// Nothing is planned.
    pub(crate) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Something happens so many microseconds from now.
    pub(crate) fn plan(&mut self, in_us: u64, what: T) {
        self.planned += 1;
        self.due.push(Reverse((self.now_us + in_us, self.planned, Entry(what))));
    }

    /// The next thing that happens; time passes until then.
    pub(crate) fn next(&mut self) -> Option<T> {
        let Reverse((at_us, _, Entry(what))) = self.due.pop()?;
        self.now_us = at_us;
        Some(what)
    }
}
