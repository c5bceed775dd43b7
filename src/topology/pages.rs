//! The kernel's NUMA queries, as raw system calls: libnuma is not linked.

#![allow(unsafe_code)]

use std::io;

/// Bytes of a small page on x86-64 and aarch64. `move_pages` asks for the address of a page; a larger page contains
/// this one.
const PAGE: u64 = 4096;

/// NUMA node of the page at `addr`; none if it was not touched yet, is not mapped, or the query is refused.
pub(super) fn node_of(addr: u64) -> Option<i32> {
    let page = (addr & !(PAGE - 1)) as *const libc::c_void;
    let nowhere: *const libc::c_int = std::ptr::null();
    let mut status: libc::c_int = -1;
    // SAFETY: without target nodes the call is a query. It reads one address, which it does not follow, and writes
    // one status; both live here.
    let result = unsafe { libc::syscall(libc::SYS_move_pages, 0, 1usize, &page, nowhere, &mut status, 0) };
    (result == 0 && status >= 0).then_some(status)
}

/// Whether the kernel answers `get_mempolicy`: it has a NUMA interface, and this process may use it.
pub(super) fn policy() -> io::Result<()> {
    let nothing: *mut libc::c_void = std::ptr::null_mut();
    let mut mode: libc::c_int = 0;
    // SAFETY: asks for the mode of this thread's policy, which is written to a live integer; no node mask is asked for.
    let result =
        unsafe { libc::syscall(libc::SYS_get_mempolicy, &mut mode, nothing, 0usize, nothing, 0usize) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
