//! What the failure of a posting means for its slice: a pure function over what is known of it.

use super::flight::Loss;
use super::verbs::wc;
use crate::error::{Class, Code};

/// Attempts that it costs when no other rail to the peer can do better: all of them.
const ALL: u8 = u8::MAX;
/// Attempts that it costs when the peer does not answer. Chosen: with `MC_RETRY_CNT` of 9 it is asked three times.
const NO_ANSWER: u8 = 3;
/// Attempts that it costs when a NIC cannot use the local memory. Chosen: with `MC_RETRY_CNT` of 9 three NICs may try.
/// If one has lost its key another will do; memory that is not mapped any more is not tried on all of them.
const BAD_MEMORY: u8 = 3;
/// Attempts that it costs when no completion comes. Chosen: each lasts `MC_RDMA_STALL_TIMEOUT_MS`, so with
/// `MC_RETRY_CNT` of 9 there are five.
const SILENCE: u8 = 2;

/// A flight that came back.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// How it was lost.
    pub loss: Loss,
    /// Why its rail failed last.
    pub cause: (Class, Code),
    /// Attempts so far, in the unit of `MC_RETRY_CNT`.
    pub tries: u8,
    /// The peer's descriptor was read again because of it.
    pub reread: bool,
    /// It moves bytes to the peer.
    pub is_write: bool,
    /// Another rail to the peer may carry data. Found out only for a flight that was never posted.
    pub has_others: bool,
}

/// Settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// `MC_RETRY_CNT`.
    pub tries: u8,
    /// `MC_RDMA_REPOST_WRITES`.
    pub repost_writes: bool,
}

/// Whose fault it was, for the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// Another work request of the connection failed.
    Neighbour,
    /// The rail.
    Rail,
    /// The peer's NIC refused the range.
    Peer,
    /// The local NIC cannot use the memory.
    Memory,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// No rail will do better.
    Fail,
    /// It might have been written, and the settings forbid to write it again.
    FailUnknown,
    /// Posted again, elsewhere if possible.
    Again,
    /// Posted again once the peer's descriptor was read again.
    AgainReread,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    /// What becomes of it.
    pub next: Next,
    /// Whose fault it was.
    pub blame: Blame,
    /// Attempts it has used by now.
    pub tries: u8,
    /// It is to avoid the rail from now on.
    pub avoid: bool,
}

/// Judges one flight.
pub(super) fn judge(view: &View, limits: Limits) -> Judgement {
    let (blame, cost) = match view.loss {
        Loss::Flushed => (Blame::Neighbour, 0),
        Loss::Unknown => (Blame::Rail, SILENCE),
        Loss::Unconnected => (Blame::Rail, connect_cost(view)),
        Loss::Completion(status, _) => match status {
            wc::REM_ACCESS_ERR | wc::REM_INV_REQ_ERR | wc::REM_OP_ERR => {
                // The range may be registered anew, with other keys; one reading tells.
                let next = if view.reread { Next::Fail } else { Next::AgainReread };
                return Judgement {
                    next,
                    blame: Blame::Peer,
                    tries: view.tries.saturating_add(1),
                    avoid: false,
                };
            }
            wc::LOC_PROT_ERR | wc::LOC_ACCESS_ERR | wc::LOC_LEN_ERR | wc::MW_BIND_ERR => {
                (Blame::Memory, BAD_MEMORY)
            }
            _ => (Blame::Rail, 1),
        },
    };
    let tries = view.tries.saturating_add(cost);
    let next = if view.loss == Loss::Unknown && view.is_write && !limits.repost_writes {
        Next::FailUnknown
    } else if tries >= limits.tries {
        Next::Fail
    } else {
        Next::Again
    };
    Judgement { next, blame, tries, avoid: cost > 0 }
}

