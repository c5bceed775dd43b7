//! How many peers this process has refused because of the cluster key. Ports count, and whoever makes metrics reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Distrust, Purpose};
use crate::runtime::per_process::PerProcess;

/// Ports that ask for the key, in the order of [`so_far`], each with its name.
pub const PORTS: [(Purpose, &str); 2] = [(Purpose::Handshake, "handshake"), (Purpose::Data, "data")];
/// Causes, in the order of [`so_far`], each with its name.
pub const CAUSES: [&str; 3] = ["no_key", "other_key", "unproven"];

/// Of each port by cause.
pub type Refusals = [[u64; CAUSES.len()]; PORTS.len()];

/// They publish nothing but themselves.
static COUNTS: PerProcess<[[AtomicU64; CAUSES.len()]; PORTS.len()]> = PerProcess::new(Default::default);

/// Counts that a peer was refused at the port for `purpose`. Whatever is no fault of the peer is not counted.
pub fn note(purpose: Purpose, why: Distrust) {
    let cause = match why {
        Distrust::Stranger => 0,
        Distrust::OtherKey => 1,
        Distrust::Unproven => 2,
        // Only a client finds that somebody hung up, and only this host can lack random numbers.
        Distrust::HungUp(_) | Distrust::NoNonce => return,
    };
    let port = PORTS.iter().position(|(port, _)| *port == purpose);
    if let Some(causes) = port.and_then(|port| COUNTS.get().get(port)) {
        causes[cause].fetch_add(1, Relaxed);
    }
}

/// What was counted so far.
pub fn so_far() -> Refusals {
    let counts = COUNTS.get();
    std::array::from_fn(|port| std::array::from_fn(|cause| counts[port][cause].load(Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_port_and_cause() {
        let before = so_far();
        let all = [
            Distrust::Stranger,
            Distrust::OtherKey,
            Distrust::Unproven,
            Distrust::HungUp(None),
            Distrust::NoNonce,
        ];
        all.into_iter().for_each(|why| note(Purpose::Data, why));
        note(Purpose::Handshake, Distrust::OtherKey);
        let after = so_far();
        // Other tests of this process may refuse peers meanwhile.
        for (port, cause) in [(0, 1), (1, 0), (1, 1), (1, 2)] {
            assert!(after[port][cause] > before[port][cause], "{} {}", PORTS[port].1, CAUSES[cause]);
        }
    }
}
