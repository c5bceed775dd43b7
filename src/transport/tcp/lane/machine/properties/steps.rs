//! What may happen around a lane, and how often.

use proptest::prelude::*;

use crate::transport::tcp::pipeline::Terms;
use crate::transport::tcp::wire::STATUS_LEN;

/// Most steps of a sequence. Chosen: a few connections with traffic, an end and a deadline fit.
const STEPS: usize = 48;

/// What the world does. Numbers choose among what there is.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A caller submits requests: READs where a bit is set, all for one incarnation of the peer, or for any (0).
    Push {
        count: u8,
        reads: u8,
        incarnation: u64,
    },
    /// The attempt succeeds.
    Attach(Terms),
    /// The attempt succeeds, but the connection cannot be watched.
    AttachInVain,
    ConnectFails,
    /// The socket takes so many bytes.
    Send(u16),
    /// So many bytes of replies arrive.
    Receive(u16),
    /// The peer refuses a request, perhaps one that is half sent, and answers those before it. The frame that says so
    /// arrives in two parts: the first has so many bytes.
    Reject {
        which: u8,
        cut: usize,
    },
    /// A buffer is not mapped.
    Fault {
        sending: bool,
    },
    /// The peer hangs up; it sends something else; the network fails.
    HangUp,
    Babble,
    NetworkFails,
    /// A region is unregistered.
    Abort(u8),
    /// A batch is canceled.
    Cancel(u8),
    /// The peer was asked to close its end of a dead connection. It confirms it, or does not answer.
    Confirm {
        which: u8,
        closed: bool,
    },
    /// The peer was asked whether it is alive.
    Answer(Said),
    /// A connection is wanted before there are requests.
    Want,
    /// Seconds pass.
    Wait(u8),
    Close,
}

/// What was found out about a peer that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Alive,
    Nothing,
    /// It lives, but not where the connection leads.
    Unreachable,
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let terms = (any::<bool>(), any::<bool>(), 0..3u64);
    let terms = terms.prop_map(|(v2, reusable, incarnation)| Terms { v2, reusable, incarnation });
    let incarnation = prop_oneof![3 => Just(0), 1 => Just(1), 1 => Just(2)];
    let push = (1..4u8, any::<u8>(), incarnation);
    let push = push.prop_map(|(count, reads, incarnation)| Step::Push { count, reads, incarnation });
    let step = prop_oneof![
        60 => push,
        60 => terms.prop_map(Step::Attach),
        10 => Just(Step::AttachInVain),
        10 => Just(Step::ConnectFails),
        80 => (1..200u16).prop_map(Step::Send),
        80 => (1..200u16).prop_map(Step::Receive),
        10 => (any::<u8>(), 1..=STATUS_LEN).prop_map(|(which, cut)| Step::Reject { which, cut }),
        10 => any::<bool>().prop_map(|sending| Step::Fault { sending }),
        10 => Just(Step::HangUp),
        10 => Just(Step::Babble),
        10 => Just(Step::NetworkFails),
        20 => any::<u8>().prop_map(Step::Abort),
        10 => any::<u8>().prop_map(Step::Cancel),
        20 => (any::<u8>(), any::<bool>()).prop_map(|(which, closed)| Step::Confirm { which, closed }),
        10 => Just(Step::Answer(Said::Alive)),
        10 => Just(Step::Answer(Said::Nothing)),
        10 => Just(Step::Answer(Said::Unreachable)),
        10 => Just(Step::Want),
        40 => (1..20u8).prop_map(Step::Wait),
        10 => (20..100u8).prop_map(Step::Wait),
        1 => Just(Step::Close),
    ];
    prop::collection::vec(step, 1..STEPS)
}
