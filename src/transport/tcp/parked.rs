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
                if group.trails.try_reserve(1).is_ok() {
                    group.trails.extend(request.take_trail());
                }
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
