//! WRITEs that a peer was told of, by the tags that it answers with.

use std::time::Instant;

use crate::transport::slice::{Slice, Trail};

/// What an answer ends.
pub(super) enum Awaited {
    /// A WRITE.
    Write(Slice),
    /// One that is not wanted any more since then; the peer knows.
    Withdrawn(Slice, Instant),
    /// What a WRITE left behind that has failed.
    Trail(Trail),
}

/// All of one connection. A tag is a place and how often the place was used, so an answer that comes twice ends nothing.
#[derive(Default)]
pub(super) struct AwaitedSet {
    places: Vec<(u32, Option<Awaited>)>,
    free: Vec<u32>,
}

impl AwaitedSet {
    /// Makes room for so many more. `false`: there is no memory.
    pub(super) fn reserve(&mut self, count: usize) -> bool {
        let missing = count.saturating_sub(self.free.len());
        let places = self.places.len() + missing;
        self.places.try_reserve(missing).is_ok()
            && self.free.try_reserve(places.saturating_sub(self.free.len())).is_ok()
    }

    /// Adds one, after [`AwaitedSet::reserve`], and gives its tag.
    pub(super) fn add(&mut self, awaited: Awaited) -> u64 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            self.places.len() as u32 - 1
        });
        let (count, entry) = &mut self.places[place as usize];
        *entry = Some(awaited);
        u64::from(*count) << 32 | u64::from(place)
    }

    /// Takes one out.
    pub(super) fn take(&mut self, tag: u64) -> Option<Awaited> {
        let (count, entry) = self.places.get_mut(tag as u32 as usize)?;
        if u64::from(*count) != tag >> 32 {
            return None;
        }
        let awaited = entry.take()?;
        *count = count.wrapping_add(1);
        self.free.push(tag as u32);
        Some(awaited)
    }

    /// None is left.
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// Tags of those that `which` picks, up to so many as `tags` has room for; returns how many.
    pub(super) fn tags(&self, which: impl Fn(&Awaited) -> bool, tags: &mut [u64]) -> usize {
        let mut found = 0;
        for (place, (count, entry)) in self.places.iter().enumerate() {
            if found == tags.len() {
                break;
            }
            if entry.as_ref().is_some_and(&which) {
                tags[found] = u64::from(*count) << 32 | place as u64;
                found += 1;
            }
        }
        found
    }

    /// Changes what is awaited under a tag.
    pub(super) fn change(&mut self, tag: u64, change: impl FnOnce(Awaited) -> Awaited) {
        if let Some((_, entry)) = self.places.get_mut(tag as u32 as usize) {
            *entry = entry.take().map(change);
        }
    }

    /// Changes all: `None` takes one out.
    pub(super) fn change_all(&mut self, mut change: impl FnMut(Awaited) -> Option<Awaited>) {
        for (place, (count, entry)) in self.places.iter_mut().enumerate() {
            if let Some(awaited) = entry.take() {
                *entry = change(awaited);
                if entry.is_none() {
                    *count = count.wrapping_add(1);
                    self.free.push(place as u32);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::slice::deaf::work;
    use crate::transport::slice::Op;

    #[test]
    fn an_answer_that_comes_twice_ends_nothing() {
        let work = work(1);
        let write = || Awaited::Write(Slice::new(&work, 0, Op::Write, 1, 2, 3, None));
        let mut set = AwaitedSet::default();
        assert!(set.reserve(2) && set.is_empty());
        let (one, two) = (set.add(write()), set.add(write()));
        assert!(set.take(one).is_some() && set.take(one).is_none());
        let again = set.add(write());
        assert_eq!((again as u32, one as u32), (0, 0));
        assert!(again != one && set.take(one).is_none());
        let mut tags = [0; 4];
        assert_eq!(set.tags(|_| true, &mut tags), 2);
        assert_eq!(tags[..2], [again, two]);
        assert!([u64::MAX, 2, 7 << 32].into_iter().all(|tag| set.take(tag).is_none()));
        set.change_all(|_| None);
        assert!(set.is_empty());
    }
}
