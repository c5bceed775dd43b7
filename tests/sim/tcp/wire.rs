//! A TCP connection: bytes on their way in both directions, in order, and what each end knows of the other. Either end
//! may be gone while bytes that it sent are still under way.

use std::collections::VecDeque;

use crate::transport::tcp::ends::Down;

/// What travels.
#[derive(Debug)]
pub(super) enum Chunk {
    Bytes(Vec<u8>),
    /// Nothing follows.
    Fin,
    /// The other end is gone.
    Reset,
}

/// A WRITE whose body has begun to leave, until the peer has all of it.
pub(super) struct Body {
    pub addr: u64,
    pub left: u64,
}

/// One connection.
#[derive(Default)]
pub(super) struct Wire {
    /// Of ours, the initiator's end.
    pub lane: usize,
    /// Of the peer, as the descriptor has it that led here.
    pub start: u64,
    /// The attempt that made it, until the lane has it.
    pub attempt: Option<usize>,
    /// Told to the peer; 0: none.
    pub mark: u64,
    /// Ours is open.
    pub open_here: bool,
    /// The peer's is open.
    pub open_there: bool,
    /// What our kernel says of it once what has arrived is read.
    pub end: Option<End>,
    /// Arrived and not read.
    pub inbox: VecDeque<u8>,
    /// On their way to the peer, and to us.
    pub out: VecDeque<Chunk>,
    pub back: VecDeque<Chunk>,
    /// Bytes of `out`.
    pub out_bytes: usize,
    /// Arrivals that are due and held up by the network.
    pub held: [u32; 2],
    /// Nothing gets through.
    pub is_cut: bool,
    /// At the peer: arrived and not taken.
    pub kernel: VecDeque<u8>,
    pub serving: Serving,
    /// Bodies that the peer may still take bytes of.
    pub bodies: VecDeque<Body>,
}

/// How a connection ends for whoever reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Reset,
    /// Nobody answers any more.
    Dead,
}

impl End {
    pub(super) fn down(self) -> Down {
        match self {
            End::Closed => Down::Closed(None),
            End::Reset => Down::Closed(Some(std::io::Error::from_raw_os_error(libc::ECONNRESET))),
            End::Dead => {
                crate::transport::tcp::ends::lost(std::io::Error::from_raw_os_error(libc::ETIMEDOUT))
            }
        }
    }
}

/// What the peer is at on a connection.
#[derive(Default)]
pub(super) struct Serving {
    pub heads: Vec<u8>,
    /// Address and bytes left of a WRITE's body, and whether it is to be answered.
    pub body: Option<(u64, u64, bool)>,
    pub refused: bool,
    pub mark: u64,
}

impl Wire {
    pub(super) fn new(lane: usize, start: u64, attempt: usize) -> Self {
        Wire { lane, start, attempt: Some(attempt), open_here: true, open_there: true, ..Wire::default() }
    }

    /// The peer's end is closed: of what is under way nothing is taken.
    pub(super) fn close_there(&mut self, how: Chunk) {
        if std::mem::replace(&mut self.open_there, false) {
            self.kernel.clear();
            self.bodies.clear();
            self.back.push_back(how);
        }
    }

    /// Bytes of this body may still reach the peer's memory.
    pub(super) fn may_still_write(&self, addr: u64, len: u64) -> bool {
        let overlaps = |body: &Body| body.addr < addr + len && addr < body.addr + body.left;
        self.open_there && !self.serving.refused && self.bodies.iter().any(overlaps)
    }

    /// The peer has taken bytes of a body.
    pub(super) fn note_taken(&mut self, bytes: u64) {
        let Some(body) = self.bodies.front_mut() else { return };
        body.addr += bytes;
        body.left -= bytes;
        if body.left == 0 {
            self.bodies.pop_front();
        }
    }
}
