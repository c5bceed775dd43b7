//! Sockets whose copies a forked child closes. They are made, noted and closed in sections, so a fork never comes
//! between two of these.

#![allow(unsafe_code)]

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use super::gate::section;

/// Descriptors below this number are tracked. Taken from the kernel: its default of `fs.nr_open`, which no limit of open
/// files exceeds. The bitmap takes 128 KiB of memory that is not touched before it is needed.
const TRACKED_FDS: usize = 1 << 20;

/// One bit per descriptor number that the child has to close. A bitmap, because the
/// child may only do what is safe in a signal handler.
static TRACKED: [AtomicU64; TRACKED_FDS / 64] = [const { AtomicU64::new(0) }; TRACKED_FDS / 64];
/// No word of `TRACKED` from this one on was ever used.
static WORDS: AtomicUsize = AtomicUsize::new(0);

/// A socket whose copy a forked child closes, for as long as it is open here: it is made and closed in sections.
pub struct Tracked<T: AsRawFd>(ManuallyDrop<T>);

impl<T: AsRawFd> Tracked<T> {
    /// Makes a socket, which must not block, and tracks it.
    pub fn open(make: impl FnOnce() -> io::Result<T>) -> io::Result<Self> {
        let _section = section();
        make().map(Self::track)
    }

    /// Makes another value of the same descriptor.
    pub fn map<U: AsRawFd>(self, change: impl FnOnce(T) -> io::Result<U>) -> io::Result<Tracked<U>> {
        let _section = section();
        // If this fails, the descriptor is closed already.
        change(self.untrack()).map(Tracked::track)
    }

    /// Gives the socket the lowest number that is free, by means of `again`, which makes another descriptor of it.
    pub fn lower(&mut self, again: impl FnOnce(&T) -> io::Result<T>) -> io::Result<()> {
        let lower = Self::open(|| again(self))?;
        drop(std::mem::replace(self, lower));
        Ok(())
    }

    fn track(socket: T) -> Self {
        if let Some((word, bit)) = place(socket.as_raw_fd()) {
            WORDS.fetch_max(word + 1, SeqCst);
            TRACKED[word].fetch_or(bit, SeqCst);
        }
        Tracked(ManuallyDrop::new(socket))
    }

    fn untrack(mut self) -> T {
        self.forget();
        // SAFETY: `self` is forgotten, so the socket is taken once.
        let socket = unsafe { ManuallyDrop::take(&mut self.0) };
        std::mem::forget(self);
        socket
    }

    fn forget(&self) {
        if let Some((word, bit)) = place(self.0.as_raw_fd()) {
            TRACKED[word].fetch_and(!bit, SeqCst);
        }
    }
}

impl<T: AsRawFd> Drop for Tracked<T> {
    fn drop(&mut self) {
        let _section = section();
        // First: the number may belong to somebody else a moment later.
        self.forget();
        // SAFETY: not used after this.
        unsafe { ManuallyDrop::drop(&mut self.0) };
    }
}

impl<T: AsRawFd> std::ops::Deref for Tracked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: AsRawFd> std::ops::DerefMut for Tracked<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// Word and bit of a descriptor number; numbers above [`TRACKED_FDS`] have none.
fn place(fd: i32) -> Option<(usize, u64)> {
    let fd = usize::try_from(fd).ok().filter(|fd| *fd < TRACKED_FDS)?;
    Some((fd / 64, 1 << (fd % 64)))
}

/// Closes the copies, in a child. Does what is allowed after a fork.
pub(super) fn close_in_child() {
    for (index, word) in TRACKED[..WORDS.load(SeqCst)].iter().enumerate() {
        let mut bits = word.swap(0, SeqCst);
        while bits != 0 {
            let fd = index as i32 * 64 + bits.trailing_zeros() as i32;
            // SAFETY: the descriptor is the child's copy of a socket that only we own.
            unsafe { libc::close(fd) };
            bits &= bits - 1;
        }
    }
}

/// Forgets the numbers, in a child that was made without the hooks: by now they may be others'.
pub(super) fn forget_in_child() {
    TRACKED[..WORDS.load(SeqCst)].iter().for_each(|word| word.store(0, SeqCst));
}
