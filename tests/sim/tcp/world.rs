//! One schedule: the clock, what is planned, and what happens when.

use std::time::Instant;

use super::connecting::{Attempt, Part};
use super::fences::{Fence, Said};
use super::lanes::Lane;
use super::peer::{incarnation, plan, Kind, Peer};
use super::rules::Rules;
use super::steps::Course;
use super::wire::{Chunk, End, Wire};
use super::Fault;
use crate::sim::{Agenda, Choices};
use crate::transport::tcp::parked::Parked;
use crate::transport::tcp::stats::Stats;

/// Between two looks at deadlines.
const TICK_US: u64 = 250_000;
/// No task of a schedule takes longer after its last fault: some connections in a row, each with its deadlines.
const LONGEST_US: u64 = 120_000_000;

/// What happens.
#[derive(Debug)]
pub(super) enum Happening {
    /// The next step of the course.
    Step,
    /// Something arrives at an end of a connection.
    Arrive {
        wire: usize,
        to_peer: bool,
    },
    /// A thread of ours looks at a lane.
    Look {
        lane: usize,
    },
    Tick,
    Attempt {
        attempt: usize,
        part: Part,
    },
    Fence {
        fence: usize,
        round: u32,
        said: Said,
    },
    /// The peer is asked whether it lives, and what came of it.
    Asked {
        lane: usize,
        question: u32,
        answers: bool,
    },
    Silent {
        lane: usize,
        question: u32,
    },
    /// A connection that was found dead here.
    Dies {
        wire: usize,
        end: End,
    },
    /// The network works again.
    Heals,
}

/// The descriptor of the peer, as somebody has read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub start: u64,
    pub port: u16,
}

/// Everything.
pub(super) struct World<'a> {
    pub choices: &'a mut Choices,
    pub fault: Option<Fault>,
    pub agenda: Agenda<Happening>,
    /// What the machines take for the beginning.
    pub start: Instant,
    pub kind: Kind,
    pub peer: Peer,
    pub wires: Vec<Wire>,
    pub lanes: Vec<Lane>,
    pub attempts: Vec<Attempt>,
    pub fences: Vec<Fence>,
    pub parked: Parked,
    pub stats: Stats,
    pub rules: Rules,
    /// What our engine has read last, and what a store tells.
    pub known: Known,
    pub stored: Known,
    /// A lane has ended since the descriptor was read.
    pub stale: bool,
    /// The peer has answered on its handshake port before.
    pub answers: bool,
    /// Nothing gets through.
    pub is_cut: bool,
    pub closed: bool,
    pub ticks: bool,
    /// Handshake messages that are lost, of a thousand.
    pub loses: u32,
    /// What comes for a stopped peer, to be looked at when it goes on.
    pub postponed: Vec<Happening>,
    pub course: Course,
}

impl<'a> World<'a> {
    pub(super) fn new(choices: &'a mut Choices, fault: Option<Fault>) -> Self {
        let kind = choices.pick(&[
            Kind::Ours,
            Kind::Ours,
            Kind::Ours,
            Kind::Ours,
            Kind::V2,
            Kind::V1,
            Kind::OneShot,
        ]);
        let lanes = choices.within(1, 4) as usize;
        let known = Known { start: 1, port: 1 };
        let course = Course::new(choices);
        let start = Instant::now();
        World {
            fault,
            agenda: Agenda::new(),
            start,
            kind,
            peer: Peer::new(kind),
            wires: Vec::new(),
            lanes: (0..lanes).map(|_| Lane::new()).collect(),
            attempts: Vec::new(),
            fences: Vec::new(),
            parked: Parked::default(),
            stats: Stats::default(),
            rules: Rules::new(kind, start),
            known,
            stored: known,
            stale: false,
            answers: false,
            is_cut: false,
            closed: false,
            ticks: false,
            loses: 0,
            postponed: Vec::new(),
            course,
            choices,
        }
    }

    /// The incarnation of a descriptor.
    pub(super) fn incarnation_of(&self, known: Known) -> u64 {
        incarnation(self.kind, known.start)
    }

    /// From nothing to the end of everything.
    pub(super) fn live(mut self) {
        self.agenda.plan(0, Happening::Step);
        let mut last_us = 0;
        while let Some(what) = self.agenda.next() {
            if matches!(what, Happening::Step) {
                last_us = self.agenda.now_us();
            }
            let late = self.agenda.now_us() - last_us > LONGEST_US && self.rules.unsettled() > 0;
            assert!(!late, "{} tasks do not end", self.rules.unsettled());
            self.tell(&what);
            self.happen(what);
            self.rules.settle(self.choices, self.agenda.now_us());
            self.check();
        }
        self.rules.finish();
        assert!(self.lanes.iter().all(|lane| lane.pipeline.is_empty()), "requests are left on a lane");
        assert!(self.wires.iter().all(|wire| !wire.open_here), "a connection is left open");
    }

    fn tell(&mut self, what: &Happening) {
        let now_us = self.agenda.now_us();
        let number = match what {
            Happening::Arrive { wire, to_peer } => (*wire as u64) << 1 | u64::from(*to_peer),
            Happening::Look { lane } => 1 << 32 | *lane as u64,
            _ => 2 << 32,
        };
        self.choices.tell(number ^ now_us << 8, || format!("{:>12.3} ms  {what:?}", now_us as f64 / 1000.0));
    }

