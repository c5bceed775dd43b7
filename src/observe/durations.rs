//! How long things take that happen now and then: handshakes, the store, registrations. One set per process.

use std::time::Instant;

use parking_lot::Mutex;

use super::histogram::{Histogram, LATENCY_US};
use crate::runtime::per_process::PerProcess;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timed {
    /// One exchange with a peer's handshake port.
    Handshake,
    /// One operation on the metadata store.
    Store,
    /// The registration of one call's memory, publishing included.
    Registration,
}

impl Timed {
    /// Each, in the order of its number.
    pub const ALL: [Timed; 3] = [Timed::Handshake, Timed::Store, Timed::Registration];
}

/// Successes and failures of each. Guards the counts.
static DURATIONS: PerProcess<Mutex<[Outcomes; Timed::ALL.len()]>> = PerProcess::new(|| {
    Mutex::new([const { Outcomes { done: Histogram::new(LATENCY_US), failed: 0 } }; Timed::ALL.len()])
});

/// How the attempts at one thing went.
#[derive(Clone, Debug)]
pub struct Outcomes {
    /// How long those took that succeeded, in microseconds.
    pub done: Histogram,
    /// How many failed.
    pub failed: u64,
}

/// Counts that `what`, begun at `begun`, has ended.
pub fn ended(what: Timed, begun: Instant, succeeded: bool) {
    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    let outcomes = &mut DURATIONS.get().lock()[what as usize];
    if succeeded {
        outcomes.done.add(micros);
    } else {
        outcomes.failed += 1;
    }
}

/// What was counted so far, in the order of [`Timed::ALL`].
pub fn so_far() -> [Outcomes; Timed::ALL.len()] {
    DURATIONS.get().lock().clone()
}
