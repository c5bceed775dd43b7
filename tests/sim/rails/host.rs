//! What one engine does around its machine: as `rail.rs`, `recover.rs` and the link do it.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::{Action, Attempt, Event, Machine, Now, Pauses};
use super::jobs::Job;
use super::nic::State;
use super::world::{Happens, World};
use super::Fault;
use crate::error::{Class, Code};
use crate::transport::rdma::flight::Loss;
use crate::transport::rdma::judge::{judge, Limits, Next, View};
use crate::transport::rdma::rail::asked::Asked;

const TICK_US: u64 = 100_000;
/// How long a WRITE may take.
pub(super) const DEADLINE_US: u64 = 20_000_000;
const LIMITS: Limits = Limits { tries: 9, repost_writes: true };

pub(super) type Happening = Event<u32, &'static str>;

/// One engine.
pub(super) struct Host {
    /// How many there were on this side before.
    pub(super) epoch: u32,
    pub(super) incarnation: u64,
    pub(super) is_alive: bool,
    /// Until then its threads do nothing.
    pub(super) stopped_until_us: u64,
    pub(super) machine: Machine<u32, &'static str>,
    pub(super) asked: Asked,
    /// The job that has the lock under which queue pairs are set up, and those that wait for it.
    pub(super) setup: Option<u32>,
    pub(super) queue: VecDeque<u32>,
    pub(super) waiting: VecDeque<u32>,
    pub(super) requests: u64,
    /// The peer's incarnation as its descriptor said when it was last read.
    pub(super) known: u64,
    pub(super) port_up: bool,
    used_ms: u64,
    ticks: bool,
}

impl Host {
    pub(super) fn new(epoch: u32, incarnation: u64, known: u64) -> Self {
        let pauses = Pauses { most: Duration::from_secs(30), least: Duration::ZERO };
        Host {
            epoch,
            incarnation,
            is_alive: true,
            stopped_until_us: 0,
            machine: Machine::new(pauses, true),
            asked: Asked::default(),
            setup: None,
            queue: VecDeque::new(),
            waiting: VecDeque::new(),
            requests: 0,
            known,
            port_up: true,
            used_ms: 0,
            ticks: false,
        }
    }
}

/// One WRITE.
pub(super) struct Flight {
    pub(super) side: usize,
    pub(super) epoch: u32,
    /// Of the peer whose address it has.
    pub(super) incarnation: u64,
    pub(super) deadline_us: u64,
    pub(super) tries: u8,
    /// The descriptor was read again because of it.
    pub(super) reread: bool,
    pub(super) arrived: bool,
    pub(super) ended: Option<bool>,
}

