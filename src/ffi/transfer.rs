//! Batches and transfers.

use std::ffi::c_int;

use super::guard::{guard, list, out, text, with_engine};
use super::types::{batch_id_t, notify_msg_t, transfer_engine_t, transfer_request, transfer_status};
use crate::engine::submit::Request;
use crate::engine::{glance, handles, Inside};
use crate::error::{Code, Error, Result};
use crate::handshake::Notification;
use crate::runtime::headroom;

/// Makes a batch for batch_size tasks. INVALID_BATCH on failure.
#[no_mangle]
pub unsafe extern "C" fn allocateBatchID(engine: transfer_engine_t, batch_size: usize) -> batch_id_t {
    with_engine(engine, |engine| engine.allocate_batch(batch_size))
}

/// Adds count tasks to the batch and starts them; task ids go on from the previous submit.
/// Either all are accepted (0) or none: -1 bad batch, target or opcode; -2 too many; -3 source
/// or target range not registered; -6 target needs RDMA. The entries are copied; the local
/// buffers must stay valid until their task is COMPLETED or FAILED.
#[no_mangle]
pub unsafe extern "C" fn submitTransfer(
    engine: transfer_engine_t,
    batch_id: batch_id_t,
    entries: *mut transfer_request,
    count: usize,
) -> c_int {
    // SAFETY: an array of `count` entries by the API's contract.
    with_engine(engine, |engine| unsafe { submit(engine, batch_id, entries, count, None) })
}

/// As submitTransfer; in addition notify_msg is sent to the first entry's target once, by the
/// poll that sees every task of the batch COMPLETED. Both texts are UTF-8, else -1.
#[no_mangle]
pub unsafe extern "C" fn submitTransferWithNotify(
    engine: transfer_engine_t,
    batch_id: batch_id_t,
    entries: *mut transfer_request,
    count: usize,
    notify_msg: notify_msg_t,
) -> c_int {
    with_engine(engine, |engine| {
        if count == 0 {
            return Err(no_target());
        }
        // SAFETY: C strings by the API's contract.
        let notification = unsafe { notification(&notify_msg) }?;
        // SAFETY: an array of `count` entries by the API's contract.
        unsafe { submit(engine, batch_id, entries, count, Some(notification)) }
    })
}

/// Of a submit call with a notification and without requests.
pub(super) fn no_target() -> Error {
    Error::invalid("a notification needs at least one request: its target is notified")
}

/// # Safety
/// `entries` is NULL or points to `count` entries.
unsafe fn submit(
    engine: &Inside,
    batch_id: u64,
    entries: *mut transfer_request,
    count: usize,
    notification: Option<Notification>,
) -> Result<c_int> {
    // SAFETY: the caller's promise.
    let entries = match unsafe { list(entries, count, "entries") } {
        // More than memory can hold is more than any batch has room for, which the engine says.
        Err(error) if error.code() == Code::Memory => &[],
        listed => listed?,
    };
    let entry = |index: usize| {
        let transfer_request { opcode, source, target_id, target_offset, length } = entries[index];
        Request { opcode, source: source as u64, target: target_id, offset: target_offset, len: length }
    };
    engine.submit(batch_id, count, entry, notification)?;
    Ok(0)
}

/// Copies a message that C passes; -1 unless both texts are UTF-8, because what travels is JSON, which has no other texts. -302
/// if they do not fit.
///
/// # Safety
/// Both members are NULL or C strings.
pub unsafe fn notification(message: &notify_msg_t) -> Result<Notification> {
    // SAFETY: the caller's promise.
    let name = unsafe { text(message.name, "notification name") }?;
    // SAFETY: the caller's promise.
    let message = unsafe { text(message.msg, "notification msg") }?;
    let copy = |text| headroom::copy(text, "a notification");
    Ok(Notification { name: copy(name)?, message: copy(message)? })
}

/// Fills *status with the state of a task and moves data along. 0; -1 no such task, and *status
/// is untouched.
#[no_mangle]
pub unsafe extern "C" fn getTransferStatus(
    engine: transfer_engine_t,
    batch_id: batch_id_t,
    task_id: usize,
    status: *mut transfer_status,
) -> c_int {
    let put = |status: *mut transfer_status, (number, transferred_bytes)| {
        // SAFETY: a valid pointer by the API's contract.
        unsafe { status.write(transfer_status { status: number, transferred_bytes }) };
    };
    // Most of all calls end here, so they get no guard: nothing in them can panic.
    if let Some(found) = glance::completed(engine as u64, batch_id, task_id).filter(|_| !status.is_null()) {
        put(status, found);
        return 0;
    }
    guard(|| {
        let status = out(status, "status")?;
        put(status, handles::task_status(engine as u64, batch_id, task_id)?);
        Ok(0)
    })
}

/// Frees a batch whose tasks are all COMPLETED or FAILED. 0; -4 some still run; -1 unknown id.
#[no_mangle]
pub unsafe extern "C" fn freeBatchID(engine: transfer_engine_t, batch_id: batch_id_t) -> c_int {
    with_engine(engine, |engine| {
        engine.free_batch(batch_id)?;
        Ok(0)
    })
}
