//! The end of a connection: why it ended, and which of its requests fail or are sent again.

use std::collections::TryReserveError;
use std::io;

use super::request::{Attempt, Request};
use crate::error::{Class, Code, Error};
use crate::transport::slice::{canceled, Op, Trail};

/// How often a request is sent again after the network failed. Chosen: more than one path change or reset of a middlebox
/// would need.
const MOST_DROPS: u8 = 3;
/// Said of WRITEs to peers that cannot be asked to close their end.
const NOT_SENT_AGAIN: &str = "the WRITE was begun, and is not sent again because the peer may still apply it";

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum Down {
    /// The peer refused the address of the oldest request. It executes no request behind that one.
    Rejected,
    /// The peer is gone: end of stream, reset, broken pipe.
    Closed(Option<io::Error>),
    /// The peer sent something that is not the protocol.
    Protocol(String),
    /// A local buffer is not mapped.
    Fault {
        /// It is the one being sent; else the one being received into.
        sending: bool,
    },
    /// The WRITE whose body is half sent had to be taken off it, for this reason. The other requests go on.
    Stuck(Error),
    /// We give up every request on it, for this reason.
    Canceled(Error),
    /// The network failed. The requests go on where that is safe.
    Dropped(Error),
}

/// What becomes of the requests of a dead connection.
#[derive(Default)]
pub(super) struct Ends {
    /// To be failed, with the reason.
    pub failed: Vec<(Request, Error)>,
    /// To be sent again on another connection.
    pub again: Vec<Request>,
    /// WRITEs to be sent again once the peer has confirmed that it takes no more of the dead connection; if it does not,
    /// they fail, with the reason.
    pub behind: Vec<(Request, Error)>,
    /// Of WRITEs that ended while the peer may still take bytes of them.
    pub trails: Vec<Trail>,
}

/// How far the pipeline had come.
pub(super) struct Standing {
    /// Requests sent whole.
    pub sent: usize,
    /// Those, and the one that was partly sent.
    pub begun: usize,
    /// No reply had come since the connection was made, or since it was last idle.
    pub unanswered: bool,
}

/// What may be done about WRITEs that the peer may have bytes of.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    /// The peer's name.
    pub peer: &'a str,
    /// Both ends of the connection.
    pub rail: &'a str,
    /// The peer can be asked to close its end (see `fence`).
    pub fenced: bool,
    /// They are sent again even though it cannot (`MC_TCP_RESEND_WRITES`), if the peer has hung up.
    pub resend_writes: bool,
}

/// What becomes of one request.
enum End {
    Again,
    Behind(Error),
    Fail(Error),
}

impl Ends {
    /// Makes room for `count` requests, of which `begun` were begun.
    fn reserve(&mut self, count: usize, begun: usize) -> Result<(), TryReserveError> {
        self.failed.try_reserve(count)?;
        self.again.try_reserve(count)?;
        self.behind.try_reserve(begun)?;
        self.trails.try_reserve(begun)
    }
}

impl End {
    /// Its error names the connection.
    fn on(self, rail: &str) -> Self {
        match self {
            End::Again => End::Again,
            End::Behind(error) => End::Behind(error.rail(rail)),
            End::Fail(error) => End::Fail(error.rail(rail)),
        }
    }
}

/// Sorts the requests, oldest first. Bytes of a WRITE may still reach the peer although the connection is dead: its kernel may
/// hold them, or something in between. A WRITE that is sent again must not be overtaken by them.
pub(super) fn sort(requests: Vec<Request>, down: &Down, standing: &Standing, rules: &Rules<'_>) -> Ends {
    let mut ends = Ends::default();
    if ends.reserve(requests.len(), standing.begun).is_err() {
        let error = Error::out_of_memory("requests of a connection that has ended");
        for (index, mut request) in requests.into_iter().enumerate() {
            if index < standing.begun {
                request.lose_trail();
            }
            request.fail(error.clone());
        }
        return ends;
    }
    for (index, mut request) in requests.into_iter().enumerate() {
        let begun = index < standing.begun;
        request.was_sent |= begun;
        let mut end = end_of(&mut request, index, down, standing, rules).on(rules.rail);
        if request.is_given_up() && !matches!(end, End::Fail(_)) {
            end = End::Fail(canceled());
        }
        match &end {
            // The peer executes neither it nor what is behind it.
            _ if matches!(down, Down::Rejected) => request.end_trail(),
            End::Behind(_) if request.slice().is_some() => {}
            End::Fail(_) | End::Behind(_) if begun => ends.trails.extend(request.take_trail()),
            // A setting has it sent again without the peer's word: only success tells that nothing more arrives.
            End::Again if begun => request.begin_trail(),
            _ => {}
        }
        match end {
            End::Fail(error) => ends.failed.push((request, error)),
            _ if request.slice().is_none() => {}
            End::Again => ends.again.push(request),
            End::Behind(error) => ends.behind.push((request, error)),
        }
    }
    ends
}

