//! Flights of one link that came back, until the control plane places them anew.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::super::fence::Fence;
use super::super::flight::{fail_all, Flight};
use crate::error::Result;

/// What came back. Any thread.
#[derive(Default)]
pub(super) struct Returned {
    /// Guards both lists.
    kept: Mutex<Kept>,
    /// A task on the control plane works on them.
    placing: AtomicBool,
}

#[derive(Default)]
struct Kept {
    flights: Vec<Flight>,
    /// To be raised before any of the flights is placed.
    fences: Vec<Fence>,
}

impl Returned {
    /// Keeps flights, and a fence for them; true if there are some now. If `open` says that the link is closed, they
    /// fail.
    pub(super) fn keep(
        &self,
        flights: impl IntoIterator<Item = Flight>,
        behind: Option<Fence>,
        open: impl FnOnce() -> Result<()>,
    ) -> bool {
        let mut kept = self.kept.lock();
        if let Some(fence) = behind.filter(|fence| !kept.fences.contains(fence)) {
            kept.fences.push(fence);
        }
        kept.flights.extend(flights);
        // Under the lock: either `close` takes them, or this sees that `close` came before.
        if let Err(error) = open() {
            let refused = std::mem::take(&mut kept.flights);
            drop(kept);
            fail_all(refused, &error);
            return false;
        }
        !kept.flights.is_empty()
    }

    /// No flight is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.lock().flights.is_empty()
    }

    /// Takes all that may be placed; or, if there are any, the fences to raise first.
    pub(super) fn take_placeable(&self) -> std::result::Result<Vec<Flight>, Vec<Fence>> {
        let mut kept = self.kept.lock();
        match kept.fences.is_empty() {
            true => Ok(std::mem::take(&mut kept.flights)),
            false => Err(std::mem::take(&mut kept.fences)),
        }
    }

    /// The WRITEs are posted again although the peer has not given its end up: of none of them will be known when it is
    /// quiet.
    pub(super) fn lose_trails(&self) {
        self.kept.lock().flights.iter().for_each(|flight| drop(flight.leave_trail()));
    }

    /// Takes out the flights for which `wanted` holds.
    pub(super) fn take(&self, wanted: &dyn Fn(&Flight) -> bool) -> Vec<Flight> {
        let mut kept = self.kept.lock();
        let (taken, left) = std::mem::take(&mut kept.flights).into_iter().partition(wanted);
        kept.flights = left;
        taken
    }

    /// Takes out all of them.
    pub(super) fn take_all(&self) -> Vec<Flight> {
        std::mem::take(&mut self.kept.lock().flights)
    }

    /// Whoever gets `true` starts the task that places them.
    pub(super) fn begin(&self) -> bool {
        !self.placing.swap(true, Ordering::SeqCst)
    }

    /// The task has found nothing more. `true` if it has to go on all the same: a flight has come meanwhile, and nobody
    /// else will place it.
    pub(super) fn end(&self) -> bool {
        self.placing.store(false, Ordering::SeqCst);
        !self.is_empty() && self.begin()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::transport::slice::deaf::work;
    use crate::transport::slice::{Drained, Op, Slice, Work};
    use std::sync::Arc;

    fn flight(work: &Arc<Work>, task: u32, op: Op) -> Flight {
        Flight::new(Slice::new(work, task, op, 1, 2, 8, None), 0, 0)
    }

    fn end(flights: Vec<Flight>) -> usize {
        let count = flights.len();
        fail_all(flights, &Error::invalid("the test is over"));
        count
    }

    #[test]
    fn what_came_back_is_placed_when_its_fences_have_been_taken() {
        let (returned, work) = (Returned::default(), work(2));
        let fence = || Fence { own_path: "a".into(), peer: "b".into(), qp_num: vec![1], incarnation: None };
        assert!(returned.is_empty() && !returned.keep([], None, || Ok(())));
        for (task, op) in [(0, Op::Write), (1, Op::Read)] {
            assert!(returned.keep([flight(&work, task, op)], Some(fence()), || Ok(())));
        }
        assert!(!returned.is_empty());
        assert_eq!(returned.take_placeable().err().unwrap().len(), 1, "of one connection");
        assert_eq!(end(returned.take_placeable().ok().unwrap()), 2);
        assert!(returned.is_empty());
    }

    #[test]
    fn one_at_a_time_places_and_nothing_is_left_without_one() {
        let (returned, work) = (Returned::default(), work(1));
        assert!(returned.begin() && !returned.begin());
        assert!(!returned.end() && returned.begin());
        returned.keep([flight(&work, 0, Op::Read)], None, || Ok(()));
        assert!(returned.end(), "it came meanwhile");
        assert_eq!(end(returned.take_all()), 1);
        assert!(!returned.end());
    }

    #[test]
    fn of_writes_that_are_posted_again_unasked_is_not_known_when_they_are_quiet() {
        let (returned, work) = (Returned::default(), work(2));
        returned.keep(
            [(0, Op::Write), (1, Op::Read)].map(|(task, op)| flight(&work, task, op)),
            None,
            || Ok(()),
        );
        returned.lose_trails();
        assert_eq!(end(returned.take_all()), 2);
        assert_eq!([0, 1].map(|task| work.drained(task)), [Some(Drained::Unknown), Some(Drained::Yes)]);
    }
}
