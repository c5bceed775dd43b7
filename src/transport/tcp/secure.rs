//! TLS inside of a data connection. Bytes of the caller's memory are copied by the kernel into a buffer of ours and encrypted there, and the other
//! way round, so memory that is not mapped any more gives EFAULT here too. Under the lock of whoever has the socket.
//!
//! To the caller it is a socket whose send buffer is one record longer: what was encrypted and the kernel does not have yet stays
//! here. The last byte of it is told as sent only once the kernel has all. So whoever waits until everything is sent has
//! nothing left here, and a request whose last bytes are here counts as begun and not as sent.

use std::io::{self, BufRead, Write};
use std::os::fd::RawFd;

use rustls::Connection;

use super::iov::{self, Io, Iov};

/// Bytes that are encrypted at a time: the largest record (RFC 8446, 5.1).
const RECORD: usize = 16 << 10;
/// Bytes that one receive takes from the kernel. Chosen: two records, in as few calls as they may need.
const INBOX: usize = 2 * RECORD;

/// Records of one send, and receives from the kernel of one receive. Chosen: 256 and 512 KiB, after which the thread turns to what else it
/// has to do, however fast the peer is and even if nothing comes of what it sends.
const ROUNDS: usize = 16;

/// One connection's TLS.
pub(super) struct Session {
    tls: Connection,
    /// What came from the kernel; of it `at..end` is not looked at yet.
    inbox: Vec<u8>,
    at: usize,
    end: usize,
    /// Plain bytes on their way into a record.
    plain: Vec<u8>,
    /// The first byte of the caller's next send is encrypted already: it is the one that was not told as sent.
    is_held: bool,
    /// There is more to deliver than the last receive asked for.
    has_more: bool,
    /// Told by the next receive, because the last one had bytes to deliver.
    failure: Option<io::Error>,
    /// Told by the next send, because the last one had records to tell as sent.
    broken: Option<io::Error>,
}

impl Session {
    /// Goes on with `tls`, of whose bytes those in `ahead` were read already.
    pub(super) fn new(tls: Connection, ahead: &[u8]) -> Self {
        let has_more = !ahead.is_empty();
        let (inbox, end) = (ahead.to_vec(), ahead.len());
        Session {
            tls,
            inbox,
            at: 0,
            end,
            plain: Vec::new(),
            is_held: false,
            has_more,
            failure: None,
            broken: None,
        }
    }

