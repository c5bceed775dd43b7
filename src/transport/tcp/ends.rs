//! The end of a connection: why it ended, and which of its requests fail or are sent again.

use std::io;

use super::request::{Attempt, Request};
use crate::error::{Class, Code, Error};
use crate::transport::slice::Op;

/// Why a connection ended.
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
    /// We give up every request on it, for this reason.
    Canceled(Error),
    /// It ended from our side, because the network failed or one request had to be taken off it. The other requests go
    /// on where that is safe.
    Dropped(Error),
}

/// What becomes of the requests of a dead connection.
#[derive(Default)]
pub(super) struct Ends {
    /// To be failed, with the reason.
    pub failed: Vec<(Request, Error)>,
    /// To be sent again on another connection.
    pub again: Vec<Request>,
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

/// Sorts the requests, oldest first. A peer that did not hang up may still execute a WRITE that it was sent, so such a
/// WRITE is never sent again.
pub(super) fn sort(requests: Vec<Request>, down: &Down, standing: &Standing, peer: &str) -> Ends {
    // The first request counts as begun even if no byte of it left: else a peer that hangs up at once is tried for ever.
    let begun = standing.begun.max(1);
    let culprit = match down {
        Down::Rejected | Down::Fault { sending: false } => Some(0),
        Down::Fault { sending: true } => Some(standing.sent),
        _ => None,
    };
    let mut ends = Ends::default();
    for (index, mut request) in requests.into_iter().enumerate() {
        let end = match down {
            Down::Canceled(error) => Some(error.clone()),
            _ if Some(index) == culprit => Some(blame(down, &request, peer)),
            Down::Rejected => None,
            _ if index >= begun => None,
            Down::Closed(cause) => match request.attempt {
                Attempt::Alone => Some(hung_up(cause.as_ref(), peer)),
                Attempt::First if standing.unanswered => {
                    request.attempt = Attempt::Fresh;
                    None
                }
                Attempt::First | Attempt::Fresh => {
                    request.attempt = Attempt::Alone;
                    None
                }
            },
            Down::Fault { .. } | Down::Dropped(_) if request.op() == Op::Read => None,
            other => Some(blame(other, &request, peer)),
        };
        match end {
            Some(error) => ends.failed.push((request, error)),
            None if request.slice().is_none() => {}
            None => ends.again.push(request),
        }
    }
    ends
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

fn blame(down: &Down, request: &Request, peer: &str) -> Error {
    let (len, addr) = (request.len(), request.remote());
    match down {
        Down::Rejected => Error::new(
            Code::AddressNotRegistered,
            format!("the peer refused {len} bytes at {addr:#x}: not inside one region registered there for remote access"),
        )
        .permanent(Class::Rejected),
        Down::Protocol(text) => Error::new(Code::Socket, text.clone()).permanent(Class::Protocol),
        Down::Fault { .. } => Error::invalid(format!(
            "a local buffer of a request on this connection is not mapped: that of {len} bytes for {addr:#x}, or \
             another one; was it freed before its transfer ended?"
        )),
        Down::Closed(cause) => return hung_up(cause.as_ref(), peer),
        Down::Canceled(error) | Down::Dropped(error) => return error.clone(),
    }
    .peer(peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::slice::{Sink, Slice, Task, Work};
    use std::sync::Arc;

    struct Nobody;

    impl Sink for Nobody {
        fn task_ended(&self, _: bool) {}
    }

    /// Three WRITEs and a READ: two sent, one half sent, one waiting.
    fn requests(attempt: Attempt) -> Vec<Request> {
        let tasks = (0..4).map(|_| Task::default()).collect();
        let work = Arc::new(Work { tasks, deadline: None, sink: Arc::new(Nobody) });
        let ops = [Op::Write, Op::Read, Op::Write, Op::Write];
        let slice = |(task, op): (usize, Op)| Slice::new(&work, task as u32, op, 1, task as u64, 8, None);
        let request = |slice| {
            let mut request = Request::new(slice, 0);
            request.attempt = attempt;
            request
        };
        ops.into_iter().enumerate().map(slice).map(request).collect()
    }

    /// Which requests fail, and how the others are sent again.
    fn sorted(down: Down, attempt: Attempt, unanswered: bool) -> (Vec<u64>, Vec<(u64, Attempt)>) {
        let ends = sort(requests(attempt), &down, &Standing { sent: 2, begun: 3, unanswered }, "peer");
        let failed = ends.failed.into_iter().map(|(request, error)| {
            let remote = request.remote();
            request.fail(error);
            remote
        });
        let failed = failed.collect();
        let again = ends.again.iter().map(|request| (request.remote(), request.attempt)).collect();
        (failed, again)
    }

    #[test]
    fn what_is_sent_again_depends_on_who_hung_up() {
        use Attempt::{Alone, First, Fresh};
        let other = || Error::invalid("why");
        let table = [
            (Down::Rejected, First, false, vec![0], vec![(1, First), (2, First), (3, First)]),
            (Down::Closed(None), First, true, vec![], vec![(0, Fresh), (1, Fresh), (2, Fresh), (3, First)]),
            (Down::Closed(None), First, false, vec![], vec![(0, Alone), (1, Alone), (2, Alone), (3, First)]),
            (Down::Closed(None), Fresh, true, vec![], vec![(0, Alone), (1, Alone), (2, Alone), (3, Fresh)]),
            (Down::Closed(None), Alone, true, vec![0, 1, 2], vec![(3, Alone)]),
            (Down::Protocol("x".into()), First, false, vec![0, 1, 2], vec![(3, First)]),
            (Down::Fault { sending: true }, First, false, vec![0, 2], vec![(1, First), (3, First)]),
            (Down::Fault { sending: false }, First, false, vec![0, 2], vec![(1, First), (3, First)]),
            (Down::Dropped(other()), First, false, vec![0, 2], vec![(1, First), (3, First)]),
            (Down::Canceled(other()), First, false, vec![0, 1, 2, 3], vec![]),
        ];
        for (row, (down, attempt, unanswered, failed, again)) in table.into_iter().enumerate() {
            assert_eq!(sorted(down, attempt, unanswered), (failed, again), "row {row}");
        }
    }

    #[test]
    fn a_peer_that_hangs_up_before_a_byte_is_sent_is_not_tried_for_ever() {
        let nothing = Standing { sent: 0, begun: 0, unanswered: true };
        let mut waiting = requests(Attempt::First);
        for round in 0..3 {
            let ends = sort(waiting, &Down::Closed(None), &nothing, "peer");
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