impl World<'_> {
    /// A step of a machine, and what it wants done.
    pub(super) fn feed(&mut self, side: usize, event: Happening) {
        let now = Now { ms: self.agenda.now_us() / 1000, random: self.agenda.now_us() as u32 ^ 0x9e37_79b9 };
        let number = (side as u64) << 32 | u64::from(now.random);
        let at = self.agenda.now_us();
        self.choices.tell(number, || format!("{at:>10} us  {side} hears {event:?}"));
        let actions = self.hosts[side].machine.on(event, now);
        self.tick_later(side);
        for action in actions {
            self.choices.tell(number, || format!("{at:>10} us  {side} does {action:?}"));
            self.act(side, action);
        }
    }

    fn act(&mut self, side: usize, action: Action<u32, &'static str>) {
        match action {
            Action::Connect(attempt) => self.begin(side, Job::attempt(attempt)),
            Action::Probe(pair) => {
                if self.pair(pair).state == State::Open {
                    self.post(pair, None);
                    self.feed(side, Event::Probed { connection: pair, all: true });
                }
            }
            Action::Pump => self.pump(side),
            Action::HandBack(loss, cause) => {
                for flight in std::mem::take(&mut self.hosts[side].waiting) {
                    self.hand_back(flight, loss, cause);
                }
            }
            Action::Fail(_) => {
                for flight in std::mem::take(&mut self.hosts[side].waiting) {
                    self.fail(flight, None);
                }
            }
            Action::Stop(pair, _) => match self.choices.chance(100) {
                // The thread is held up.
                true => {
                    let delay = self.choices.pick(&[1_000, 2_000_000]);
                    self.plan(delay, Happens::Stop(pair));
                }
                false => self.give_up(pair),
            },
            Action::Expire(pair) => self.feed(side, Event::Overdue(pair, "not ready in time")),
            Action::Report(_) | Action::Vacate => {}
        }
    }

    /// Stops queue pairs, and has them destroyed.
    pub(super) fn give_up(&mut self, pair: u32) {
        self.stop_pair(pair);
        self.plan(1_000, Happens::Destroyed(pair));
    }

    pub(super) fn submit(&mut self, side: usize) {
        let host = &self.hosts[side];
        let (epoch, incarnation) = (host.epoch, host.known);
        let deadline_us = self.agenda.now_us() + DEADLINE_US;
        self.flights.push(Flight {
            side,
            epoch,
            incarnation,
            deadline_us,
            tries: 0,
            reread: false,
            arrived: false,
            ended: None,
        });
        let number = self.flights.len() as u32 - 1;
        self.place(side, number);
    }

    /// The flight waits on the rail, which has something to do now.
    pub(super) fn place(&mut self, side: usize, flight: u32) {
        self.hosts[side].used_ms = self.agenda.now_us() / 1000;
        self.hosts[side].waiting.push_back(flight);
        self.tick_later(side);
        self.pump(side);
    }

    fn pump(&mut self, side: usize) {
        let Some(up) = self.hosts[side].machine.up().copied() else {
            return self.feed(side, Event::Wanted);
        };
        let (state, incarnation) = (self.pair(up).state, self.pair(up).incarnation);
        if state != State::Open {
            return;
        }
        let mut stale = Vec::new();
        for flight in std::mem::take(&mut self.hosts[side].waiting) {
            let of = self.flights[flight as usize].incarnation;
            match of == incarnation || self.fault == Some(Fault::AnyIncarnation) {
                true => self.post(up, Some(flight)),
                false => stale.push(flight),
            }
        }
        if stale.iter().any(|flight| self.flights[*flight as usize].reread) {
            // The descriptor was just read: it is the connection that leads to an engine that is gone.
            self.choices.reach("a connection leads to an engine that is gone");
            self.feed(side, Event::Interrupted(up, "the peer was started anew"));
        }
        for flight in stale {
            self.flights[flight as usize].reread = true;
            self.hand_back(flight, Loss::Flushed, None);
        }
    }

    fn tick_later(&mut self, side: usize) {
        let host = &mut self.hosts[side];
        if !host.ticks && (!host.machine.is_settled() || !host.waiting.is_empty()) {
            host.ticks = true;
            let epoch = host.epoch;
            self.plan(TICK_US, Happens::Tick { side, epoch });
        }
    }

    pub(super) fn tick(&mut self, side: usize) {
        let now_us = self.agenda.now_us();
        self.hosts[side].ticks = false;
        let is_late = |flight: &u32| self.flights[*flight as usize].deadline_us <= now_us;
        let (late, left): (VecDeque<u32>, VecDeque<u32>) =
            std::mem::take(&mut self.hosts[side].waiting).into_iter().partition(is_late);
        self.hosts[side].waiting = left;
        late.into_iter().for_each(|flight| self.fail(flight, None));
        if self.fault != Some(Fault::NoTicks) {
            let host = &self.hosts[side];
            let (waiting, used_ms) = (!host.waiting.is_empty(), host.used_ms);
            self.feed(side, Event::Tick { waiting, used_ms });
        }
        self.tick_later(side);
    }

    pub(super) fn done(&mut self, flight: u32) {
        let found = &mut self.flights[flight as usize];
        assert!(found.arrived, "COMPLETED without the bytes");
        assert_eq!(found.ended.replace(true), None, "ended twice");
        self.choices.reach("a WRITE is done");
    }

    pub(super) fn proved(&mut self, side: usize, pair: u32) {
        self.choices.reach("a connection is proved");
        self.feed(side, Event::Proved(pair));
    }

    pub(super) fn lost(&mut self, side: usize, pair: u32) {
        self.feed(side, Event::Lost(pair, "no acknowledgement"));
    }

    /// The flight fails; if it was posted, the peer is asked about its bytes.
    fn fail(&mut self, flight: u32, posted: Option<u32>) {
        let found = &mut self.flights[flight as usize];
        assert_eq!(found.ended.replace(false), None, "ended twice");
        let side = found.side;
        self.choices.reach("a WRITE fails");
        if let Some(pair) = posted.filter(|_| self.fault != Some(Fault::NoFence)) {
            self.begin(side, Job::follow(pair));
        }
        // Whoever hears of it reads the descriptor anew before the next call.
        self.begin(side, Job::reread(Vec::new()));
    }

    fn hand_back(&mut self, flight: u32, loss: Loss, cause: Option<&'static str>) {
        let cause =
            cause.or_else(|| self.hosts[self.flights[flight as usize].side].machine.last_error().copied());
        self.decide(flight, loss, cause, None);
    }

    pub(super) fn recover(&mut self, flight: u32, loss: Loss, posted: Option<u32>) {
        self.decide(flight, loss, None, posted);
    }

    fn decide(&mut self, flight: u32, loss: Loss, cause: Option<&'static str>, posted: Option<u32>) {
        let now_us = self.agenda.now_us();
        let found = &mut self.flights[flight as usize];
        let side = found.side;
        let class = match cause {
            Some("nobody listens") => (Class::Network, Code::Socket),
            _ => (Class::Network, Code::Endpoint),
        };
        let view =
            View { loss, cause: class, tries: found.tries, reread: false, is_write: true, has_others: false };
        let judgement = judge(&view, LIMITS);
        found.tries = judgement.tries;
        let fails = matches!(judgement.next, Next::Fail | Next::FailUnknown) || found.deadline_us <= now_us;
        if fails {
            return self.fail(flight, posted);
        }
        match posted.filter(|_| loss != Loss::Unconnected) {
            Some(_) if self.fault == Some(Fault::NoFence) => {
                // As if the peer had said so.
                posted.into_iter().for_each(|pair| self.pair(pair).is_fenced = true);
                self.begin(side, Job::reread(vec![flight]));
            }
            Some(pair) => self.begin(side, Job::fence(pair, vec![flight])),
            None => self.begin(side, Job::reread(vec![flight])),
        }
    }

    /// Flights that came back are posted again, unless the peer is another one now.
    pub(super) fn place_again(&mut self, side: usize, flights: Vec<u32>) {
        let known = self.hosts[side].known;
        for flight in flights {
            let found = &self.flights[flight as usize];
            if found.ended.is_some() {
                continue;
            }
            if found.incarnation != known || found.deadline_us <= self.agenda.now_us() {
                self.fail(flight, None);
                continue;
            }
            self.choices.reach("a WRITE is posted again");
            self.place(side, flight);
        }
    }

    /// Whether an attempt counts.
    pub(super) fn is_current(&self, side: usize, attempt: Attempt) -> bool {
        self.hosts[side].machine.is_current(attempt)
    }
}
