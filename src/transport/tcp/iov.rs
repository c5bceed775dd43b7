//! Lists of memory pieces, and the system calls that move bytes between them and elsewhere. Only the kernel touches the pieces, so
//! memory that is not mapped any more gives EFAULT instead of a fault. Sends carry MSG_NOSIGNAL, because a dead peer must not
//! raise SIGPIPE in the host.

#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Pieces of one send or receive. Chosen: 64 small requests share the price of a call, and the list takes 2 KiB of stack.
/// The kernel takes 1024 (readv(2), IOV_MAX).
pub(super) const IOV_MAX: usize = 128;
/// Outcome of a send or receive.
#[derive(Debug)]
pub(super) enum Io {
    /// So many bytes, at least 1.
    Moved(usize),
    /// Nothing can be moved now.
    WouldBlock,
    /// The peer closed its side (receive only).
    Eof,
    /// A caller's buffer is not mapped.
    Fault,
    /// The connection is dead.
    Failed(io::Error),
}

/// A list of memory pieces. It borrows those that are pushed by reference.
pub(super) struct Iov<'a> {
    list: [libc::iovec; IOV_MAX],
    used: usize,
    bytes: usize,
    borrowed: PhantomData<&'a mut [u8]>,
}

impl<'a> Iov<'a> {
    /// An empty list.
    pub(super) fn new() -> Self {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Iov { list: [empty; IOV_MAX], used: 0, bytes: 0, borrowed: PhantomData }
    }

    /// Room for one more request: a header or frame and a body.
    pub(super) fn has_room(&self) -> bool {
        self.used + 2 <= IOV_MAX
    }

    /// Total length.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds registered memory by address.
    pub(super) fn push_raw(&mut self, addr: u64, len: u64) {
        self.add(addr as *mut libc::c_void, len as usize);
    }

    /// Adds bytes to send.
    pub(super) fn push(&mut self, bytes: &'a [u8]) {
        self.add(bytes.as_ptr() as *mut libc::c_void, bytes.len());
    }

    /// Adds room to receive into.
    pub(super) fn push_mut(&mut self, room: &'a mut [u8]) {
        self.add(room.as_mut_ptr().cast(), room.len());
    }

    fn add(&mut self, base: *mut libc::c_void, len: usize) {
        if len > 0 && self.used < IOV_MAX {
            self.list[self.used] = libc::iovec { iov_base: base, iov_len: len };
            self.used += 1;
            self.bytes = self.bytes.saturating_add(len);
        }
    }

    fn message(&mut self) -> libc::msghdr {
        // SAFETY: an all-zero msghdr is valid: no name, no control data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.list.as_mut_ptr();
        message.msg_iovlen = self.used;
        message
    }
}

/// Sends from the front of `iov` what fits into the buffer of the socket `fd`.
pub(super) fn send(fd: RawFd, iov: &mut Iov<'_>) -> Io {
    let message = iov.message();
    // SAFETY: the pieces are borrowed by `iov` or owned by the caller of the API, and the
    // kernel checks every address.
    let n = unsafe { libc::sendmsg(fd, &message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
    outcome(n, false)
}

/// Receives into the front of `iov` what has arrived at the socket `fd`.
pub(super) fn recv(fd: RawFd, iov: &mut Iov<'_>) -> Io {
    let mut message = iov.message();
    // SAFETY: as for `send`; the memory is registered for being written, or borrowed mutably.
    let n = unsafe { libc::recvmsg(fd, &mut message, libc::MSG_DONTWAIT) };
    outcome(n, true)
}

/// As [`recv`], but what has arrived stays there. Pieces may overlap; the last one wins.
pub(super) fn peek(fd: RawFd, iov: &mut Iov<'_>) -> Io {
    let mut message = iov.message();
    // SAFETY: as for `recv`.
    let n = unsafe { libc::recvmsg(fd, &mut message, libc::MSG_DONTWAIT | libc::MSG_PEEK) };
    outcome(n, true)
}

/// What a call that moves bytes has said.
pub(super) fn outcome(n: isize, receiving: bool) -> Io {
    match n {
        0 if receiving => Io::Eof,
        0 => Io::WouldBlock,
        n if n > 0 => Io::Moved(n as usize),
        _ => {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM) => Io::WouldBlock,
                Some(libc::EFAULT) => Io::Fault,
                _ => Io::Failed(error),
            }
        }
    }
}

