//! One connection of a peer: we are the server. Bodies go from the socket straight into registered memory and back. A
//! region is in use from the check of the request's address to the last byte. Replies go out in the order of the
//! requests; requests that arrived together are not ordered among each other. Belongs to one data-plane thread.

mod entry;

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ahead::{Ahead, Body, SMALL};
use super::door::Door;
use super::reactor::{Held, Outcome, Served};
use super::replies::{Over, Replies};
use super::shared::Shared;
use super::sock::{Courier, Io, Iov, Socket};
use super::table::{Phase, Place};
use super::wire::{Header, HEADER_LEN};
use crate::memory::Region;
use crate::runtime::descriptors;
use crate::runtime::epoll::{self, IN, OUT};
use crate::transport::slice::Op;

/// Headers looked for in one receive while the peer only reads. Chosen: as many as our own lanes send at once, in 1.5 KiB
/// per connection.
const LOOKAHEAD: usize = 64;
/// Replies that may wait before no more requests are taken. Chosen: a peer that does not read its replies can make us
/// keep only so many, and one that does read never comes near it.
const MAX_REPLIES: usize = 4 * LOOKAHEAD;
/// Receives per event. Chosen: a peer that never stops sending still leaves the thread to the others soon.
const ROUNDS: usize = 64;
/// Payload after which answers are sent although more requests are there. Chosen: half of what a lane of ours is given at
/// a time (256 KiB), so that its first answers are under way while we receive the rest.
const FLUSH_BYTES: u64 = 128 << 10;
/// How long a refused connection is drained before it is closed. Chosen: many round trips, within which a peer that reads
/// has seen the refusal.
const DRAIN: Duration = Duration::from_secs(2);
/// How much of a refused connection is drained at the most. Chosen: more than the socket buffers of both ends usually
/// hold, so a peer that reads while it sends has seen the refusal by then.
const DRAIN_BYTES: usize = 64 << 20;

/// A served connection.
pub(super) struct Inbound {
    socket: Socket,
    shared: Arc<Shared>,
    place: Place,
    /// Until it has its descriptor, where these are scarce.
    held: Option<Held>,
    opened: Instant,
    /// A request was taken. Until the first one there is a deadline.
    asked: bool,
    heads: [u8; LOOKAHEAD * HEADER_LEN],
    heads_len: usize,
    lookahead: usize,
    body: Option<Body>,
    /// The last WRITE had another request behind it already, so a look ahead is worth its price.
    in_a_row: bool,
    replies: Replies,
    /// A request was refused, so nothing more is executed. What arrives is thrown away for a while before the connection
    /// is closed, because a reset could overtake the refusal.
    refused: bool,
    /// Bytes thrown away since the refusal.
    drained: usize,
    /// The peer sends nothing more. What it asked for before is still answered.
    eof: bool,
    /// Payload received since answers were last sent.
    unflushed: u64,
    interest: u32,
    last_progress: Instant,
    /// What the peer knows this connection by, once it has said so.
    mark: u64,
    /// Until the peer is believed, where it has to be: nothing it sends is a request.
    door: Option<Door>,
}

impl Inbound {
    /// A fresh connection, watched for input, with its place among the others.
    pub(super) fn new(socket: Socket, shared: &Arc<Shared>, place: Place, held: Option<Held>) -> Self {
        let opened = Instant::now();
        let door = Door::new(shared.tls.clone(), shared.keys.clone());
        Inbound {
            socket,
            shared: shared.clone(),
            place,
            held,
            opened,
            asked: false,
            heads: [0; LOOKAHEAD * HEADER_LEN],
            heads_len: 0,
            lookahead: if door.is_some() { Door::HEADS } else { 1 },
            body: None,
            in_a_row: false,
            replies: Replies::default(),
            refused: false,
            drained: 0,
            eof: false,
            unflushed: 0,
            interest: IN,
            last_progress: opened,
            mark: 0,
            door,
        }
    }

    /// A request was refused, and everything up to the refusal is answered.
    fn is_draining(&self) -> bool {
        self.refused && self.replies.is_empty()
    }

