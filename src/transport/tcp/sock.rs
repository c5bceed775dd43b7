//! System calls of the data plane. Payload is described by address and length, and only the kernel touches it, so memory
//! that is not mapped any more gives EFAULT instead of a fault. Sends carry MSG_NOSIGNAL, because a dead peer must not
//! raise SIGPIPE in the host.

#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use socket2::SockRef;

use crate::runtime::tracked::Tracked;

/// Pieces of one send or receive. Chosen: 64 small requests share the price of a call, and the list takes 2 KiB of stack.
/// The kernel takes 1024 (readv(2), IOV_MAX).
pub(super) const IOV_MAX: usize = 128;
/// Most bytes that one call throws away. Chosen: nothing is copied, so even this much is a short call.
const DISCARD_BYTES: usize = 1 << 20;

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

/// A connected, non-blocking TCP socket; a forked child closes its copy.
pub(super) struct Socket(Tracked<OwnedFd>);

impl Socket {
    /// Takes over a connected stream and makes it non-blocking.
    pub(super) fn new(stream: Tracked<TcpStream>) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.map(|stream| Ok(stream.into())).map(Socket)
    }

    /// The descriptor, for epoll.
    pub(super) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Changes the descriptor to the lowest number that is free. Not while it is watched.
    pub(super) fn lower(&mut self) -> io::Result<()> {
        self.0.lower(OwnedFd::try_clone)
    }

    /// Sends from the front of `iov` what fits into the socket buffer.
    pub(super) fn send(&self, iov: &mut Iov<'_>) -> Io {
        let message = iov.message();
        // SAFETY: the pieces are borrowed by `iov` or owned by the caller of the API, and the
        // kernel checks every address.
        let n = unsafe { libc::sendmsg(self.fd(), &message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
        outcome(n, false)
    }

    /// Receives into the front of `iov` what has arrived.
    pub(super) fn recv(&self, iov: &mut Iov<'_>) -> Io {
        let mut message = iov.message();
        // SAFETY: as for `send`; the memory is registered for being written, or borrowed mutably.
        let n = unsafe { libc::recvmsg(self.fd(), &mut message, libc::MSG_DONTWAIT) };
        outcome(n, true)
    }

    /// As [`Socket::recv`], but what has arrived stays there. Pieces may overlap; the last one wins.
    pub(super) fn peek(&self, iov: &mut Iov<'_>) -> Io {
        let mut message = iov.message();
        // SAFETY: as for `recv`.
        let n = unsafe { libc::recvmsg(self.fd(), &mut message, libc::MSG_DONTWAIT | libc::MSG_PEEK) };
        outcome(n, true)
    }

    /// This end's address.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        SockRef::from(&*self.0).local_addr().ok().and_then(|address| address.as_socket())
    }

    /// The other end's address, for messages.
    pub(super) fn peer_ip(&self) -> String {
        let address = SockRef::from(&*self.0).peer_addr().ok().and_then(|address| address.as_socket());
        address.map_or_else(|| "an unknown peer".into(), |address| address.ip().to_canonical().to_string())
    }

    /// Bytes in the send queue that the peer's kernel has not acknowledged; 0 if ours does not tell.
    pub(super) fn unacknowledged(&self) -> u64 {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the request writes one int.
        let told = unsafe { libc::ioctl(self.fd(), libc::TIOCOUTQ, &mut bytes) } == 0;
        u64::try_from(bytes).unwrap_or(0) * u64::from(told)
    }

    /// Both ends, for messages: ours, then the peer's.
    pub(super) fn ends(&self) -> String {
        let socket = SockRef::from(&*self.0);
        let text = |address: io::Result<socket2::SockAddr>| {
            let address = address.ok().and_then(|address| address.as_socket());
            address.map_or_else(|| "?".into(), |address| address.to_string())
        };
        format!("{} -> {}", text(socket.local_addr()), text(socket.peer_addr()))
    }

    /// Throws away what has arrived, up to [`DISCARD_BYTES`].
    pub(super) fn discard(&self) -> Io {
        // SAFETY: with MSG_TRUNC a TCP socket drops the bytes and writes nothing.
        let n = unsafe {
            libc::recv(self.fd(), std::ptr::null_mut(), DISCARD_BYTES, libc::MSG_TRUNC | libc::MSG_DONTWAIT)
        };
        outcome(n, true)
    }

    /// Tells the peer that nothing more will be sent.
    pub(super) fn shutdown_write(&self) {
        // SAFETY: plain call on an owned descriptor.
        unsafe { libc::shutdown(self.fd(), libc::SHUT_WR) };
    }
}

fn outcome(n: isize, receiving: bool) -> Io {
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

/// Bytes of [`Courier::scratch`]. Chosen: they stay in the nearest cache.
pub(super) const SCRATCH: usize = 16 << 10;

/// Copies bytes into registered memory through the kernel, so that memory which is gone gives an error. Only the few
/// payload bytes that arrived together with headers go this way.
pub(super) struct Courier {
    /// For bytes that nobody reads.
    pub scratch: Box<[u8; SCRATCH]>,
    /// Read end and write end. `None` after a failure, until there is a fresh pipe.
    pipe: Option<(OwnedFd, OwnedFd)>,
}

impl Courier {
    /// Makes the pipe that the bytes go through.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Courier { scratch: Box::new([0; SCRATCH]), pipe: Some(pipe()?) })
    }

    /// Puts `bytes` (at most 4096, which a pipe takes whole: pipe(7), PIPE_BUF) at `addr`. `false`: they are not there,
    /// most likely because the memory is not mapped.
    pub(super) fn deliver(&mut self, bytes: &[u8], addr: u64) -> bool {
        // The pipe is put back only if it is empty again, so that bytes left in it never reach another address.
        let Some((read, write)) = self.pipe.take().or_else(|| pipe().ok()) else { return false };
        let (from, len) = (bytes.as_ptr().cast(), bytes.len());
        // SAFETY: reads `len` bytes of a live slice; a pipe takes up to 4096 bytes whole.
        let written = unsafe { libc::write(write.as_raw_fd(), from, len) };
        // SAFETY: the kernel checks the destination, which is registered for being written.
        let moved = unsafe { libc::read(read.as_raw_fd(), addr as *mut libc::c_void, len) };
        let delivered = written == len as isize && moved == written;
        if delivered {
            self.pipe = Some((read, write));
        }
        delivered
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: two descriptors are written to a live array.
    if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fresh descriptors that nobody else owns.
    Ok(fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).into())
}
