//! One connection of a peer: we are the server. Bodies go from the socket straight into
//! registered memory and back; a region is in use from the check of its address to the
//! last byte. Replies go out in the order of the requests; requests that arrived together
//! are not ordered among each other.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reactor::{Outcome, Served};
use super::shared::Shared;
use super::sock::{Courier, Io, Iov, Socket};
use super::wire::{Header, HEADER_LEN, INCARNATION_LEN, OK_FRAME, REJECTED_FRAME, STATUS_LEN};
use crate::memory::{Region, RegionUse};
use crate::transport::slice::Op;

/// Headers looked for in one receive while the peer only reads.
const LOOKAHEAD: usize = 64;
/// Replies that may wait; then no more requests are taken.
const MAX_REPLIES: usize = 4 * LOOKAHEAD;
/// Receives per event, so that one peer does not keep the thread for itself.
const ROUNDS: usize = 64;
/// Payload after which answers are sent although more requests are there.
const FLUSH_BYTES: u64 = 128 << 10;
/// How long a refused connection is drained before it is closed.
const DRAIN: Duration = Duration::from_secs(2);
/// How much of it is drained at the most.
const DRAIN_BYTES: usize = 64 << 20;
/// Frames that answer several WRITEs in one piece.
const OK_RUN: usize = 64;
const OK_FRAMES: [u8; OK_RUN * STATUS_LEN] = {
    let mut frames = [0; OK_RUN * STATUS_LEN];
    let mut i = 0;
    while i < frames.len() {
        frames[i] = OK_FRAME[i % STATUS_LEN];
        i += 1;
    }
    frames
};

/// A WRITE body under way.
struct Body {
    held: RegionUse,
    addr: u64,
    left: u64,
    v2: bool,
}

enum Reply {
    /// So many OK frames.
    Ok(usize),
    Rejected,
    Data {
        held: RegionUse,
        addr: u64,
        len: u64,
    },
    Incarnation,
}

impl Reply {
    fn len(&self) -> u64 {
        match self {
            Reply::Ok(count) => (count * STATUS_LEN) as u64,
            Reply::Rejected => STATUS_LEN as u64,
            Reply::Data { len, .. } => *len,
            Reply::Incarnation => INCARNATION_LEN as u64,
        }
    }
}

/// A served connection.
pub(super) struct Inbound {
    socket: Socket,
    shared: Arc<Shared>,
    heads: [u8; LOOKAHEAD * HEADER_LEN],
    heads_len: usize,
    lookahead: usize,
    body: Option<Body>,
    replies: VecDeque<Reply>,
    /// Bytes sent of the first reply.
    replied: u64,
    /// A request was refused: nothing more is executed; what arrives is thrown away for a
    /// while, so that a reset does not overtake the refusal.
    refused: bool,
    /// Bytes thrown away since.
    drained: usize,
    /// The peer sends nothing more; what it asked for is still answered.
    eof: bool,
    /// Payload received since answers were last sent.
    unflushed: u64,
    interest: u32,
    last_progress: Instant,
}

const IN: u32 = libc::EPOLLIN as u32;
const OUT: u32 = libc::EPOLLOUT as u32;

impl Inbound {
    /// A fresh connection, watched for input.
    pub(super) fn new(socket: Socket, shared: &Arc<Shared>) -> Self {
        Inbound {
            socket,
            shared: shared.clone(),
            heads: [0; LOOKAHEAD * HEADER_LEN],
            heads_len: 0,
            lookahead: 1,
            body: None,
            replies: VecDeque::new(),
            replied: 0,
            refused: false,
            drained: 0,
            eof: false,
            unflushed: 0,
            interest: IN,
            last_progress: Instant::now(),
        }
    }

    /// A request was refused, and everything up to the refusal is answered.
    fn is_draining(&self) -> bool {
        self.refused && self.replies.is_empty()
    }

    /// `false` when the connection is over.
    fn receive(&mut self, courier: &mut Courier) -> bool {
        for _ in 0..ROUNDS {
            if self.eof || self.replies.len() >= MAX_REPLIES {
                return true;
            }
            if self.refused {
                match self.socket.discard() {
                    Io::Moved(n) => {
                        self.drained += n;
                        if self.drained > DRAIN_BYTES {
                            return false;
                        }
                        continue;
                    }
                    Io::WouldBlock => return true,
                    _ => {
                        self.eof = true;
                        return !self.replies.is_empty();
                    }
                }
            }
            let mut iov = Iov::new();
            let body_left = self.body.as_ref().map_or(0, |body| {
                iov.push_raw(body.addr, body.left);
                body.left
            });
            iov.push_mut(&mut self.heads[self.heads_len..self.lookahead * HEADER_LEN]);
            let asked = iov.bytes();
            let n = match self.socket.recv(&mut iov) {
                Io::Moved(n) => n,
                Io::WouldBlock => return true,
                Io::Eof => {
                    // The peer may have shut down its sending side only.
                    self.eof = true;
                    return self.body.is_none();
                }
                Io::Fault => {
                    self.shared.note_fault();
                    return false;
                }
                Io::Failed(_) => return false,
            };
            let into_body = (n as u64).min(body_left);
            self.heads_len += n - into_body as usize;
            self.note_body(into_body);
            if !self.parse(courier) {
                return false;
            }
            if n < asked {
                return true;
            }
            self.unflushed += into_body;
            if self.unflushed > FLUSH_BYTES && !self.flush() {
                return false;
            }
        }
        true
    }

    fn note_body(&mut self, n: u64) {
        let Some(body) = &mut self.body else { return };
        body.addr += n;
        body.left -= n;
        if body.left == 0 {
            let v2 = body.v2;
            // The use ends before the answer leaves: the peer may ask us to unregister next.
            self.body = None;
            self.shared.stats.inbound_requests.fetch_add(1, Relaxed);
            if v2 {
                self.push_ok();
            }
        }
    }

