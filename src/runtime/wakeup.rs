//! An eventfd: wakes a sleeping thread of ours, or a caller's own event loop.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// An eventfd: a counter that wakes a sleeping thread or a caller's poll loop.
pub struct Wakeup(OwnedFd);

impl Wakeup {
    /// A new counter at 0, closed on exec.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call has no memory arguments.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(Wakeup(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The descriptor; readable while the counter is not 0.
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Makes it readable.
    pub fn set(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes are read from a live array.
        unsafe { libc::write(self.fd(), one.as_ptr().cast(), 8) };
    }

    /// Makes it unreadable.
    pub fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight bytes are written to a live array.
        unsafe { libc::read(self.fd(), count.as_mut_ptr().cast(), 8) };
    }
}
