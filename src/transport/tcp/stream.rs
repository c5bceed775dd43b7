//! The pipeline of one connection: what is sent, what is awaited, and what becomes of the
//! requests when the connection dies. No locks and no epoll here.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

use super::ends::{self, lost, Down, Ends, Standing};
use super::request::{Attempt, Request};
use super::sock::{Io, Iov, Socket, IOV_MAX};
use super::stats::Stats;
use super::wire::{verdict, Verdict, HEADER_LEN, STATUS_LEN};
use crate::transport::slice::{Op, Slice};

/// Replies looked for in one receive.
const REPLIES: usize = IOV_MAX / 2;
/// Receives per call, so that one lane does not keep a reactor for itself.
const ROUNDS: usize = 16;

/// What one call moved.
#[derive(Default)]
pub(super) struct Moved {
    /// At least one request was finished.
    pub replies: bool,
    /// At least one byte went either way.
    pub bytes: bool,
    /// The socket takes no more now, and there is more to send.
    pub blocked: bool,
}

/// Pipeline state.
#[derive(Default)]
pub(super) struct Stream {
    v2: bool,
    reusable: bool,
    /// The peer's incarnation, proven; 0 if it has none.
    incarnation: u64,
    /// A buffer in the last call was not mapped: one request at a time, to find out whose.
    cautious: bool,
    /// Oldest first: `sent` whole ones, one partly sent, the rest waiting.
    requests: VecDeque<Request>,
    sent: usize,
    /// Bytes sent of `requests[sent]`.
    sent_bytes: u64,
    /// Bytes received of the oldest request's reply.
    got: u64,
    /// The status frames being received, in reply order.
    frames: Frames,
    /// Replies finished since the pipeline was last empty, and whether it ever was.
    replies_in_burst: u64,
    replies_ever: u64,
    load: u64,
    /// Receives the rest of replies that nobody wants any more.
    sink: Vec<u8>,
}

struct Frames([[u8; STATUS_LEN]; REPLIES]);

impl Default for Frames {
    fn default() -> Self {
        Frames([[0; STATUS_LEN]; REPLIES])
    }
}

impl Stream {
    /// A fresh connection for the waiting requests. Returns those that are meant for another
    /// incarnation of the peer.
    pub(super) fn open(&mut self, v2: bool, reusable: bool, incarnation: u64) -> Vec<Request> {
        self.v2 = v2;
        self.reusable = reusable;
        self.incarnation = incarnation;
        self.cautious = false;
        (self.sent, self.sent_bytes, self.got) = (0, 0, 0);
        (self.replies_in_burst, self.replies_ever) = (0, 0);
        let (suited, strangers) = self.take_all().into_iter().partition(|request| self.suits(request));
        let suited: Vec<Request> = suited;
        suited.into_iter().for_each(|request| self.push(request));
        strangers
    }

    /// The peer at the other end is the one the request was checked for.
    pub(super) fn suits(&self, request: &Request) -> bool {
        request.incarnation == 0 || request.incarnation == self.incarnation
    }

    /// Requests waiting or under way.
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// None at all.
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Their payload bytes.
    pub(super) fn load_bytes(&self) -> u64 {
        self.load
    }

    /// Payload of the request whose reply is awaited.
    pub(super) fn awaited_bytes(&self) -> Option<u64> {
        self.requests.front().map(Request::len)
    }

    /// There is something that may be sent now.
    pub(super) fn wants_to_send(&self) -> bool {
        self.sent_bytes > 0 || self.may_begin(self.sent)
    }

    /// A connection for one request only has done it.
    pub(super) fn spent(&self) -> bool {
        !self.reusable && self.replies_ever > 0
    }

    /// Appends a request.
    pub(super) fn push(&mut self, request: Request) {
        if self.requests.is_empty() {
            self.replies_in_burst = 0;
        }
        self.load += request.len();
        self.requests.push_back(request);
    }

    /// Empties the pipeline.
    pub(super) fn take_all(&mut self) -> Vec<Request> {
        self.load = 0;
        (self.sent, self.sent_bytes, self.got) = (0, 0, 0);
        std::mem::take(&mut self.requests).into()
    }

    /// Reads replies (`read`) and sends requests as far as the socket goes.
    pub(super) fn advance(&mut self, socket: &Socket, read: bool, stats: &Stats) -> Result<Moved, Down> {
        let mut moved = Moved::default();
        if read {
            self.receive(socket, &mut moved, stats)?;
        }
        if let Err(down) = self.send(socket, &mut moved, stats) {
            // The peer may have said why before it hung up. Any other end that shows now is a
            // consequence of the first, which the kernel reports only once.
            return match self.receive(socket, &mut moved, stats) {
                Err(Down::Rejected) => Err(Down::Rejected),
                _ => Err(down),
            };
        }
        Ok(moved)
    }

