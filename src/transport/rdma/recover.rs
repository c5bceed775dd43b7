//! What becomes of a slice whose posting failed: on another rail, on the same one again, or the end of its task.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::errors::completion_error;
use super::flight::{Flight, Loss, Lost};
use super::link::RdmaLink;
use super::rail::Rail;
use super::shared::Shared;
use super::verbs::wc;
use crate::error::{Class, Code, Error};
use crate::transport::slice::Op;

/// Wait before slices are placed anew that no rail takes now.
const PLACE_INTERVAL: Duration = Duration::from_millis(200);
/// Longest wait for a peer's descriptor.
const REREAD_LIMIT: Duration = Duration::from_secs(5);

/// What a failed attempt means for a slice.
enum Verdict {
    /// No rail will do better.
    Fail(Error),
    /// Again, elsewhere if possible. The descriptor is read again first if the second value says so.
    Again(Error, bool),
}

impl Shared {
    /// Decides about flights that came back from `rail`, which must not hold a lock; `posted`: on that connection.
    /// `reread`: their keys are of another incarnation of the peer.
    pub fn recover(&self, rail: &Rail, lost: Lost, posted: Option<&Arc<Connection>>, reread: bool) {
        if lost.is_empty() {
            return;
        }
        let cause = rail.last_error();
        rail.withdraw(lost.iter().map(|(flight, _)| flight.len()).sum());
        let mut later: Vec<(Arc<RdmaLink>, bool)> = Vec::new();
        for (mut flight, loss) in lost {
            if flight.slice.is_none() {
                continue;
            }
            if is_revoked(&flight) {
                fail_revoked([flight]);
                continue;
            }
            let Some(link) = self.link(flight.link) else {
                // Nobody can ask for this task any more.
                let error =
                    Error::new(Code::Endpoint, "the segment was closed").class(Class::Canceled, false);
                fail(flight, error);
                continue;
            };
            let verdict = self.judge(rail, &mut flight, loss, cause.as_ref(), &link);
            let (error, again) = match verdict {
                Verdict::Fail(error) => {
                    fail(flight, error);
                    continue;
                }
                Verdict::Again(error, again) => (error, again || reread),
            };
            if let Err(closed) = link.check_open() {
                fail(flight, closed);
                continue;
            }
            if expired_at(&flight, Instant::now()) {
                fail(flight, timed_out(&error));
                continue;
            }
            self.stats.reposted.fetch_add(1, Ordering::Relaxed);
            flight.reread |= again;
            let fence = posted.and_then(|connection| self.fence(rail, connection, &flight, loss, &link));
            // If there is none, the rail may lead to a process that is gone: its keys with it.
            let elsewhere = !again && link.has_other_rail(&flight);
            let kept = match fence {
                None if elsewhere => {
                    link.place(flight);
                    continue;
                }
                Some(fence) => link.keep_behind(fence, flight),
                None => link.keep([flight]),
            };
            if !kept {
                continue;
            }
            match later.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &link)) {
                Some((_, reread)) => *reread |= !elsewhere,
                None => later.push((link, !elsewhere)),
            }
        }
        for (link, reread) in later {
            self.place_later(&link, reread);
        }
    }

    fn judge(
        &self,
        rail: &Rail,
        flight: &mut Flight,
        loss: Loss,
        cause: Option<&Error>,
        link: &RdmaLink,
    ) -> Verdict {
        let bit = link.bit_of(rail);
        let known = || {
            cause.cloned().unwrap_or_else(|| Error::new(Code::Endpoint, format!("{} failed", rail.name())))
        };
        let (error, cost) = match loss {
            Loss::Flushed => (known().context("work request flushed"), 0),
            Loss::Unknown => (known(), 2),
            Loss::Unconnected => (known(), connect_cost(&known())),
            Loss::Completion(status, _) => {
                let error = completion_error(&rail.name(), &rail.peer, loss).unwrap_or_else(known);
                match status {
                    wc::REM_ACCESS_ERR | wc::REM_INV_REQ_ERR | wc::REM_OP_ERR => {
                        flight.tries = flight.tries.saturating_add(1);
                        let error = refused_by_peer(flight, error);
                        return match flight.reread {
                            true => Verdict::Fail(error),
                            false => Verdict::Again(error, true),
                        };
                    }
                    wc::LOC_PROT_ERR | wc::LOC_ACCESS_ERR | wc::LOC_LEN_ERR | wc::MW_BIND_ERR => {
                        (unusable_memory(flight, error), 3)
                    }
                    _ => (error, 1),
                }
            }
        };
        if cost > 0 {
            flight.avoid |= bit;
        }
        // One NIC of the peer refuses, but perhaps not all of them.
        let cost = if cost == u8::MAX && link.has_other_rail(flight) { 1 } else { cost };
        flight.tries = flight.tries.saturating_add(cost);
        let is_write = flight.slice.as_ref().is_some_and(|slice| slice.op == Op::Write);
        if loss == Loss::Unknown && is_write && !self.config.rdma_repost_writes {
            return Verdict::Fail(error.context("not posted again, as MC_RDMA_REPOST_WRITES=0 asks"));
        }
        if flight.tries >= self.config.retry_cnt {
            return Verdict::Fail(error);
        }
        Verdict::Again(error, false)
    }

    /// Places what came back to a link, on the control plane; the descriptor is read again first if `reread`.
    pub fn place_later(&self, link: &RdmaLink, reread: bool) {
        if link.placing.swap(true, Ordering::SeqCst) {
            return;
        }
        let link = link.weak();
        self.control.spawn(async move {
            let mut reread = reread;
            // Until nothing is left: what is added meanwhile has found `placing` set.
            while let Some(link) = link.upgrade() {
                if reread {
                    let _ = tokio::time::timeout(REREAD_LIMIT, link.route.refresh()).await;
                }
                let mut waiting = Vec::new();
                // No flight is held while something is waited for: `close` has to find them.
                match link.take_placeable() {
                    Err(fences) => {
                        link.raise(fences).await;
                        reread = false;
                        continue;
                    }
                    Ok(flights) => {
                        flights.into_iter().for_each(|flight| waiting.extend(link.place_or_keep(flight)))
                    }
                }
                let wait = !waiting.is_empty();
                if !link.keep(waiting) {
                    link.placing.store(false, Ordering::SeqCst);
                    // One more may have come in between, and have found `placing` set.
                    if !link.keep([]) || link.placing.swap(true, Ordering::SeqCst) {
                        return;
                    }
                }
                drop(link);
                reread = true;
                if wait {
                    tokio::time::sleep(PLACE_INTERVAL).await;
                }
            }
        });
    }
}

