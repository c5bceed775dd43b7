//! What a served connection owes its peer: replies in the order of the requests, and how far they are sent. Payload goes out
//! straight from registered memory, which is in use until its last byte is sent.

use std::collections::VecDeque;
use std::sync::Arc;

use super::sock::{Io, Iov, Socket};
use super::wire::{INCARNATION_LEN, OK_FRAME, REJECTED_FRAME, STATUS_LEN};
use crate::memory::{Region, RegionUse};

/// Most replies that one request adds: a status frame, and its payload or the incarnation.
const MOST_PER_REQUEST: usize = 2;
/// Frames that answer several WRITEs in one piece of memory. Chosen: one for each of a peer's 64 requests, in 512 bytes.
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

/// The connection cannot be used any more.
pub(super) struct Over {
    /// Because this memory, address and bytes, is not mapped.
    pub unmapped: Option<(u64, u64)>,
}

/// The replies that are not sent yet.
#[derive(Default)]
pub(super) struct Replies {
    queue: VecDeque<Reply>,
    /// Bytes sent of the first one.
    sent: u64,
}

impl Replies {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// There is none.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Makes room for those of one more request, its refusal included. `false`: there is no memory.
    pub(super) fn reserve(&mut self) -> bool {
        self.queue.try_reserve(MOST_PER_REQUEST).is_ok()
    }

    /// A WRITE is done, or a READ's payload follows.
    pub(super) fn push_ok(&mut self) {
        match self.queue.back_mut() {
            Some(Reply::Ok(count)) if *count < OK_RUN => *count += 1,
            _ => self.queue.push_back(Reply::Ok(1)),
        }
    }

    /// A request is refused.
    pub(super) fn push_rejected(&mut self) {
        self.queue.push_back(Reply::Rejected);
    }

    /// The `len` bytes at `addr`, of a region in use.
    pub(super) fn push_data(&mut self, held: RegionUse, addr: u64, len: u64) {
        self.queue.push_back(Reply::Data { held, addr, len });
    }

    /// What the peer knows this engine's start by.
    pub(super) fn push_incarnation(&mut self) {
        self.queue.push_back(Reply::Incarnation);
    }

    /// One of them is sent from `region`.
    pub(super) fn use_region(&self, region: &Arc<Region>) -> bool {
        let is_in =
            |reply: &Reply| matches!(reply, Reply::Data { held, .. } if Arc::ptr_eq(held.region(), region));
        self.queue.iter().any(is_in)
    }

    /// Sends as far as the socket goes.
    pub(super) fn send(&mut self, socket: &Socket, incarnation: &[u8; INCARNATION_LEN]) -> Result<(), Over> {
        // After a fault one reply at a time, to find out whose memory it is.
        let mut most = usize::MAX;
        while !self.queue.is_empty() {
            let mut iov = Iov::new();
            let mut skip = self.sent as usize;
            for reply in self.queue.iter().take(most) {
                if !iov.has_room() {
                    break;
                }
                match reply {
                    Reply::Ok(count) => iov.push(&OK_FRAMES[skip..count * STATUS_LEN]),
                    Reply::Rejected => iov.push(&REJECTED_FRAME[skip..]),
                    Reply::Data { addr, len, .. } => iov.push_raw(addr + skip as u64, len - skip as u64),
                    Reply::Incarnation => iov.push(&incarnation[skip..]),
                }
                skip = 0;
            }
            let asked = iov.bytes();
            match socket.send(&mut iov) {
                Io::Moved(n) => {
                    self.note_sent(n as u64);
                    if n < asked && most > 1 {
                        return Ok(());
                    }
                }
                Io::WouldBlock => return Ok(()),
                Io::Fault if most > 1 => most = 1,
                Io::Fault => {
                    // Its reply was begun, so only another request of the peer can be refused. What was sent is mapped.
                    let unmapped = match self.queue.front() {
                        Some(Reply::Data { addr, len, .. }) => Some((addr + self.sent, len - self.sent)),
                        _ => None,
                    };
                    return Err(Over { unmapped });
                }
                Io::Eof | Io::Failed(_) => return Err(Over { unmapped: None }),
            }
        }
        Ok(())
    }

    fn note_sent(&mut self, n: u64) {
        self.sent += n;
        while let Some(len) = self.queue.front().map(Reply::len) {
            if self.sent < len {
                return;
            }
            self.sent -= len;
            self.queue.pop_front();
        }
    }
}
