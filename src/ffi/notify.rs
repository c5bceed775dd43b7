//! Notifications. What C receives and frees comes from malloc.

use std::collections::VecDeque;
use std::ffi::{c_char, c_int};

use super::guard::{guard, out, with_engine};
use super::transfer::notification;
use super::types::{notify_msg_t, transfer_engine_t};
use crate::error::{Error, Result};
use crate::handshake::Notification;

/// Takes all received notifications: an array of *size entries to be given to
/// freeNotifsMsgBuf; NULL and *size 0 when there are none.
#[no_mangle]
pub unsafe extern "C" fn getNotifsFromEngine(
    engine: transfer_engine_t,
    size: *mut c_int,
) -> *mut notify_msg_t {
    if !size.is_null() {
        // SAFETY: a valid pointer by the API's contract.
        unsafe { size.write(0) };
    }
    with_engine(engine, |engine| {
        let size = out(size, "size")?;
        let taken = engine.local().notifications.take();
        match export(&taken) {
            Ok(array) => {
                // SAFETY: as above. The queue's cap keeps the count below 2^31.
                unsafe { size.write(taken.len() as c_int) };
                Ok(array)
            }
            Err(error) => {
                engine.local().notifications.put_back(taken);
                Err(error)
            }
        }
    })
}

fn export(messages: &VecDeque<Notification>) -> Result<*mut notify_msg_t> {
    if messages.is_empty() {
        return Ok(std::ptr::null_mut());
    }
    let none = notify_msg_t { name: std::ptr::null_mut(), msg: std::ptr::null_mut() };
    // SAFETY: plain allocation; `messages` in memory is larger than the array.
    let array =
        unsafe { libc::malloc(messages.len() * std::mem::size_of::<notify_msg_t>()) }.cast::<notify_msg_t>();
    if array.is_null() {
        return Err(Error::out_of_memory("notifications"));
    }
    for (index, message) in messages.iter().enumerate() {
        let entry = notify_msg_t { name: malloc_text(&message.name), msg: malloc_text(&message.message) };
        let failed = entry.name.is_null() || entry.msg.is_null();
        // SAFETY: `index` is inside the array.
        unsafe { array.add(index).write(if failed { none } else { entry }) };
        if failed {
            // SAFETY: all from malloc, or NULL; entries up to `index` are written.
            unsafe {
                libc::free(entry.name.cast());
                libc::free(entry.msg.cast());
                release(array, index);
            }
            return Err(Error::out_of_memory("notifications"));
        }
    }
    Ok(array)
}

/// A C string from malloc, up to the first NUL of `text`; NULL when out of memory.
fn malloc_text(text: &str) -> *mut c_char {
    let bytes = text.as_bytes();
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    // SAFETY: `len + 1` bytes are allocated and exactly those are written.
    unsafe {
        let copy = libc::malloc(len + 1).cast::<c_char>();
        if !copy.is_null() {
            std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), copy, len);
            *copy.add(len) = 0;
        }
        copy
    }
}

/// # Safety
/// `array` is from malloc and has `count` entries whose members are from malloc or NULL.
unsafe fn release(array: *mut notify_msg_t, count: usize) {
    for index in 0..count {
        // SAFETY: the caller's promise.
        unsafe {
            let entry = array.add(index).read();
            libc::free(entry.name.cast());
            libc::free(entry.msg.cast());
        }
    }
    // SAFETY: the caller's promise.
    unsafe { libc::free(array.cast()) };
}

/// Frees what getNotifsFromEngine returned. 0; (NULL, 0) is fine.
#[no_mangle]
pub unsafe extern "C" fn freeNotifsMsgBuf(msg: *mut notify_msg_t, size: c_int) -> c_int {
    guard(|| {
        let bad = || {
            Error::invalid(format!(
                "cannot free {size} notifications: the pointer is NULL or the count negative"
            ))
        };
        let count = usize::try_from(size).map_err(|_| bad())?;
        if msg.is_null() {
            return if count == 0 { Ok(0) } else { Err(bad()) };
        }
        // SAFETY: an array of getNotifsFromEngine with its size, by the API's contract.
        unsafe { release(msg, count) };
        Ok(0)
    })
}

/// Sends a message to the engine that owns a segment and waits for the receipt. 0; -1 a text that is
/// not UTF-8; -200 unknown id or refused; -101, -102, -103 as openSegment.
#[no_mangle]
pub unsafe extern "C" fn genNotifyInEngine(
    engine: transfer_engine_t,
    target_id: u64,
    notify_msg: notify_msg_t,
) -> c_int {
    with_engine(engine, |engine| {
        // SAFETY: C strings by the API's contract.
        engine.notify(target_id, unsafe { notification(&notify_msg) }?)?;
        Ok(0)
    })
}
