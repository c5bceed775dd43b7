//! Memory of a node, at an address of choice: a peer that comes back may have its memory where its predecessor had it.
#![allow(unsafe_code)]

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Bytes of each.
pub const LEN: usize = 8 << 20;

/// Pages of this process alone, given back when it is dropped.
pub struct Memory(NonNull<AtomicU8>);

// SAFETY: the pages are the value's own, and are accessed atomically only.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// At address `at`, which nobody uses, or anywhere. No two bytes at the same place of both halves, or of two memories
    /// with a different `seed`, are the same.
    pub fn new(at: Option<u64>, seed: u8) -> Self {
        let fixed = if at.is_some() { libc::MAP_FIXED_NOREPLACE } else { 0 };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | fixed;
        let at = at.unwrap_or_default() as *mut libc::c_void;
        // SAFETY: the flags keep mmap from replacing anything.
        let pages = unsafe { libc::mmap(at, LEN, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        assert_ne!(pages, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        let memory = Memory(NonNull::new(pages.cast()).unwrap());
        for (index, byte) in memory.iter().enumerate() {
            // Knuth's multiplier; the halves differ by 108 or 109.
            let scattered = (index as u32).wrapping_mul(2_654_435_761) >> 24;
            byte.store((scattered as u8).wrapping_add(seed.wrapping_mul(37)), Relaxed);
        }
        memory
    }

    /// Takes the pages away: from now on nobody can touch them, and whoever does in this process is killed.
    #[allow(dead_code)]
    pub fn take_away(&self) {
        // SAFETY: the pages are the value's own. A test that calls this looks at none of them afterwards.
        let result = unsafe { libc::mprotect(self.0.as_ptr().cast(), LEN, libc::PROT_NONE) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    /// The first byte's address.
    pub fn addr(&self) -> u64 {
        self.0.as_ptr() as u64
    }
}

impl Deref for Memory {
    type Target = [AtomicU8];

    fn deref(&self) -> &[AtomicU8] {
        // SAFETY: mmap gave so many bytes, which stay until the value is dropped.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), LEN) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the pages are the value's own, and nobody borrows them.
        unsafe { libc::munmap(self.0.as_ptr().cast(), LEN) };
    }
}
