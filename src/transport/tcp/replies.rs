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
#[derive(Debug)]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{PeerAccess, Range, Registry};
    use crate::runtime::tracked::Tracked;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    const INCARNATION: [u8; INCARNATION_LEN] = [7; INCARNATION_LEN];

    #[test]
    fn what_is_owed_arrives_in_order_and_is_owed_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = Socket::new(Tracked::open(|| Ok(listener.accept()?.0)).unwrap(), None).unwrap();
        let payload = [5u8; 40];
        let addr = payload.as_ptr() as u64;
        let registry = Registry::new(false);
        registry.insert(&[Range { addr, len: 40 }], "*", true).unwrap();
        let mut replies = Replies::default();
        assert!(replies.reserve());
        replies.push_rejected();
        for _ in 0..OK_RUN + 2 {
            replies.push_ok();
        }
        assert_eq!(replies.len(), 3, "a refusal and two runs of OK");
        let held = registry.use_for_peer(addr, 40, PeerAccess::BOTH).unwrap();
        let region = held.region().clone();
        assert!(!replies.use_region(&region));
        replies.push_data(held, addr, 40);
        assert!(replies.use_region(&region));
        replies.push_incarnation();
        assert!(replies.send(&socket, &INCARNATION).is_ok());
        assert_eq!((replies.is_empty(), replies.len(), replies.use_region(&region)), (true, 0, false));
        let expected = [&REJECTED_FRAME[..], &OK_FRAME.repeat(OK_RUN + 2), &payload, &INCARNATION].concat();
        let mut arrived = vec![0; expected.len()];
        peer.read_exact(&mut arrived).unwrap();
        assert_eq!(arrived, expected);
    }

    #[test]
    fn a_reply_that_is_sent_in_part_goes_on_where_it_stopped() {
        let mut replies = Replies::default();
        replies.push_ok();
        replies.push_ok();
        replies.push_rejected();
        replies.note_sent(STATUS_LEN as u64 + 3);
        assert_eq!((replies.len(), replies.sent), (2, STATUS_LEN as u64 + 3));
        replies.note_sent(STATUS_LEN as u64);
        assert_eq!((replies.len(), replies.sent), (1, 3), "of the refusal");
        replies.note_sent(STATUS_LEN as u64 - 3);
        assert!(replies.is_empty() && replies.sent == 0);
    }

    #[test]
    fn memory_that_is_gone_is_named_from_its_first_byte_that_was_not_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = Socket::new(Tracked::open(|| Ok(listener.accept()?.0)).unwrap(), None).unwrap();
        // The kernel maps nothing there.
        let (addr, len) = (64, 100);
        let registry = Registry::new(false);
        registry.insert(&[Range { addr, len }], "*", true).unwrap();
        let mut replies = Replies::default();
        replies.push_ok();
        replies.push_data(registry.use_for_peer(addr, len, PeerAccess::BOTH).unwrap(), addr, len);
        replies.note_sent(STATUS_LEN as u64 + 10);
        let over = replies.send(&socket, &INCARNATION).unwrap_err();
        assert_eq!(over.unmapped, Some((addr + 10, len - 10)));
    }
}
