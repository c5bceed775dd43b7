//! Lists of what is to be looked at again: rails that wait, connect or pause, rails that found no credit, queue pairs with
//! something posted. Of 10^5 queue pairs few are busy, and nobody passes all the others to find those.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use crate::runtime::sync::atomic::{AtomicBool, Ordering::SeqCst};
use crate::runtime::sync::Mutex;

/// Says of something that it is on a list. Only [`Attention`] changes it.
#[derive(Default)]
pub(super) struct Listed(AtomicBool);

/// A list, oldest first. Any thread.
pub(super) struct Attention<T> {
    /// Held briefly; nothing is looked at or dropped under it.
    list: Mutex<VecDeque<Weak<T>>>,
    mark: fn(&T) -> &Listed,
}

impl<T> Attention<T> {
    /// An empty list; `mark` finds the mark that belongs to it.
    pub(super) fn new(mark: fn(&T) -> &Listed) -> Self {
        Attention { list: Mutex::default(), mark }
    }

    /// Has `it` looked at from now on. To be called once the reason can be seen: then either this lists it, or whoever takes it
    /// from the list sees the reason.
    #[inline]
    pub(super) fn call(&self, it: &Arc<T>) {
        if !self.is_listed(it) {
            self.add(it, Arc::downgrade(it));
        }
    }

    /// The same for something that knows itself by `me`.
    #[inline]
    pub(super) fn call_me(&self, it: &T, me: &Weak<T>) {
        if !self.is_listed(it) {
            self.add(it, me.clone());
        }
    }

    fn is_listed(&self, it: &T) -> bool {
        (self.mark)(it).0.load(SeqCst)
    }

    #[cold]
    fn add(&self, it: &T, me: Weak<T>) {
        if !(self.mark)(it).0.swap(true, SeqCst) {
            self.list.lock().push_back(me);
        }
    }

    /// How many are listed, those that are gone among them.
    pub(super) fn len(&self) -> usize {
        self.list.lock().len()
    }

    /// Takes the oldest.
    pub(super) fn next(&self) -> Option<Arc<T>> {
        loop {
            let first = self.list.lock().pop_front()?;
            if let Some(it) = first.upgrade() {
                // Before the caller looks: a reason that comes up later lists it again.
                (self.mark)(&it).0.store(false, SeqCst);
                return Some(it);
            }
        }
    }

    /// Has `look` see everything that is listed now. What it says `true` of stays.
    pub(super) fn each(&self, mut look: impl FnMut(&Arc<T>) -> bool) {
        for _ in 0..self.len() {
            let Some(first) = self.list.lock().pop_front() else { return };
            // One that is gone has its turn too, or what is left would have more than one.
            let Some(it) = first.upgrade() else { continue };
            (self.mark)(&it).0.store(false, SeqCst);
            if look(&it) {
                self.call(&it);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Thing {
        listed: Listed,
        number: u32,
    }

    fn attention() -> Attention<Thing> {
        Attention::new(|thing| &thing.listed)
    }

    fn seen(attention: &Attention<Thing>, look: impl Fn(&Thing) -> bool) -> Vec<u32> {
        let mut seen = Vec::new();
        attention.each(|thing| {
            seen.push(thing.number);
            look(thing)
        });
        seen
    }

    #[test]
    fn only_what_was_called_for_is_looked_at_and_only_until_it_is_settled() {
        let attention = attention();
        let things: Vec<_> = (0..4).map(|number| Arc::new(Thing { number, ..Thing::default() })).collect();
        for number in [1, 3, 1] {
            attention.call(&things[number]);
        }
        assert_eq!(seen(&attention, |thing| thing.number == 3), [1, 3]);
        assert_eq!(seen(&attention, |_| false), [3]);
        assert_eq!(seen(&attention, |_| false), [0; 0]);
    }

    #[test]
    fn a_reason_that_comes_up_while_it_is_looked_at_is_not_lost() {
        let attention = attention();
        let thing = Arc::new(Thing::default());
        attention.call(&thing);
        for stays in [false, true] {
            let mut seen = 0;
            attention.each(|thing| {
                seen += 1;
                attention.call(thing);
                stays
            });
            assert_eq!(seen, 1);
        }
        assert_eq!(seen(&attention, |_| false).len(), 1);
    }

    #[test]
    fn what_is_gone_leaves_the_list() {
        let attention = attention();
        let thing = Arc::new(Thing::default());
        attention.call(&thing);
        drop(thing);
        assert_eq!(seen(&attention, |_| true), [0; 0]);
        assert_eq!(attention.len(), 0);
    }

    #[test]
    fn what_is_gone_does_not_have_others_looked_at_more_often() {
        let attention = attention();
        let things: Vec<_> = (0..1000).map(|number| Arc::new(Thing { number, ..Thing::default() })).collect();
        things.iter().for_each(|thing| attention.call(thing));
        let kept = things[999].clone();
        drop(things);
        assert_eq!(seen(&attention, |_| true).len(), 1);
        drop(kept);
    }
}
