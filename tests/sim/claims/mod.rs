//! Engines that claim names in one store: the real code of `metadata/keyed`, over a store that loses requests and answers,
//! forgets keys and is emptied, with engines that are killed, stopped and started again under the same names. Time is
//! tokio's, paused: it goes on when nothing else is to be done, so a schedule is the same whenever it is run.

mod engine;
mod shelf;
mod world;

use crate::sim::{self, Choices, Sim};

struct Claims;

/// What is done wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Whoever is asked counts as dead.
    NobodyAnswers,
    /// The store writes whatever stands there.
    NoCompare,
    /// Keys are deleted by their names alone.
    DeletesAnything,
    /// Nobody looks after the keys.
    NoUpkeep,
    /// A write is confirmed and not done.
    FalseWrite,
}

impl Sim for Claims {
    const NAME: &'static str = "claims";
    const SHARE: u64 = 5;
    const GOALS: &'static [&'static str] = &[
        "a dead engine's name is taken over",
        "a key expires",
        "a key is deleted by its owner",
        "a lost key is written again",
        "a name is claimed",
        "a name is refused",
        "a request comes late",
        "a stopped engine's name is taken over",
        "an answer is lost",
        "an engine is killed",
        "an engine is stopped",
        "the store is emptied",
        "the store is down",
        "two engines want one name",
    ];
    type Fault = Fault;

    fn run(choices: &mut Choices, fault: Option<Fault>) {
        world::run(choices, fault);
    }
}

#[test]
fn p07_no_schedule_takes_the_name_of_a_living_engine() {
    sim::explore::<Claims>();
}

#[test]
fn the_rules_notice_what_is_done_wrong() {
    for fault in
        [Fault::NobodyAnswers, Fault::NoCompare, Fault::DeletesAnything, Fault::NoUpkeep, Fault::FalseWrite]
    {
        sim::finds::<Claims>(fault, 5_000);
    }
}

#[test]
fn a_seed_repeats_itself() {
    sim::repeats::<Claims>(20);
}
