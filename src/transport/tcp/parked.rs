//! WRITEs of dead connections, until the peer has said that it takes no more bytes of them. They are kept here and not by the
//! task that asks, because whoever closes the link, unregisters their memory or gives them up has to find them.

use parking_lot::Mutex;

use super::request::Request;
use crate::error::Error;
use crate::transport::slice::{Slice, Trail};

/// Requests taken out of the lock at once. Chosen: they find room on the stack, where memory may be short.
const AT_ONCE: usize = 64;

type Behind = Vec<(Request, Error)>;

/// Those of one connection.
struct Group {
    ticket: u64,
    /// Each with what it fails with if the peer does not answer.
    behind: Behind,
    /// Of requests that have ended.
    trails: Vec<Trail>,
}

/// Those of a link.
#[derive(Default)]
pub(super) struct Parked(Mutex<State>);

#[derive(Default)]
struct State {
    closed: bool,
    next: u64,
    groups: Vec<Group>,
}

impl Parked {
    /// Keeps them under a ticket; gives them back once closed, or without memory.
    pub(super) fn park(&self, behind: Behind, trails: Vec<Trail>) -> Result<u64, (Behind, Vec<Trail>)> {
        let mut state = self.0.lock();
        if state.closed || state.groups.try_reserve(1).is_err() {
            return Err((behind, trails));
        }
        let ticket = state.next;
        state.next += 1;
        state.groups.push(Group { ticket, behind, trails });
        Ok(ticket)
    }

    /// Takes what is left of the ticket's.
    pub(super) fn take(&self, ticket: u64) -> (Behind, Vec<Trail>) {
        let mut state = self.0.lock();
        let Some(at) = state.groups.iter().position(|group| group.ticket == ticket) else {
            return Default::default();
        };
        let group = state.groups.swap_remove(at);
        (group.behind, group.trails)
    }

    /// Ends the requests whose slices `which` picks. Their trails stay.
    pub(super) fn abandon(&self, which: impl Fn(&Slice) -> bool, end: impl Fn(Request)) {
        loop {
            let mut ended = [const { None }; AT_ONCE];
            let count = self.take_out(&which, &mut ended);
            // Without the lock: whoever hears of the end may come back.
            ended.into_iter().flatten().for_each(&end);
            if count < AT_ONCE {
                return;
            }
        }
    }

    /// Takes requests out whose slices `which` picks, as many as `ended` has places; returns how many.
    fn take_out(&self, which: impl Fn(&Slice) -> bool, ended: &mut [Option<Request>; AT_ONCE]) -> usize {
        let mut count = 0;
        for group in &mut self.0.lock().groups {
            let is_picked = |(request, _): &mut (Request, Error)| request.slice().is_some_and(&which);
            for (mut request, _) in group.behind.extract_if(.., is_picked).take(AT_ONCE - count) {
                keep_trail(&mut group.trails, &mut request);
                ended[count] = Some(request);
                count += 1;
            }
        }
        count
    }

    /// Keeps nothing from now on.
    pub(super) fn close(&self) {
        self.0.lock().closed = true;
    }
}

/// Adds the trail of a request that ends. One that finds no room is lost: without a trail the range would count as quiet.
pub(super) fn keep_trail(trails: &mut Vec<Trail>, request: &mut Request) {
    let trail = request.take_trail();
    if trails.try_reserve(1).is_ok() {
        trails.extend(trail);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use super::*;
    use crate::transport::slice::deaf::work;
    use crate::transport::slice::{canceled, Drained, Op, Work};

    fn write() -> (Arc<Work>, Request) {
        let work = work(1);
        let request = Request::new(Slice::new(&work, 0, Op::Write, 1, 2, 8, None), 0);
        (work, request)
    }

    #[test]
    fn p02_what_is_given_up_here_is_drained_when_the_peer_has_confirmed_it() {
        let (parked, (work, request)) = (Parked::default(), write());
        let ticket = parked.park(vec![(request, canceled())], Vec::new()).ok().unwrap();
        work.cancel();
        parked.abandon(Slice::is_given_up, |request| request.fail(canceled()));
        assert_eq!(work.drained(0), Some(Drained::No));
        let (behind, trails) = parked.take(ticket);
        assert!(behind.is_empty() && trails.len() == 1);
        trails.into_iter().for_each(Trail::end);
        assert_eq!(work.drained(0), Some(Drained::Yes));
    }

    #[test]
    fn p02_a_write_whose_trail_nobody_follows_is_never_called_drained() {
        let (work, mut request) = write();
        request.lose_trail();
        request.fail(canceled());
        assert_eq!(work.drained(0), Some(Drained::Unknown));
    }

    #[test]
    fn all_that_are_picked_end_however_many_they_are_and_the_others_stay() {
        let count = 2 * (3 * AT_ONCE + 5);
        let work = work(count);
        let late = || Error::invalid("end of test");
        let waiting = |task: usize| {
            let slice = Slice::new(&work, task as u32, Op::Write, 1, task as u64, 8, None);
            (Request::new(slice, 0), late())
        };
        let parked = Parked::default();
        let groups = [(0..AT_ONCE), (AT_ONCE..count)];
        let tickets = groups.map(|tasks| parked.park(tasks.map(waiting).collect(), Vec::new()).ok().unwrap());
        let ended = Cell::new(0);
        let end = |request: Request| {
            // The lock is free: whoever hears of the end may come back.
            assert!(parked.0.try_lock().is_some() && request.remote().is_multiple_of(2));
            ended.set(ended.get() + 1);
            request.fail(late());
        };
        parked.abandon(|slice| slice.remote.is_multiple_of(2), end);
        assert_eq!(ended.get(), count / 2);
        let rest: Vec<_> = tickets.into_iter().flat_map(|ticket| parked.take(ticket).0).collect();
        let mut remote = rest.iter().map(|(request, _)| request.remote());
        assert!(rest.len() == count / 2 && remote.all(|remote| remote % 2 == 1));
        rest.into_iter().for_each(|(request, error)| request.fail(error));
    }
}
