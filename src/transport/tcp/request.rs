//! A request on a lane: a slice on its way, or the place of a slice that was given up while its reply is still to come.

use super::wire::{Header, HEADER_LEN, STATUS_LEN};
use crate::error::Error;
use crate::transport::slice::{Op, Slice, Trail};

/// How a request is sent next, which depends on how often it was sent without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// It was not sent yet, or the peer is known not to have executed it.
    First,
    /// The connection was new or had been idle, and died before any reply. Once more, pipelined.
    Fresh,
    /// Some request in the pipeline made the peer hang up. Alone this time, to find out which.
    Alone,
}

/// One request.
pub(super) struct Request {
    slice: Option<Slice>,
    /// Of the slice, once it was given up while its bytes were on their way to the peer.
    trail: Option<Trail>,
    op: Op,
    remote: u64,
    len: u64,
    /// The peer's incarnation for which its address was checked; 0 if the peer has none.
    pub incarnation: u64,
    /// How it is to be sent.
    pub attempt: Attempt,
    /// A connection has ended with bytes of it sent.
    pub was_sent: bool,
    /// How often the network has failed under it.
    pub drops: u8,
    /// Header bytes; valid once sending has begun.
    pub header: [u8; HEADER_LEN],
}

impl Request {
    /// A request for `slice`, checked against the descriptor of `incarnation`.
    pub(super) fn new(slice: Slice, incarnation: u64) -> Self {
        let (op, remote, len) = (slice.op, slice.remote, slice.len);
        Request {
            slice: Some(slice),
            trail: None,
            op,
            remote,
            len,
            incarnation,
            attempt: Attempt::First,
            was_sent: false,
            drops: 0,
            header: [0; HEADER_LEN],
        }
    }

    /// Direction.
    pub(super) fn op(&self) -> Op {
        self.op
    }

    /// Address at the peer.
    pub(super) fn remote(&self) -> u64 {
        self.remote
    }

    /// Payload bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The slice, unless it was given up.
    pub(super) fn slice(&self) -> Option<&Slice> {
        self.slice.as_ref()
    }

    /// Its region is being unregistered.
    pub(super) fn is_revoked(&self) -> bool {
        self.slice.as_ref().is_some_and(Slice::is_revoked)
    }

    /// Fails it because its region is being unregistered.
    pub(super) fn fail_revoked(self) {
        if let Some(slice) = self.slice {
            slice.fail_revoked();
        }
    }

    /// Nobody wants it moved any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.slice.as_ref().is_some_and(Slice::is_given_up)
    }

    /// Gives the slice up; the request stays in its place for the reply. `begun`: the peer may have bytes of it.
    pub(super) fn take_slice(&mut self, begun: bool) -> Option<Slice> {
        if begun {
            self.begin_trail();
        }
        self.slice.take()
    }

    /// Notes that bytes of a WRITE may reach the peer after its end.
    pub(super) fn begin_trail(&mut self) {
        if self.op == Op::Write && self.trail.is_none() {
            self.trail = self.slice.as_ref().map(Slice::leave_trail);
        }
    }

    /// What it leaves behind, as its connection is given up with bytes of it on their way.
    pub(super) fn take_trail(&mut self) -> Option<Trail> {
        self.begin_trail();
        self.trail.take()
    }

    /// As [`Request::take_trail`], where nobody follows it: nobody will know when it ends.
    pub(super) fn lose_trail(&mut self) {
        drop(self.take_trail());
    }

    /// Fills in the header for the framing of this connection.
    pub(super) fn encode(&mut self, v2: bool) {
        self.header = Header { size: self.len, addr: self.remote, op: self.op, v2 }.encode();
    }

    /// Bytes to send: the header, and for a WRITE the body.
    pub(super) fn send_len(&self) -> u64 {
        HEADER_LEN as u64 + if self.op == Op::Write { self.len } else { 0 }
    }

    /// Bytes of the reply: the status frame under v2, and for a READ the body.
    pub(super) fn reply_len(&self, v2: bool) -> u64 {
        let status = if v2 { STATUS_LEN as u64 } else { 0 };
        status + if self.op == Op::Read { self.len } else { 0 }
    }

    /// It was answered. `proven`: a WRITE's bytes are known to be at their destination; else they are on their way there.
    pub(super) fn complete(mut self, proven: bool, now_ns: u64) {
        if !proven {
            self.begin_trail();
        }
        let (trail, slice) = (self.trail, self.slice);
        if let Some(slice) = slice {
            slice.complete(now_ns);
        }
        if proven {
            trail.into_iter().for_each(Trail::end);
        }
    }

    /// The peer has told that it takes no more bytes of it.
    pub(super) fn end_trail(&mut self) {
        self.trail.take().into_iter().for_each(Trail::end);
    }

    /// It could not be done.
    pub(super) fn fail(self, error: Error) {
        if let Some(slice) = self.slice {
            slice.fail(error);
        }
    }
}
