//! What the world does to a rail, each step made of one random word.

/// What the world does.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// A link submits a flight.
    Submit,
    /// A thread performs the next of its actions.
    Perform,
    /// An attempt makes queue pairs, or goes on with those that the peer asked for.
    Make,
    /// An attempt succeeds with its queue pairs, does without them, or ends with them.
    Connect,
    StartOver,
    GiveUp,
    GiveUpUsable,
    /// The task of an attempt takes too long, whatever it is doing; that of an abandoned one is ended.
    TimeOut,
    Abort,
    /// The peer asks for a connection; the driver connects one that it asked for; the peer says ready.
    Ask,
    Accept,
    Ready,
    /// A probe arrives.
    Arrive,
    /// A connection fails, by itself or not, or is interrupted; a flight comes back from one that is stopped.
    Break,
    Lose,
    Interrupt,
    Flush,
    Retire,
    PortDown,
    PortUp,
    /// Time passes.
    Wait,
    /// The next probes find room on so many queue pairs.
    Room,
    /// Links that lead to the peer come and go.
    Route,
}

/// How often each happens.
pub(super) const MIX: [(What, u8); 23] = [
    (What::Submit, 5),
    (What::Perform, 8),
    (What::Make, 5),
    (What::Connect, 4),
    (What::StartOver, 1),
    (What::GiveUp, 2),
    (What::GiveUpUsable, 1),
    (What::TimeOut, 1),
    (What::Abort, 1),
    (What::Ask, 2),
    (What::Accept, 3),
    (What::Ready, 3),
    (What::Arrive, 6),
    (What::Break, 1),
    (What::Lose, 3),
    (What::Interrupt, 1),
    (What::Flush, 2),
    (What::Retire, 1),
    (What::PortDown, 1),
    (What::PortUp, 3),
    (What::Wait, 6),
    (What::Room, 2),
    (What::Route, 1),
];

/// One step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) what: What,
    /// Chooses among what there is; the newest is 0.
    pub(super) which: u8,
    pub(super) ms: u16,
    /// The thread is held up before it performs the actions.
    pub(super) is_late: bool,
}

impl Step {
    /// One draw for a step: several would take longer than the steps themselves.
    pub(super) fn of(word: u32) -> Self {
        let mut left = (word & 63) as u8;
        let place = MIX.iter().position(|(_, share)| match left.checked_sub(*share) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        });
        let what = MIX[place.unwrap_or(0)].0;
        Step { what, which: (word >> 8) as u8, ms: (word >> 16) as u16, is_late: word >> 6 & 3 == 3 }
    }
}