    /// Whether request number `index` may be started on this connection now.
    fn may_begin(&self, index: usize) -> bool {
        let Some(request) = self.requests.get(index).filter(|_| !self.spent()) else { return false };
        if index == 0 {
            return true;
        }
        let alone = request.attempt == Attempt::Alone || self.requests[index - 1].attempt == Attempt::Alone;
        self.reusable && !alone
    }

    fn send(&mut self, socket: &Socket, moved: &mut Moved, stats: &Stats) -> Result<(), Down> {
        while self.wants_to_send() {
            let mut end = self.sent;
            let most = if self.cautious { 1 } else { IOV_MAX / 2 };
            while end - self.sent < most
                && (end == self.sent || self.may_begin(end))
                && end < self.requests.len()
            {
                self.requests[end].encode(self.v2);
                end += 1;
            }
            let mut iov = Iov::new();
            let mut skip = self.sent_bytes;
            for request in self.requests.range(self.sent..end) {
                if skip < HEADER_LEN as u64 {
                    iov.push(&request.header[skip as usize..]);
                }
                let body_sent = skip.saturating_sub(HEADER_LEN as u64);
                if let (Op::Write, Some(slice)) = (request.op(), request.slice()) {
                    iov.push_raw(slice.local + body_sent, slice.len - body_sent);
                }
                skip = 0;
            }
            let asked = iov.bytes();
            match socket.send(&mut iov) {
                Io::Moved(n) => {
                    self.cautious = false;
                    moved.bytes = true;
                    stats.bytes_sent.fetch_add(n as u64, Relaxed);
                    self.note_sent(n as u64);
                    self.retire(moved, stats);
                    if n < asked {
                        moved.blocked = true;
                        return Ok(());
                    }
                }
                Io::WouldBlock => {
                    moved.blocked = true;
                    return Ok(());
                }
                Io::Fault if end - self.sent > 1 => self.cautious = true,
                Io::Fault => return Err(Down::Fault { sending: true }),
                Io::Failed(error) => return Err(lost(error)),
                Io::Eof => return Err(Down::Closed(None)),
            }
        }
        Ok(())
    }

    fn note_sent(&mut self, mut n: u64) {
        while n > 0 {
            let left = self.requests[self.sent].send_len() - self.sent_bytes;
            if n < left {
                self.sent_bytes += n;
                return;
            }
            n -= left;
            self.sent += 1;
            self.sent_bytes = 0;
        }
    }

    /// Finishes the oldest requests whose reply is complete and which are sent whole.
    fn retire(&mut self, moved: &mut Moved, stats: &Stats) {
        while self.sent > 0 && self.requests.front().is_some_and(|r| self.got == r.reply_len(self.v2)) {
            let Some(request) = self.requests.pop_front() else { return };
            self.sent -= 1;
            self.got = 0;
            self.load -= request.len();
            self.replies_in_burst += 1;
            self.replies_ever += 1;
            stats.requests.fetch_add(1, Relaxed);
            request.complete();
            moved.replies = true;
        }
    }

