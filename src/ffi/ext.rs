//! `transfer_engine_ext.h`: what upstream's C API has no way to ask.
// Constants and structs that only the generated headers use.
#![allow(dead_code)]

use std::ffi::{c_char, c_int, CString};
use std::time::Duration;

use super::guard::{copy_field, copy_text, last_error, out, with_engine};
use super::types::{batch_id_t, segment_id_t, transfer_engine_t};
use crate::engine::deliveries::Delivery;
use crate::error::{codes, describe, Error};
use crate::runtime::per_process::PerProcess;

/// The caller passed something wrong.
pub const MTE_CLASS_ARGUMENT: c_int = 1;
/// A limit of this process or machine.
pub const MTE_CLASS_RESOURCE: c_int = 2;
/// Connecting, sending or receiving failed.
pub const MTE_CLASS_NETWORK: c_int = 3;
/// A deadline passed.
pub const MTE_CLASS_TIMEOUT: c_int = 4;
/// The peer understood and refused.
pub const MTE_CLASS_REJECTED: c_int = 5;
/// The peer sent something that is not the protocol.
pub const MTE_CLASS_PROTOCOL: c_int = 6;
/// The metadata store or descriptor exchange failed.
pub const MTE_CLASS_METADATA: c_int = 7;
/// A NIC or its driver failed, or none is usable.
pub const MTE_CLASS_DEVICE: c_int = 8;
/// The batch was canceled, the engine destroyed, or the region unregistered, meanwhile.
pub const MTE_CLASS_CANCELED: c_int = 9;
/// This build does not have it.
pub const MTE_CLASS_UNSUPPORTED: c_int = 10;
/// A bug of the library.
pub const MTE_CLASS_INTERNAL: c_int = 11;

/// Why a task failed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mte_task_error_info {
    /// Code of error.h; 0 when the task has not failed.
    pub code: c_int,
    /// MTE_CLASS_*; 0 when the task has not failed.
    pub error_class: c_int,
    /// 1 when the same request may succeed later.
    pub retryable: c_int,
    /// errno of the operating system, or 0.
    pub os_errno: c_int,
    /// Peer's name or address, or "".
    pub peer: [c_char; 128],
    /// What happened where and what to do, NUL-terminated.
    pub text: [c_char; 512],
}

/// A buffer of an open segment.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mte_buffer {
    /// First byte in the peer, for target_offset.
    pub addr: u64,
    /// Bytes.
    pub length: u64,
    /// Location or name that the peer published, NUL-terminated.
    pub location: [c_char; 64],
}

/// `struct mte_task_error_info`.
pub type mte_task_error_info_t = mte_task_error_info;
/// `struct mte_buffer`.
pub type mte_buffer_t = mte_buffer;

/// Code of this thread's last failed call, 0 if none failed. Its full text is copied into buf,
/// truncated to len with a NUL; buf may be NULL. Success does not clear it.
#[no_mangle]
pub unsafe extern "C" fn mte_last_error(buf: *mut c_char, len: usize) -> c_int {
    let last = last_error();
    if !buf.is_null() && len > 0 {
        let text = last.as_ref().map(Error::to_string).unwrap_or_default();
        // SAFETY: the caller provides `len` bytes.
        unsafe { copy_text(&text, buf, len) };
    }
    last.map_or(0, |error| error.code() as c_int)
}

/// As mte_last_error, with what else is known of this thread's last failed call: class, retryable, errno, peer. Fills *info as
/// mte_task_error does, with code 0 if no call failed; info may be NULL.
#[no_mangle]
pub unsafe extern "C" fn mte_last_error_info(info: *mut mte_task_error_info_t) -> c_int {
    let filled = error_info(last_error().as_ref());
    if !info.is_null() {
        // SAFETY: a valid pointer by the API's contract.
        unsafe { info.write(filled) };
    }
    filled.code
}

/// The phrase for a code of error.h. Static.
#[no_mangle]
pub extern "C" fn mte_strerror(code: c_int) -> *const c_char {
    static PHRASES: PerProcess<Vec<(i32, CString)>> = PerProcess::new(|| {
        let values = codes::TABLE.iter().map(|row| row.value).chain([0, i32::MIN]);
        values.map(|value| (value, CString::new(describe(value)).unwrap_or_default())).collect()
    });
    let phrases = PHRASES.get();
    let known = phrases.iter().find(|(value, _)| *value == code);
    known.or(phrases.last()).map_or(c"".as_ptr(), |(_, phrase)| phrase.as_ptr())
}

/// Version of the library, "major.minor.patch". Static.
#[no_mangle]
pub extern "C" fn mte_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Fills *info with why a task failed (code 0 if it has not). 0; -1 no such task.
#[no_mangle]
pub unsafe extern "C" fn mte_task_error(
    engine: transfer_engine_t,
    batch_id: batch_id_t,
    task_id: usize,
    info: *mut mte_task_error_info_t,
) -> c_int {
    with_engine(engine, |engine| {
        let info = out(info, "info")?;
        let filled = error_info(engine.task_error(batch_id, task_id)?.as_ref());
        // SAFETY: a valid pointer by the API's contract.
        unsafe { info.write(filled) };
        Ok(0)
    })
}

