//! A rail: a path to a peer, or the one address that everybody knows of it, with the rate that was measured on it and how
//! attempts to connect over it went. Its lanes are the link's.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::nics;
use super::path::Path;
use crate::error::Error;
use crate::runtime::backoff::Backoff;
use crate::runtime::clock;
use crate::transport::meter::Meter;
use crate::transport::report::RailReport;

/// Between two attempts to connect over a rail that failed, while others work. Chosen: a NIC that is back is used soon, and a
/// dead one costs a connection now and then.
const PAUSES: Backoff = Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(5) };
/// Bytes that a rail has under way at the most: as many as it moves in so many milliseconds, or so many if that is more; the
/// rest waits for whichever rail is through first. Chosen: a thread may be late by a few milliseconds without letting the NIC
/// idle, and on a slow rail one piece is sent while another waits for its reply.
const WINDOW_MS: u64 = 8;
const LEAST_WINDOW: u64 = 2 << 20;

/// In each such time the rate of an idle rail grows. Chosen: one piece on a slow rail may take longer than all others, so it is tried
/// that rarely.
const FORGET_NS: u64 = 1_000_000_000;

/// A rail of a link.
pub(super) struct Rail {
    /// `None`: the address that everybody knows.
    pub path: Option<Path>,
    /// Bytes on its lanes, and their rate.
    pub meter: Meter,
    /// Requests that succeeded. Relaxed: only shown.
    pub completed: AtomicU64,
    /// Guards what is known of the attempts. Held briefly.
    attempts: Mutex<Attempts>,
}

#[derive(Default)]
struct Attempts {
    /// Since the last success.
    in_vain: u64,
    again_at: Option<Instant>,
    failures: u64,
    last_error: String,
}

impl Rail {
    /// A rail of which nothing is known yet.
    pub(super) fn new(path: Option<Path>) -> Self {
        let device = path.as_ref().map_or("", |path| &path.device);
        let meter = Meter::new(nics::port_rate(device));
        Rail { path, meter, completed: AtomicU64::new(0), attempts: Mutex::default() }
    }

    /// Time until so many bytes would be through, ns. A rate that is low is forgotten here, so that no tick has to see to it.
    pub(super) fn cost_ns(&self, bytes: u64) -> u64 {
        if self.meter.is_low() {
            self.meter.forget_since(clock::now_ns(), FORGET_NS);
        }
        self.meter.cost_ns(bytes)
    }

    /// There may be more under way.
    pub(super) fn has_room(&self) -> bool {
        self.meter.inflight() < LEAST_WINDOW.max(WINDOW_MS * self.meter.bytes_per_ms())
    }

    /// It failed, and no connection was made since. What lanes it has are not to be relied on.
    pub(super) fn is_failing(&self) -> bool {
        self.attempts.lock().in_vain > 0
    }

    /// An attempt to connect may begin.
    pub(super) fn may_try(&self) -> bool {
        let again_at = self.attempts.lock().again_at;
        again_at.is_none_or(|at| Instant::now() >= at)
    }

    /// A connection over it failed, or could not be made.
    pub(super) fn note_failure(&self, error: &Error) {
        let mut attempts = self.attempts.lock();
        attempts.again_at = Some(Instant::now() + PAUSES.pause(attempts.in_vain));
        attempts.in_vain += 1;
        attempts.failures += 1;
        attempts.last_error = error.to_string();
    }

    /// A connection over it was made.
    pub(super) fn note_connected(&self) {
        let mut attempts = self.attempts.lock();
        (attempts.in_vain, attempts.again_at) = (0, None);
    }

    /// What is shown of it, to a peer of this name.
    pub(super) fn report(&self, peer: &str, is_up: bool, is_rising: bool, waiting: usize) -> RailReport {
        let attempts = self.attempts.lock();
        let state = match (attempts.in_vain > 0, is_up, is_rising) {
            (false, true, _) => "up",
            (_, _, true) => "connecting",
            (true, ..) => "paused",
            _ => "idle",
        };
        let (local, peer) = match &self.path {
            Some(path) => (path.device.clone(), format!("{peer}@{}", path.remote)),
            None => ("any".into(), peer.to_string()),
        };
        RailReport {
            local,
            peer,
            state,
            inflight_bytes: self.meter.inflight(),
            waiting,
            completed: self.completed.load(Relaxed),
            failures: attempts.failures,
            last_error: attempts.last_error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rail_that_failed_pauses_until_a_connection_is_made() {
        let rail = Rail::new(None);
        assert!(rail.may_try() && !rail.is_failing());
        rail.note_failure(&Error::invalid("no route"));
        assert!(!rail.may_try() && rail.is_failing());
        let shown = rail.report("peer", true, false, 0);
        assert_eq!((shown.state, shown.failures), ("paused", 1));
        assert!(shown.last_error.contains("no route"), "{}", shown.last_error);
        assert_eq!(rail.report("peer", true, true, 0).state, "connecting");
        rail.note_connected();
        assert!(rail.may_try() && !rail.is_failing());
        assert_eq!(rail.report("peer", true, false, 0).state, "up");
        assert_eq!(rail.report("peer", false, false, 0).state, "idle");
    }

    #[test]
    fn a_slow_rail_has_room_for_two_pieces_and_a_fast_one_for_what_it_moves_meanwhile() {
        let rail = Rail::new(None);
        let rate = rail.meter.port_rate();
        rail.meter.begin(rate / 1000 * WINDOW_MS - 1, 0);
        assert!(rail.has_room());
        rail.meter.begin(1 << 20, 0);
        assert!(!rail.has_room());
        // 1 MiB in 100 ms, again and again.
        for round in 1..64 {
            rail.meter.end(1 << 20, round * 100_000_000, 0);
            rail.meter.begin(1 << 20, round * 100_000_000);
        }
        rail.meter.withdraw(rail.meter.inflight());
        rail.meter.begin(LEAST_WINDOW - 1, 0);
        assert!(rail.has_room());
        rail.meter.begin(1, 0);
        assert!(!rail.has_room());
    }
}