    fn receive(&mut self, socket: &Socket, moved: &mut Moved, stats: &Stats) -> Result<(), Down> {
        for _ in 0..ROUNDS {
            let mut iov = Iov::new();
            let begun = self.sent + usize::from(self.sent_bytes > 0);
            if self.requests.iter().take(begun.min(REPLIES)).any(|r| r.slice().is_none())
                && self.sink.is_empty()
            {
                self.sink.resize(64 << 10, 0);
            }
            let mut skip = self.got;
            let mut sink = Some(&mut self.sink[..]);
            let mut asked_for = 0;
            let most = if self.cautious { begun.min(1) } else { begun };
            for (request, frame) in self.requests.iter().take(most).zip(&mut self.frames.0) {
                asked_for += 1;
                let frame_len = if self.v2 { STATUS_LEN as u64 } else { 0 };
                if skip < frame_len {
                    iov.push_mut(&mut frame[skip as usize..]);
                }
                let body_got = skip.saturating_sub(frame_len);
                skip = 0;
                match (request.op(), request.slice()) {
                    (Op::Write, _) => {}
                    (Op::Read, Some(slice)) => iov.push_raw(slice.local + body_got, slice.len - body_got),
                    (Op::Read, None) => {
                        // One unwanted body per receive: the sink has no second half.
                        let Some(sink) = sink.take() else { break };
                        let room = (request.len() - body_got).min(sink.len() as u64) as usize;
                        iov.push_mut(&mut sink[..room]);
                        if (room as u64) < request.len() - body_got {
                            break;
                        }
                    }
                }
            }
            // Nothing is awaited: look for the end of the stream.
            let idle = iov.bytes() == 0;
            let mut probe = [0u8; 1];
            if idle {
                iov.push_mut(&mut probe);
            }
            let asked = iov.bytes();
            match socket.recv(&mut iov) {
                Io::Moved(_) if idle => {
                    return Err(Down::Protocol("the peer sent bytes that nobody asked for".into()))
                }
                Io::Moved(n) => {
                    self.cautious = false;
                    moved.bytes = true;
                    stats.bytes_received.fetch_add(n as u64, Relaxed);
                    self.note_received(n as u64, moved, stats)?;
                    if n < asked {
                        return Ok(());
                    }
                }
                Io::WouldBlock => return Ok(()),
                Io::Eof => return Err(Down::Closed(None)),
                Io::Fault if asked_for > 1 => self.cautious = true,
                Io::Fault => return Err(Down::Fault { sending: false }),
                Io::Failed(error) => return Err(lost(error)),
            }
        }
        Ok(())
    }

    fn note_received(&mut self, mut n: u64, moved: &mut Moved, stats: &Stats) -> Result<(), Down> {
        let mut frame = 0;
        while n > 0 {
            let Some(front) = self.requests.front() else { break };
            let (before, front_op) = (self.got, front.op());
            let take = n.min(front.reply_len(self.v2) - before);
            n -= take;
            self.got += take;
            if self.v2 && before < STATUS_LEN as u64 && self.got >= STATUS_LEN as u64 {
                check_frame(self.frames.0[frame])?;
                if self.sent == 0 && front_op == Op::Write {
                    let text = "the peer answered a WRITE before it had all of it";
                    return Err(Down::Protocol(text.into()));
                }
            }
            let remaining = self.requests.len();
            self.retire(moved, stats);
            if self.requests.len() == remaining {
                break;
            }
            frame += 1;
        }
        if frame > 0 && self.got > 0 && self.got < STATUS_LEN as u64 {
            self.frames.0[0] = self.frames.0[frame];
        }
        Ok(())
    }

    /// Takes out the slices that `which` picks. The second value: one is half sent and
    /// cannot be taken out while the connection lives.
    pub(super) fn abandon(&mut self, which: impl Fn(&Slice) -> bool) -> (Vec<Slice>, bool) {
        let mut ended = Vec::new();
        let mut stuck = false;
        let begun = self.sent + usize::from(self.sent_bytes > 0);
        let half_sent = if self.sent_bytes > 0 { Some(self.sent) } else { None };
        for (index, request) in self.requests.iter_mut().enumerate() {
            if !request.slice().is_some_and(&which) {
                continue;
            }
            if Some(index) == half_sent && request.op() == Op::Write {
                stuck = true;
            } else {
                ended.extend(request.take_slice());
            }
        }
        let mut index = 0;
        let load = &mut self.load;
        self.requests.retain(|request| {
            let keep = index < begun || request.slice().is_some();
            index += 1;
            if !keep {
                *load -= request.len();
            }
            keep
        });
        (ended, stuck)
    }

    /// Empties the pipeline of a dead connection and decides about each request.
    pub(super) fn tear_down(&mut self, down: &Down, peer: &str) -> Ends {
        let standing = Standing {
            sent: self.sent,
            begun: self.sent + usize::from(self.sent_bytes > 0),
            unanswered: self.replies_ever == 0 || self.replies_in_burst == 0,
        };
        ends::sort(self.take_all(), down, &standing, peer)
    }
}

fn check_frame(frame: [u8; STATUS_LEN]) -> Result<(), Down> {
    match verdict(frame) {
        Verdict::Ok => Ok(()),
        Verdict::Rejected => Err(Down::Rejected),
        Verdict::UnknownCode(code) => Err(Down::Protocol(format!("the peer answered with unknown status {code}"))),
        Verdict::NotAFrame => Err(Down::Protocol(format!(
            "the peer answered {frame:02x?} where a status frame belongs; does it speak v2? (MC_TCP_PROTO=1 forces v1)"
        ))),
    }
}
