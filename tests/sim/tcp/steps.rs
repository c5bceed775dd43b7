//! What callers, operators and the world do, step by step, and how a schedule ends.

use super::lanes::error;
use super::peer::{Kind, Peer};
use super::rules::MOST;
use super::wire::{Chunk, End};
use super::world::{Happening, Known, World};
use crate::sim::Choices;
use crate::transport::slice::{canceled, Slice, Status};
use crate::transport::tcp::lane::events::Event;

/// Most starts of the peer; see [`super::rules`].
const STARTS: u64 = 9;
/// Transfers tried after the last fault. Chosen: the first may meet a connection that is dead and a descriptor that is old, and
/// the second what the first has begun.
const TRIES: u32 = 4;

/// What a schedule is made of.
pub(super) struct Course {
    left: u32,
    /// The peer's descriptor is in a store, so it can be read when the peer is silent.
    pub has_store: bool,
    /// An upstream peer answers the question whether it lives.
    pub upstream_answers: bool,
    /// The faults are over in the end.
    heals: bool,
    tries: u32,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Steps,
    /// Faults are over; what was begun ends.
    Waiting,
    /// A transfer has to succeed.
    Trying,
    Over,
}

impl Course {
    pub(super) fn new(choices: &mut Choices) -> Self {
        Course {
            left: choices.within(1, 24) as u32,
            has_store: choices.chance(500),
            upstream_answers: choices.chance(500),
            heals: choices.chance(500),
            tries: 0,
            phase: Phase::Steps,
        }
    }
}