/// A refusal is final for a rail, but one NIC of the peer may refuse and another not.
fn connect_cost(view: &View) -> u8 {
    match view.cause {
        (Class::Rejected | Class::Argument | Class::Protocol | Class::Canceled, _) if view.has_others => 1,
        (Class::Rejected | Class::Argument | Class::Protocol | Class::Canceled, _) => ALL,
        (Class::Network, Code::Socket) => NO_ANSWER,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Next::{Again, AgainReread, Fail, FailUnknown};

    const LIMITS: Limits = Limits { tries: 7, repost_writes: true };
    const READ: View = View {
        loss: Loss::Flushed,
        cause: (Class::Network, Code::Endpoint),
        tries: 0,
        reread: false,
        is_write: false,
        has_others: false,
    };

    fn completion(status: u32) -> View {
        View { loss: Loss::Completion(status, 0), ..READ }
    }

    fn unconnected(class: Class, code: Code) -> View {
        View { loss: Loss::Unconnected, cause: (class, code), ..READ }
    }

    #[test]
    fn each_loss_has_its_price_and_its_culprit() {
        let refused = unconnected(Class::Rejected, Code::RejectHandshake);
        #[rustfmt::skip]
        let cases = [
            ("flushed: costs nothing, and the rail is as good as before", READ, Again, Blame::Neighbour, 0, false),
            ("flushed for ever: never the end", View { tries: 6, ..READ }, Again, Blame::Neighbour, 6, false),
            ("no completion", View { loss: Loss::Unknown, ..READ }, Again, Blame::Rail, 2, true),
            ("retries exceeded", completion(wc::RETRY_EXC_ERR), Again, Blame::Rail, 1, true),
            ("the last attempt", View { tries: 6, ..completion(wc::RETRY_EXC_ERR) }, Fail, Blame::Rail, 7, true),
            ("a status that nobody knows", completion(9999), Again, Blame::Rail, 1, true),
            ("refused by the peer's NIC", completion(wc::REM_ACCESS_ERR), AgainReread, Blame::Peer, 1, false),
            ("refused again", View { reread: true, ..completion(wc::REM_ACCESS_ERR) }, Fail, Blame::Peer, 1, false),
            ("memory that the NIC cannot use", completion(wc::LOC_PROT_ERR), Again, Blame::Memory, 3, true),
            ("the third NIC cannot either", View { tries: 6, ..completion(wc::LOC_PROT_ERR) }, Fail, Blame::Memory, 9, true),
            ("refused, and no other rail", refused, Fail, Blame::Rail, u8::MAX, true),
            ("refused, but there are others", View { has_others: true, ..refused }, Again, Blame::Rail, 1, true),
            ("nobody answers", unconnected(Class::Network, Code::Socket), Again, Blame::Rail, 3, true),
            ("no route", unconnected(Class::Device, Code::Endpoint), Again, Blame::Rail, 1, true),
        ];
        for (name, view, next, blame, tries, avoid) in cases {
            assert_eq!(judge(&view, LIMITS), Judgement { next, blame, tries, avoid }, "{name}");
        }
    }

    #[test]
    fn a_write_whose_fate_is_unknown_is_not_written_again_where_the_settings_forbid_it() {
        let limits = Limits { repost_writes: false, ..LIMITS };
        let unknown = |is_write| View { loss: Loss::Unknown, is_write, ..READ };
        assert_eq!(judge(&unknown(true), limits).next, FailUnknown);
        assert_eq!(judge(&unknown(true), LIMITS).next, Again);
        assert_eq!(judge(&unknown(false), limits).next, Again, "reading twice harms nobody");
        let known = View { is_write: true, ..completion(wc::RETRY_EXC_ERR) };
        assert_eq!(judge(&known, limits).next, Again, "a completion has told");
    }

    #[test]
    fn attempts_do_not_overflow() {
        let view = View { tries: u8::MAX, ..completion(wc::REM_ACCESS_ERR) };
        assert_eq!(judge(&view, LIMITS).tries, u8::MAX);
    }
}
