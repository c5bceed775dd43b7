//! What requests fail with.

use std::time::Duration;

use super::pull::Loss;
use crate::error::{Class, Code, Error};
use crate::memory::Region;
use crate::transport::slice::{Op, Slice};

/// The link is gone: its segment was closed.
pub(super) fn closed() -> Error {
    Error::new(Code::Socket, "the segment was closed").permanent(Class::Canceled)
}

/// The region was revoked.
pub(super) fn unregistered(region: &Region) -> Error {
    let text = format!("the region at {:#x} was unregistered while a request was running", region.addr);
    Error::new(Code::AddressNotRegistered, text).permanent(Class::Canceled)
}

/// The peer says what no engine of this project says.
pub(super) fn nonsense(peer: &str) -> Error {
    let text = "the peer on this host sent what is no answer";
    Error::new(Code::Socket, text).permanent(Class::Protocol).peer(peer)
}

/// The connection leads to another incarnation of the peer than the one that the request was checked for.
pub(super) fn restarted(peer: &str) -> Error {
    let text = "the peer restarted after its descriptor was read, and this request was for its predecessor's memory; ask it \
                for its addresses and submit again";
    Error::new(Code::Socket, text).transient(Class::Metadata).peer(peer)
}

/// The task has a deadline of its own, which has passed.
pub(super) fn late(peer: &str) -> Error {
    timeout("the task's deadline (MC_SLICE_TIMEOUT) passed".into(), peer)
}

/// Nothing has come from the peer, and its control plane is silent too.
pub(super) fn silent(limit: Duration, peer: &str) -> Error {
    let text = format!(
        "the peer is stopped: it pulled nothing for a second, and its handshake port was silent for {} s (MC_TCP_LIVENESS_SEC); \
         submit again when it goes on (mte_task_drained tells when it pulls no byte of a WRITE any more)",
        limit.as_secs()
    );
    timeout(text, peer)
}

/// Nothing has come from the peer for as long as it may take.
pub(super) fn unanswered(allowed: Duration, peer: &str) -> Error {
    let text = format!(
        "the peer has pulled nothing for {} s (MC_TCP_STATUS_TIMEOUT_SEC), and may still do so",
        allowed.as_secs()
    );
    timeout(text, peer)
}

/// The connection has ended.
pub(super) fn hung_up(peer: &str) -> Error {
    let text = "the peer on this host has ended, or given up the connection, before the request ended";
    Error::new(Code::Socket, text).peer(peer)
}

/// No memory for one more request.
pub(super) fn no_memory() -> Error {
    Error::out_of_memory("requests that wait for a connection")
}

/// The peer refuses the range.
pub(super) fn refused(slice: &Slice, peer: &str) -> Error {
    let text = format!(
        "the peer refused {} bytes at {:#x}: not inside one region that is open to peers there",
        slice.len, slice.remote
    );
    Error::new(Code::AddressNotRegistered, text).permanent(Class::Rejected).peer(peer)
}

/// The peer's range is registered and not mapped.
pub(super) fn unmapped_there(slice: &Slice, peer: &str) -> Error {
    let text = format!(
        "the peer refused {} bytes at {:#x}: registered there, but not mapped any more; it has to unregister memory before freeing it",
        slice.len, slice.remote
    );
    Error::new(Code::AddressNotRegistered, text).permanent(Class::Rejected).peer(peer)
}

/// Our range is not mapped.
pub(super) fn unmapped_here(slice: &Slice) -> Error {
    let (side, len, local) = (if slice.op == Op::Read { "written" } else { "read" }, slice.len, slice.local);
    let fault = std::io::Error::from_raw_os_error(libc::EFAULT);
    let text = format!(
        "the local buffer of {len} bytes at {local:#x} cannot be {side}, it is not mapped; was it freed before its transfer ended?"
    );
    Error::io(Code::InvalidArgument, text, &fault)
}

/// What a READ fails with whose pull failed.
pub(super) fn of_loss(loss: Loss, slice: &Slice, peer: &str) -> Error {
    match loss {
        Loss::Theirs => unmapped_there(slice, peer),
        Loss::Ours => unmapped_here(slice),
        Loss::Stale => refused(slice, peer),
        Loss::Gone(_) => hung_up(peer),
    }
}

fn timeout(text: String, peer: &str) -> Error {
    Error::new(Code::Socket, text).transient(Class::Timeout).peer(peer)
}
