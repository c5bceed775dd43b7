//! What happens to a rail, and what it wants done: the vocabulary of its machine.

use std::time::Duration;

use super::super::flight::Loss;

/// Number of an own attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt(pub u64);

/// Which side began a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// An own attempt.
    Own(Attempt),
    /// The peer asked for it.
    Peer,
}

/// What happens to a rail. `C` stands for a connection, `E` for an error.
#[derive(Clone, Debug)]
pub(crate) enum Event<C, E> {
    /// Something waits, and no connection is up.
    Wanted,
    /// The attempt has found no link that leads to the peer.
    Unreachable(Attempt),
    /// Queue pairs exist that are to be connected.
    Made {
        /// The new connection.
        connection: C,
        /// Which side began it.
        by: By,
    },
    /// The driver has connected the queue pairs to those of a peer that asked for it.
    Accepted(C),
    /// The attempt succeeded: both ends of the connection are ready.
    Connected(Attempt, C),
    /// The peer has said that its end is ready, or says so by asking.
    Ready(C),
    /// Probes were posted: on all queue pairs, or only where there was room.
    Probed {
        /// The connection.
        connection: C,
        /// Whether each queue pair has its probe.
        all: bool,
    },
    /// All probes have arrived.
    Proved(C),
    /// The attempt goes on with new queue pairs, because the driver refused the path of these.
    StartedOver(Attempt, C, E),
    /// The attempt has ended without success.
    AttemptFailed {
        /// Which.
        attempt: Attempt,
        /// What it has used last.
        connection: Option<C>,
        /// Whether that still takes work requests.
        usable: bool,
        /// Why.
        cause: E,
    },
    /// The connection has failed.
    Lost(C, E),
    /// Answer to [`Action::Expire`].
    Overdue(C, E),
    /// The connection, whichever it is, goes for a reason that is not the rail's fault: evicted, or the peer gave its
    /// end up.
    TakenAway(E),
    /// As [`Event::TakenAway`], if it is this one.
    Interrupted(C, E),
    /// The NIC cannot be used.
    PortDown(E),
    /// It can be used again.
    PortUp,
    /// Time has passed.
    Tick {
        /// Flights wait here.
        waiting: bool,
        /// When a link used the rail last, or would have used it.
        used_ms: u64,
    },
    /// The end.
    Stopped(E),
}

/// What is to be done, in this order, without a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action<C, E> {
    /// Start an attempt.
    Connect(Attempt),
    /// Post a probe on every queue pair that has none.
    Probe(C),
    /// Post what waits.
    Pump,
    /// Have what waits placed anew, for this reason. It travels with the action because the rail may have met another
    /// one by the time the action is performed. `None`: the NIC has been unusable since the rail was made.
    HandBack(Loss, Option<E>),
    /// Fail what waits.
    Fail(E),
    /// Stop the queue pairs: what is posted comes back by its completions.
    Stop(C, Why<E>),
    /// The rail has no connection any more that could be evicted.
    Vacate,
    /// Log a failure.
    Report(E),
    /// The peer has not said in time that it is ready: make an error of it.
    Expire(C),
}

/// Why a connection is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why<E> {
    /// For this reason.
    Because(E),
    /// Another one has taken its place.
    Renewed,
    /// It came too late: nobody wants it any more.
    Unwanted,
}

/// When an event happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Time, ms.
    pub ms: u64,
    /// A random number.
    pub random: u32,
}

/// Settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pauses {
    /// `MC_RDMA_RAIL_PAUSE_SECONDS`: no pause is longer, but for the jitter.
    pub most: Duration,
    /// `MC_CONN_PAUSE_TTL_MS`: no pause is shorter, whatever the other limits.
    pub least: Duration,
}
