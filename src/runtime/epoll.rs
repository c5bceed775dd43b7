//! An epoll instance: tells a data-plane thread which descriptors are ready.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Interest: something can be received, or the peer has ended.
pub const IN: u32 = libc::EPOLLIN as u32;
/// Interest: something can be sent.
pub const OUT: u32 = libc::EPOLLOUT as u32;
/// Interest: the peer sends nothing any more.
pub const RDHUP: u32 = libc::EPOLLRDHUP as u32;
/// Told without being asked for: the connection has failed.
pub const ERR: u32 = libc::EPOLLERR as u32;
/// After one event the descriptor is watched for nothing, until that is changed.
pub const ONESHOT: u32 = libc::EPOLLONESHOT as u32;

/// Readiness of descriptors, each with a 64-bit token.
pub struct Epoll(OwnedFd);

/// One event: token and readiness bits.
pub type Event = libc::epoll_event;

impl Epoll {
    /// A new instance, closed on exec.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call has no memory arguments.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Watches `fd` for `interest`.
    pub fn add(&self, fd: RawFd, token: u64, interest: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, interest)
    }

    /// Changes what `fd` is watched for. Fails only for one that is not watched, and [`Epoll::add`] came before.
    pub fn modify(&self, fd: RawFd, token: u64, interest: u32) {
        let _ = self.control(libc::EPOLL_CTL_MOD, fd, token, interest);
    }

    /// No longer watches `fd`; has to come before it is closed, because a child may have a copy.
    pub fn remove(&self, fd: RawFd) {
        // Fails only for one that is not watched, and that is what is wanted.
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, 0);
    }

    /// Sleeps until something is ready or `timeout_ms` (-1: no limit) passes, and says how many events there are.
    pub fn wait(&self, events: &mut [Event], timeout_ms: i32) -> usize {
        // SAFETY: the kernel fills at most `events.len()` entries of the slice.
        let n = unsafe {
            libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, timeout_ms)
        };
        n.max(0) as usize
    }

    fn control(&self, op: i32, fd: RawFd, token: u64, interest: u32) -> io::Result<()> {
        let mut event = Event { events: interest, u64: token };
        // SAFETY: `event` outlives the call.
        match unsafe { libc::epoll_ctl(self.0.as_raw_fd(), op, fd, &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
