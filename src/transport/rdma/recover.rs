//! What becomes of a slice whose posting failed: on another rail, on the same one again, or the end of its task.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Instant;

use super::connection::Connection;
use super::errors::{completion_error, destroyed, timed_out};
use super::fence::{self, Fence};
use super::flight::{fail_revoked, Flight, Keys, Loss, Lost};
use super::judge::{judge, Blame, Judgement, Limits, Next, View};
use super::origin::Origin;
use super::rail::Rail;
use super::shared::Shared;
use super::verbs::wc;
use crate::error::{Class, Code, Error};
use crate::transport::slice::{canceled, Slice, Trail};

/// Decides about flights that came back from `rail`. `posted` is the connection that they were posted on; `None` if
/// they only waited. The caller holds no lock of the rail.
pub(super) fn recover(shared: &Shared, rail: &Rail, lost: Lost, posted: Option<&Connection>, keys: Keys) {
    let cause = posted.and_then(Connection::cause).cloned();
    decide_all(shared, rail, lost, posted, cause, keys);
}

/// Decides about flights that waited for `rail` and are handed back because of `cause`; `None`: for no failure of the
/// rail. The caller holds no lock of the rail.
pub(super) fn hand_back(shared: &Shared, rail: &Rail, lost: Lost, cause: Option<Error>, keys: Keys) {
    decide_all(shared, rail, lost, None, cause, keys);
}

/// Where there is no `cause`, errors name the last one that the rail has met.
fn decide_all(
    shared: &Shared,
    rail: &Rail,
    lost: Lost,
    posted: Option<&Connection>,
    cause: Option<Error>,
    keys: Keys,
) {
    if lost.is_empty() {
        return;
    }
    let cause = cause.or_else(|| rail.last_error());
    rail.withdraw(lost.iter().map(|(flight, _)| flight.len()).sum());
    let mut later: Vec<(u32, Arc<dyn Origin>, bool)> = Vec::new();
    let mut ended = Ended { posted: posted.map(|connection| (shared, rail, connection)), ..Ended::default() };
    let mut lost = lost.into_iter();
    while let Some((mut flight, loss)) = lost.next() {
        if shared.is_stopped() {
            // There may be millions, and judging each takes its time.
            let rest = lost.map(|(flight, _)| flight);
            return shared.destroyer.fail(rest.chain([flight]), &destroyed());
        }
        if flight.slice.is_none() {
            continue;
        }
        let Some(link) = shared.link(flight.link) else {
            // Nobody can ask for this task any more.
            let error = Error::new(Code::Endpoint, "the segment was closed").permanent(Class::Canceled);
            flight.fail(error);
            continue;
        };
        if flight.is_revoked() {
            ended.note(&flight, loss, &link);
            fail_revoked([flight]);
            continue;
        }
        if flight.is_given_up() {
            ended.fail(flight, loss, &link, canceled());
            continue;
        }
        let (next, error) = decide(shared, rail, &mut flight, loss, cause.as_ref(), &*link);
        if matches!(next, Next::Fail | Next::FailUnknown) {
            ended.fail(flight, loss, &link, error);
            continue;
        }
        let again = next == Next::AgainReread || keys == Keys::Stale;
        if let Err(closed) = link.check_open() {
            ended.fail(flight, loss, &link, closed);
            continue;
        }
        if flight.is_expired(Instant::now()) {
            ended.fail(flight, loss, &link, timed_out(&error));
            continue;
        }
        if posted.is_some() {
            flight.slice.iter().for_each(Slice::note_resent);
        }
        shared.stats.reposted.fetch_add(1, Ordering::Relaxed);
        flight.reread |= again;
        let fence = posted.and_then(|connection| fence(shared, rail, connection, &flight, loss, &*link));
        if posted.is_some() && fence.is_none() && loss != Loss::Unconnected {
            // The first copy may still arrive, and nobody can be asked: what becomes of the second says nothing of it.
            drop(flight.leave_trail());
        }
        // If there is no other rail, the descriptor is read again first: the peer may have been started anew, and then
        // its keys are stale.
        let elsewhere = !again && link.has_other_rail(&flight);
        if fence.is_none() && elsewhere {
            link.place(flight);
            continue;
        }
        let number = flight.link;
        if !link.keep(flight, fence) {
            continue;
        }
        match later.iter_mut().find(|(known, ..)| *known == number) {
            Some((.., reread)) => *reread |= !elsewhere,
            None => later.push((number, link, !elsewhere)),
        }
    }
    ended.follow();
    for (_, link, reread) in later {
        link.place_later(reread);
    }
}

/// Flights of one connection that failed for good.
#[derive(Default)]
struct Ended<'a> {
    /// `None` if they only waited.
    posted: Option<(&'a Shared, &'a Rail, &'a Connection)>,
    trails: Vec<Trail>,
    /// What ends the trails.
    fence: Option<(Arc<dyn Origin>, Fence)>,
    /// Links with pieces of tasks that nothing can save any more.
    orphans: Vec<Arc<dyn Origin>>,
}

