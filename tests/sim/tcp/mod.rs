//! An engine and its peer over TCP: the lanes of a link with their real machines, pipelines, sorting of ends and parked
//! WRITEs; a network that delays, cuts and stops; a peer that is killed, restarted, stopped and asked to close connections.
//! What the executors around these do (`lane.rs`, `link.rs`, `connect.rs`, `fence.rs`, `inbound.rs`) is mirrored here.

mod connecting;
mod fences;
mod lanes;
mod peer;
mod rules;
mod steps;
mod wire;
mod world;

use crate::sim::{self, Choices, Sim};

struct Tcp;

/// What is done wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// WRITEs are sent again without the peer's word.
    NoFence,
    /// The peer confirms that a connection is closed, and goes on reading it.
    FalseWord,
    /// Connections are not asked whose process is at the other end.
    NoProof,
    /// Trails end when the connection does.
    TrailsForgotten,
    /// Requests that wait for the peer's word are lost.
    Lost,
    /// Nobody looks at deadlines.
    NoTicks,
    /// The peer answers a WRITE when it has the header.
    EarlyAnswer,
}

impl Sim for Tcp {
    const NAME: &'static str = "tcp";
    const SHARE: u64 = 55;
    const GOALS: &'static [&'static str] = &[
        "a batch is canceled",
        "a begun WRITE is sent again",
        "a buffer is not mapped",
        "a connection leads to another incarnation",
        "a connection outlives its end here",
        "a peer is stopped for good",
        "a peer refuses a request",
        "a region is taken back",
        "a request fails",
        "a request is late",
        "a silent peer is given up",
        "a task is COMPLETED",
        "a trail ends by the peer's word",
        "a transfer succeeds after the faults",
        "a word is lost",
        "an overdue peer is given up",
        "bytes arrive on a connection that is dead here",
        "the link is closed in traffic",
        "the peer is killed",
        "the peer restarts",
    ];
    type Fault = Fault;

    fn run(choices: &mut Choices, fault: Option<Fault>) {
        world::World::new(choices, fault).live();
    }
}

#[test]
fn p02_p03_p07_p17_no_schedule_breaks_a_rule() {
    sim::explore::<Tcp>();
}

#[test]
fn the_rules_notice_what_is_done_wrong() {
    for fault in [
        Fault::NoFence,
        Fault::FalseWord,
        Fault::NoProof,
        Fault::TrailsForgotten,
        Fault::Lost,
        Fault::NoTicks,
        Fault::EarlyAnswer,
    ] {
        sim::finds::<Tcp>(fault, 20_000);
    }
}

#[test]
fn a_seed_repeats_itself() {
    sim::repeats::<Tcp>(50);
}

/// Schedules that once broke a rule. All of these were faults of the simulation itself.
#[test]
fn schedules_of_the_past_break_no_rule() {
    let same_bad_address = [0, 0, 5, 0, 0, 0, 0, 0, 999];
    let unmapped_behind_others = [
        0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 107,
    ];
    sim::replay::<Tcp>(&same_bad_address);
    sim::replay::<Tcp>(&unmapped_behind_others);
}
