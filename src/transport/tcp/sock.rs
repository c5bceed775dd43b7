//! The socket of a data connection, with TLS inside or without. Payload is described by address and length, and only the kernel
//! touches it, so memory that is not mapped any more gives EFAULT instead of a fault.

#![allow(unsafe_code)]

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use parking_lot::Mutex;
use rustls::{Connection, ServerConnection};
use socket2::SockRef;

use super::iov::{self, outcome, pipe};
pub(super) use super::iov::{Io, Iov, IOV_MAX};
use super::secure::Session;
use crate::runtime::tracked::Tracked;

/// Most bytes that one call throws away. Chosen: nothing is copied, so even this much is a short call.
const DISCARD_BYTES: usize = 1 << 20;

/// A connected, non-blocking TCP socket; a forked child closes its copy.
pub(super) struct Socket {
    socket: Tracked<OwnedFd>,
    /// Guards what TLS keeps of the connection. `None`: there is no TLS.
    session: Option<Box<Mutex<Session>>>,
}

impl Socket {
    /// Takes over a connected stream and makes it non-blocking. With `tls` if that was begun on it.
    pub(super) fn new(stream: Tracked<TcpStream>, tls: Option<Connection>) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let socket = stream.map(|stream| Ok(stream.into()))?;
        Ok(Socket { socket, session: tls.map(|tls| Box::new(Mutex::new(Session::new(tls, &[])))) })
    }

    /// Begins TLS as the server, with the bytes in `ahead`, all that were received.
    pub(super) fn secure(&mut self, tls: ServerConnection, ahead: &[u8]) {
        self.session = Some(Box::new(Mutex::new(Session::new(tls.into(), ahead))));
    }

    /// TLS was begun, and the peer's certificate is not judged yet.
    pub(super) fn is_beginning(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.lock().is_beginning())
    }

    /// A receive would bring something although the kernel may have nothing more, so that it does not call.
    pub(super) fn has_more(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.lock().has_more())
    }

    /// The descriptor, for epoll.
    pub(super) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Changes the descriptor to the lowest number that is free. Not while it is watched.
    pub(super) fn lower(&mut self) -> io::Result<()> {
        self.socket.lower(OwnedFd::try_clone)
    }

    /// Sends from the front of `iov` what fits into the socket buffer.
    pub(super) fn send(&self, iov: &mut Iov<'_>) -> Io {
        match &self.session {
            None => iov::send(self.fd(), iov),
            Some(session) => session.lock().send(self.fd(), iov),
        }
    }

    /// Receives into the front of `iov` what has arrived.
    pub(super) fn recv(&self, iov: &mut Iov<'_>) -> Io {
        match &self.session {
            None => iov::recv(self.fd(), iov),
            Some(session) => session.lock().recv(self.fd(), iov),
        }
    }

    /// As [`Socket::recv`], but what has arrived stays there. Pieces may overlap; the last one wins. With TLS there is nothing to be
    /// seen.
    pub(super) fn peek(&self, iov: &mut Iov<'_>) -> Io {
        match &self.session {
            None => iov::peek(self.fd(), iov),
            Some(_) => Io::WouldBlock,
        }
    }

    /// This end's address.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        SockRef::from(&*self.socket).local_addr().ok().and_then(|address| address.as_socket())
    }

    /// The other end's address, for messages.
    pub(super) fn peer_ip(&self) -> String {
        let address = SockRef::from(&*self.socket).peer_addr().ok().and_then(|address| address.as_socket());
        address.map_or_else(|| "an unknown peer".into(), |address| address.ip().to_canonical().to_string())
    }

    /// Bytes in the kernel's send queue that the peer's kernel has not acknowledged; 0 if ours does not tell.
    pub(super) fn unacknowledged(&self) -> u64 {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the request writes one int.
        let told = unsafe { libc::ioctl(self.fd(), libc::TIOCOUTQ, &mut bytes) } == 0;
        u64::try_from(bytes).unwrap_or(0) * u64::from(told)
    }

    /// Both ends, for messages: ours, then the peer's.
    pub(super) fn ends(&self) -> String {
        let socket = SockRef::from(&*self.socket);
        let text = |address: io::Result<socket2::SockAddr>| {
            let address = address.ok().and_then(|address| address.as_socket());
            address.map_or_else(|| "?".into(), |address| address.to_string())
        };
        format!("{} -> {}", text(socket.local_addr()), text(socket.peer_addr()))
    }

    /// Throws away what has arrived, up to [`DISCARD_BYTES`], encrypted or not.
    pub(super) fn discard(&self) -> Io {
        // SAFETY: with MSG_TRUNC a TCP socket drops the bytes and writes nothing.
        let n = unsafe {
            libc::recv(self.fd(), std::ptr::null_mut(), DISCARD_BYTES, libc::MSG_TRUNC | libc::MSG_DONTWAIT)
        };
        outcome(n, true)
    }

    /// Tells the peer that nothing more will be sent.
    pub(super) fn shutdown_write(&self) {
        self.session.iter().for_each(|session| session.lock().end(self.fd()));
        // SAFETY: plain call on an owned descriptor.
        unsafe { libc::shutdown(self.fd(), libc::SHUT_WR) };
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.session.iter().for_each(|session| session.lock().end(self.fd()));
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
