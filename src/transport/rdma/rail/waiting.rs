//! What waits on a rail for room or for a connection. The batches that wait are served in turn, each for so many bytes
//! (deficit round robin), and each oldest first: a small call does not wait for all that was there before it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::super::flight::Flight;
use super::super::share::PORTION;

/// The list. Any thread.
#[derive(Default)]
pub(in crate::transport::rdma) struct Waiting {
    /// Guards what waits.
    turns: Mutex<Turns>,
    /// How many, to be read without waiting for the lock; written under it.
    len: AtomicUsize,
}

/// Flights by batch.
#[derive(Default)]
pub(super) struct Turns {
    lists: HashMap<usize, List>,
    /// The batches that wait, in the order of their turns; the front one has it.
    order: VecDeque<usize>,
    len: usize,
}

#[derive(Default)]
struct List {
    flights: VecDeque<Flight>,
    /// What the batch may still post in this turn, bytes; its last flight may be longer, and is counted against its next
    /// turns.
    left: i64,
}

/// What serving the front batch came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// So many bytes were posted; there may be room for more.
    Posted(u64),
    /// There was no room.
    Full,
}

impl Waiting {
    /// How many wait.
    pub(in crate::transport::rdma) fn len(&self) -> usize {
        self.len.load(Ordering::SeqCst)
    }

    /// None waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds all of `flights`, behind those of the same batch. Those for which there is no memory stay in `flights`.
    pub(super) fn append(&self, flights: &mut VecDeque<Flight>) {
        self.change(|turns| turns.append(flights));
    }

    /// Works on what waits under its lock.
    pub(super) fn change<T>(&self, work: impl FnOnce(&mut Turns) -> T) -> T {
        let mut turns = self.turns.lock();
        let result = work(&mut turns);
        self.len.store(turns.len, Ordering::SeqCst);
        result
    }

    /// What `look` finds about the one that is posted next. Under the lock.
    pub(in crate::transport::rdma) fn front<T>(&self, look: impl FnOnce(&Flight) -> T) -> Option<T> {
        self.turns.lock().front().map(look)
    }

    /// Takes out those of the longest list that would be posted last: about so many bytes, no more than `most`, and at most
    /// half of the list; none from one on that belongs to NICs that the caller has named.
    pub(in crate::transport::rdma) fn take_surplus(&self, bytes: u64, most: usize) -> Vec<Flight> {
        self.change(|turns| {
            let mut taken = Vec::new();
            let Some(list) = turns.lists.values_mut().max_by_key(|list| list.flights.len()) else {
                return taken;
            };
            let most = most.min(list.flights.len() / 2);
            if taken.try_reserve_exact(most).is_err() {
                return taken;
            }
            let mut left = bytes;
            while left > 0 && taken.len() < most {
                if list.flights.back().is_none_or(|flight| flight.named) {
                    break;
                }
                let Some(flight) = list.flights.pop_back() else { break };
                left = left.saturating_sub(flight.len());
                taken.push(flight);
            }
            turns.len -= taken.len();
            taken
        })
    }

    /// Takes out all of them, in a time that does not depend on how many each batch has.
    pub(super) fn take_all(&self) -> impl Iterator<Item = Flight> + Send + 'static {
        let turns = self.change(std::mem::take);
        let Turns { mut lists, order, len } = turns;
        let lists = order.into_iter().filter_map(move |batch| lists.remove(&batch));
        Counted { flights: lists.flat_map(|list| list.flights), left: len }
    }

    /// Takes out the flights for which `wanted` holds. None if `no_more` turns true meanwhile: there may be millions.
    pub(super) fn take(&self, wanted: impl Fn(&Flight) -> bool, no_more: impl Fn() -> bool) -> Vec<Flight> {
        self.change(|turns| {
            let found = turns.all().any(|flight| no_more() || wanted(flight));
            if !found || no_more() {
                return Vec::new();
            }
            let mut taken = Vec::new();
            for list in turns.lists.values_mut() {
                let (out, left): (Vec<Flight>, Vec<Flight>) = list.flights.drain(..).partition(&wanted);
                list.flights = left.into();
                taken.extend(out);
            }
            turns.len -= taken.len();
            turns.lists.retain(|_, list| !list.flights.is_empty());
            let Turns { lists, order, .. } = turns;
            order.retain(|batch| lists.contains_key(batch));
            taken
        })
    }
}

impl Turns {
    /// None waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The one that is posted next.
    pub(super) fn front(&self) -> Option<&Flight> {
        self.lists.get(self.order.front()?)?.flights.front()
    }

    fn all(&self) -> impl Iterator<Item = &Flight> {
        self.lists.values().flat_map(|list| &list.flights)
    }

    fn append(&mut self, flights: &mut VecDeque<Flight>) {
        let Some(batch) = flights.front().map(Flight::batch) else { return };
        let count = flights.len();
        match self.lists.get_mut(&batch) {
            Some(list) => {
                if list.flights.try_reserve(count).is_err() {
                    return;
                }
                list.flights.append(flights);
            }
            None => {
                if self.lists.try_reserve(1).is_err() || self.order.try_reserve(1).is_err() {
                    return;
                }
                let flights = std::mem::take(flights);
                self.lists.insert(batch, List { flights, left: 0 });
                self.order.push_back(batch);
            }
        }
        self.len += count;
    }

