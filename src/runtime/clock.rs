//! Whether the system has a clock at all.

#![allow(unsafe_code)]

use crate::error::{Code, Error, Result};

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
