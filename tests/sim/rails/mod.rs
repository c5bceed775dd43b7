//! The two ends of a rail: the real machines of both engines, the order in which they admit requests and the judgement of what
//! came back, over a handshake port whose messages are late, lost or doubled and NICs whose packets are, with engines that are
//! killed, stopped and started again. What the control plane does around the machine (`connect.rs`, `accept.rs`,
//! `recover.rs`, `fence.rs`) is played by [`jobs`], [`asked`] and [`host`], step by step and in the same order, with the driver's
//! time in between.

mod asked;
mod host;
mod jobs;
mod nic;
mod world;

use crate::sim::{self, Choices, Sim};

struct Rails;

/// What is done wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// A WRITE is posted again without asking the peer to give its end up.
    NoFence,
    /// A peer that is asked for that confirms it, and does it later.
    LateWithdrawal,
    /// Requests that were overtaken are admitted.
    AnyOrder,
    /// What the peer has asked for before it answered is not noted.
    NoOvertaking,
    /// The NIC says that a WRITE is done when it sends it.
    EarlyCompletion,
    /// A peer that was started anew accepts what its predecessor is asked.
    AnyIncarnation,
    /// Time does not pass for the machine.
    NoTicks,
    /// Who is ready is not noted.
    NoReady,
    /// A connection whose peer has connected anew is kept.
    KeepsOld,
}

impl Sim for Rails {
    const NAME: &'static str = "rails";
    const SHARE: u64 = 35;
    const GOALS: &'static [&'static str] = &[
        "a WRITE is done",
        "a WRITE fails",
        "a WRITE is posted again",
        "a connection is proved",
        "a connection leads to an engine that is gone",
        "a fence is confirmed",
        "a message comes late",
        "a message comes twice",
        "a message is lost",
        "a packet finds nobody",
        "a port goes down",
        "a request is overtaken",
        "a successor is asked",
        "an attempt is abandoned",
        "an engine is killed",
        "an engine is stopped",
        "both ask at once",
        "nobody confirms",
        "the peer connects anew",
    ];
    type Fault = Fault;

    fn run(choices: &mut Choices, fault: Option<Fault>) {
        world::World::new(choices, fault).live();
    }
}

#[test]
fn p02_p03_p06_p07_no_schedule_breaks_a_rule() {
    sim::explore::<Rails>();
}

#[test]
fn the_rules_notice_what_is_done_wrong() {
    for fault in [
        Fault::NoFence,
        Fault::LateWithdrawal,
        Fault::AnyOrder,
        Fault::NoOvertaking,
        Fault::EarlyCompletion,
        Fault::AnyIncarnation,
        Fault::NoTicks,
        Fault::NoReady,
        Fault::KeepsOld,
    ] {
        sim::finds::<Rails>(fault, 20_000);
    }
}

#[test]
fn a_seed_repeats_itself() {
    sim::repeats::<Rails>(50);
}
