//! What becomes of a slice whose posting failed: on another rail, on the same one again, or the end of its task.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Instant;

use super::connection::Connection;
use super::errors::{completion_error, timed_out};
use super::fence::Fence;
use super::flight::{fail_revoked, Flight, Loss, Lost};
use super::origin::Origin;
use super::rail::{Keys, Rail};
use super::shared::Shared;
use super::verbs::wc;
use crate::error::{Class, Code, Error};

/// What a failed attempt means for a slice.
enum Verdict {
    /// No rail will do better.
    Fail(Error),
    /// Again, elsewhere if possible. The descriptor is read again first if the second value says so.
    Again(Error, bool),
}

/// Decides about flights that came back from `rail`. `posted` is the connection that they were posted on; `None` if they
/// only waited. The caller holds no lock of the rail.
pub fn recover(shared: &Shared, rail: &Rail, lost: Lost, posted: Option<&Connection>, keys: Keys) {
    if lost.is_empty() {
        return;
    }
    let cause = rail.last_error();
    rail.withdraw(lost.iter().map(|(flight, _)| flight.len()).sum());
    let mut later: Vec<(u32, Arc<dyn Origin>, bool)> = Vec::new();
    for (mut flight, loss) in lost {
        if flight.slice.is_none() {
            continue;
        }
        if flight.is_revoked() {
            fail_revoked([flight]);
            continue;
        }
        let Some(link) = shared.link(flight.link) else {
            // Nobody can ask for this task any more.
            let error = Error::new(Code::Endpoint, "the segment was closed").class(Class::Canceled, false);
            flight.fail(error);
            continue;
        };
        let verdict = judge(shared, rail, &mut flight, loss, cause.as_ref(), &*link);
        let (error, again) = match verdict {
            Verdict::Fail(error) => {
                flight.fail(error);
                continue;
            }
            Verdict::Again(error, again) => (error, again || keys == Keys::Stale),
        };
        if let Err(closed) = link.check_open() {
            flight.fail(closed);
            continue;
        }
        if flight.is_expired(Instant::now()) {
            flight.fail(timed_out(&error));
            continue;
        }
        shared.stats.reposted.fetch_add(1, Ordering::Relaxed);
        flight.reread |= again;
        let fence = posted.and_then(|connection| fence(shared, rail, connection, &flight, loss, &*link));
        // If there is none, the rail may lead to a process that is gone: its keys with it.
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
    for (_, link, reread) in later {
        link.place_later(reread);
    }
}

/// What has to go before `flight`, lost on `connection`, is posted again; `None` if nothing of it can be under way, or
/// it does no harm, or the peer would not understand.
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

fn judge(
    shared: &Shared,
    rail: &Rail,
    flight: &mut Flight,
    loss: Loss,
    cause: Option<&Error>,
    link: &dyn Origin,
) -> Verdict {
    let bit = link.bit_of(rail.nic.index, &rail.peer);
    let known =
        || cause.cloned().unwrap_or_else(|| Error::new(Code::Endpoint, format!("{} failed", rail.name())));
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
    let is_write = flight.is_write();
    if loss == Loss::Unknown && is_write && !shared.config.rdma_repost_writes {
        return Verdict::Fail(error.context("not posted again, as MC_RDMA_REPOST_WRITES=0 asks"));
    }
    if flight.tries >= shared.config.retry_cnt {
        return Verdict::Fail(error);
    }
    Verdict::Again(error, false)
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
