//! Queue pairs of both sides, and the packets between them.

use super::world::{Happens, World};
use super::Fault;
use crate::transport::rdma::flight::Loss;
use crate::transport::rdma::verbs::wc;

/// Time between two attempts of a NIC to have a packet acknowledged, and how often it tries.
const RESEND_US: u64 = 500_000;
const MOST_SENT: u8 = 7;
/// How long a packet is under way; mostly the first.
const DELAYS_US: [u64; 8] = [20, 20, 20, 20, 200, 5_000, 700_000, 3_000_000];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// Stopped: sends nothing, takes nothing.
    Draining,
    Gone,
}

/// What was posted: a flight by its number, or a probe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Posted {
    pub(super) flight: Option<u32>,
    /// Its number on the connection.
    pub(super) number: u32,
    sent: u8,
    pub(super) outcome: Option<Result<(), Loss>>,
}

/// A connection: one queue pair, whose number is its place in the world's list, and one.
pub(super) struct Pair {
    pub(super) side: usize,
    pub(super) epoch: u32,
    /// The peer's number, once it is connected.
    pub(super) peer: Option<u32>,
    /// Of the peer.
    pub(super) incarnation: u64,
    pub(super) state: State,
    pub(super) posted: Vec<Posted>,
    numbers: u32,
    /// The peer has confirmed that it takes nothing of it any more.
    pub(super) is_fenced: bool,
}

impl World<'_> {
    pub(super) fn pair(&mut self, number: u32) -> &mut Pair {
        &mut self.pairs[number as usize - 1]
    }

    /// New queue pairs of a side.
    pub(super) fn open_pair(&mut self, side: usize) -> u32 {
        let epoch = self.hosts[side].epoch;
        self.pairs.push(Pair {
            side,
            epoch,
            peer: None,
            incarnation: 0,
            state: State::Open,
            posted: Vec::new(),
            numbers: 0,
            is_fenced: false,
        });
        self.pairs.len() as u32
    }

    pub(super) fn post(&mut self, pair: u32, flight: Option<u32>) {
        let at = self.pair(pair);
        at.numbers += 1;
        let number = at.numbers;
        at.posted.push(Posted { flight, number, sent: 0, outcome: None });
        self.send(pair, number);
    }

    /// Sends, or sends again what was not acknowledged.
    pub(super) fn send(&mut self, pair: u32, number: u32) {
        let early = self.fault == Some(Fault::EarlyCompletion);
        let at = self.pair(pair);
        let (side, state, peer) = (at.side, at.state, at.peer);
        let Some(posted) = at.posted.iter_mut().find(|posted| posted.number == number) else { return };
        if state != State::Open || posted.outcome.is_some() {
            return;
        }
        if early {
            posted.outcome = Some(Ok(()));
        }
        if posted.sent == MOST_SENT {
            posted.outcome = Some(Err(Loss::Completion(wc::RETRY_EXC_ERR, 0)));
            return self.fail_pair(pair);
        }
        posted.sent += 1;
        let flight = posted.flight;
        if early {
            self.plan(10, Happens::Poll(pair));
        }
        self.plan(RESEND_US, Happens::Resend { pair, number });
        let Some(to) = peer.filter(|_| !self.is_lost(side)) else { return };
        let delay = self.delay(&DELAYS_US);
        self.plan(delay, Happens::Packet { from: pair, to, number, flight });
    }

    /// A packet of either direction gets lost.
    fn is_lost(&mut self, side: usize) -> bool {
        let down = self.is_cut || !self.hosts[side].port_up || !self.hosts[1 - side].port_up;
        down || self.loses > 0 && self.choices.chance(self.loses)
    }

    pub(super) fn arrives(&mut self, from: u32, to: u32, number: u32, flight: Option<u32>) {
        let target = &self.pairs[to as usize - 1];
        let (side, epoch) = (target.side, target.epoch);
        let host = &self.hosts[side];
        let takes =
            target.state == State::Open && target.peer == Some(from) && host.epoch == epoch && host.is_alive;
        if !takes || !host.port_up {
            return self.choices.reach("a packet finds nobody");
        }
        let incarnation = host.incarnation;
        if let Some(flight) = flight {
            assert!(
                !self.pairs[from as usize - 1].is_fenced,
                "bytes come after the peer's word that none do"
            );
            let found = &mut self.flights[flight as usize];
            assert_eq!(found.incarnation, incarnation, "bytes for one engine come to its successor");
            found.arrived = true;
        }
        if !self.is_lost(side) {
            let delay = self.delay(&DELAYS_US);
            self.plan(delay, Happens::Acknowledged { pair: from, number });
        }
    }

    pub(super) fn acknowledged(&mut self, pair: u32, number: u32) {
        let at = self.pair(pair);
        let is_open = at.state == State::Open;
        if let Some(posted) = at.posted.iter_mut().find(|posted| posted.number == number) {
            if is_open && posted.outcome.is_none() {
                posted.outcome = Some(Ok(()));
                self.plan(10, Happens::Poll(pair));
            }
        }
    }

    /// The NIC stops the queue pair.
    fn fail_pair(&mut self, pair: u32) {
        self.stop_pair(pair);
        let at = self.pair(pair);
        at.state = State::Draining;
    }

    /// What is posted comes back; nothing is sent or taken any more.
    pub(super) fn stop_pair(&mut self, pair: u32) {
        let at = self.pair(pair);
        if at.state != State::Open {
            return;
        }
        at.state = State::Draining;
        at.posted.iter_mut().for_each(|posted| {
            posted.outcome.get_or_insert(Err(Loss::Flushed));
        });
        self.plan(10, Happens::Poll(pair));
    }

    /// The thread of the NIC takes up what has ended.
    pub(super) fn poll(&mut self, pair: u32) {
        let at = self.pair(pair);
        let side = at.side;
        let (ended, left): (Vec<Posted>, Vec<Posted>) =
            at.posted.drain(..).partition(|it| it.outcome.is_some());
        at.posted = left;
        let mut lost = Vec::new();
        for posted in ended {
            match (posted.outcome, posted.flight) {
                (Some(Ok(())), Some(flight)) => self.done(flight),
                (Some(Ok(())), None) => self.proved(side, pair),
                (Some(Err(loss)), flight) => lost.push((flight, loss)),
                (None, _) => unreachable!("it was sorted out"),
            }
        }
        if lost.is_empty() {
            return;
        }
        if lost.iter().any(|(_, loss)| *loss != Loss::Flushed) {
            self.lost(side, pair);
        }
        for (flight, loss) in lost {
            if let Some(flight) = flight {
                self.recover(flight, loss, Some(pair));
            }
        }
    }
}
