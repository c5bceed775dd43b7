//! What every export does around its one call: stop panics, remember the last error of the
//! thread, turn results into what C expects, and check what C passes.

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void, CStr};
use std::panic::{catch_unwind, AssertUnwindSafe};

use super::types::{transfer_engine_t, INVALID_BATCH};
use crate::engine::{handles, Inside};
use crate::error::{Class, Code, Error, Result};

/// Most bytes of a name. Chosen: none is a hundredth as long, and so the library may copy names, and repeat them in messages,
/// without a thought for memory.
const LONGEST_NAME: usize = 16 << 10;

/// A list that takes more is believed only if that much memory could be had once more. Chosen: 25 million requests.
const PLAUSIBLE: usize = 1 << 30;

thread_local!(static LAST: RefCell<Option<Error>> = const { RefCell::new(None) });

/// A C return type and what it is on failure.
pub(super) trait Return {
    /// The value that says "failed".
    fn failed(code: Code) -> Self;
}

impl Return for i32 {
    fn failed(code: Code) -> Self {
        code as i32
    }
}

impl Return for u64 {
    fn failed(_: Code) -> Self {
        INVALID_BATCH
    }
}

impl<T> Return for *mut T {
    fn failed(_: Code) -> Self {
        std::ptr::null_mut()
    }
}

impl Return for () {
    fn failed(_: Code) -> Self {}
}

/// Runs the body of an export.
pub(super) fn guard<T: Return>(body: impl FnOnce() -> Result<T>) -> T {
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        let text =
            "a bug in the library was stopped at the C boundary; destroy the engine and report the log";
        Err(Error::invalid(text).permanent(Class::Internal))
    });
    result.unwrap_or_else(|error| {
        let code = error.code();
        // During thread exit the cell may be gone; the code is still returned.
        let _ = LAST.try_with(|last| last.replace(Some(error)));
        T::failed(code)
    })
}

/// Runs the body of an export with its engine.
pub(super) fn with_engine<T: Return>(
    engine: transfer_engine_t,
    body: impl FnOnce(&Inside) -> Result<T>,
) -> T {
    guard(|| body(&handles::enter(engine as u64)?))
}

/// The last failure of this thread.
pub(super) fn last_error() -> Option<Error> {
    LAST.try_with(|last| last.borrow().clone()).ok().flatten()
}

/// A C string as text; -1 if it is NULL or not UTF-8.
///
/// # Safety
/// `text` is NULL or points to a NUL-terminated string.
pub(super) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str> {
    if text.is_null() {
        return Err(null(what));
    }
    // SAFETY: not NULL, and NUL-terminated by the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Error::invalid(format!("{what} is not UTF-8")))
}

/// A name, an address or a location as text; -1 if it is NULL, not UTF-8 or longer than [`LONGEST_NAME`].
///
/// # Safety
/// As [`text`].
pub(super) unsafe fn name<'a>(name: *const c_char, what: &str) -> Result<&'a str> {
    // SAFETY: the caller's promise.
    let name = unsafe { text(name, what) }?;
    if name.len() > LONGEST_NAME {
        let text = format!("{what} has {} bytes, more than {LONGEST_NAME}", name.len());
        return Err(Error::invalid(text));
    }
    Ok(name)
}

/// An array that C passes; NULL is fine when it is empty.
///
/// # Safety
/// `list` is NULL or points to `count` values that stay unchanged during the call.
pub(super) unsafe fn list<'a, T>(list: *const T, count: usize, what: &str) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if list.is_null() || !list.is_aligned() {
        return Err(Error::invalid(format!("{what} is NULL or misaligned but has {count} entries")));
    }
    let bytes = count.checked_mul(std::mem::size_of::<T>()).filter(|bytes| *bytes <= isize::MAX as usize);
    if !bytes.is_some_and(|bytes| bytes <= PLAUSIBLE || Vec::<u8>::new().try_reserve_exact(bytes).is_ok()) {
        return Err(Error::out_of_memory(&format!("{what} with {count} entries")));
    }
    // SAFETY: not NULL, aligned, of possible size, and valid by the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(list, count) })
}

/// An out-parameter; -1 if it is NULL.
pub(super) fn out<T>(pointer: *mut T, what: &str) -> Result<*mut T> {
    if pointer.is_null() {
        return Err(null(what));
    }
    Ok(pointer)
}

/// Copies `text` into a buffer of `len` bytes, truncated, with a NUL.
///
/// # Safety
/// `buf` points to `len` writable bytes; `len` is not 0.
pub(super) unsafe fn copy_text(text: &str, buf: *mut c_char, len: usize) {
    let count = fitting(text, len - 1);
    // SAFETY: `count` bytes and a NUL fit into `len`, by the caller's promise.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), buf, count);
        *buf.add(count) = 0;
    }
}

/// Gives a text of any length to C: copies up to `*len` bytes of it into `buf`, truncated, with a NUL, and sets `*len` to what
/// the whole takes, the NUL included. `buf` may be NULL when `*len` is 0.
///
/// # Safety
/// `len` is NULL or points to a writable value; `buf` points to that many writable bytes.
pub(super) unsafe fn whole_text(text: &str, buf: *mut c_char, len: *mut usize) -> Result<c_int> {
    let len = out(len, "len")?;
    // SAFETY: the caller's promise.
    let room = unsafe { len.read() };
    if room > 0 {
        // SAFETY: the caller provides `room` bytes.
        unsafe { copy_text(text, out(buf, "buf")?, room) };
    }
    // SAFETY: the caller's promise.
    unsafe { len.write(text.len() + 1) };
    Ok(0)
}

/// A text that C may leave out: NULL is "".
///
/// # Safety
/// As [`text`].
pub(super) unsafe fn optional<'a>(given: *const c_char, what: &str) -> Result<&'a str> {
    if given.is_null() {
        return Ok("");
    }
    // SAFETY: the caller's promise.
    unsafe { name(given, what) }
}

/// Copies `text` into a fixed field, truncated, with a NUL.
pub(super) fn copy_field<const N: usize>(text: &str, field: &mut [c_char; N]) {
    let bytes = text.bytes().take(fitting(text, N - 1)).chain(std::iter::once(0));
    field.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte as c_char);
}

/// How many bytes of `text` fit into `room` without cutting a character.
fn fitting(text: &str, room: usize) -> usize {
    let most = text.len().min(room);
    (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0)
}

fn null(what: &str) -> Error {
    Error::invalid(format!("{what} is NULL"))
}

/// A token as the handle that C keeps.
pub(super) fn handle(token: u64) -> *mut c_void {
    token as *mut c_void
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_cut_is_still_a_text() {
        for (room, fits) in [(0, 0), (1, 1), (2, 1), (3, 3), (4, 3), (5, 3), (6, 6), (99, 6)] {
            assert_eq!(fitting("a\u{e4}\u{20ac}", room), fits, "{room}");
        }
        let mut field = [1; 3];
        copy_field("\u{20ac}", &mut field);
        assert_eq!(field[0], 0);
    }
}
