//! Attempts to connect (`connect.rs`): the descriptor is read again after a loss, a connection is opened and proven, and after
//! a failure the descriptor is read and the attempt repeated once, if the peer has moved.

use super::lanes::error;
use super::peer::{plan, Kind, CELL};
use super::wire::{Chunk, Wire};
use super::world::{Happening, Known, World};
use super::Fault;
use crate::transport::slice::Op;
use crate::transport::tcp::lane::events::Event;
use crate::transport::tcp::pipeline::Terms;
use crate::transport::tcp::wire::{Header, INCARNATION_LEN, OK_FRAME, STATUS_LEN};

/// How long the peer may take to accept and to prove a connection.
const ANSWER_US: u64 = 3_000_000;

/// One attempt.
pub(super) struct Attempt {
    lane: usize,
    reread: bool,
    retried: bool,
    endpoint: Known,
    wire: Option<usize>,
    /// Counts connections, so that what is late says nothing of the next one.
    round: u32,
    over: bool,
}

/// What an attempt comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The descriptor was read, or not; then the peer is connected to.
    Read,
    /// The peer's kernel has accepted.
    Opened(u32),
    Refused(u32),
    /// Nobody has answered in time.
    Silent(u32),
    /// After a failure the descriptor was read.
    ReadAgain,
}

impl World<'_> {
    pub(super) fn begin_attempt(&mut self, lane: usize) {
        let under_way = self.attempts.iter().any(|attempt| attempt.lane == lane && !attempt.over);
        assert!(!under_way, "two attempts at a time");
        let reread = std::mem::take(&mut self.stale);
        let endpoint = self.known;
        let attempt = Attempt { lane, reread, retried: false, endpoint, wire: None, round: 0, over: false };
        self.attempts.push(attempt);
        let delay_us = if reread { self.choices.pick(&[100, 1_500_000]) } else { 1 };
        self.agenda.plan(delay_us, Happening::Attempt { attempt: self.attempts.len() - 1, part: Part::Read });
    }

    pub(super) fn attempt_goes_on(&mut self, number: usize, part: Part) {
        let attempt = &self.attempts[number];
        let (lane, round) = (attempt.lane, attempt.round);
        if attempt.over {
            return;
        }
        match part {
            Part::Read => {
                if attempt.reread {
                    self.read_descriptor();
                }
                self.open(number);
            }
            Part::Opened(of) if of == round => self.opened(number),
            Part::Refused(of) if of == round => self.attempt_failed(number),
            Part::Silent(of) if of == round => self.attempt_failed(number),
            Part::ReadAgain => {
                self.read_descriptor();
                let attempt = &mut self.attempts[number];
                if attempt.endpoint == self.known {
                    attempt.over = true;
                    return self.feed(lane, Event::ConnectFailed(error("no connection")));
                }
                attempt.retried = true;
                self.open(number);
            }
            _ => {}
        }
    }

    /// A store tells what it has; the peer itself tells only while it runs.
    pub(super) fn read_descriptor(&mut self) {
        if self.course.has_store || self.peer.runs() && !self.is_cut {
            self.known = self.stored;
        }
    }

    fn open(&mut self, number: usize) {
        self.attempts[number].endpoint = self.known;
        self.attempts[number].round += 1;
        let (round, port) = (self.attempts[number].round, self.known.port);
        let delay_us = self.choices.pick(&[50, 1_000, 100_000]);
        let listens = self.peer.alive && self.peer.port == port;
        let part = if listens { Part::Opened(round) } else { Part::Refused(round) };
        if !self.is_cut {
            self.agenda.plan(delay_us, Happening::Attempt { attempt: number, part });
        }
        self.agenda.plan(ANSWER_US, Happening::Attempt { attempt: number, part: Part::Silent(round) });
    }

    /// What holds for a connection to a process of that start.
    pub(super) fn terms(&self, start: u64) -> Terms {
        Terms {
            v2: self.kind != Kind::V1,
            reusable: matches!(self.kind, Kind::Ours | Kind::V2),
            incarnation: super::peer::incarnation(self.kind, start),
        }
    }

    fn opened(&mut self, number: usize) {
        let Attempt { lane, endpoint, .. } = self.attempts[number];
        if self.is_cut || !self.peer.alive || self.peer.port != endpoint.port {
            return;
        }
        self.wires.push(Wire::new(lane, endpoint.start, number));
        let wire = self.wires.len() - 1;
        self.attempts[number].wire = Some(wire);
        if self.kind != Kind::Ours || self.fault == Some(Fault::NoProof) {
            return self.connected(number, wire);
        }
        // Marks of a schedule are never the same.
        self.wires[wire].mark = wire as u64 + 1;
        let header = Header { size: INCARNATION_LEN as u64, addr: CELL, op: Op::Read, v2: true };
        let bytes = header.encode_marked(self.wires[wire].mark).to_vec();
        self.wires[wire].out_bytes += bytes.len();
        self.wires[wire].out.push_back(Chunk::Bytes(bytes));
        plan(wire, true, 1, self.choices, &mut self.agenda);
    }

    /// An answer of the peer, or the end of the connection, came to an attempt.
    pub(super) fn proof_arrives(&mut self, number: usize, wire: usize) {
        if self.attempts[number].over || self.attempts[number].wire != Some(wire) {
            return;
        }
        let it = &mut self.wires[wire];
        if it.inbox.len() < STATUS_LEN + INCARNATION_LEN {
            if it.end.is_some() {
                self.attempt_failed(number);
            }
            return;
        }
        let reply: Vec<u8> = it.inbox.drain(..STATUS_LEN + INCARNATION_LEN).collect();
        let expected = u128::from(it.start).to_le_bytes();
        if reply[..STATUS_LEN] == OK_FRAME && reply[STATUS_LEN..] == expected {
            return self.connected(number, wire);
        }
        self.choices.reach("a connection leads to another incarnation");
        self.attempt_failed(number);
    }

    fn connected(&mut self, number: usize, wire: usize) {
        self.attempts[number].over = true;
        self.wires[wire].attempt = None;
        let lane = self.attempts[number].lane;
        self.feed(lane, Event::Attached(wire));
        // The peer's habit is found out once.
        self.answers |= self.kind == Kind::Ours || self.course.upstream_answers;
    }

    fn attempt_failed(&mut self, number: usize) {
        if let Some(wire) = self.attempts[number].wire.take() {
            self.close_here(wire);
        }
        let attempt = &mut self.attempts[number];
        attempt.round += 1;
        let lane = attempt.lane;
        if attempt.reread || attempt.retried {
            attempt.over = true;
            return self.feed(lane, Event::ConnectFailed(error("no connection")));
        }
        let delay_us = self.choices.pick(&[100, 1_000_000]);
        self.agenda.plan(delay_us, Happening::Attempt { attempt: number, part: Part::ReadAgain });
    }
}
