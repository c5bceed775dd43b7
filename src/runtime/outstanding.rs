//! How much of what was written to a socket its peer has acknowledged; the standard library does not tell.

#![allow(unsafe_code)]

use std::os::fd::RawFd;

/// Bytes that were written to a TCP socket and that the peer has not acknowledged yet; 0 if that cannot be told.
pub fn unacknowledged(fd: RawFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which has the number of TIOCOUTQ, writes one int to the live place.
    let failed = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &mut bytes) } != 0;
    if failed {
        0
    } else {
        usize::try_from(bytes).unwrap_or(0)
    }
}
