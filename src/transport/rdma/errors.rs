//! Errors that several files of the transport report.

use super::flight::Loss;
use super::verbs::wc_status_text;
use crate::error::{Class, Code, Error};

/// The error that a completion on the rail `name` to `peer` stands for; `None` for a flush, which is a consequence.
pub(super) fn completion_error(name: &str, peer: &str, loss: Loss) -> Option<Error> {
    let Loss::Completion(status, vendor) = loss else { return None };
    let text = format!("{name} ended with {} (vendor code {vendor:#x})", wc_status_text(status));
    Some(Error::new(Code::Endpoint, text).transient(Class::Network).peer(peer))
}

/// Why nothing is posted any more.
pub(super) fn destroyed() -> Error {
    Error::new(Code::Endpoint, "the engine is being destroyed").permanent(Class::Canceled)
}

/// The deadline passed, after `cause` or without any cause.
pub(super) fn timed_out(cause: &Error) -> Error {
    let text =
        format!("not done in time (MC_SLICE_TIMEOUT, MC_RDMA_TASK_TIMEOUT_SEC); last: {}", cause.text());
    Error::new(cause.code(), text).transient(Class::Timeout).peer(cause.peer_name())
}

/// Why a connection is stopped that nobody waits for any more.
pub(super) fn unwanted() -> Error {
    Error::new(Code::Endpoint, "the attempt to connect was over before").transient(Class::Canceled)
}
