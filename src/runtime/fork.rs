//! What a forked child finds: handles of its parent refuse every call, and the child's copies of our sockets are
//! closed, so that a connection ends when the parent closes it.

#![allow(unsafe_code)]

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::Once;

/// Descriptors below this number are tracked. Chosen: the bitmap takes 8 KiB, and a process may usually have 1024 open.
const TRACKED_FDS: usize = 1 << 16;

/// Counts the forks between the first process and this one.
static EPOCH: AtomicU32 = AtomicU32::new(0);

/// One bit per descriptor number that the child has to close. A bitmap, because the
/// child may only do what is safe in a signal handler.
static TRACKED: [AtomicU64; TRACKED_FDS / 64] = [const { AtomicU64::new(0) }; TRACKED_FDS / 64];

/// Differs between a process and its forked children.
pub fn epoch() -> u32 {
    EPOCH.load(Relaxed)
}

/// Installs the fork hook, once per process.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: `in_child` only touches atomics and calls close(2), both allowed after fork.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

/// A socket whose copy a forked child closes. The number is forgotten before the socket is
/// closed: it may belong to somebody else a moment later.
pub struct Tracked<T> {
    // Dropped before `socket`, in the order of the fields.
    mark: Mark,
    socket: T,
}

impl<T: AsRawFd> Tracked<T> {
    /// Tracks the socket as long as it lives.
    pub fn new(socket: T) -> Self {
        Tracked { mark: Mark::new(socket.as_raw_fd()), socket }
    }

    /// Gives the socket back, no longer tracked.
    pub fn into_inner(self) -> T {
        drop(self.mark);
        self.socket
    }
}

impl<T> std::ops::Deref for Tracked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.socket
    }
}

impl<T> std::ops::DerefMut for Tracked<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.socket
    }
}

/// The bit of one descriptor number.
struct Mark(i32);

impl Mark {
    fn new(fd: i32) -> Self {
        track(fd);
        Mark(fd)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        untrack(self.0);
    }
}

/// The child is to close its copy of `fd`. Numbers above 65535 are not tracked.
fn track(fd: i32) {
    if let Some((word, bit)) = place(fd) {
        word.fetch_or(bit, Relaxed);
    }
}

fn untrack(fd: i32) {
    if let Some((word, bit)) = place(fd) {
        word.fetch_and(!bit, Relaxed);
    }
}

fn place(fd: i32) -> Option<(&'static AtomicU64, u64)> {
    let fd = usize::try_from(fd).ok().filter(|fd| *fd < TRACKED_FDS)?;
    Some((&TRACKED[fd / 64], 1 << (fd % 64)))
}

extern "C" fn in_child() {
    EPOCH.fetch_add(1, Relaxed);
    for (index, word) in TRACKED.iter().enumerate() {
        let mut bits = word.swap(0, Relaxed);
        while bits != 0 {
            let fd = index as i32 * 64 + bits.trailing_zeros() as i32;
            // SAFETY: the descriptor is the child's copy of a socket that only we own.
            unsafe { libc::close(fd) };
            bits &= bits - 1;
        }
    }
}