impl World<'_> {
    pub(super) fn step(&mut self) {
        match self.course.phase {
            Phase::Steps if self.course.left > 0 => {
                self.course.left -= 1;
                self.some_step();
                let gap_us = self.choices.pick(&[10, 100, 2_000, 300_000, 4_000_000]);
                self.agenda.plan(gap_us, Happening::Step);
            }
            Phase::Steps => {
                if self.course.heals {
                    self.recover();
                } else if self.peer.stopped {
                    self.choices.reach("a peer is stopped for good");
                }
                self.course.phase = Phase::Waiting;
                self.agenda.plan(1_000_000, Happening::Step);
            }
            Phase::Waiting if self.rules.unsettled() > 0 => self.agenda_again(),
            Phase::Waiting if self.course.heals && !self.closed => {
                self.course.phase = Phase::Trying;
                self.try_one();
            }
            Phase::Trying if self.rules.unsettled() > 0 => self.agenda_again(),
            Phase::Trying if !self.succeeded() => {
                let tries = self.course.tries;
                assert!(
                    tries < TRIES || self.rules.told.len() == MOST,
                    "no transfer succeeds after the faults"
                );
                self.try_one();
            }
            Phase::Waiting | Phase::Trying => {
                if self.course.phase == Phase::Trying {
                    self.choices.reach("a transfer succeeds after the faults");
                }
                self.course.phase = Phase::Over;
                self.close();
            }
            Phase::Over => {}
        }
    }

    /// Waits on, with the time of the last real step as the beginning.
    fn agenda_again(&mut self) {
        if !self.agenda.is_empty() {
            self.agenda.plan(500_000, Happening::Step);
        }
    }

    fn try_one(&mut self) {
        self.course.tries += 1;
        // As a caller that opens the segment again.
        self.read_descriptor();
        self.submit(1);
        self.agenda.plan(500_000, Happening::Step);
    }

    fn succeeded(&self) -> bool {
        let last = self.rules.told.last();
        last.is_some_and(|told| told.work.tasks[told.task as usize].status() == Status::Completed)
    }

    fn some_step(&mut self) {
        const WEIGHTS: [u32; 16] = [40, 8, 6, 6, 5, 6, 8, 8, 4, 2, 4, 4, 4, 4, 3, 1];
        let what = self.choices.weighted(&WEIGHTS);
        self.say(|| format!("step {what}"));
        match what {
            0 => {
                let count = self.choices.within(1, 7) as u32;
                self.submit(count);
            }
            1 => self.cancel(),
            2 => self.kill(),
            3 => self.restart(),
            4 => self.peer.stopped = self.peer.alive,
            5 => self.go_on(),
            6 => self.cut_one(),
            7 => self.close_one_there(),
            8 => self.cut_network(),
            9 => self.babble(),
            10 => self.peer.registered ^= true,
            11 => self.take_region_back(),
            12 => self.loses = self.choices.pick(&[0, 300, 1000]),
            13 => self.unmap(),
            14 => self.read_descriptor(),
            _ => {
                self.choices.reach("the link is closed in traffic");
                self.close();
            }
        }
    }

    fn submit(&mut self, count: u32) {
        let incarnation = self.incarnation_of(self.known);
        let requests = self.rules.submit(self.choices, self.agenda.now_us(), incarnation, count);
        for request in requests {
            let lane = self.choose();
            self.push(lane, vec![request]);
        }
    }

    fn cancel(&mut self) {
        if let Some(number) = (self.choices.below(64) as usize).checked_rem(self.rules.told.len()) {
            self.choices.reach("a batch is canceled");
            self.rules.told[number].work.cancel();
            self.abandon(Slice::is_given_up, &canceled());
        }
    }

    fn kill(&mut self) {
        if !self.peer.alive {
            return;
        }
        self.choices.reach("the peer is killed");
        (self.peer.alive, self.peer.stopped) = (false, false);
        self.postponed.clear();
        for number in 0..self.wires.len() {
            let how = if self.wires[number].kernel.is_empty() { Chunk::Fin } else { Chunk::Reset };
            let before = self.wires[number].back.len();
            self.wires[number].close_there(how);
            self.plan_back(number, before);
        }
    }

    fn restart(&mut self) {
        self.kill();
        if self.peer.start == STARTS {
            return;
        }
        self.choices.reach("the peer restarts");
        let (start, old) = (self.peer.start + 1, self.peer.port);
        self.peer = Peer::new(self.kind);
        self.peer.start = start;
        self.peer.port = if self.choices.chance(500) { old } else { old + 1 };
        self.stored = Known { start, port: self.peer.port };
    }

    fn go_on(&mut self) {
        if !std::mem::replace(&mut self.peer.stopped, false) {
            return;
        }
        // What waits may come in any order, but on a connection.
        let backwards = self.choices.chance(500);
        for turn in 0..self.wires.len() {
            let number = if backwards { self.wires.len() - 1 - turn } else { turn };
            self.serve(number);
        }
        for what in std::mem::take(&mut self.postponed) {
            self.agenda.plan(1, what);
        }
    }

    /// Something between cuts a connection: nothing gets through, and our end hears that it is dead. What is under way may arrive
    /// later.
    fn cut_one(&mut self) {
        let Some(number) = (self.choices.below(64) as usize).checked_rem(self.wires.len()) else { return };
        if self.wires[number].is_cut {
            self.wires[number].is_cut = false;
            return self.heal_held();
        }
        self.choices.reach("a connection outlives its end here");
        self.wires[number].is_cut = self.choices.chance(700);
        let end = self.choices.pick(&[End::Reset, End::Dead, End::Closed]);
        let delay_us = self.choices.pick(&[1, 40_000]);
        self.agenda.plan(delay_us, Happening::Dies { wire: number, end });
    }

    fn heal_held(&mut self) {
        if !self.is_cut {
            self.agenda.plan(1, Happening::Heals);
        }
    }

    fn close_one_there(&mut self) {
        let Some(number) = (self.choices.below(64) as usize).checked_rem(self.wires.len()) else { return };
        if self.peer.runs() {
            let before = self.wires[number].back.len();
            self.wires[number].close_there(Chunk::Fin);
            self.plan_back(number, before);
        }
    }

    fn cut_network(&mut self) {
        if !std::mem::replace(&mut self.is_cut, true) {
            let time_us = self.choices.pick(&[50_000, 2_000_000, 20_000_000]);
            self.agenda.plan(time_us, Happening::Heals);
        }
    }

    /// The peer sends what is no answer, between two answers.
    fn babble(&mut self) {
        let Some(number) = (self.choices.below(64) as usize).checked_rem(self.wires.len()) else { return };
        // With v1 framing nothing would tell these bytes from those of a READ.
        if self.peer.runs() && self.wires[number].open_there && self.kind != Kind::V1 {
            let before = self.wires[number].back.len();
            self.wires[number].back.push_back(Chunk::Bytes(vec![0xee; 40]));
            self.wires[number].close_there(Chunk::Fin);
            self.plan_back(number, before);
        }
    }

    /// The memory of a request is unregistered.
    fn take_region_back(&mut self) {
        let Some(number) = (self.choices.below(64) as usize).checked_rem(self.rules.told.len()) else {
            return;
        };
        self.choices.reach("a region is taken back");
        let work = self.rules.told[number].work.clone();
        let is_in = |slice: &Slice| std::ptr::eq(slice.work(), &*work);
        self.abandon(is_in, &error("unregistered"));
    }

    /// The local buffer of the newest request is not mapped.
    fn unmap(&mut self) {
        let local = self.rules.told.len().checked_sub(1).map(|number| number as u64 * 64);
        self.lanes.iter_mut().for_each(|lane| lane.unmapped = local);
    }

    /// The faults are over.
    fn recover(&mut self) {
        self.loses = 0;
        self.lanes.iter_mut().for_each(|lane| lane.unmapped = None);
        self.go_on();
        self.peer.registered = true;
        if !self.peer.alive && self.peer.start < STARTS {
            self.restart();
        }
        self.wires.iter_mut().for_each(|wire| wire.is_cut = false);
        self.heal();
        self.course.heals = self.peer.alive;
    }

    /// The caller closes the link.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.parked.close();
        for lane in 0..self.lanes.len() {
            self.feed(lane, Event::Closed(error("closed")));
        }
        self.parked.abandon(|_| true, |request| request.fail(error("closed")));
    }
}
