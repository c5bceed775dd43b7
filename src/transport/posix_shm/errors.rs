//! What requests fail with.

use std::fmt::Display;

use super::kernel::Fault;
use crate::error::{Class, Code, Error};
use crate::transport::slice::{Op, Slice};

/// The link is gone: its segment was closed.
pub(super) fn closed() -> Error {
    Error::new(Code::Socket, "the segment was closed").permanent(Class::Canceled)
}

/// It is not proven that the memory of this host is the peer's.
pub(super) fn not_proven(why: impl Display, peer: &str) -> Error {
    let text = format!(
        "segment '{peer}' is reached by POSIX shared memory of its own host only, and that this is it is not proven: {why}"
    );
    Error::invalid(text).permanent(Class::Unsupported).peer(peer)
}

/// The peer's process has ended, or is another program now.
pub(super) fn ended(pid: u32, peer: &str) -> Error {
    let text = format!(
        "the peer's process {pid} has ended before the request did; its memory is gone, whatever was written to it"
    );
    Error::new(Code::Socket, text).transient(Class::Network).peer(peer)
}

/// The request was checked for another process of the peer.
pub(super) fn restarted(peer: &str) -> Error {
    let text = "the peer restarted after its descriptor was read, and this request was for its predecessor's memory; ask it \
                for its addresses and submit again";
    Error::new(Code::Socket, text).transient(Class::Metadata).peer(peer)
}

/// Looking for the peer took too long.
pub(super) fn not_found_in_time(peer: &str) -> Error {
    let text = "looking for the peer's process on this host took too long; is the metadata store slow?";
    Error::new(Code::Socket, text).transient(Class::Timeout).peer(peer)
}

/// The task has a deadline of its own, which has passed.
pub(super) fn late(peer: &str) -> Error {
    let text = "the task's deadline (MC_SLICE_TIMEOUT) passed";
    Error::new(Code::Socket, text).transient(Class::Timeout).peer(peer)
}

/// The peer does not have the range any more.
pub(super) fn refused(slice: &Slice, peer: &str, why: impl Display) -> Error {
    let text =
        format!("{} bytes at {:#x} are not in shared memory of the peer: {why}", slice.len, slice.remote);
    Error::new(Code::AddressNotRegistered, text).permanent(Class::Rejected).peer(peer)
}

/// What a copy failed with.
pub(super) fn of_fault(fault: &Fault, slice: &Slice, peer: &str) -> Error {
    let side = if slice.op == Op::Read { "written" } else { "read" };
    match fault {
        Fault::Local(addr) => {
            let text = format!(
                "the local buffer at {addr:#x} cannot be {side}, it is not mapped; was it freed before its transfer ended?"
            );
            Error::io(Code::InvalidArgument, text, &std::io::Error::from_raw_os_error(libc::EFAULT))
        }
        Fault::Short => refused(slice, peer, "the peer has made the object shorter"),
        Fault::Limited => {
            let text = format!("{} bytes of the peer's shared memory are behind the limit of this process for files; raise ulimit -f", slice.len);
            Error::new(Code::Memory, text).permanent(Class::Resource).peer(peer)
        }
        Fault::Other(error) => {
            let full = matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::ENOMEM));
            let code = if full { Code::Memory } else { Code::Socket };
            Error::io(code, "the peer's shared memory cannot be accessed", error).peer(peer)
        }
    }
}

/// No memory for one more request.
pub(super) fn no_memory() -> Error {
    Error::out_of_memory("requests that wait")
}
