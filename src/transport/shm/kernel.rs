//! System calls of the transport. Memory of either side is described by address and length, and only the kernel touches it, so
//! memory that is not mapped is an error and not a fault.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::memory::shared::{SharedMemory, F_SEAL_FUTURE_WRITE};
use crate::runtime::tracked::Tracked;

/// Pieces of one read. Chosen: as many small requests share the price of a call, and the lists take 4 KiB of stack. The kernel
/// takes 1024 (process_vm_readv(2), IOV_MAX).
pub(super) const MOST_PIECES: usize = 128;

/// Messages that are taken from one socket in a row. Chosen: a sender that never stops keeps the thread from others for no more than
/// a few milliseconds.
pub(super) const MOST_MESSAGES: usize = 64;

/// A list of memory pieces of both sides, in the same order.
pub(super) struct Pieces<const N: usize> {
    ours: [libc::iovec; N],
    theirs: [libc::iovec; N],
    used: usize,
    bytes: u64,
}

impl<const N: usize> Pieces<N> {
    /// An empty list.
    pub(super) fn new() -> Self {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Pieces { ours: [empty; N], theirs: [empty; N], used: 0, bytes: 0 }
    }

    /// Adds `len` bytes to be read from `theirs` to `ours`; nothing where the list is full.
    pub(super) fn push(&mut self, theirs: u64, ours: u64, len: u64) {
        if self.used < N {
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

/// What mappings are for.
#[derive(Clone, Copy)]
enum Purpose {
    /// Memory of peers.
    Memory = 0,
    /// Pages with messages: one for each connection, so memory is to have room beside them.
    Messages,
}

/// Mappings of this process by purpose, and their bytes.
static MAPPED: [[AtomicU64; 2]; 2] = [const { [const { AtomicU64::new(0) }; 2] }; 2];
/// Mappings of one process at the most, by purpose. Chosen: together far below what the kernel allows (65530, vm.max_map_count);
/// engines have a few large ones, and some thousand connections within a host.
const MOST_MAPPINGS: [u64; 2] = [1024, 16 << 10];

/// Bytes that mappings may have together: as many as there is memory. All of them have pages.
fn most_mapped() -> u64 {
    // SAFETY: no memory arguments.
    let [pages, size] = [libc::_SC_PHYS_PAGES, libc::_SC_PAGESIZE].map(|name| unsafe { libc::sysconf(name) });
    u64::try_from(pages).unwrap_or(0).saturating_mul(u64::try_from(size).unwrap_or(0))
}

/// Adds to what is mapped. `false`, and nothing is added: it would be more than `most`.
fn reserve(mapped: &[AtomicU64; 2], added: [u64; 2], most: [u64; 2]) -> bool {
    let taken: [bool; 2] = std::array::from_fn(|i| {
        let sum = |old: u64| old.checked_add(added[i]).filter(|sum| *sum <= most[i]);
        mapped[i].fetch_update(Relaxed, Relaxed, sum).is_ok()
    });
    if taken != [true; 2] {
        (0..2).filter(|i| taken[*i]).for_each(|i| give_back(&mapped[i], added[i]));
    }
    taken == [true; 2]
}

fn give_back(mapped: &AtomicU64, added: u64) {
    mapped.fetch_sub(added, Relaxed);
}

/// Shared memory of a peer, mapped to be read. All its pages exist, and it can neither shrink nor lose them, so to read it is safe.
pub(super) struct Mapping {
    addr: u64,
    len: u64,
    file: (u64, u64),
    purpose: Purpose,
}

impl Mapping {
    /// Maps `fd`, which has `len` bytes. EINVAL if that is no file of this kind (memfd_create(2)), has not all its pages, or
    /// could still change its length or lose pages (a hole is made by a write, as the kernel sees it); ENOMEM if too much is
    /// mapped.
    pub(super) fn new(fd: RawFd, len: u64) -> io::Result<Self> {
        Self::for_purpose(fd, len, Purpose::Memory)
    }

    /// The same for a page with messages.
    pub(super) fn of_messages(fd: RawFd, len: u64) -> io::Result<Self> {
        Self::for_purpose(fd, len, Purpose::Messages)
    }

    fn for_purpose(fd: RawFd, len: u64, purpose: Purpose) -> io::Result<Self> {
        let mapped = &MAPPED[purpose as usize];
        let refuse = || Err(io::Error::from_raw_os_error(libc::EINVAL));
        // SAFETY: no memory arguments.
        let seals = unsafe { libc::fcntl(fd, libc::F_GET_SEALS) };
        // SAFETY: an all-zero structure is valid, and is overwritten.
        let mut status: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: a live structure.
        let known = unsafe { libc::fstat(fd, &mut status) } == 0;
        let keeps_length = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
        let keeps_pages = libc::F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;
        if seals < 0 || seals & keeps_length != keeps_length || seals & keeps_pages == 0 || !known {
            return refuse();
        }
        // Looked at once nothing can be taken away any more. fstat(2) counts in blocks of 512 bytes.
        let [size, blocks] =
            [status.st_size, status.st_blocks].map(|count| u64::try_from(count).unwrap_or(0));
        if len == 0 || size != len || blocks.saturating_mul(512) < len {
            return refuse();
        }
        if !reserve(mapped, [1, len], [MOST_MAPPINGS[purpose as usize], most_mapped()]) {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        let nowhere = std::ptr::null_mut();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let addr = unsafe { libc::mmap(nowhere, len as usize, libc::PROT_READ, libc::MAP_SHARED, fd, 0) };
        if addr == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            give_back(&mapped[0], 1);
            give_back(&mapped[1], len);
            return Err(error);
        }
        Ok(Mapping { addr: addr as u64, len, file: (status.st_dev, status.st_ino), purpose })
    }

    /// They are of one file.
    pub(super) fn is_same(&self, other: &Mapping) -> bool {
        self.file == other.file
    }

    /// The 64-bit number with this index, which the peer may write meanwhile; 0 beyond the end. What the peer wrote before it can
    /// be looked at after a fence that acquires.
    pub(super) fn number(&self, index: usize) -> u64 {
        if index >= (self.len / 8) as usize {
            return 0;
        }
        // SAFETY: inside of the mapping, which lives as long as the borrowed value and begins at a page.
        unsafe { &*(self.addr as *const AtomicU64).add(index) }.load(Relaxed)
    }

    /// Copies `len` bytes at `offset` to the address `to` in memory of ours that stays mapped. `false`, and nothing is copied: a
    /// range is not inside.
    pub(super) fn copy(&self, offset: u64, ours: &SharedMemory, to: u64, len: u64) -> bool {
        let inside = |offset: u64, all: u64| offset <= all && len <= all - offset;
        if !inside(offset, self.len) || to < ours.addr || !inside(to - ours.addr, ours.len) {
            return false;
        }
        let (from, to) = ((self.addr + offset) as *const libc::c_void, to as *mut libc::c_void);
        // SAFETY: both ranges are mapped for as long as the borrowed values live. They may change meanwhile, by the peer, which is
        // why no reference to them is made and libc copies.
        unsafe { libc::memmove(to, from, len as usize) };
        true
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made above; nobody has references into it.
        unsafe { libc::munmap(self.addr as *mut libc::c_void, self.len as usize) };
        let mapped = &MAPPED[self.purpose as usize];
        give_back(&mapped[0], 1);
        give_back(&mapped[1], self.len);
    }
}

/// Room for one descriptor beside a message, aligned as the kernel wants it.
#[repr(align(8))]
struct Beside([u8; 32]);

/// Sends a message with the descriptor `passed` beside it, without blocking.
pub(super) fn send_with(socket: RawFd, bytes: &[u8], passed: RawFd) -> io::Result<()> {
    let mut beside = Beside([0; 32]);
    let mut piece = libc::iovec { iov_base: bytes.as_ptr() as *mut libc::c_void, iov_len: bytes.len() };
    // SAFETY: an all-zero msghdr is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&mut piece, 1);
    message.msg_control = beside.0.as_mut_ptr().cast();
    // SAFETY: pure arithmetic.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as _;
    // SAFETY: the control data has room for one header and a descriptor, as its length says.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(passed);
    }
    // SAFETY: everything the message names lives here.
    let n = unsafe { libc::sendmsg(socket, &message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
    if n < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Receives a message, without blocking: its length, 0 at the end, and the descriptor beside it. More than one descriptor, and
/// the rest of a message that is too long, are dropped.
pub(super) fn receive(socket: RawFd, room: &mut [u8]) -> io::Result<(usize, Option<Tracked<OwnedFd>>)> {
    let mut beside = Beside([0; 32]);
    let mut piece = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    // SAFETY: an all-zero msghdr is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&mut piece, 1);
    (message.msg_control, message.msg_controllen) = (beside.0.as_mut_ptr().cast(), beside.0.len() as _);
    let mut outcome = Ok(0);
    let passed = Tracked::open(|| {
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: everything the message names lives here, and is as long as it says.
        let n = unsafe { libc::recvmsg(socket, &mut message, flags) };
        outcome = usize::try_from(n).map_err(|_| io::Error::last_os_error());
        let mut first = None;
        // SAFETY: the kernel has written the control data and its length.
        let header = unsafe { libc::CMSG_FIRSTHDR(&message).as_ref() };
        // SAFETY: pure arithmetic.
        let empty = unsafe { libc::CMSG_LEN(0) } as usize;
        let passed = header.filter(|header| outcome.is_ok() && header.cmsg_type == libc::SCM_RIGHTS);
        if let Some(header) = passed {
            for index in 0..header.cmsg_len.saturating_sub(empty) / size_of::<RawFd>() {
                // SAFETY: the header's length says that so many descriptors follow; each is new and nobody else's.
                let fd = unsafe {
                    OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().add(index).read_unaligned())
                };
                // Those that are not kept are closed here.
                first.get_or_insert(fd);
            }
        }
        first.ok_or_else(|| io::ErrorKind::NotFound.into())
    });
    outcome.map(|len| (len, passed.ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_mapped_than_allowed() {
        let mapped = [AtomicU64::new(0), AtomicU64::new(0)];
        let reserved = |len| reserve(&mapped, [1, len], [2, 100]);
        assert!(!reserved(101) && !reserved(u64::MAX) && reserved(99) && !reserved(2));
        assert_eq!([&mapped[0], &mapped[1]].map(|count| count.load(Relaxed)), [1, 99]);
        assert!(reserved(1) && !reserved(0), "two of them");
        give_back(&mapped[0], 1);
        give_back(&mapped[1], 99);
        assert!(reserved(99));
        assert!((1 << 20..1 << 60).contains(&most_mapped()));
    }
}
