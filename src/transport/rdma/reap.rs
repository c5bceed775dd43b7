//! The reaction to completions, on the thread of whoever polls.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use super::completions::Retire;
use super::connection::Connection;
use super::errors::completion_error;
use super::flight::{Flight, Keys, Loss, Lost};
use super::nic::Nic;
use super::queue::{Queue, Retired};
use super::rail::{Event, Owner, Rail};
use super::recover::recover;
use super::shared::Shared;
use crate::error::{Class, Code, Error};
use crate::transport::slice::Ends;

/// Takes up what the NIC completed; `false` if there was nothing, or another thread does it.
pub(super) fn poll(shared: &Shared, nic: &Nic) -> bool {
    let (mut found, mut elsewhere) = (false, false);
    let mut reaper = Reaper { shared, failed: Vec::new(), lost: Vec::new() };
    for completions in &nic.completions {
        match completions.poll(|| shared.now_ms(), &mut reaper) {
            Some(some) => found |= some,
            None => elsewhere = true,
        }
    }
    if !found {
        if !elsewhere {
            nic.looked_ns.store(shared.now_ns(), Ordering::Relaxed);
        }
        return false;
    }
    let Reaper { failed, lost, .. } = reaper;
    for (rail, connection, error) in failed {
        rail.feed(Event::Lost(connection, error));
    }
    for (rail, connection, flights) in lost {
        recover(shared, &rail, flights, connection.as_deref(), Keys::Good);
    }
    if found && nic.starved.swap(false, Ordering::SeqCst) {
        serve_starving(shared, nic);
    }
    found
}

/// Posts for the rails that found no credit, the one that has waited longest first, while there is some.
fn serve_starving(shared: &Shared, nic: &Nic) {
    let starving = &shared.rails(nic).starving;
    for _ in 0..starving.len() {
        if !nic.has_credit() {
            nic.starved.store(true, Ordering::SeqCst);
            // What came back before the note may have been the last, and then no completion brings anybody here again.
            if !nic.has_credit() {
                return;
            }
        }
        let Some(rail) = starving.next() else { return };
        if rail.has_waiting() {
            rail.pump();
        }
    }
}

/// Hears what a poll found.
struct Reaper<'a> {
    shared: &'a Shared,
    /// Given up after the poll, because what waits for them is then placed anew.
    failed: Vec<(Arc<Rail>, Arc<Connection>, Error)>,
    /// Worked on after the poll: it posts elsewhere.
    lost: Vec<(Arc<Rail>, Option<Arc<Connection>>, Lost)>,
}

impl Retire for Reaper<'_> {
    fn retired(&mut self, queue: &Arc<Queue>, retired: &mut Retired, drained: bool) {
        let Some(owner) = queue.owner::<Owner>() else { return };
        let rail = &owner.rail;
        let connection = || owner.connection.upgrade();
        if !retired.done.is_empty() {
            // Before the ends are told: whoever hears of the last one finds nothing under way any more.
            let bytes = std::mem::take(&mut retired.bytes);
            let count = retired.done.iter().filter(|flight| flight.slice.is_some()).count();
            let now_ns = self.shared.now_ns();
            rail.settle(bytes, count as u64, now_ns);
            let mut proved = false;
            let mut ends = Ends::default();
            for flight in retired.done.drain(..) {
                match flight.slice {
                    Some(slice) => ends.complete(slice, now_ns),
                    None => proved = true,
                }
            }
            drop(ends);
            if let Some(connection) =
                proved.then(connection).flatten().filter(|connection| connection.note_proof())
            {
                rail.feed(Event::Proved(connection));
            }
        }
        if !retired.lost.is_empty() {
            let connection = connection();
            if let Some(connection) = connection.clone().filter(|connection| connection.cause().is_none()) {
                self.fail(rail, connection, &retired.lost);
            }
            let key = |connection: &Option<Arc<Connection>>| connection.as_ref().map(Arc::as_ptr);
            match self.lost.last_mut() {
                Some((_, known, lost)) if key(known) == key(&connection) && connection.is_some() => {
                    lost.append(&mut retired.lost);
                }
                _ => self.lost.push((rail.clone(), connection.clone(), std::mem::take(&mut retired.lost))),
            }
        }
        if drained {
            self.shared.destroyer.take(queue, connection(), None);
        }
        if rail.has_waiting() && rail.is_up() {
            rail.pump();
        }
    }
}

impl Reaper<'_> {
    /// Notes that a connection is to be given up, for the first reason.
    fn fail(&mut self, rail: &Arc<Rail>, connection: Arc<Connection>, lost: &[(Flight, Loss)]) {
        if self.failed.iter().any(|(_, known, _)| Arc::ptr_eq(known, &connection)) {
            return;
        }
        let error = lost.iter().find_map(|(_, loss)| completion_error(&rail.name(), &rail.peer, *loss));
        // If the peer did on a queue pair what it must not, the NIC stops the queue pair and gives no other sign.
        let stopped = || {
            let text =
                format!("{}: a queue pair had stopped, perhaps for a bad request of the peer", rail.name());
            Error::new(Code::Endpoint, text).transient(Class::Network).peer(&rail.peer)
        };
        self.failed.push((rail.clone(), connection, error.unwrap_or_else(stopped)));
    }
}