    /// Takes the requests out of the bytes received so far. `false`: close.
    fn parse(&mut self, courier: &mut Courier) -> bool {
        let mut at = 0;
        while self.body.is_none() && self.heads_len - at >= HEADER_LEN && !self.refused {
            let mut bytes = [0; HEADER_LEN];
            bytes.copy_from_slice(&self.heads[at..at + HEADER_LEN]);
            at += HEADER_LEN;
            let header = Header::decode(&bytes);
            if !self.accept(&header) {
                if !header.v2 {
                    self.flush();
                    return false;
                }
                self.replies.push_back(Reply::Rejected);
                self.refused = true;
            }
            if let Some(body) = &self.body {
                // Body bytes that came in the room for further headers.
                let n = body.left.min((self.heads_len - at) as u64) as usize;
                if n > 0 && !courier.deliver(&self.heads[at..at + n], body.addr) {
                    self.shared.note_fault();
                    return false;
                }
                at += n;
                self.note_body(n as u64);
            }
        }
        self.heads.copy_within(at..self.heads_len, 0);
        self.heads_len -= at;
        true
    }

    /// Begins a request; `false` when its address is refused.
    fn accept(&mut self, header: &Header) -> bool {
        let Header { size, addr, op, v2 } = *header;
        if op == Op::Read && v2 && self.shared.is_incarnation_cell(addr, size) {
            self.push_ok();
            self.replies.push_back(Reply::Incarnation);
            return true;
        }
        let Some(held) = self.shared.registry.use_for_peer(addr, size) else {
            self.shared.note_rejected(&self.socket, header);
            return false;
        };
        match op {
            Op::Write => {
                self.lookahead = 1;
                self.body = Some(Body { held, addr, left: size, v2 });
            }
            Op::Read => {
                self.lookahead = (self.lookahead * 2).min(LOOKAHEAD);
                if v2 {
                    self.push_ok();
                }
                self.replies.push_back(Reply::Data { held, addr, len: size });
                self.shared.stats.inbound_requests.fetch_add(1, Relaxed);
            }
        }
        true
    }

    fn push_ok(&mut self) {
        match self.replies.back_mut() {
            Some(Reply::Ok(count)) if *count < OK_RUN => *count += 1,
            _ => self.replies.push_back(Reply::Ok(1)),
        }
    }

    /// Sends replies as far as the socket goes. `false` when the connection is over.
    fn flush(&mut self) -> bool {
        self.unflushed = 0;
        while !self.replies.is_empty() {
            let mut iov = Iov::new();
            let mut skip = self.replied as usize;
            for reply in &self.replies {
                if !iov.has_room() {
                    break;
                }
                match reply {
                    Reply::Ok(count) => iov.push(&OK_FRAMES[skip..count * STATUS_LEN]),
                    Reply::Rejected => iov.push(&REJECTED_FRAME[skip..]),
                    Reply::Data { addr, len, .. } => iov.push_raw(addr + skip as u64, len - skip as u64),
                    Reply::Incarnation => iov.push(&self.shared.incarnation[skip..]),
                }
                skip = 0;
            }
            let asked = iov.bytes();
            match self.socket.send(&mut iov) {
                Io::Moved(n) => {
                    self.note_replied(n as u64);
                    if n < asked {
                        return true;
                    }
                }
                Io::WouldBlock => return true,
                Io::Fault => {
                    self.shared.note_fault();
                    return false;
                }
                Io::Eof | Io::Failed(_) => return false,
            }
        }
        true
    }

    fn note_replied(&mut self, n: u64) {
        self.replied += n;
        while let Some(len) = self.replies.front().map(Reply::len) {
            if self.replied < len {
                return;
            }
            self.replied -= len;
            self.replies.pop_front();
        }
    }
}

impl Served for Inbound {
    fn fd(&self) -> RawFd {
        self.socket.fd()
    }

    fn uses(&self, region: &Arc<Region>) -> bool {
        let held = |held: &RegionUse| Arc::ptr_eq(held.region(), region);
        self.body.as_ref().is_some_and(|body| held(&body.held))
            || self.replies.iter().any(|reply| matches!(reply, Reply::Data { held: h, .. } if held(h)))
    }

    /// Something was begun and has not moved for `MC_TCP_BODY_TIMEOUT_SEC`. Between requests a
    /// peer may be silent for ever: upstream's pooled clients are.
    fn overdue(&self, now: Instant) -> bool {
        let begun = self.heads_len > 0 || self.body.is_some() || !self.replies.is_empty();
        let limit = if self.is_draining() { DRAIN } else { self.shared.config.tcp_body_timeout };
        (begun || self.refused) && now.saturating_duration_since(self.last_progress) > limit
    }

    fn advance(&mut self, events: u32, courier: &mut Courier) -> Outcome {
        // An error makes what is buffered worthless: the peer may have sent it again elsewhere.
        if events & libc::EPOLLERR as u32 != 0 {
            return Outcome::Close;
        }
        if !self.is_draining() {
            self.last_progress = Instant::now();
        }
        if !(self.receive(courier) && self.flush()) {
            return Outcome::Close;
        }
        if self.replies.is_empty() {
            if self.eof {
                return Outcome::Close;
            }
            if self.refused {
                self.socket.shutdown_write();
            }
        }
        let mut interest = 0;
        if self.replies.len() < MAX_REPLIES && !self.eof {
            interest |= IN;
        }
        if !self.replies.is_empty() {
            interest |= OUT;
        }
        if interest == self.interest {
            return Outcome::Keep;
        }
        self.interest = interest;
        Outcome::Watch(interest)
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.shared.inbound_ended();
    }
}
