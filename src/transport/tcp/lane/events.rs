//! What happens to a lane, and what it wants done: the vocabulary of its machine.

use std::time::Duration;

/// What happens to a lane. `C` stands for a connection, `D` for why one ended, `E` for an error.
#[derive(Clone, Debug)]
pub(super) enum Event<C, D, E> {
    /// Requests were appended to the pipeline.
    Pushed {
        /// It was empty before: the first of them has its turn.
        first: bool,
    },
    /// A connection is wanted before there are requests for it.
    Wanted,
    /// The attempt to connect has succeeded.
    Attached(C),
    /// Answer to [`Action::Begin`]: the connection cannot be watched.
    AttachRefused(E),
    /// The attempt to connect has failed.
    ConnectFailed(E),
    /// At least one request has got its reply.
    Replied {
        /// The connection was for one request, and has answered it.
        spent: bool,
        /// Requests are left in the pipeline.
        more: bool,
    },
    /// The connection has ended.
    Down(D),
    /// Slices were taken out of the pipeline because their region or their deadline ended.
    Abandoned {
        /// The request that had its turn is gone, and the next one has it.
        next: bool,
        /// Half of a WRITE's body is sent, and the other half must not be read any more, for this reason.
        stuck: Option<E>,
    },
    /// Time has passed.
    Tick {
        /// Bytes of the request that has its turn.
        awaited: Option<u64>,
        /// Bytes that came, and that the peer's kernel has taken, so far: whether it changes is what counts.
        traffic: u64,
        /// How long this process did not run before, if that was long: it does not count against the peer.
        paused: Duration,
    },
    /// Answer to [`Action::Ask`]: the peer lives, or nobody can tell.
    Alive(u32),
    /// Answer to [`Action::Ask`]: the peer has not answered.
    Silent {
        /// The question's number.
        question: u32,
        /// As in [`Event::Tick`], now.
        traffic: u64,
    },
    /// Answer to [`Action::Ask`]: the peer may live, but not where this connection leads.
    Unreachable {
        /// As in [`Event::Silent`].
        question: u32,
        /// As in [`Event::Tick`], now.
        traffic: u64,
        /// How the connection ends, if nothing has moved.
        down: D,
    },
    /// The link is closed, or the reactor has ended.
    Closed(E),
}

/// What is to be done, under the lock that the machine is under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action<C, D, E> {
    /// Start an attempt to connect.
    Connect,
    /// Send what the connection takes.
    Send,
    /// Watch the connection, which the lane has from now on, and open the pipeline for it.
    Begin,
    /// Ask the peer elsewhere whether it is alive: nothing has moved for a while. The number goes into the answer.
    Ask(u32),
    /// Close this connection: nobody wants it any more. It is not watched.
    Discard(C),
    /// Leave this connection, which has answered its one request.
    Retire {
        /// What is to be left.
        connection: C,
        /// Requests are left, so start an attempt to connect.
        connect: bool,
    },
    /// Leave this connection, and sort its requests into those that fail and those that are sent again.
    TakeDown(C, Why<D, E>),
    /// Empty the pipeline and hand its requests to the link: this lane has no connection for them.
    HandBack {
        /// The connection that cannot be watched, to be closed.
        unwatched: Option<C>,
        /// Why there is none.
        error: E,
    },
    /// Leave the connection, if there is one, and fail every request.
    Close(Option<C>, E),
    /// Fail every request: they came after the end.
    Refuse(E),
}

/// Why a connection is taken down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why<D, E> {
    /// It has ended by itself.
    Down(D),
    /// A request had to be taken off it halfway. Others may go on elsewhere.
    Stuck(E),
    /// Nothing moves, and the peer does not answer elsewhere either. Nothing on it may go on elsewhere: there is no
    /// elsewhere.
    Silent,
    /// The peer has not answered in time. Nothing on it may go on elsewhere: the peer may still execute all of it.
    Overdue {
        /// Bytes of the request that had its turn.
        bytes: u64,
        /// How long it had.
        allowed: Duration,
    },
}