fn end_of(request: &mut Request, index: usize, down: &Down, standing: &Standing, rules: &Rules<'_>) -> End {
    let culprit = match down {
        Down::Rejected | Down::Fault { sending: false } => Some(0),
        Down::Fault { sending: true } | Down::Stuck(_) => Some(standing.sent),
        _ => None,
    };
    let peer = rules.peer;
    let cause = match down {
        Down::Canceled(error) => return End::Fail(error.clone()),
        _ if Some(index) == culprit => return End::Fail(blame(down, request, peer)),
        Down::Rejected => return End::Again,
        // The first request counts as begun even if no byte of it left: else a peer that hangs up at once is tried for ever.
        _ if index >= standing.begun.max(1) => return End::Again,
        Down::Protocol(_) => return End::Fail(blame(down, request, peer)),
        Down::Closed(cause) => {
            let error = hung_up(cause.as_ref(), peer);
            request.attempt = match request.attempt {
                Attempt::Alone => return End::Fail(error),
                Attempt::First if standing.unanswered => Attempt::Fresh,
                Attempt::First | Attempt::Fresh => Attempt::Alone,
            };
            if rules.resend_writes && !rules.fenced {
                return End::Again;
            }
            error
        }
        Down::Dropped(error) => {
            request.drops += 1;
            if request.drops > MOST_DROPS {
                return End::Fail(error.clone());
            }
            error.clone()
        }
        Down::Fault { .. } | Down::Stuck(_) => ended_by_another(peer),
    };
    match request.op() {
        Op::Write if index < standing.begun && rules.fenced => End::Behind(cause),
        Op::Write if index < standing.begun => End::Fail(cause.context(NOT_SENT_AGAIN)),
        _ => End::Again,
    }
}

/// What an error of the socket means. Only a reset or a broken pipe comes from the peer itself, and proves that it
/// executes nothing more; after any other failure it may go on executing.
pub(super) fn lost(error: io::Error) -> Down {
    match error.raw_os_error() {
        Some(libc::ECONNRESET | libc::EPIPE) => Down::Closed(Some(error)),
        _ => Down::Dropped(Error::io(
            Code::Socket,
            "the connection failed; bytes of a WRITE may still arrive at the peer",
            &error,
        )),
    }
}

fn hung_up(cause: Option<&io::Error>, peer: &str) -> Error {
    let what = "the peer closed the connection without an answer; it may have died, or refuse the address";
    match cause {
        Some(cause) => Error::io(Code::Socket, what, cause),
        None => Error::new(Code::Socket, what),
    }
    .transient(Class::Network)
    .peer(peer)
}

/// A neighbour's error: the request itself was in order.
fn ended_by_another(peer: &str) -> Error {
    let text = "another request ended the connection; submit this one again";
    Error::new(Code::Socket, text).transient(Class::Network).peer(peer)
}

fn blame(down: &Down, request: &Request, peer: &str) -> Error {
    let (len, addr) = (request.len(), request.remote());
    match down {
        Down::Rejected => Error::new(
            Code::AddressNotRegistered,
            format!("the peer refused {len} bytes at {addr:#x}: not inside one region registered there for remote access"),
        )
        .permanent(Class::Rejected),
        Down::Protocol(text) => Error::new(Code::Socket, text.clone()).permanent(Class::Protocol),
        Down::Fault { .. } => {
            let local = request.slice().map_or(0, |slice| slice.local);
            Error::invalid(format!(
                "the local buffer of {len} bytes at {local:#x} (peer's address {addr:#x}) is not mapped; was it freed before its \
                 transfer ended?"
            ))
        }
        Down::Closed(cause) => return hung_up(cause.as_ref(), peer),
        Down::Canceled(error) | Down::Dropped(error) | Down::Stuck(error) => return error.clone(),
    }
    .peer(peer)
}

