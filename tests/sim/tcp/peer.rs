//! The peer: a process with memory, a data port and a handshake port.

use super::wire::{Chunk, Wire};
use super::world::Happening;
use super::Fault;
use crate::sim::{Agenda, Choices};
use crate::transport::slice::Op;
use crate::transport::tcp::wire::{Header, HEADER_LEN, INCARNATION_LEN, OK_FRAME, REJECTED_FRAME};

/// Where memory that peers may access begins; WRITEs go to the first half, READs come from the second.
pub(super) const BASE: u64 = 0x1000;
/// Bytes of each half.
pub(super) const HALF: u64 = 512;
/// Where the peer keeps its incarnation.
pub(super) const CELL: u64 = 0x10;

/// What speaks at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An engine of this project.
    Ours,
    /// Upstream's: v2, without incarnation; v1; one request per connection.
    V2,
    V1,
    OneShot,
}

/// A process.
pub(super) struct Peer {
    pub kind: Kind,
    /// Counts its starts; its bytes follow from it.
    pub start: u64,
    pub port: u16,
    pub alive: bool,
    pub stopped: bool,
    /// Its memory is registered.
    pub registered: bool,
    pub memory: Vec<u8>,
}

/// What a byte of the half that is read has.
pub(super) fn pattern(start: u64, addr: u64) -> u8 {
    (addr as u8).wrapping_mul(31) ^ (start as u8).wrapping_mul(101)
}

/// The incarnation of a start, as the lane knows it.
pub(super) fn incarnation(kind: Kind, start: u64) -> u64 {
    if kind == Kind::Ours {
        start
    } else {
        0
    }
}

/// The peer has put bytes into its memory.
pub(super) struct Applied {
    pub addr: u64,
    pub bytes: Vec<u8>,
}

impl Peer {
    pub(super) fn new(kind: Kind) -> Self {
        let memory = vec![0; HALF as usize];
        Peer { kind, start: 1, port: 1, alive: true, stopped: false, registered: true, memory }
    }

    pub(super) fn runs(&self) -> bool {
        self.alive && !self.stopped
    }

    /// Whether a request may be executed.
    fn admits(&self, header: &Header) -> bool {
        let (from, to) = match header.op {
            Op::Write => (BASE, BASE + HALF),
            Op::Read => (BASE + HALF, BASE + 2 * HALF),
        };
        self.registered && header.addr >= from && header.size <= to - header.addr.min(to)
    }

    /// Takes what has arrived on a connection; says what came into its memory.
    pub(super) fn serve(&mut self, wire: &mut Wire, fault: Option<Fault>) -> Vec<Applied> {
        let mut applied = Vec::new();
        while wire.open_there && !wire.kernel.is_empty() {
            if wire.serving.refused {
                wire.kernel.clear();
                return applied;
            }
            if let Some((addr, left, answers)) = wire.serving.body {
                let count = left.min(wire.kernel.len() as u64);
                let bytes: Vec<u8> = wire.kernel.drain(..count as usize).collect();
                let at = (addr - BASE) as usize;
                self.memory[at..at + bytes.len()].copy_from_slice(&bytes);
                wire.note_taken(count);
                applied.push(Applied { addr, bytes });
                wire.serving.body = Some((addr + count, left - count, answers)).filter(|_| left > count);
                if left == count && answers && fault != Some(Fault::EarlyAnswer) {
                    wire.back.push_back(Chunk::Bytes(OK_FRAME.to_vec()));
                }
                continue;
            }
            let missing = HEADER_LEN - wire.serving.heads.len();
            let count = missing.min(wire.kernel.len());
            wire.serving.heads.extend(wire.kernel.drain(..count));
            if wire.serving.heads.len() == HEADER_LEN {
                let mut bytes = [0; HEADER_LEN];
                bytes.copy_from_slice(&wire.serving.heads);
                wire.serving.heads.clear();
                self.accept(wire, &bytes, fault);
            }
        }
        applied
    }

    fn accept(&mut self, wire: &mut Wire, bytes: &[u8; HEADER_LEN], fault: Option<Fault>) {
        let header = Header::decode(bytes);
        let mut reply = if header.v2 { OK_FRAME.to_vec() } else { Vec::new() };
        if self.kind == Kind::Ours && header.addr == CELL && header.size == INCARNATION_LEN as u64 {
            wire.serving.mark = Header::mark(bytes);
            reply.extend(u128::from(self.start).to_le_bytes());
            return wire.back.push_back(Chunk::Bytes(reply));
        }
        if !self.admits(&header) {
            if !header.v2 {
                return wire.close_there(Chunk::Fin);
            }
            wire.serving.refused = true;
            wire.bodies.clear();
            return wire.back.push_back(Chunk::Bytes(REJECTED_FRAME.to_vec()));
        }
        match header.op {
            Op::Write => {
                wire.serving.body = Some((header.addr, header.size, header.v2));
                if fault == Some(Fault::EarlyAnswer) && header.v2 {
                    wire.back.push_back(Chunk::Bytes(reply));
                }
            }
            Op::Read => {
                reply.extend((header.addr..header.addr + header.size).map(|addr| pattern(self.start, addr)));
                wire.back.push_back(Chunk::Bytes(reply));
            }
        }
    }
}

/// Plans the arrival of what was put on a connection since `before` chunks were on it, in either direction.
pub(super) fn plan(
    wire: usize,
    to_peer: bool,
    count: usize,
    choices: &mut Choices,
    agenda: &mut Agenda<Happening>,
) {
    for _ in 0..count {
        let delay_us = choices.pick(&[20, 50, 200, 5_000]);
        agenda.plan(delay_us, Happening::Arrive { wire, to_peer });
    }
}
