//! A connection as the peer at its other end sees it: which requests it has received, and how far it has answered.

use std::collections::VecDeque;

use crate::transport::slice::Op;
use crate::transport::tcp::pipeline::{Frames, Run, Terms};
use crate::transport::tcp::wire::{OK_FRAME, REJECTED_FRAME, STATUS_LEN};

/// A request that is not answered yet.
#[derive(Debug)]
struct Sent {
    /// Its length, which no other request has: its name here.
    len: u64,
    op: Op,
    /// Bytes that are still to come.
    left: u64,
}

/// The peer at the other end of one connection.
#[derive(Debug)]
pub(super) struct Peer {
    /// Number of the connection.
    pub number: u32,
    pub terms: Terms,
    /// Begun, and not answered whole.
    sent: VecDeque<Sent>,
    /// Bytes sent of the reply to the oldest of those.
    replied: u64,
    /// Requests begun ever, and answered ever.
    begun: usize,
    pub answered: usize,
}

impl Peer {
    pub(super) fn new(number: u32, terms: Terms) -> Self {
        Peer { number, terms, sent: VecDeque::new(), replied: 0, begun: 0, answered: 0 }
    }

    /// Takes so many bytes of `run`, or all of it; returns how many.
    pub(super) fn take(&mut self, run: Run<'_>, room: u64) -> u64 {
        let (mut bytes, mut skip) = (0, run.skip);
        for request in run.requests {
            if bytes == room {
                break;
            }
            if skip == 0 {
                self.sent.push_back(Sent { len: request.len(), op: request.op(), left: request.send_len() });
                self.begun += 1;
            }
            let strange = request.incarnation != 0 && request.incarnation != self.terms.incarnation;
            assert!(!strange, "sent to another incarnation");
            assert!(request.op() == Op::Read || request.slice().is_some(), "a body without memory");
            let last = self.sent.back_mut().unwrap();
            assert_eq!((last.len, last.left), (request.len(), request.send_len() - skip), "bytes in a gap");
            let taken = last.left.min(room - bytes);
            last.left -= taken;
            (bytes, skip) = (bytes + taken, 0);
        }
        assert!(self.terms.reusable || self.begun <= 1, "two requests on a connection for one");
        bytes
    }

    /// Half a reply is sent.
    pub(super) fn is_amid_reply(&self) -> bool {
        self.replied > 0
    }

    fn reply_len(&self, sent: &Sent) -> u64 {
        let status = if self.terms.v2 { STATUS_LEN as u64 } else { 0 };
        status + if sent.op == Op::Read { sent.len } else { 0 }
    }

    /// Bytes of the replies that may come before that to request number `index`.
    pub(super) fn replies_before(&self, index: usize) -> u64 {
        let whole = self.sent.iter().take(index).take_while(|sent| sent.left == 0);
        whole.map(|sent| self.reply_len(sent)).sum::<u64>().saturating_sub(self.replied)
    }

    /// Sends so many bytes of replies: those that belong to frames arrive in `frames`.
    pub(super) fn answer(&mut self, mut bytes: u64, frames: &mut Frames) {
        // Only the first may hold half a frame from before.
        frames[usize::from(self.is_amid_reply())..].fill([0; STATUS_LEN]);
        let (mut begun, all) = (self.replied, bytes);
        for (sent, frame) in self.sent.iter().zip(frames) {
            let part = bytes.min(self.reply_len(sent) - begun);
            if self.terms.v2 {
                let span = (begun as usize).min(STATUS_LEN)..((begun + part) as usize).min(STATUS_LEN);
                frame[span.clone()].copy_from_slice(&OK_FRAME[span]);
            }
            (bytes, begun) = (bytes - part, 0);
        }
        self.replied += all;
    }

    /// Counts what is answered whole by now. `true`: more than before.
    pub(super) fn settle(&mut self) -> bool {
        let before = self.answered;
        while let Some(sent) = self.sent.front().filter(|sent| sent.left == 0) {
            let reply = self.reply_len(sent);
            if self.replied < reply {
                break;
            }
            self.replied -= reply;
            self.sent.pop_front();
            self.answered += 1;
        }
        self.answered > before
    }

    /// Answers the requests before number `index` and refuses that one; returns the bytes of all that.
    pub(super) fn refuse(&mut self, index: usize, frames: &mut Frames) -> u64 {
        let bytes = self.replies_before(index);
        self.answer(bytes, frames);
        frames[index] = REJECTED_FRAME;
        assert!(self.sent.iter().take(index).all(|sent| sent.left == 0), "begun out of order");
        self.sent.drain(..index);
        bytes + STATUS_LEN as u64
    }

    /// Whether it may have executed the request of this length, and not answered.
    pub(super) fn may_have_executed(&self, len: u64) -> bool {
        self.sent.iter().any(|sent| sent.len == len)
    }
}
