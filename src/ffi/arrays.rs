//! `transfer_engine_ext.h`, requests as three parallel arrays, and transfers in one call.

use std::ffi::{c_char, c_int};
use std::time::Duration;

use super::ext::{error_info, mte_task_error_info_t};
use super::guard::{last_error, list, optional, with_engine};
use super::transfer::{no_target, notification};
use super::types::{batch_id_t, notify_msg_t, segment_id_t, transfer_engine_t};
use crate::engine::submit::Request;
use crate::engine::Inside;
use crate::error::Result;

/// As submitTransfer, for requests that have one target and one opcode: request i moves `lengths[i]` bytes between `sources[i]`,
/// a local address, and `target_offsets[i]`. The arrays may be used for something else when the call returns.
///
/// nic: NULL or "": RDMA chooses by topology. Else the local NICs, separated by commas, that RDMA uses as long as one of them
/// works; -1 for a name that is none of the engine's. TCP takes any. notify: NULL, or a notification as that of
/// submitTransferWithNotify.
#[no_mangle]
pub unsafe extern "C" fn mte_submit_arrays(
    engine: transfer_engine_t,
    batch_id: batch_id_t,
    target_id: segment_id_t,
    opcode: c_int,
    sources: *const u64,
    target_offsets: *const u64,
    lengths: *const u64,
    count: usize,
    nic: *const c_char,
    notify: *const notify_msg_t,
) -> c_int {
    with_engine(engine, |engine| {
        // SAFETY: arrays of `count` numbers by the API's contract.
        let entry = unsafe { requests(target_id, opcode, sources, target_offsets, lengths, count) }?;
        // SAFETY: NULL or a valid pointer by the API's contract.
        let notification = match unsafe { notify.as_ref() } {
            Some(_) if count == 0 => return Err(no_target()),
            // SAFETY: C strings by the API's contract.
            Some(message) => Some(unsafe { notification(message) }?),
            None => None,
        };
        // SAFETY: a C string by the API's contract.
        engine.submit_over(batch_id, count, entry, notification, unsafe { chosen(nic) }?)?;
        Ok(0)
    })
}

/// A transfer in one call: makes a batch, submits as mte_submit_arrays does, waits until every task has ended, frees the batch.
/// On return the local ranges are not touched any more, whatever the result.
///
/// timeout_ms < 0: no limit but the tasks' own deadlines; else what runs after that time is canceled. info: NULL, or filled as
/// by mte_task_error, with the failure that the result is the code of. 0; the code of the first task that failed, or of the
/// submit.
#[no_mangle]
pub unsafe extern "C" fn mte_transfer_arrays(
    engine: transfer_engine_t,
    target_id: segment_id_t,
    opcode: c_int,
    sources: *const u64,
    target_offsets: *const u64,
    lengths: *const u64,
    count: usize,
    nic: *const c_char,
    timeout_ms: i64,
    info: *mut mte_task_error_info_t,
) -> c_int {
    let transfer = |engine: &Inside| {
        // SAFETY: arrays of `count` numbers by the API's contract.
        let entry = unsafe { requests(target_id, opcode, sources, target_offsets, lengths, count) }?;
        // SAFETY: a C string by the API's contract.
        engine.transfer(count, 0, entry, unsafe { chosen(nic) }?, limit(timeout_ms))
    };
    // SAFETY: NULL or a valid pointer by the API's contract.
    unsafe { told(engine, transfer, info) }
}

/// # Safety
/// Each array is NULL or has `count` numbers that stay unchanged during the call.
pub(super) unsafe fn requests<'a>(
    target: segment_id_t,
    opcode: c_int,
    sources: *const u64,
    offsets: *const u64,
    lengths: *const u64,
    count: usize,
) -> Result<impl Fn(usize) -> Request + 'a> {
    // SAFETY: the caller's promise.
    let (sources, offsets, lengths) = unsafe {
        (
            list(sources, count, "sources")?,
            list(offsets, count, "target_offsets")?,
            list(lengths, count, "lengths")?,
        )
    };
    Ok(move |index: usize| Request {
        opcode,
        source: sources[index],
        target,
        offset: offsets[index],
        len: lengths[index],
    })
}

/// The NICs that a caller wants; `None` if it does not care.
///
/// # Safety
/// `nic` is NULL or a C string.
pub(super) unsafe fn chosen<'a>(nic: *const c_char) -> Result<Option<&'a str>> {
    // SAFETY: the caller's promise.
    let names = unsafe { optional(nic, "nic") }?;
    Ok(Some(names).filter(|names| !names.is_empty()))
}

/// A time-out that C passes; `None` for no limit.
pub(super) fn limit(timeout_ms: i64) -> Option<Duration> {
    u64::try_from(timeout_ms).ok().map(Duration::from_millis)
}

/// Has an engine do a transfer, and fills `info` with why it failed, if it did.
///
/// # Safety
/// `info` is NULL or writable.
pub(super) unsafe fn told(
    engine: transfer_engine_t,
    transfer: impl FnOnce(&Inside) -> Result<()>,
    info: *mut mte_task_error_info_t,
) -> c_int {
    let code = with_engine(engine, |engine| transfer(engine).map(|()| 0));
    if !info.is_null() {
        let failed = if code == 0 { None } else { last_error() };
        // SAFETY: the caller's promise.
        unsafe { info.write(error_info(failed.as_ref())) };
    }
    code
}
