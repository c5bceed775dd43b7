//! A slice on its way over RDMA, and how a posting of it can end without success.

use std::time::Instant;

use super::verbs;
use crate::error::Error;
use crate::transport::slice::{Op, Slice, Trail};

/// A slice together with what posting needs. Owned by one queue, waiting list or recovery at a time.
pub(super) struct Flight {
    /// The piece of a task; `None` for a probe, which moves no bytes.
    pub slice: Option<Slice>,
    /// Number of the link it belongs to.
    pub link: u32,
    /// Local key for the NIC it is posted on.
    pub lkey: u32,
    /// Remote key for the peer's NIC.
    pub rkey: u32,
    /// Failed attempts, in the unit of `MC_RETRY_CNT`.
    pub tries: u8,
    /// The descriptor was read again because of this flight.
    pub reread: bool,
    /// The caller has named the NICs for it: it leaves its rail only if that fails.
    pub named: bool,
    /// Rails to avoid: bit `n` is rail `n` of the link's target.
    pub avoid: u64,
    /// Incarnation whose descriptor gave `rkey`; 0 if unknown.
    pub incarnation: u64,
}

impl Flight {
    /// A first attempt.
    pub(super) fn new(slice: Slice, link: u32, incarnation: u64) -> Self {
        Flight { slice: Some(slice), link, incarnation, ..Self::probe() }
    }

    /// A write of no bytes, to find out whether a connection carries packets.
    pub(super) fn probe() -> Self {
        Flight {
            slice: None,
            link: 0,
            lkey: 0,
            rkey: 0,
            tries: 0,
            reread: false,
            named: false,
            avoid: 0,
            incarnation: 0,
        }
    }

    /// May go over a connection to `incarnation`: its key is of that one, or one of the two is unknown (0).
    pub(super) fn suits(&self, incarnation: u64) -> bool {
        incarnation == 0 || self.incarnation == 0 || incarnation == self.incarnation
    }

    /// Bytes to move.
    pub(super) fn len(&self) -> u64 {
        self.slice.as_ref().map_or(0, |slice| slice.len)
    }

    /// The task's deadline has passed by `now`.
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        let deadline = self.slice.as_ref().and_then(|slice| slice.work().deadline());
        deadline.is_some_and(|deadline| now >= deadline)
    }

    /// Nobody wants it moved any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.slice.as_ref().is_some_and(Slice::is_given_up)
    }

    /// What it leaves behind, if it was posted and bytes of it may still reach the peer.
    pub(super) fn leave_trail(&self) -> Option<Trail> {
        self.slice.as_ref().filter(|slice| slice.op == Op::Write).map(Slice::leave_trail)
    }

    /// Of its batch ([`Work::batch`](crate::transport::slice::Work::batch)); 0 for a probe.
    pub(super) fn batch(&self) -> usize {
        self.slice.as_ref().map_or(0, |slice| slice.work().batch())
    }

    /// Its local memory is being unregistered.
    pub(super) fn is_revoked(&self) -> bool {
        self.slice.as_ref().is_some_and(|slice| slice.is_revoked())
    }

    /// Moves bytes to the peer.
    pub(super) fn is_write(&self) -> bool {
        self.slice.as_ref().is_some_and(|slice| slice.op == Op::Write)
    }

    /// Ends it without success.
    pub(super) fn fail(self, error: Error) {
        if let Some(slice) = self.slice {
            slice.fail(error);
        }
    }

    /// It is being posted.
    pub(super) fn note_posted(&self, now_ns: u64) {
        self.slice.iter().for_each(|slice| slice.note_posted(now_ns));
    }

    /// The work request.
    pub(super) fn request(&self, id: u64, signaled: bool) -> verbs::Wr {
        let (lkey, rkey) = (self.lkey, self.rkey);
        match &self.slice {
            // Cut to less than 2^32 by the link.
            Some(slice) => verbs::Wr {
                id,
                write: slice.op == Op::Write,
                local: slice.local,
                len: slice.len as u32,
                lkey,
                remote: slice.remote,
                rkey,
                signaled,
            },
            None => verbs::Wr { id, write: true, local: 0, len: 0, lkey, remote: 0, rkey, signaled },
        }
    }
}

/// Flights that came back, each with the reason.
pub(super) type Lost = Vec<(Flight, Loss)>;

/// Why a flight came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Its own completion said so: status and vendor's code.
    Completion(u32, u32),
    /// Another work request of the connection failed, or the connection was given up; it was not at fault.
    Flushed,
    /// No completion came, not even after the queue pair was stopped; it was destroyed.
    Unknown,
    /// It never left the waiting list: the rail could not be connected.
    Unconnected,
}

/// Whether the keys of flights that come back are good for another posting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// As far as is known.
    Good,
    /// They are of another incarnation of the peer: its descriptor is read again first.
    Stale,
}

/// Fails a list of flights with one error.
pub(super) fn fail_all(flights: impl IntoIterator<Item = Flight>, error: &Error) {
    flights.into_iter().for_each(|flight| flight.fail(error.clone()));
}

/// Fails flights whose local memory is being unregistered.
pub(super) fn fail_revoked(flights: impl IntoIterator<Item = Flight>) {
    flights.into_iter().filter_map(|flight| flight.slice).for_each(|slice| slice.fail_revoked());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flight_goes_over_a_connection_to_the_incarnation_of_its_key_or_to_an_unknown_one() {
        for (of_key, of_connection, suits) in
            [(7, 7, true), (7, 8, false), (0, 8, true), (7, 0, true), (0, 0, true)]
        {
            let flight = Flight { incarnation: of_key, ..Flight::probe() };
            assert_eq!(flight.suits(of_connection), suits, "{of_key} over {of_connection}");
        }
    }

    #[test]
    fn a_probe_moves_nothing_and_nobody_gives_it_up() {
        let probe = Flight::probe();
        assert_eq!((probe.len(), probe.batch()), (0, 0));
        assert!(!probe.is_write() && !probe.is_given_up() && !probe.is_revoked());
        assert!(!probe.is_expired(Instant::now()) && probe.leave_trail().is_none());
        let request = probe.request(9, true);
        assert!(request.write && request.signaled && request.len == 0 && request.id == 9);
    }
}