    /// The peer's certificate is not judged yet.
    pub(super) fn is_beginning(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// A receive would bring something, although the kernel may have nothing.
    pub(super) fn has_more(&self) -> bool {
        self.has_more
    }

    /// Sends from the front of `iov` as far as the socket `fd` goes.
    pub(super) fn send(&mut self, fd: RawFd, iov: &Iov<'_>) -> Io {
        if let Some(error) = self.broken.take() {
            return Io::Failed(error);
        }
        if self.plain.is_empty() {
            match room(RECORD) {
                Ok(plain) => self.plain = plain,
                Err(error) => return Io::Failed(error),
            }
        }
        let total = iov.bytes();
        let mut taken = usize::from(self.is_held);
        // Bytes whose records the kernel has to their ends: the peer may have them, whatever becomes of the next one.
        let mut flushed = 0;
        for round in 0.. {
            match self.flush(fd) {
                Ok(true) => {
                    self.is_held = false;
                    flushed = taken;
                }
                Ok(false) => {
                    self.is_held = taken > 0;
                    return moved(taken - usize::from(self.is_held));
                }
                Err(error) if flushed > 0 => {
                    self.broken = Some(error);
                    return moved(flushed);
                }
                Err(error) => return Io::Failed(error),
            }
            if taken >= total || round == ROUNDS {
                return moved(taken);
            }
            let mut count = match iov.gather(taken, &mut self.plain) {
                Ok(count) => count,
                Err(_) if taken > 0 => return moved(taken),
                Err(error) => return unreadable(error),
            };
            // The byte that is held belongs to what was begun before it, never to a request of which nothing is told as sent.
            if count > 1 && iov.begun_before(taken + count) == 1 {
                count -= 1;
            }
            if let Err(error) = self.tls.writer().write_all(&self.plain[..count]) {
                return Io::Failed(error);
            }
            taken += count;
        }
        moved(flushed)
    }

    /// Receives into the front of `iov` what has arrived at `fd`. Fewer bytes than it has room for: there are no more now, or
    /// [`Session::has_more`] says so.
    pub(super) fn recv(&mut self, fd: RawFd, iov: &Iov<'_>) -> Io {
        let total = iov.bytes();
        let (mut got, mut rounds) = (0, 0);
        self.has_more = false;
        loop {
            match self.deliver(iov, got, total) {
                Ok(Some(count)) => {
                    got += count;
                    // Behind memory that is gone.
                    if got < total && self.tls.reader().fill_buf().is_ok_and(|rest| !rest.is_empty()) {
                        return self.stop(got, None);
                    }
                }
                Ok(None) if got == 0 => return Io::Eof,
                Ok(None) => return self.stop(got, None),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if got == 0 => {
                    // What could not be put into the caller's memory is still here.
                    self.has_more = true;
                    return unreadable(error);
                }
                Err(_) => return self.stop(got, None),
            }
            if got == total {
                return self.stop(got, None);
            }
            if rounds == ROUNDS {
                // Whether there is more shows the next time.
                self.has_more = true;
                return moved(got);
            }
            rounds += 1;
            if self.at == self.end {
                if let Some(error) = self.failure.take() {
                    return if got > 0 { self.stop(got, Some(error)) } else { Io::Failed(error) };
                }
                match self.refill(fd) {
                    Io::Moved(_) => {}
                    Io::WouldBlock if got > 0 => return Io::Moved(got),
                    // The end of the stream is the end, whether it was announced or not: every message says how long it is.
                    Io::Eof if got > 0 => return self.stop(got, None),
                    Io::Failed(error) if got > 0 => return self.stop(got, Some(error)),
                    other => return other,
                }
            }
            if let Err(error) = self.open(fd) {
                return if got > 0 { self.stop(got, Some(error)) } else { Io::Failed(error) };
            }
        }
    }

    /// Says goodbye, if nothing is left to be said before that.
    pub(super) fn end(&mut self, fd: RawFd) {
        if !self.tls.wants_write() {
            self.tls.send_close_notify();
            let _ = self.flush(fd);
        }
    }

    /// `got` bytes are delivered, and the next receive has something to tell.
    fn stop(&mut self, got: usize, failure: Option<io::Error>) -> Io {
        self.failure = failure.or(self.failure.take());
        let waits = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        let is_empty = self.tls.reader().fill_buf().is_err_and(|error| waits(&error));
        self.has_more = !is_empty || self.at < self.end || self.failure.is_some();
        Io::Moved(got)
    }

    /// Puts decrypted bytes into `iov`, whose first `got` places are taken. `None`: the peer has said goodbye.
    fn deliver(&mut self, iov: &Iov<'_>, got: usize, total: usize) -> io::Result<Option<usize>> {
        let mut delivered = 0;
        while got + delivered < total {
            let mut reader = self.tls.reader();
            let chunk = match reader.fill_buf() {
                Ok([]) if delivered == 0 => return Ok(None),
                Ok(chunk) if !chunk.is_empty() => chunk,
                Err(error) if delivered == 0 => return Err(error),
                _ => break,
            };
            let most = chunk.len().min(total - got - delivered);
            match iov.scatter(got + delivered, &chunk[..most]) {
                Ok(count) => {
                    reader.consume(count);
                    delivered += count;
                }
                Err(error) if delivered == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(Some(delivered))
    }

    /// Takes what the kernel has.
    fn refill(&mut self, fd: RawFd) -> Io {
        if self.inbox.len() < INBOX {
            match room(INBOX) {
                Ok(inbox) => self.inbox = inbox,
                Err(error) => return Io::Failed(error),
            }
        }
        (self.at, self.end) = (0, 0);
        let mut iov = Iov::new();
        iov.push_mut(&mut self.inbox);
        let received = iov::recv(fd, &mut iov);
        if let Io::Moved(count) = received {
            self.end = count;
        }
        received
    }

    /// Decrypts what came, and answers where TLS has to.
    fn open(&mut self, fd: RawFd) -> io::Result<()> {
        let mut come = &self.inbox[self.at..self.end];
        let before = come.len();
        let read = self.tls.read_tls(&mut come)?;
        self.at += before - come.len();
        if read == 0 {
            // Behind the goodbye.
            self.at = self.end;
            return Ok(());
        }
        let processed = self.tls.process_new_packets();
        // Where a byte is held, the answer waits: what it is behind must not leave before it is told as sent.
        let is_answered = self.is_held || !self.tls.wants_write() || {
            match self.flush(fd) {
                // What came before the end is delivered; the next send meets the error again.
                Err(_) if !self.is_beginning() => true,
                flushed => flushed?,
            }
        };
        match processed {
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            // Nothing was sent on this connection yet, so what does not fit is a failure.
            Ok(_) if !is_answered && self.is_beginning() => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => Ok(()),
        }
    }

    /// Hands the kernel what is encrypted. `false`: it does not take all of it now.
    fn flush(&mut self, fd: RawFd) -> io::Result<bool> {
        let mut wire = Wire(fd);
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut wire) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

fn room(bytes: usize) -> io::Result<Vec<u8>> {
    let mut room = Vec::new();
    room.try_reserve_exact(bytes).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    room.resize(bytes, 0);
    Ok(room)
}

fn moved(bytes: usize) -> Io {
    match bytes {
        0 => Io::WouldBlock,
        bytes => Io::Moved(bytes),
    }
}

/// What a copy that failed, or the end of the stream, says of the connection.
fn unreadable(error: io::Error) -> Io {
    match (error.raw_os_error(), error.kind()) {
        (Some(libc::EFAULT), _) => Io::Fault,
        (_, io::ErrorKind::UnexpectedEof) => Io::Eof,
        _ => Io::Failed(error),
    }
}

/// The socket, as rustls writes to it.
struct Wire(RawFd);

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut list = Iov::new();
        list.push(bytes);
        match iov::send(self.0, &mut list) {
            Io::Moved(count) => Ok(count),
            Io::WouldBlock => Err(io::ErrorKind::WouldBlock.into()),
            Io::Failed(error) => Err(error),
            Io::Eof | Io::Fault => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