impl Ended<'_> {
    fn fail(&mut self, flight: Flight, loss: Loss, link: &Arc<dyn Origin>, error: Error) {
        self.note(&flight, loss, link);
        flight.fail(error);
    }

    /// The flight is about to fail.
    fn note(&mut self, flight: &Flight, loss: Loss, link: &Arc<dyn Origin>) {
        let has_siblings = flight.slice.as_ref().is_some_and(Slice::has_siblings);
        if has_siblings && !self.orphans.iter().any(|known| Arc::ptr_eq(known, link)) {
            self.orphans.push(link.clone());
        }
        let Some((shared, rail, connection)) = self.posted else { return };
        // What the peer's NIC refuses it takes no byte of.
        let refused = matches!(loss, Loss::Completion(wc::REM_ACCESS_ERR, _));
        if loss == Loss::Unconnected || refused {
            return;
        }
        // One that finds no room is lost: without a trail the range would count as quiet.
        let trail = flight.leave_trail();
        if self.trails.try_reserve(1).is_ok() {
            self.trails.extend(trail);
        }
        if self.fence.is_none() {
            let fence = fence(shared, rail, connection, flight, loss, &**link);
            self.fence = fence.map(|fence| (link.clone(), fence));
        }
    }

    /// Asks the peer for its word, after which the trails end; without a peer that knows the question they stay unknown.
    fn follow(self) {
        self.orphans.iter().for_each(|link| link.give_up());
        let (Some((shared, ..)), Some((link, fence))) = (self.posted, self.fence) else { return };
        if !self.trails.is_empty() {
            shared.control.spawn(fence::follow(link.route().clone(), fence, self.trails));
        }
    }
}

/// The end of `connection` that the peer has to give up before `flight`, which was lost on it, is posted again. `None`
/// if no packet of it can be under way, or if one does no harm, or if the peer would not understand the message.
fn fence(
    shared: &Shared,
    rail: &Rail,
    connection: &Connection,
    flight: &Flight,
    loss: Loss,
    link: &dyn Origin,
) -> Option<Fence> {
    let own_path = shared.own_path(&rail.nic);
    let harmless = !flight.is_write() || loss == Loss::Unconnected || own_path == rail.peer;
    let incarnation = link.incarnation().filter(|_| !harmless)?;
    let (peer, qp_num) = (rail.peer.clone(), connection.numbers());
    Some(Fence { own_path, peer, qp_num, incarnation: Some(incarnation) })
}

/// Has the flight judged, notes what it has cost, and makes the error that it has met.
fn decide(
    shared: &Shared,
    rail: &Rail,
    flight: &mut Flight,
    loss: Loss,
    cause: Option<&Error>,
    link: &dyn Origin,
) -> (Next, Error) {
    let bit = link.bit_of(rail.nic.index, &rail.peer);
    let unnamed = || Error::new(Code::Endpoint, format!("{} failed", rail.name()));
    let cause = cause.cloned().unwrap_or_else(unnamed);
    let has_others = loss == Loss::Unconnected && {
        flight.avoid |= bit;
        link.has_other_rail(flight)
    };
    let view = View {
        loss,
        cause: (cause.kind(), cause.code()),
        tries: flight.tries,
        reread: flight.reread,
        is_write: flight.is_write(),
        has_others,
    };
    let config = &shared.config;
    let limits = Limits { tries: config.retry_cnt, repost_writes: config.rdma_repost_writes };
    let Judgement { next, blame, tries, avoid } = judge(&view, limits);
    flight.tries = tries;
    if avoid {
        flight.avoid |= bit;
    }
    let error = completion_error(&rail.name(), &rail.peer, loss).unwrap_or(cause);
    let error = match blame {
        Blame::Neighbour => error.context("work request flushed"),
        Blame::Rail => error,
        Blame::Peer => refused_by_peer(flight, error),
        Blame::Memory => unusable_memory(flight, error),
    };
    let error = match next {
        Next::FailUnknown => error.context("not posted again, as MC_RDMA_REPOST_WRITES=0 asks"),
        Next::Fail | Next::Again | Next::AgainReread => error,
    };
    let error = if error.rail_name().is_empty() { error.rail(rail.name()) } else { error };
    (next, error)
}

fn refused_by_peer(flight: &Flight, error: Error) -> Error {
    let Some(slice) = &flight.slice else { return error };
    let what = format!(
        "the peer's NIC refused {} bytes at {:#x}: not registered there any more, or not for remote access",
        slice.len, slice.remote
    );
    let (peer, rail) = (error.peer_name(), error.rail_name());
    Error::new(Code::AddressNotRegistered, format!("{what}; {}", error.text()))
        .permanent(Class::Rejected)
        .peer(peer)
        .rail(rail)
}

fn unusable_memory(flight: &Flight, error: Error) -> Error {
    let Some(slice) = &flight.slice else { return error };
    let text = format!(
        "the local NIC cannot use {} bytes at {:#x}: unmapped after registration? {}",
        slice.len,
        slice.local,
        error.text()
    );
    Error::new(Code::Context, text).permanent(Class::Argument)
}
