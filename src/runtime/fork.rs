//! What a forked child finds: handles of its parent refuse every call, the child's copies of our sockets are closed, so
//! that a connection ends when the parent closes it, and nothing that it needs is locked by a thread that it does not have.
//!
//! A child is known by a page that the kernel empties in it (MADV_WIPEONFORK), so from its first instruction on; the
//! hooks of `pthread_atfork` only do the rest: they close the gate for sections, and the child's copies of sockets.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering::SeqCst};

use super::{gate, tracked};

/// Counts the forks between the first process and this one.
static EPOCH: AtomicU32 = AtomicU32::new(0);
/// A word that is 1 in the process that counted itself in `EPOCH`, and 0 in a child of it. Null until [`watch`], and
/// where the kernel does not empty pages at a fork.
static OWN: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());
/// The process that counted itself; 0 until [`watch`].
static OWNER: AtomicI32 = AtomicI32::new(0);

/// Differs between a process and its forked children. May be called in a signal handler.
#[inline]
pub fn epoch() -> u32 {
    EPOCH.load(SeqCst).wrapping_add(u32::from(!is_counted()))
}

/// This process, not a parent of it, was counted last.
#[inline]
fn is_counted() -> bool {
    // SAFETY: null, or a page that is never unmapped.
    match unsafe { OWN.load(SeqCst).as_ref() } {
        Some(own) => own.load(SeqCst) != 0,
        None => matches!(OWNER.load(SeqCst), 0) || OWNER.load(SeqCst) == pid(),
    }
}

/// This process, which is another one in a child even while it shares its parent's memory (`vfork`). May be called in
/// a signal handler.
pub(super) fn pid() -> i32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::getpid() }
}

/// Installs the hooks, once per process.
pub fn watch() {
    static HOOKED: AtomicBool = AtomicBool::new(false);
    if !HOOKED.load(SeqCst) {
        OWNER.store(pid(), SeqCst);
        make_page();
        // Two threads may both come here: hooks that are called twice do no harm, and a `Once` could be left half done
        // in a child.
        // SAFETY: the hooks touch atomics and sleep; in a child they touch atomics and call close(2).
        unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
        HOOKED.store(true, SeqCst);
    }
    if !is_counted() {
        // A child that was made without the hooks, by `_Fork` or the bare system call.
        gate::open_in_child();
        tracked::forget_in_child();
        count();
    }
}

fn make_page() {
    const BYTES: usize = 4096;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return;
    }
    let own: *mut AtomicU32 = page.cast();
    // SAFETY: the mapping made above; a whole page, or more.
    let wiped = unsafe { libc::madvise(page, BYTES, libc::MADV_WIPEONFORK) } == 0;
    if wiped {
        // SAFETY: aligned to a page, mapped, and zero, which is a value of the type.
        unsafe { &*own }.store(1, SeqCst);
    }
    if !wiped || OWN.compare_exchange(std::ptr::null_mut(), own, SeqCst, SeqCst).is_err() {
        // SAFETY: nobody else knows of the mapping.
        unsafe { libc::munmap(page, BYTES) };
    }
}

/// Counts this process, which is a child that has not been counted yet.
fn count() {
    let epoch = EPOCH.load(SeqCst);
    let _ = EPOCH.compare_exchange(epoch, epoch.wrapping_add(1), SeqCst, SeqCst);
    OWNER.store(pid(), SeqCst);
    // SAFETY: null, or a page that is never unmapped.
    if let Some(own) = unsafe { OWN.load(SeqCst).as_ref() } {
        own.store(1, SeqCst);
    }
}

extern "C" fn before() {
    gate::close();
}

extern "C" fn in_parent() {
    gate::open();
}

extern "C" fn in_child() {
    gate::open_in_child();
    tracked::close_in_child();
    if !is_counted() {
        count();
    }
}
