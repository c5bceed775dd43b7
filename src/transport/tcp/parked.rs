//! WRITEs of dead connections, until the peer has said that it takes no more bytes of them. They are kept here and not by the
//! task that asks, because whoever closes the link, unregisters their memory or gives them up has to find them.

use parking_lot::Mutex;

use super::request::Request;
use crate::error::Error;
use crate::transport::slice::{Slice, Trail};

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
        let mut ended = Vec::new();
        for group in &mut self.0.lock().groups {
            let is_picked = |(request, _): &mut (Request, Error)| request.slice().is_some_and(&which);
            for (mut request, _) in group.behind.extract_if(.., is_picked) {
                keep_trail(&mut group.trails, &mut request);
                ended.push(request);
            }
        }
        // Without the lock: whoever hears of the end may come back.
        ended.into_iter().for_each(end);
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
    use std::sync::Arc;

    use super::*;
    use crate::transport::slice::{canceled, Drained, Op, Sink, Task, Work};

    struct Nobody;

    impl Sink for Nobody {
        fn task_ended(&self, _: bool) {}
    }

    fn write() -> (Arc<Work>, Request) {
        let work = Work::new(vec![Task::default()].into_boxed_slice(), None, Arc::new(Nobody));
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
}
