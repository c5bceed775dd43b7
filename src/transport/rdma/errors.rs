//! Errors that several files of the transport report.

use super::flight::Loss;
use super::verbs::wc_status_text;
use crate::error::{Class, Code, Error};

/// The error that a completion on the rail `name` to `peer` stands for; `None` for a flight that had no completion with
/// an error of its own.
pub(super) fn completion_error(name: &str, peer: &str, loss: Loss) -> Option<Error> {
    let Loss::Completion(status, vendor) = loss else { return None };
    let text = format!("{name} ended with {} (vendor code {vendor:#x})", wc_status_text(status));
    Some(Error::new(Code::Endpoint, text).transient(Class::Network).peer(peer).rail(name))
}

/// Why nothing is posted any more.
pub(super) fn destroyed() -> Error {
    Error::new(Code::Endpoint, "the engine is being destroyed").permanent(Class::Canceled)
}

/// The deadline passed; `cause` is the last failure before.
pub(super) fn timed_out(cause: &Error) -> Error {
    let text = format!(
        "not done in time (MC_SLICE_TIMEOUT, MC_RDMA_TASK_TIMEOUT_SEC); last failure: {}",
        cause.text()
    );
    Error::new(cause.code(), text).transient(Class::Timeout).peer(cause.peer_name()).rail(cause.rail_name())
}

/// Why a connection that nobody waits for any more is stopped.
pub(super) fn unwanted() -> Error {
    Error::new(Code::Endpoint, "the attempt to connect had ended before").transient(Class::Canceled)
}
