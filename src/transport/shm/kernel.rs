//! System calls of the transport. Memory of either side is described by address and length, and only the kernel touches it, so
//! memory that is not mapped is an error and not a fault.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::runtime::tracked::Tracked;

/// Pieces of one read. Chosen: as many small requests share the price of a call, and the lists take 4 KiB of stack. The kernel
/// takes 1024 (process_vm_readv(2), IOV_MAX).
pub(super) const MOST_PIECES: usize = 128;

/// A list of memory pieces of both sides, in the same order.
pub(super) struct Pieces {
    ours: [libc::iovec; MOST_PIECES],
    theirs: [libc::iovec; MOST_PIECES],
    used: usize,
    bytes: u64,
}

impl Pieces {
    /// An empty list.
    pub(super) fn new() -> Self {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Pieces { ours: [empty; MOST_PIECES], theirs: [empty; MOST_PIECES], used: 0, bytes: 0 }
    }

    /// Adds `len` bytes to be read from `theirs` to `ours`; nothing where the list is full.
    pub(super) fn push(&mut self, theirs: u64, ours: u64, len: u64) {
        if self.used < MOST_PIECES {
            let piece =
                |addr: u64| libc::iovec { iov_base: addr as *mut libc::c_void, iov_len: len as usize };
            (self.ours[self.used], self.theirs[self.used]) = (piece(ours), piece(theirs));
            self.used += 1;
            self.bytes += len;
        }
    }

    /// Bytes of all.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads the pieces from the process `pid`, one after the other, and says how many bytes came. The pieces of ours are
    /// registered memory that is to be written, or words that the caller holds exclusively.
    pub(super) fn read(&self, pid: i32) -> io::Result<u64> {
        let count = self.used as libc::c_ulong;
        // SAFETY: both lists live through the call and have so many entries; the kernel checks every address, and what is
        // written is as said above.
        let n =
            unsafe { libc::process_vm_readv(pid, self.ours.as_ptr(), count, self.theirs.as_ptr(), count, 0) };
        u64::try_from(n).map_err(|_| io::Error::last_os_error())
    }
}

/// Who is at the other end of a socket, as the kernel noted it when it was connected or began to listen.
pub(super) fn credentials(fd: RawFd) -> io::Result<(i32, u32)> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the option writes at most `len` bytes to the live structure.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            std::ptr::from_mut(&mut found).cast(),
            &mut len,
        )
    };
    match result {
        0 => Ok((found.pid, found.uid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The user that this process acts for.
pub(super) fn own_user() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() }
}

/// A descriptor that is readable once the process `pid` has ended; a forked child closes its copy. ENOSYS on kernels before 5.3.
pub(super) fn process_fd(pid: i32) -> io::Result<Tracked<OwnedFd>> {
    Tracked::open(|| {
        // SAFETY: no memory arguments; a valid result is a fresh descriptor, close-on-exec.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        owned(fd as RawFd)
    })
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    match fd {
        // SAFETY: a fresh descriptor that nobody else owns.
        0.. => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Readiness of descriptors, each with a 64-bit token.
pub(super) struct Epoll(OwnedFd);

/// One event: token and readiness bits.
pub(super) type Event = libc::epoll_event;

impl Epoll {
    /// A new instance, closed on exec.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: the call has no memory arguments; a valid result is a fresh descriptor.
        owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(Epoll)
    }

    /// Watches `fd` for `interest`.
    pub(super) fn add(&self, fd: RawFd, token: u64, interest: i32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, interest)
    }

    /// Changes what `fd` is watched for. Fails only for one that is not watched.
    pub(super) fn modify(&self, fd: RawFd, token: u64, interest: i32) {
        let _ = self.control(libc::EPOLL_CTL_MOD, fd, token, interest);
    }

    /// No longer watches `fd`; has to come before it is closed, because a child may have a copy.
    pub(super) fn remove(&self, fd: RawFd) {
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, 0);
    }

    /// Sleeps until something is ready or `timeout_ms` passes.
    pub(super) fn wait(&self, events: &mut [Event], timeout_ms: i32) -> usize {
        // SAFETY: the kernel fills at most `events.len()` entries of the slice.
        let n = unsafe {
            libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, timeout_ms)
        };
        n.max(0) as usize
    }

    fn control(&self, op: i32, fd: RawFd, token: u64, interest: i32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest as u32, u64: token };
        // SAFETY: `event` outlives the call.
        match unsafe { libc::epoll_ctl(self.0.as_raw_fd(), op, fd, &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