    /// Serves the batches in turn until there is no room, or nothing waits. `post` posts flights from the front of a list,
    /// about as many bytes as it is told; it may take out others.
    pub(super) fn serve<E>(
        &mut self,
        mut post: impl FnMut(&mut VecDeque<Flight>, u64) -> Result<Served, E>,
    ) -> Result<(), E> {
        while let Some(batch) = self.order.front().copied() {
            let Some(list) = self.lists.get_mut(&batch) else {
                self.order.pop_front();
                continue;
            };
            if list.left <= 0 {
                let others = self.order.len() > 1;
                list.left = if others { list.left + PORTION as i64 } else { PORTION as i64 };
                if list.left <= 0 {
                    self.order.rotate_left(1);
                    continue;
                }
            }
            let before = list.flights.len();
            let served = post(&mut list.flights, list.left as u64);
            self.len -= before - list.flights.len();
            match served {
                _ if list.flights.is_empty() => {
                    self.lists.remove(&batch);
                    self.order.pop_front();
                }
                Ok(Served::Posted(bytes)) => {
                    list.left -= bytes.max(1) as i64;
                    if list.left <= 0 {
                        self.order.rotate_left(1);
                    }
                }
                Ok(Served::Full) => return Ok(()),
                Err(_) => {}
            }
            served?;
        }
        Ok(())
    }
}

/// Tells how many come.
struct Counted<I> {
    flights: I,
    left: usize,
}

impl<I: Iterator<Item = Flight>> Iterator for Counted<I> {
    type Item = Flight;

    fn next(&mut self) -> Option<Flight> {
        self.left = self.left.saturating_sub(1);
        self.flights.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, None)
    }
}

#[cfg(test)]
mod random;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::Error;
    use crate::transport::slice::deaf::Deaf;
    use crate::transport::slice::{Op, Sink, Slice, Task, Work};

    /// Flights of one submit call of a batch.
    fn call(batch: &Arc<dyn Sink>, count: usize, len: u64) -> VecDeque<Flight> {
        let work = Work::new(vec![Task::default()].into_boxed_slice(), None, batch.clone());
        (0..count).map(|_| Flight::new(Slice::new(&work, 0, Op::Write, 1, 2, len, None), 0, 0)).collect()
    }

    fn batch() -> Arc<dyn Sink> {
        Arc::new(Deaf::default())
    }

    /// The lengths that are posted with room for `room` bytes, in their order.
    fn posted(waiting: &Waiting, mut room: u64) -> Vec<u64> {
        let mut order = Vec::new();
        let outcome = waiting.change(|turns| {
            turns.serve(|flights, most| {
                let mut bytes = 0;
                while bytes < most.min(room) {
                    let Some(flight) = flights.pop_front() else { break };
                    bytes += flight.len();
                    order.push(flight.len());
                    flight.fail(Error::invalid("posted"));
                }
                room = room.saturating_sub(bytes);
                Ok::<_, ()>(if bytes == 0 { Served::Full } else { Served::Posted(bytes) })
            })
        });
        assert_eq!(outcome, Ok(()));
        order
    }

    fn count(order: &[u64], len: u64) -> usize {
        order.iter().filter(|posted| **posted == len).count()
    }

    #[test]
    fn batches_are_served_in_turn_by_bytes_whatever_their_calls_and_lengths() {
        let (waiting, [one, two, three]) = (Waiting::default(), [batch(), batch(), batch()]);
        (0..100).for_each(|_| waiting.append(&mut call(&one, 100, 65_536)));
        waiting.append(&mut call(&two, 1000, PORTION + 4096));
        waiting.append(&mut call(&three, 1, 4096));
        assert_eq!(waiting.len(), 11_001);
        let order = posted(&waiting, 100 * PORTION);
        let small = order.iter().position(|len| *len == 4096).unwrap();
        assert!(small <= 16 + 1, "the small call waits for one turn of each: {small}");
        let bytes =
            [count(&order, 65_536) as u64 * 65_536, count(&order, PORTION + 4096) as u64 * (PORTION + 4096)];
        assert!(bytes[0].abs_diff(bytes[1]) <= 2 * PORTION, "{bytes:?}");
        assert_eq!(waiting.len(), 11_001 - order.len());
    }

    #[test]
    fn a_flight_longer_than_many_turns_is_counted_against_the_next_ones() {
        let (waiting, [one, two]) = (Waiting::default(), [batch(), batch()]);
        waiting.append(&mut call(&one, 3, 10 * PORTION));
        waiting.append(&mut call(&two, 100, PORTION));
        let order = posted(&waiting, 31 * PORTION);
        assert_eq!(count(&order, 10 * PORTION), 2, "{order:?}");
        let between = order.iter().skip(1).position(|len| *len == 10 * PORTION).unwrap();
        assert!((9..=11).contains(&between), "{order:?}");
    }

    #[test]
    fn what_is_taken_out_is_gone_and_the_rest_keeps_its_turns() {
        let (waiting, [one, two]) = (Waiting::default(), [batch(), batch()]);
        waiting.append(&mut call(&one, 5, 1));
        waiting.append(&mut call(&two, 5, 2));
        let is_one = |flight: &Flight| flight.len() == 1;
        assert!(waiting.take(is_one, || true).is_empty());
        assert_eq!((waiting.take(is_one, || false).len(), waiting.len()), (5, 5));
        assert_eq!(posted(&waiting, 4), [2, 2]);
        let surplus = waiting.take_surplus(3, 9);
        assert_eq!((surplus.len(), waiting.len()), (1, 2));
        let rest = waiting.take_all();
        assert_eq!((rest.size_hint().0, rest.count(), waiting.len()), (2, 2, 0));
        assert!(posted(&waiting, 4).is_empty());
    }
}
