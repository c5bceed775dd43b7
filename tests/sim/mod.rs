//! A deterministic simulator: the library's own state machines, driven by one scheduler with a simulated clock, network,
//! NIC and store. All that happens follows from one list of numbers ([`choices`]), which comes from a seed. So a run
//! that breaks a rule is repeated by its seed, made shorter until nothing of it can be left out ([`shrink`]), and kept as
//! a test.
//!
//! What is simulated lies in folders beside this file, each compiled as a part of the module whose machines it drives,
//! because these are closed to others: `tcp` (lanes, pipelines, fences), `rails` (both ends of an RDMA rail), `claims` (the keys
//! of engines in a store), `freshness` (what an engine believes of its peers).
//!
//! | variable | meaning |
//! |---|---|
//! | `SIM_SCHEDULES` | schedules of all simulations together, each its [`Sim::SHARE`] and 300 at the least; `make test` asks for a million |
//! | `SIM_SEED` | the first seed; with `SIM_SCHEDULES=1` that run is told step by step |

pub(crate) mod choices;
pub(crate) mod clock;
mod explore;
mod shrink;

pub(crate) use choices::Choices;
pub(crate) use clock::Agenda;
pub(crate) use explore::{explore, finds, repeats, replay};

/// What is explored.
pub(crate) trait Sim {
    /// In messages.
    const NAME: &'static str;
    /// Its part of the schedules, in hundredths.
    const SHARE: u64;
    /// What has to have come about in some schedule, or else the simulation does not look where it should.
    const GOALS: &'static [&'static str];
    /// A fault that is planted, so that the rules are seen to be broken by it.
    type Fault: Copy + std::fmt::Debug;

    /// One schedule, from nothing to the end of everything. Panics if a rule is broken.
    fn run(choices: &mut Choices, fault: Option<Self::Fault>);
}