    /// Takes what has arrived. `false`: the connection is over.
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
            let ahead = self.look_ahead(courier);
            let count = ahead.len();
            let mut iov = Iov::new();
            let body_left = self.body.as_ref().map_or(0, |body| {
                iov.push_raw(body.addr, body.left);
                body.left
            });
            let heads = ahead.ask(&mut iov, &mut self.heads[self.heads_len..]);
            iov.push_mut(&mut heads[..self.lookahead * HEADER_LEN - self.heads_len]);
            let asked = iov.bytes();
            let n = match self.socket.recv(&mut iov) {
                Io::Moved(n) => n,
                Io::WouldBlock => return true,
                Io::Eof => {
                    // The peer may have shut down its sending side only.
                    self.eof = true;
                    return self.body.is_none();
                }
                // One body at a time, to find out whose memory it is.
                Io::Fault if count > 0 => {
                    self.in_a_row = false;
                    continue;
                }
                Io::Fault if self.refuse_body() => continue,
                Io::Fault => return false,
                Io::Failed(error) => match Door::doubt(&self.socket, &error) {
                    Some(why) => {
                        self.refuse(&why);
                        continue;
                    }
                    None => return false,
                },
            };
            let Some(into_bodies) = self.note_received(n, ahead) else { return false };
            if body_left > 0 {
                self.in_a_row = n == asked || count > 0;
            }
            if !self.parse(courier) {
                return false;
            }
            if n < asked {
                return true;
            }
            self.unflushed += into_bodies;
            if self.unflushed > FLUSH_BYTES && !self.flush() {
                return false;
            }
        }
        true
    }

    /// The small WRITEs that have come behind the one under way.
    fn look_ahead(&mut self, courier: &mut Courier) -> Ahead {
        let Some(body) = self.body.as_ref().filter(|body| self.in_a_row && body.size <= SMALL) else {
            return Ahead::default();
        };
        let shared = &self.shared;
        let check = |header: &Header| {
            let Header { size, addr, op, .. } = *header;
            shared
                .registry
                .use_for_peer(addr, size, header.wants())
                .filter(|_| !shared.faults.meet(op, addr, size))
        };
        Ahead::look(&self.socket, body, &mut self.heads, &mut courier.scratch, check)
    }

    /// Takes note of `n` bytes: of the body under way, then of headers and bodies as `ahead` has them, then of headers.
    /// Returns how many belong to bodies; `None`: there is no memory for the answers.
    fn note_received(&mut self, n: usize, ahead: Ahead) -> Option<u64> {
        let mut rest = self.note_body(n as u64);
        let mut heads = 0;
        for body in ahead.into_bodies() {
            if self.body.is_some() || rest < HEADER_LEN as u64 {
                break;
            }
            if !self.replies.reserve() {
                return None;
            }
            heads += HEADER_LEN;
            self.body = Some(body);
            rest = self.note_body(rest - HEADER_LEN as u64);
        }
        // Behind those of `ahead`. If there were any, nothing was there before them.
        self.heads.copy_within(heads..heads + self.heads_len + rest as usize, 0);
        self.heads_len += rest as usize;
        Some(n as u64 - heads as u64 - rest)
    }

    /// Takes note of up to `n` bytes of the body under way; returns how many are left of them.
    fn note_body(&mut self, n: u64) -> u64 {
        let Some(body) = &mut self.body else { return n };
        let taken = n.min(body.left);
        body.addr += taken;
        body.left -= taken;
        if body.left == 0 {
            let v2 = body.v2;
            // The use ends before the answer leaves: whoever hears the answer may unregister the region at once.
            self.body = None;
            self.shared.stats.inbound_requests.fetch_add(1, Relaxed);
            if v2 {
                self.replies.push_ok();
            }
        }
        n - taken
    }

    /// Takes the requests out of the bytes received so far. `false`: the connection is over.
    fn parse(&mut self, courier: &mut Courier) -> bool {
        match self.pass_door() {
            Some(true) => {}
            Some(false) => return true,
            None => return false,
        }
        let mut at = 0;
        while self.body.is_none() && self.heads_len - at >= HEADER_LEN && !self.refused {
            let mut bytes = [0; HEADER_LEN];
            bytes.copy_from_slice(&self.heads[at..at + HEADER_LEN]);
            at += HEADER_LEN;
            let header = Header::decode(&bytes);
            if self.shared.is_incarnation_cell(header.addr, header.size) {
                self.mark = Header::mark(&bytes);
            }
            if !self.replies.reserve() {
                return false;
            }
            if !self.accept(&header) {
                if !header.v2 {
                    self.flush();
                    return false;
                }
                self.replies.push_rejected();
                self.refused = true;
            }
            if let Some(body) = &self.body {
                // Bytes of the body that came where further headers were expected.
                let n = body.left.min((self.heads_len - at) as u64) as usize;
                if n > 0 && !courier.deliver(&self.heads[at..at + n], body.addr) {
                    if !self.refuse_body() {
                        return false;
                    }
                    break;
                }
                at += n;
                self.note_body(n as u64);
            }
        }
        self.heads.copy_within(at..self.heads_len, 0);
        self.heads_len -= at;
        true
    }

    /// Begins a request. `false`: its address is refused.
    fn accept(&mut self, header: &Header) -> bool {
        let Header { size, addr, op, v2 } = *header;
        if op == Op::Read && v2 && self.shared.is_incarnation_cell(addr, size) {
            self.asked = true;
            self.replies.push_ok();
            self.replies.push_incarnation();
            return true;
        }
        let held = self.shared.registry.use_for_peer(addr, size, header.wants());
        let Some(held) = held.filter(|_| !self.shared.faults.meet(op, addr, size)) else {
            self.shared.note_rejected(&self.socket, header);
            return false;
        };
        self.asked = true;
        match op {
            Op::Write => {
                self.lookahead = 1;
                self.body = Some(Body { held, addr, left: size, size, v2 });
            }
            Op::Read => {
                self.lookahead = (self.lookahead * 2).min(LOOKAHEAD);
                if v2 {
                    self.replies.push_ok();
                }
                self.replies.push_data(held, addr, size);
                self.shared.stats.inbound_requests.fetch_add(1, Relaxed);
            }
        }
        true
    }

    /// The memory that a WRITE's body goes to is not mapped. `false`: the peer cannot be told so.
    fn refuse_body(&mut self) -> bool {
        let Some(body) = self.body.take() else { return false };
        self.shared.note_fault(Op::Write, body.addr, body.left);
        if body.v2 {
            self.replies.push_rejected();
            self.refused = true;
        }
        body.v2
    }

    /// Sends replies as far as the socket goes. `false`: the connection is over.
    fn flush(&mut self) -> bool {
        self.unflushed = 0;
        match self.replies.send(&self.socket, &self.shared.incarnation) {
            Ok(()) => true,
            Err(Over { unmapped }) => {
                unmapped.into_iter().for_each(|(addr, len)| self.shared.note_fault(Op::Read, addr, len));
                false
            }
        }
    }

    /// What the connection is at, for whoever needs its place.
    fn phase(&self) -> Phase {
        match self.body.is_some() || !self.replies.is_empty() {
            _ if self.refused || !self.asked => Phase::Silent,
            true => Phase::Busy,
            false => Phase::Idle,
        }
    }
}