/// Which way [`Iov::copy`] goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the pieces.
    Out,
    /// Into the pieces.
    In,
}

impl Iov<'_> {
    /// Copies bytes of the list, from number `skip` on, into `room`; returns how many, at least 1. EFAULT if the first one is not
    /// mapped.
    pub(super) fn gather(&self, skip: usize, room: &mut [u8]) -> io::Result<usize> {
        self.copy(Way::Out, skip, room.as_mut_ptr(), room.len())
    }

    /// Copies `bytes` to the places of the list from number `skip` on; returns how many, at least 1. EFAULT if the first place is not
    /// mapped.
    pub(super) fn scatter(&self, skip: usize, bytes: &[u8]) -> io::Result<usize> {
        self.copy(Way::In, skip, bytes.as_ptr().cast_mut(), bytes.len())
    }

    /// The end of the last piece that begins before byte `end` of the list, and how many bytes before `end` it begins.
    pub(super) fn begun_before(&self, end: usize) -> usize {
        let mut start = 0;
        for piece in &self.list[..self.used] {
            if end - start <= piece.iov_len {
                break;
            }
            start += piece.iov_len;
        }
        end - start
    }

    /// `ours` is a buffer of `len` bytes that the caller holds; it is written [`Way::Out`] only.
    fn copy(&self, way: Way, mut skip: usize, ours: *mut u8, len: usize) -> io::Result<usize> {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let mut theirs = [empty; IOV_MAX];
        let (mut count, mut left) = (0, len);
        for piece in &self.list[..self.used] {
            if skip >= piece.iov_len {
                skip -= piece.iov_len;
            } else if left > 0 {
                let taken = left.min(piece.iov_len - skip);
                theirs[count] =
                    libc::iovec { iov_base: piece.iov_base.wrapping_byte_add(skip), iov_len: taken };
                (count, skip, left) = (count + 1, 0, left - taken);
            }
        }
        let local = libc::iovec { iov_base: ours.cast(), iov_len: len - left };
        let (pid, theirs) = (std::process::id() as libc::pid_t, &theirs[..count]);
        // SAFETY: both lists live through the call. The kernel checks the addresses of the pieces, which are registered or
        // borrowed; `ours` is the caller's.
        let n = unsafe {
            match way {
                Way::Out => libc::process_vm_readv(pid, &local, 1, theirs.as_ptr(), count as u64, 0),
                Way::In => libc::process_vm_writev(pid, &local, 1, theirs.as_ptr(), count as u64, 0),
            }
        };
        match (n, theirs.first()) {
            (1.., _) => Ok(n as usize),
            (_, Some(first)) => through_pipe(way, first, ours),
            (_, None) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

/// Most bytes that a pipe takes whole: pipe(7), PIPE_BUF.
const PIPE_BYTES: usize = 4096;

/// Copies the start of `piece` from or to `ours`, where the kernel's copy is forbidden (seccomp) or cannot reach (memory of
/// drivers). Says for sure whether the memory is mapped.
fn through_pipe(way: Way, piece: &libc::iovec, ours: *mut u8) -> io::Result<usize> {
    let (read, write) = pipe()?;
    let (from, to) = match way {
        Way::Out => (piece.iov_base, ours.cast()),
        Way::In => (ours.cast(), piece.iov_base),
    };
    let len = piece.iov_len.min(PIPE_BYTES);
    // SAFETY: one of both is the caller's buffer, of which no more is asked than it has; the kernel checks the other address.
    let written = unsafe { libc::write(write.as_raw_fd(), from, len) };
    if written <= 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    let moved = unsafe { libc::read(read.as_raw_fd(), to, written as usize) };
    if moved <= 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(moved as usize)
}

/// The two ends of a new pipe: reading, writing. Neither blocks.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: two descriptors are written to a live array.
    if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fresh descriptors that nobody else owns.
    Ok(fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).into())
}
