//! The monotonic clock, and whether the system has one at all.

#![allow(unsafe_code)]

use crate::error::{Code, Error, Result};

/// Nanoseconds of the monotonic clock, which [`std::time::Instant`] reads too; 0 if there is none.
pub fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// `ERR_CLOCK` if the monotonic clock cannot be read. The standard library panics then, so whoever is about to use
/// [`std::time::Instant`] for the first time asks here first.
pub fn probe() -> Result<()> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` outlives the call.
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) } != 0 {
        return Err(Error::new(Code::Clock, "clock_gettime(CLOCK_MONOTONIC) does not work on this system"));
    }
    Ok(())
}