impl Served for Inbound {
    fn fd(&self) -> RawFd {
        self.socket.fd()
    }

    /// Takes the number of the connection that it displaced, where descriptors are scarce. `false`: the host took it.
    fn settle(&mut self) -> bool {
        // The next one may come, however this ends.
        let _held = self.held.take();
        let before = self.socket.fd();
        if !descriptors::is_scarce(before) || self.shared.inbound.has_few() {
            return true;
        }
        if self.socket.lower().is_ok() && self.socket.fd() < before {
            return true;
        }
        self.shared.note_refused(&self.socket.peer_ip(), true);
        false
    }

    fn uses(&self, region: &Arc<Region>) -> bool {
        let is_received = self.body.as_ref().is_some_and(|body| Arc::ptr_eq(body.held.region(), region));
        is_received || self.replies.use_region(region)
    }

    fn mark(&self) -> u64 {
        self.mark
    }

    /// Its place is another's, or no request came for `MC_TCP_FIRST_REQUEST_TIMEOUT_SEC`, or a request or a reply was begun
    /// and has not moved for `MC_TCP_BODY_TIMEOUT_SEC`. Between requests a peer may be silent for ever, as upstream's pooled
    /// clients are.
    fn overdue(&self, now: Instant) -> bool {
        let is_late =
            now.saturating_duration_since(self.opened) > self.shared.config.tcp_first_request_timeout;
        let is_unproven = self.door.as_ref().is_some_and(|door| door.is_overdue(&self.socket, now));
        if self.place.is_dismissed() || is_unproven || is_late && !self.asked {
            return true;
        }
        let begun = self.heads_len > 0 || self.body.is_some() || !self.replies.is_empty();
        let limit = if self.is_draining() { DRAIN } else { self.shared.config.tcp_body_timeout };
        (begun || self.refused) && now.saturating_duration_since(self.last_progress) > limit
    }

    fn advance(&mut self, events: u32, courier: &mut Courier) -> Outcome {
        // After an error what is buffered must not be executed: the peer may have sent it again on another connection.
        if events & epoll::ERR != 0 {
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
        self.place.note(self.phase(), self.last_progress);
        let mut interest = 0;
        if self.replies.len() < MAX_REPLIES && !self.eof {
            interest |= IN;
        }
        // What TLS has decrypted already, the kernel does not call for. Of a refused connection nothing is decrypted any more.
        if !self.replies.is_empty() || !self.refused && self.socket.has_more() {
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
        self.shared.inbound.leave(&self.place);
    }
}
