//! What an engine believes of its peers: the real code of segments (`segment.rs` and what lies below it, `segments.rs`, `known.rs`) over
//! a store of each kind, which delays, loses and confuses answers, answers with what was true before, is down or emptied, and
//! forgets its history. Peers register memory, are killed, stopped, leave and come back under their names. Time is tokio's, paused,
//! so a schedule is the same whenever it is run; the engine is stopped by a clock that jumps. What a calling thread does (waiting its
//! turn, above all) is played by [`engine`], step by step and in the same order, over the real machine of turns.
//!
//! The rules:
//!
//! 1. **Order.** What is believed is the answer to the reading that began last, of those that were answered; where the store counts
//!    revisions, what has the highest one since it began to count. An earlier answer that comes later replaces nothing.
//! 2. **Asked for is new.** After a reading on purpose (`openSegment` that reads, `open_segment_fresh`, a submit call whose range is
//!    missing) that was answered, what is believed was true when the call came, or later.
//! 3. **Age.** A segment that is opened again was true a second ago at the most, unless a connection shows that its owner lives, the store
//!    tells of changes, or a reading of the last seconds failed.
//! 4. **Suspicion.** If nobody answered where its owner should be, the next opening that reads believes nothing that was asked for
//!    before that.
//! 5. **Ends.** Every call ends in its time, whatever the store does and whoever else is cancelled.
//! 6. **Load.** A segment has one reading for its openers, one for submit calls and one in the background at a time; an engine has eight in
//!    the background.
//! 7. **Handles.** An id means the name that it was given for, until that is removed, and is never given again.
//! 8. **In the end,** when all faults have ended, opening finds who has the name, a submit call what is registered there, a notification the
//!    present process; and who does not open again hears of a change from the store that tells, or within the age of use.
//! 9. **Nothing is left** when all is closed: no segment, no watch, no reading.

mod door;
mod engine;
mod rules;
mod shelf;
mod world;

use crate::sim::{self, Choices, Sim};

struct Freshness;

/// What is done wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Readings count in the order of their answers.
    AnyOrder,
    /// A call is content with a reading that began before it.
    SharesOlder,
    /// An opener waits for its reading as long as the store likes.
    NoLimit,
    /// A reading that is given up keeps its turn.
    KeepsTurn,
    /// Nobody notes that a peer did not answer.
    NoSuspicion,
    /// The store does not tell of every change.
    NewsLost,
    /// Use alone has nothing read again.
    NoRevalidation,
    /// Opening again never reads.
    OpensBlindly,
    /// The store answers with what was true before, and nobody knows.
    OldAnswers,
    /// A call that is closed is not counted.
    KeepsOpen,
}

impl Sim for Freshness {
    const NAME: &'static str = "freshness";
    const SHARE: u64 = 5;
    const GOALS: &'static [&'static str] = &[
        "a call is cancelled",
        "a call shares a reading",
        "a closed id is used",
        "a connection ends",
        "a connection is up",
        "a handle is removed",
        "a late answer is not used",
        "a peer changes",
        "a peer is killed",
        "a peer is stopped",
        "a peer leaves",
        "a peer starts anew",
        "a range is missing",
        "a reading fails",
        "a segment is given up",
        "an old answer is given",
        "an opener does without",
        "an opener reads",
        "an opener's reading takes too long",
        "news are heard",
        "news are unknown",
        "nobody answers a notification",
        "the engine is stopped",
        "the history is forgotten",
        "the store is down",
        "the store is emptied",
        "two open at once",
    ];
    type Fault = Fault;

    fn run(choices: &mut Choices, fault: Option<Fault>) {
        world::run(choices, fault);
    }
}

#[test]
fn p07_no_schedule_believes_what_is_over() {
    sim::explore::<Freshness>();
}

#[test]
fn the_rules_notice_what_is_done_wrong() {
    for fault in [
        Fault::AnyOrder,
        Fault::SharesOlder,
        Fault::NoLimit,
        Fault::KeepsTurn,
        Fault::NoSuspicion,
        Fault::NewsLost,
        Fault::NoRevalidation,
        Fault::OpensBlindly,
        Fault::OldAnswers,
        Fault::KeepsOpen,
    ] {
        sim::finds::<Freshness>(fault, 10_000);
    }
}

#[test]
fn a_seed_repeats_itself() {
    sim::repeats::<Freshness>(50);
}
