//! How many descriptors this process may have, and how many of them are left. Connections of strangers must not take
//! those that the host program needs.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// The part below which descriptors count as scarce: the last eighth. Chosen: 128 of the usual 1024, with which a host
/// can open its files and this library its own connections.
const SCARCE_PART: usize = 8;

/// Connections of peers that a port serves even when descriptors are scarce. Chosen: peers can still be answered, a few at
/// a time, in a host that needs all the rest itself.
pub const FLOOR: usize = 8;

/// Descriptors that this process may have open at once (the soft limit of RLIMIT_NOFILE).
pub fn limit() -> usize {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a live out-parameter.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limits) } != 0;
    // RLIM_INFINITY is the largest number.
    if failed {
        usize::MAX
    } else {
        usize::try_from(limits.rlim_cur).unwrap_or(usize::MAX)
    }
}

/// Whether a descriptor that was just made is one of the last: the kernel gives the lowest number that is free, so all
/// below it are in use, whoever has them. Whoever closes another one for it has to give it that lower number
/// ([`Tracked::lower`](super::tracked::Tracked::lower)): else the next one gets it, and there is one more in all.
pub fn is_scarce(fd: RawFd) -> bool {
    let limit = limit();
    usize::try_from(fd).is_ok_and(|fd| fd >= limit - limit / SCARCE_PART)
}

/// Lets a socket that is bound to an address only, for connecting, have its port when it connects: then a port is needed for each peer
/// and not for each connection. Kernels before 4.2 do not know it, and reserve one as ever.
pub fn choose_port_late(socket: BorrowedFd<'_>) {
    let yes: libc::c_int = 1;
    let len = size_of_val(&yes) as libc::socklen_t;
    // SAFETY: a live descriptor, and a live value of that length.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const yes).cast(),
            len,
        )
    };
}