/// The batch has no notification.
pub const MTE_NOTIFICATION_NONE: c_int = 0;
/// Tasks of the batch are running, or one failed: then it is never sent. A poll that sees the last task end sends it.
pub const MTE_NOTIFICATION_HELD: c_int = 1;
/// It is on its way.
pub const MTE_NOTIFICATION_SENDING: c_int = 2;
/// The target has taken it.
pub const MTE_NOTIFICATION_DELIVERED: c_int = 3;
/// It was not taken; *info says why.
pub const MTE_NOTIFICATION_LOST: c_int = 4;

/// Sets *state to MTE_NOTIFICATION_*, what became of the last notification of submitTransferWithNotify for this batch. The
/// call that sees the batch end only starts to send it. info may be NULL; else it is filled as by mte_task_error, with
/// code 0 unless the notification is lost. 0; -1 no such batch.
#[no_mangle]
pub unsafe extern "C" fn mte_batch_notification(
    engine: transfer_engine_t,
    batch_id: batch_id_t,
    state: *mut c_int,
    info: *mut mte_task_error_info_t,
) -> c_int {
    with_engine(engine, |engine| {
        let state = out(state, "state")?;
        let delivery = engine.batch_delivery(batch_id)?;
        let (number, error) = match &delivery {
            Delivery::None => (MTE_NOTIFICATION_NONE, None),
            Delivery::Held => (MTE_NOTIFICATION_HELD, None),
            Delivery::Sending => (MTE_NOTIFICATION_SENDING, None),
            Delivery::Delivered => (MTE_NOTIFICATION_DELIVERED, None),
            Delivery::Lost(error) => (MTE_NOTIFICATION_LOST, Some(error)),
        };
        if !info.is_null() {
            // SAFETY: a valid pointer by the API's contract.
            unsafe { info.write(error_info(error)) };
        }
        // SAFETY: as above.
        unsafe { state.write(number) };
        Ok(0)
    })
}

/// What C is told of a failure; all zero without one.
pub(super) fn error_info(error: Option<&Error>) -> mte_task_error_info_t {
    let mut filled = mte_task_error_info {
        code: 0,
        error_class: 0,
        retryable: 0,
        os_errno: 0,
        peer: [0; 128],
        text: [0; 512],
    };
    if let Some(error) = error {
        filled.code = error.code() as c_int;
        filled.error_class = error.kind() as c_int;
        filled.retryable = error.retryable().into();
        filled.os_errno = error.errno();
        copy_field(error.peer_name(), &mut filled.peer);
        copy_field(error.text(), &mut filled.text);
    }
    filled
}

/// Sleeps until every task of the batch is COMPLETED or FAILED. Counts as a poll. timeout_ms < 0: no
/// limit but the tasks' own deadlines. 0; -4 when the time-out passed first; -1.
#[no_mangle]
pub unsafe extern "C" fn mte_wait_batch(
    engine: transfer_engine_t,
    batch_id: batch_id_t,
    timeout_ms: i64,
) -> c_int {
    with_engine(engine, |engine| {
        engine.wait_batch(batch_id, u64::try_from(timeout_ms).ok().map(Duration::from_millis))?;
        Ok(0)
    })
}

/// Gives a descriptor for poll(2) that is readable while every submitted task of the batch is
/// COMPLETED or FAILED. Owned by the engine: do not read or close it; dead once the batch is
/// freed. 0, or -1.
#[no_mangle]
pub unsafe extern "C" fn mte_batch_fd(
    engine: transfer_engine_t,
    batch_id: batch_id_t,
    fd: *mut c_int,
) -> c_int {
    with_engine(engine, |engine| {
        let fd = out(fd, "fd")?;
        // SAFETY: a valid pointer by the API's contract.
        unsafe { fd.write(engine.batch_fd(batch_id)?) };
        Ok(0)
    })
}

/// Copies up to *count buffers of an open segment into buffers and sets *count to how many there
/// are. buffers may be NULL when *count is 0. 0, or -1.
#[no_mangle]
pub unsafe extern "C" fn mte_segment_buffers(
    engine: transfer_engine_t,
    segment_id: segment_id_t,
    buffers: *mut mte_buffer_t,
    count: *mut usize,
) -> c_int {
    with_engine(engine, |engine| {
        let count = out(count, "count")?;
        // SAFETY: a valid pointer by the API's contract.
        let room = unsafe { count.read() };
        if room > 0 {
            out(buffers, "buffers")?;
        }
        let mut index = 0;
        let found = engine.segment_buffers(segment_id, |addr, length, location| {
            if index < room {
                let mut buffer = mte_buffer { addr, length, location: [0; 64] };
                copy_field(location, &mut buffer.location);
                // SAFETY: the caller provides room for `room` buffers.
                unsafe { buffers.add(index).write(buffer) };
            }
            index += 1;
        })?;
        // SAFETY: as above.
        unsafe { count.write(found) };
        Ok(0)
    })
}