impl RdmaLink {
    /// Places a flight, unless no NIC of ours is active: then it comes back, until its attempts are used up.
    fn place_or_keep(&self, mut flight: Flight) -> Option<Flight> {
        if let Err(error) = self.check_open() {
            fail(flight, error);
        } else if is_revoked(&flight) {
            fail_revoked([flight]);
        } else if expired_at(&flight, Instant::now()) {
            fail(flight, timed_out(&self.no_rail(&self.target())));
        } else if self.shared.nics.iter().any(|nic| nic.is_active()) {
            self.place(flight);
        } else {
            flight.tries = flight.tries.saturating_add(1);
            if flight.tries < self.shared.config.retry_cnt {
                return Some(flight);
            }
            fail(flight, self.no_rail(&self.target()));
        }
        None
    }
}

/// A refusal is final for a rail; a peer that does not answer gets another chance or two.
fn connect_cost(error: &Error) -> u8 {
    match error.kind() {
        Class::Rejected | Class::Argument | Class::Protocol | Class::Canceled => u8::MAX,
        Class::Network if error.code() == Code::Socket => 3,
        _ => 1,
    }
}

fn refused_by_peer(flight: &Flight, error: Error) -> Error {
    let Some(slice) = &flight.slice else { return error };
    let what = format!(
        "the peer's NIC refused {} bytes at {:#x}: not registered there any more, or not for remote access",
        slice.len, slice.remote
    );
    let peer = error.peer_name().to_string();
    Error::new(Code::AddressNotRegistered, format!("{what}; {}", error.text()))
        .class(Class::Rejected, false)
        .peer(peer)
}

fn unusable_memory(flight: &Flight, error: Error) -> Error {
    let Some(slice) = &flight.slice else { return error };
    let text = format!(
        "the local NIC cannot use {} bytes at {:#x}: unmapped after registration? {}",
        slice.len,
        slice.local,
        error.text()
    );
    Error::new(Code::Context, text).class(Class::Argument, false)
}

/// The task's deadline has passed by `now`.
pub fn expired_at(flight: &Flight, now: Instant) -> bool {
    let deadline = flight.slice.as_ref().and_then(|slice| slice.work().deadline);
    deadline.is_some_and(|deadline| now >= deadline)
}

/// Its local memory is being unregistered.
pub fn is_revoked(flight: &Flight) -> bool {
    flight.slice.as_ref().is_some_and(|slice| slice.is_revoked())
}

/// Fails flights whose local memory is being unregistered.
pub fn fail_revoked(flights: impl IntoIterator<Item = Flight>) {
    flights.into_iter().filter_map(|flight| flight.slice).for_each(|slice| slice.fail_revoked());
}

/// The deadline passed, after `cause` or without any cause.
pub fn timed_out(cause: &Error) -> Error {
    let text =
        format!("not done in time (MC_SLICE_TIMEOUT, MC_RDMA_TASK_TIMEOUT_SEC); last: {}", cause.text());
    Error::new(cause.code(), text).class(Class::Timeout, true).peer(cause.peer_name())
}

fn fail(flight: Flight, error: Error) {
    if let Some(slice) = flight.slice {
        slice.fail(error);
    }
}
