//! Sleeping until one of several descriptors is readable.

#![allow(unsafe_code)]

use std::os::fd::RawFd;

/// Sleeps until one of `fds` is readable or `timeout_ms` passed; says which of them are.
pub fn readable<const N: usize>(fds: [RawFd; N], timeout_ms: i32) -> [bool; N] {
    let mut polled = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    // SAFETY: `polled` has N entries and outlives the call.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, timeout_ms) };
    polled.map(|entry| ready > 0 && entry.revents != 0)
}