    /// Anything but a step is told by its name.
    pub(super) fn say(&mut self, text: impl FnOnce() -> String) {
        self.choices.tell(3 << 32, || format!("      {}", text()));
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Step => self.step(),
            Happening::Arrive { wire, to_peer: true } => self.arrive_there(wire),
            Happening::Arrive { wire, to_peer: false } => self.arrive_here(wire),
            Happening::Look { lane } => self.advance(lane, true),
            Happening::Tick => self.tick(),
            Happening::Attempt { attempt, part } => self.attempt_goes_on(attempt, part),
            Happening::Fence { fence, round, said } => self.fence_goes_on(fence, round, said),
            Happening::Asked { lane, question, answers } => self.peer_asked(lane, question, answers),
            Happening::Silent { lane, question } => self.peer_silent(lane, question),
            Happening::Dies { wire, end } => self.dies(wire, end),
            Happening::Heals => self.heal(),
        }
    }

    fn arrive_there(&mut self, number: usize) {
        let wire = &mut self.wires[number];
        if self.is_cut || wire.is_cut {
            wire.held[1] += 1;
            return;
        }
        match wire.out.pop_front() {
            Some(Chunk::Bytes(bytes)) => {
                wire.out_bytes -= bytes.len();
                if !wire.open_there {
                    return self.answer_dead(number);
                }
                if !wire.open_here {
                    self.choices.reach("bytes arrive on a connection that is dead here");
                }
                wire.kernel.extend(bytes);
                self.serve(number);
            }
            // What was sent before is still executed.
            Some(Chunk::Fin) => {
                let idle = wire.kernel.is_empty();
                if idle || !self.peer.alive {
                    wire.close_there(Chunk::Fin);
                    self.plan_back(number, 0);
                } else {
                    wire.out.push_front(Chunk::Fin);
                    wire.held[1] += 1;
                }
            }
            Some(Chunk::Reset) => wire.close_there(Chunk::Reset),
            None => {}
        }
        let lane = self.wires[number].lane;
        self.agenda.plan(10, Happening::Look { lane });
    }

    /// Bytes for an end that is closed: whoever sent them hears of it.
    fn answer_dead(&mut self, number: usize) {
        self.wires[number].back.push_back(Chunk::Reset);
        plan(number, false, 1, self.choices, &mut self.agenda);
    }

    /// The peer's process takes what has arrived, if it runs.
    pub(super) fn serve(&mut self, number: usize) {
        if !self.peer.runs() {
            return;
        }
        let before = self.wires[number].back.len();
        let applied = self.peer.serve(&mut self.wires[number], self.fault);
        for part in applied {
            self.rules.apply(self.peer.start, part.addr, &part.bytes);
        }
        self.plan_back(number, before);
        let wire = &mut self.wires[number];
        if wire.kernel.is_empty() && matches!(wire.out.front(), Some(Chunk::Fin)) && wire.held[1] > 0 {
            wire.held[1] -= 1;
            plan(number, true, 1, self.choices, &mut self.agenda);
        }
    }

    /// Plans the arrival of what the peer has put on a connection.
    pub(super) fn plan_back(&mut self, number: usize, before: usize) {
        let count = self.wires[number].back.len().saturating_sub(before);
        plan(number, false, count, self.choices, &mut self.agenda);
    }

    fn arrive_here(&mut self, number: usize) {
        let wire = &mut self.wires[number];
        if self.is_cut || wire.is_cut {
            wire.held[0] += 1;
            return;
        }
        let Some(chunk) = wire.back.pop_front() else { return };
        if !wire.open_here {
            return;
        }
        match chunk {
            Chunk::Bytes(bytes) => wire.inbox.extend(bytes),
            Chunk::Fin => wire.end = wire.end.or(Some(End::Closed)),
            Chunk::Reset => wire.end = wire.end.or(Some(End::Reset)),
        }
        let (lane, attempt) = (wire.lane, wire.attempt);
        match attempt {
            Some(attempt) => self.proof_arrives(attempt, number),
            None => {
                let delay_us = self.choices.pick(&[1, 30, 1_000]);
                self.agenda.plan(delay_us, Happening::Look { lane });
            }
        }
    }

    fn dies(&mut self, number: usize, end: End) {
        let wire = &mut self.wires[number];
        if wire.open_here {
            wire.end = wire.end.or(Some(end));
            let lane = wire.lane;
            match wire.attempt {
                Some(attempt) => self.proof_arrives(attempt, number),
                None => self.agenda.plan(1, Happening::Look { lane }),
            }
        }
    }

    /// What was held up goes on.
    pub(super) fn heal(&mut self) {
        self.is_cut = false;
        for number in 0..self.wires.len() {
            let wire = &mut self.wires[number];
            if !wire.is_cut {
                let [back, out] = std::mem::take(&mut wire.held);
                plan(number, true, out as usize, self.choices, &mut self.agenda);
                plan(number, false, back as usize, self.choices, &mut self.agenda);
            }
        }
    }

    /// Our end is closed; what was sent goes on, unless the kernel resets the connection.
    pub(super) fn close_here(&mut self, number: usize) {
        let resets = self.choices.chance(200);
        let wire = &mut self.wires[number];
        if !std::mem::replace(&mut wire.open_here, false) {
            return;
        }
        wire.inbox.clear();
        if resets {
            // Overtakes nothing: what is under way may be executed before.
            wire.out.push_back(Chunk::Reset);
        } else {
            wire.out.push_back(Chunk::Fin);
        }
        plan(number, true, 1, self.choices, &mut self.agenda);
    }

    /// Has the threads look at deadlines while there is something under way.
    pub(super) fn mind(&mut self) {
        if !self.ticks && self.fault != Some(Fault::NoTicks) {
            self.ticks = true;
            self.agenda.plan(TICK_US, Happening::Tick);
        }
    }

    fn tick(&mut self) {
        self.ticks = false;
        for lane in 0..self.lanes.len() {
            if !self.lanes[lane].pipeline.is_empty() {
                self.mind();
                self.tick_lane(lane);
            }
        }
    }
}