#[cfg(test)]
mod random;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::slice::deaf::work;
    use crate::transport::slice::{Drained, Slice};

    /// Three WRITEs and a READ: two sent, one half sent, one waiting.
    fn requests(attempt: Attempt) -> Vec<Request> {
        let work = work(4);
        let ops = [Op::Write, Op::Read, Op::Write, Op::Write];
        let slice = |(task, op): (usize, Op)| Slice::new(&work, task as u32, op, 1, task as u64, 8, None);
        let request = |slice| {
            let mut request = Request::new(slice, 0);
            request.attempt = attempt;
            request
        };
        ops.into_iter().enumerate().map(slice).map(request).collect()
    }

    fn rules(fenced: bool, resend_writes: bool) -> Rules<'static> {
        Rules { peer: "peer", rail: "rail", fenced, resend_writes }
    }

    type Sorted = (Vec<u64>, Vec<(u64, Attempt)>, Vec<u64>, usize);

    /// Which requests fail, how others are sent again, which wait for the peer's word, and how many trails there are.
    fn sorted(down: Down, attempt: Attempt, unanswered: bool, rules: Rules<'_>) -> Sorted {
        let ends = sort(requests(attempt), &down, &Standing { sent: 2, begun: 3, unanswered }, &rules);
        let list = |requests: Vec<(Request, Error)>| {
            requests.into_iter().map(|(request, error)| {
                let remote = request.remote();
                request.fail(error);
                remote
            })
        };
        let again = ends.again.iter().map(|request| (request.remote(), request.attempt)).collect();
        (list(ends.failed).collect(), again, list(ends.behind).collect(), ends.trails.len())
    }

    #[test]
    fn p02_a_begun_write_is_sent_again_only_behind_the_peers_word() {
        use Attempt::{Alone, First, Fresh};
        let other = || Error::invalid("why");
        let closed = || Down::Closed(None);
        let fenced = rules(true, false);
        let table = [
            (Down::Rejected, First, false, vec![0], vec![(1, First), (2, First), (3, First)], vec![], 0),
            (closed(), First, true, vec![], vec![(1, Fresh), (3, First)], vec![0, 2], 0),
            (closed(), First, false, vec![], vec![(1, Alone), (3, First)], vec![0, 2], 0),
            (closed(), Fresh, true, vec![], vec![(1, Alone), (3, Fresh)], vec![0, 2], 0),
            (closed(), Alone, true, vec![0, 1, 2], vec![(3, Alone)], vec![], 2),
            (Down::Protocol("x".into()), First, false, vec![0, 1, 2], vec![(3, First)], vec![], 2),
            (Down::Fault { sending: true }, First, false, vec![2], vec![(1, First), (3, First)], vec![0], 1),
            (Down::Fault { sending: false }, First, false, vec![0], vec![(1, First), (3, First)], vec![2], 1),
            (Down::Stuck(other()), First, false, vec![2], vec![(1, First), (3, First)], vec![0], 1),
            (Down::Dropped(other()), First, false, vec![], vec![(1, First), (3, First)], vec![0, 2], 0),
            (Down::Canceled(other()), First, false, vec![0, 1, 2, 3], vec![], vec![], 2),
        ];
        for (row, (down, attempt, unanswered, failed, again, behind, trails)) in table.into_iter().enumerate()
        {
            let expected = (failed, again, behind, trails);
            assert_eq!(sorted(down, attempt, unanswered, fenced), expected, "row {row}");
        }
    }

    #[test]
    fn p02_begun_writes_to_a_peer_that_cannot_be_asked_fail_unless_a_setting_allows_otherwise() {
        use Attempt::{Alone, First, Fresh};
        let other = || Error::invalid("why");
        let closed = || Down::Closed(None);
        let (never, allowed) = (rules(false, false), rules(false, true));
        let table = [
            (closed(), never, vec![0, 2], vec![(1, Fresh), (3, First)], 2),
            (closed(), allowed, vec![], vec![(0, Fresh), (1, Fresh), (2, Fresh), (3, First)], 0),
            (Down::Fault { sending: true }, allowed, vec![0, 2], vec![(1, First), (3, First)], 2),
            (Down::Dropped(other()), allowed, vec![0, 2], vec![(1, First), (3, First)], 2),
        ];
        for (row, (down, rules, failed, again, trails)) in table.into_iter().enumerate() {
            assert_eq!(sorted(down, First, true, rules), (failed, again, vec![], trails), "row {row}");
        }
        assert_eq!(sorted(closed(), Alone, true, allowed).0, [0, 1, 2]);
    }

    #[test]
    fn a_request_whose_connections_are_dropped_is_sent_again_so_often_and_no_more() {
        let read = Slice::new(&work(1), 0, Op::Read, 1, 0, 8, None);
        let mut left = vec![Request::new(read, 0)];
        let standing = Standing { sent: 1, begun: 1, unanswered: true };
        let dropped = || Down::Dropped(Error::invalid("host"));
        for round in 0..MOST_DROPS {
            left = sort(left, &dropped(), &standing, &rules(true, true)).again;
            assert_eq!(left.len(), 1, "round {round}");
        }
        let ends = sort(left, &dropped(), &standing, &rules(true, true));
        assert_eq!((ends.again.len(), ends.failed.len()), (0, 1));
        ends.failed.into_iter().for_each(|(request, error)| request.fail(error));
    }

    #[test]
    fn p02_nothing_that_was_given_up_is_sent_again() {
        let requests = requests(Attempt::First);
        requests[0].slice().unwrap().work().cancel();
        let standing = Standing { sent: 2, begun: 3, unanswered: true };
        let ends = sort(requests, &Down::Closed(None), &standing, &rules(true, false));
        assert_eq!((ends.failed.len(), ends.again.len(), ends.behind.len(), ends.trails.len()), (4, 0, 0, 2));
        assert!(ends.failed.iter().all(|(_, error)| error.kind() == Class::Canceled));
        ends.failed.into_iter().for_each(|(request, error)| request.fail(error));
    }

    #[test]
    fn p02_a_write_that_was_sent_twice_without_the_peers_word_is_drained_only_by_success() {
        for completes in [true, false] {
            let work = work(1);
            let request = Request::new(Slice::new(&work, 0, Op::Write, 1, 0, 8, None), 0);
            let standing = Standing { sent: 1, begun: 1, unanswered: true };
            let mut ends = sort(vec![request], &Down::Closed(None), &standing, &rules(false, true));
            let again = ends.again.pop().unwrap();
            match completes {
                true => again.complete(true, 1),
                // Say because nobody accepts another connection.
                false => again.fail(Error::invalid("no connection")),
            }
            let drained = if completes { Drained::Yes } else { Drained::Unknown };
            assert_eq!(work.drained(0), Some(drained));
        }
    }

    #[test]
    fn a_peer_that_hangs_up_before_a_byte_is_sent_is_not_tried_for_ever() {
        let nothing = Standing { sent: 0, begun: 0, unanswered: true };
        let mut waiting = requests(Attempt::First);
        for round in 0..3 {
            let ends = sort(waiting, &Down::Closed(None), &nothing, &rules(false, false));
            assert_eq!(ends.failed.len(), usize::from(round == 2));
            for (request, error) in ends.failed {
                request.fail(error);
            }
            waiting = ends.again;
        }
        waiting.into_iter().for_each(|request| request.fail(Error::invalid("end of test")));
    }

    #[test]
    fn only_the_peers_own_end_counts_as_hanging_up() {
        for (errno, closed) in [
            (libc::ECONNRESET, true),
            (libc::EPIPE, true),
            (libc::ETIMEDOUT, false),
            (libc::EHOSTUNREACH, false),
            (libc::ENETDOWN, false),
        ] {
            let down = lost(io::Error::from_raw_os_error(errno));
            assert_eq!(matches!(down, Down::Closed(_)), closed, "{errno}");
            assert_eq!(matches!(down, Down::Dropped(_)), !closed, "{errno}");
        }
    }
}
