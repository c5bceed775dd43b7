//! Work that waits on a rail that has fallen behind goes to others. Run by the threads of the NICs.

use super::flight::{fail_revoked, Flight};
use super::rail::Rail;
use super::shared::Shared;
use crate::error::{Class, Code, Error};

/// Time that a rail has to be behind, ns. Chosen: a call whose rails end with so much between them ends late by no more, and
/// what a rail has posted is mostly less.
const BEHIND_NS: u64 = 10_000_000;
/// Slices that are placed anew at a time. Chosen: a few milliseconds of the thread.
const MOST: usize = 4096;

/// If another rail would be through with what this one has in less than half the time, it gets a part of what waits here.
pub(super) fn spread(shared: &Shared, rail: &Rail) {
    let own = rail.cost_ns(0);
    if own < BEHIND_NS || !rail.has_waiting() {
        return;
    }
    let front = rail
        .waiting
        .front(|flight| Some((flight.link, flight.slice.as_ref()?.local, flight.slice.as_ref()?.remote)));
    let Some((link, local, remote)) = front.flatten() else { return };
    let least = shared.link(link).and_then(|link| link.least_cost_ns(local, remote));
    let Some(least) = least.filter(|least| *least < own / 2) else { return };
    let bytes = (own - least) / 2_000_000 * rail.meter.bytes_per_ms();
    let surplus = rail.waiting.take_surplus(bytes, MOST);
    rail.withdraw(surplus.iter().map(Flight::len).sum());
    for flight in surplus {
        match shared.link(flight.link) {
            _ if flight.is_revoked() => fail_revoked([flight]),
            Some(link) => link.place(flight),
            None => {
                flight.fail(Error::new(Code::Endpoint, "the segment was closed").permanent(Class::Canceled))
            }
        }
    }
}
