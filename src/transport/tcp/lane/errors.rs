//! What requests of a lane fail with.

use std::time::Duration;

use super::super::request::Request;
use crate::error::{Class, Code, Error};
use crate::memory::Region;

/// The link is gone: its segment was closed.
pub(super) fn closed() -> Error {
    Error::new(Code::Socket, "the segment was closed").permanent(Class::Canceled)
}

/// The region was revoked.
pub(super) fn unregistered(region: &Region) -> Error {
    let text = format!("the region at {:#x} was unregistered while a request was running", region.addr);
    Error::new(Code::AddressNotRegistered, text).permanent(Class::Canceled)
}

/// The connection leads to another incarnation of the peer than the one that the request was checked for.
pub(super) fn restarted(peer: String) -> Error {
    let text = "the peer restarted after its descriptor was read, and this request was for its predecessor's memory; ask it \
                for its addresses and submit again";
    Error::new(Code::Socket, text).transient(Class::Metadata).peer(peer)
}

/// The epoll instance does not take the connection.
pub(super) fn unwatchable(cause: &std::io::Error) -> Error {
    Error::io(Code::Socket, "cannot watch a data connection", cause)
}

/// The task has a deadline of its own, which has passed.
pub(in super::super) fn late(peer: String) -> Error {
    timeout("the task's deadline (MC_SLICE_TIMEOUT) passed", peer)
}

/// Nothing has moved, and the peer's control plane is silent too.
pub(super) fn silent(limit: Duration, peer: String) -> Error {
    let text = format!(
        "the peer is stopped, gone or unreachable: nothing moved on the connection for a second, and its handshake port was \
         silent for {} s (MC_TCP_LIVENESS_SEC); submit again when it is back (mte_task_drained tells when no byte of a WRITE \
         arrives any more)",
        limit.as_secs()
    );
    timeout(&text, peer)
}

/// No memory for one more request on a lane.
pub(super) fn no_memory() -> Error {
    Error::out_of_memory("requests that wait for a connection")
}

/// The peer has not answered the request that had its turn.
pub(super) fn unanswered(bytes: u64, allowed: Duration, peer: String) -> Error {
    let text = format!(
        "no answer to a request of {bytes} bytes within {} s (MC_TCP_STATUS_TIMEOUT_SEC, MC_TCP_MIN_RATE); \
         the peer may be stopped or unreachable, and bytes of a WRITE may still arrive there",
        allowed.as_secs()
    );
    timeout(&text, peer)
}

fn timeout(text: &str, peer: String) -> Error {
    Error::new(Code::Socket, text).transient(Class::Timeout).peer(peer)
}

/// Fails requests that nobody sends any more.
pub(super) fn fail_all(requests: Vec<Request>, error: &Error) {
    requests.into_iter().for_each(|request| request.fail(error.clone()));
}
