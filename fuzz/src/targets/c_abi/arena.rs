//! The memory that requests are about, and what has to be in it: a shadow of each byte, where that is known.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Bytes that can be used.
pub const USABLE: usize = 192 << 10;
/// With those behind them that are not mapped for use.
pub const BYTES: usize = 256 << 10;

/// Memory that engines move bytes in.
pub struct Arena {
    memory: &'static [AtomicU8],
    first: u64,
    /// What each byte is; `None` where a request may have written.
    shadow: Vec<Option<u8>>,
    next: u8,
}

impl Arena {
    pub fn new() -> Self {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        // SAFETY: the beginning of the mapping.
        assert_eq!(unsafe { libc::mprotect(base, USABLE, libc::PROT_READ | libc::PROT_WRITE) }, 0);
        // SAFETY: mapped for ever, and shared with the kernel only, so all of it is looked at as atomics.
        let memory = unsafe { std::slice::from_raw_parts(base.cast::<AtomicU8>(), USABLE) };
        let mut arena = Arena { memory, first: base as u64, shadow: vec![Some(0); USABLE], next: 0 };
        arena.restore();
        arena
    }

    /// The address of the byte at `offset`.
    pub fn addr(&self, offset: u64) -> u64 {
        self.first + offset
    }

    /// The range is part of it, whether it can be used or not.
    pub fn holds(&self, addr: u64, len: u64) -> bool {
        addr >= self.first && addr.checked_add(len).is_some_and(|end| end <= self.first + BYTES as u64)
    }

    /// The offsets of `[addr, addr+len)` as far as they can be used.
    fn range(&self, addr: u64, len: u64) -> std::ops::Range<usize> {
        let offset = |addr: u64| addr.saturating_sub(self.first).min(USABLE as u64) as usize;
        offset(addr)..offset(addr.saturating_add(len))
    }

    /// What is in the range, if all of it can be used and is known.
    pub fn content(&self, addr: u64, len: u64) -> Option<Vec<u8>> {
        let range = self.range(addr, len);
        if range.len() as u64 != len || addr < self.first {
            return None;
        }
        self.shadow[range].iter().copied().collect()
    }

    /// A request may write there from now on; gives what was known.
    pub fn forget(&mut self, addr: u64, len: u64) -> Vec<Option<u8>> {
        let range = self.range(addr, len);
        let before = self.shadow[range.clone()].to_vec();
        self.shadow[range].fill(None);
        before
    }

    /// The request was refused.
    pub fn remember(&mut self, addr: u64, len: u64, before: &[Option<u8>]) {
        let range = self.range(addr, len);
        self.shadow[range].copy_from_slice(before);
    }

    /// A request has written this there.
    pub fn expect(&mut self, addr: u64, bytes: &[u8]) {
        let range = self.range(addr, bytes.len() as u64);
        for (at, byte) in range.clone().zip(bytes) {
            self.shadow[at] = Some(*byte);
        }
        self.check(range);
    }

    /// Fails if a byte of the range that is known is not what it has to be.
    fn check(&self, range: std::ops::Range<usize>) {
        for at in range {
            let found = self.memory[at].load(Relaxed);
            assert!(
                self.shadow[at].is_none_or(|byte| byte == found),
                "byte {at} is {found}, not {:?}",
                self.shadow[at]
            );
        }
    }

    /// Fails if a byte that no request may have written is not what it was.
    pub fn check_all(&self) {
        self.check(0..USABLE);
    }

    /// Writes something new into the range. Only where no request is under way.
    pub fn fill(&mut self, addr: u64, len: u64) {
        self.next = self.next.wrapping_add(1);
        for at in self.range(addr, len) {
            let byte = (at as u8).wrapping_mul(31) ^ (at >> 8) as u8 ^ self.next;
            self.memory[at].store(byte, Relaxed);
            self.shadow[at] = Some(byte);
        }
    }

    /// Writes what is not known. Only when nothing is under way.
    pub fn restore(&mut self) {
        for at in 0..USABLE {
            if self.shadow[at].is_none() {
                self.memory[at].store(0, Relaxed);
                self.shadow[at] = Some(0);
            }
        }
    }
}
