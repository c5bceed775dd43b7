//! One schedule: two engines, their network, what befalls them, and the rules.

use std::collections::HashMap;

use super::host::{Flight, Host, DEADLINE_US};
use super::jobs::{Answer, Job, Question};
use super::nic::{Pair, State};
use super::Fault;
use crate::sim::{Agenda, Choices};

/// How long a message takes; mostly the first.
const DELAYS_US: [u64; 8] = [300, 300, 300, 300, 2_000, 50_000, 800_000, 12_000_000];
/// By then all that was begun before has ended, or was given up: the longest that a rail waits for a peer is 10 s for the
/// handshake, 10 s for its word that it is ready, and 2.5 s of pause.
const SETTLED_US: u64 = 60_000_000;
/// A flight ends so long after its deadline at the latest: a NIC tries for 3.5 s, then the peer is asked.
const SLACK_US: u64 = 10_000_000;

/// What happens next.
pub(super) enum Happens {
    Fault,
    Tick { side: usize, epoch: u32 },
    Job(u32, Option<Answer>),
    TooLong(u32),
    Message(u32),
    Answered(u32, Answer),
    Packet { from: u32, to: u32, number: u32, flight: Option<u32> },
    Resend { pair: u32, number: u32 },
    Acknowledged { pair: u32, number: u32 },
    Poll(u32),
    Stop(u32),
    Destroyed(u32),
    GoOn(usize),
    Restart(usize),
}

struct Asked {
    side: usize,
    epoch: u32,
    job: u32,
    question: Question,
}

pub(super) struct World<'a> {
    pub(super) choices: &'a mut Choices,
    pub(super) fault: Option<Fault>,
    pub(super) agenda: Agenda<Happens>,
    pub(super) hosts: [Host; 2],
    pub(super) pairs: Vec<Pair>,
    pub(super) flights: Vec<Flight>,
    pub(super) jobs: Vec<Job>,
    /// The queue pair that the peer has offered for an attempt, and how many requests of its own there were.
    pub(super) theirs: HashMap<u32, (u32, u64)>,
    asked: Vec<Asked>,
    incarnations: u64,
    /// No packet gets through; of the others, so many in a thousand are lost. The same for messages.
    pub(super) is_cut: bool,
    pub(super) loses: u32,
    loses_messages: u32,
    is_healed: bool,
}

impl<'a> World<'a> {
    pub(super) fn new(choices: &'a mut Choices, fault: Option<Fault>) -> Self {
        World {
            choices,
            fault,
            agenda: Agenda::new(),
            hosts: [Host::new(0, 1, 2), Host::new(0, 2, 1)],
            pairs: Vec::new(),
            flights: Vec::new(),
            jobs: Vec::new(),
            theirs: HashMap::new(),
            asked: Vec::new(),
            incarnations: 2,
            is_cut: false,
            loses: 0,
            loses_messages: 0,
            is_healed: false,
        }
    }

    /// How long something takes: the longest times only as long as there are faults.
    pub(super) fn delay(&mut self, times: &[u64]) -> u64 {
        let count = if self.is_healed { times.len() / 2 } else { times.len() };
        self.choices.pick(&times[..count])
    }

    pub(super) fn plan(&mut self, in_us: u64, what: Happens) {
        self.agenda.plan(in_us, what);
    }

    pub(super) fn live(mut self) {
        let faults = self.choices.within(1, 16);
        for _ in 0..faults {
            self.befall();
            let pause_us = self.choices.pick(&[0, 100, 1_000, 30_000, 400_000, 3_000_000, 11_000_000]);
            self.run_for(pause_us);
        }
        self.heal();
        self.run_for(SETTLED_US);
        self.check_traffic();
        self.end();
    }

    fn run_for(&mut self, us: u64) {
        let until = self.agenda.now_us() + us;
        self.plan(us, Happens::Fault);
        while let Some(next) = self.agenda.next() {
            match next {
                Happens::Fault if self.agenda.now_us() >= until => break,
                other => self.happen(other),
            }
        }
        let now_us = self.agenda.now_us();
        for flight in &self.flights {
            let host = &self.hosts[flight.side];
            let lives = host.epoch == flight.epoch && host.is_alive && host.stopped_until_us == 0;
            let late = flight.ended.is_none() && now_us > flight.deadline_us + SLACK_US;
            assert!(!lives || !late, "a WRITE has not ended long after its deadline");
        }
    }

    /// What a thread of this side would do waits until the engine goes on.
    fn is_held(&mut self, side: usize, what: Happens) -> Option<Happens> {
        let until_us = self.hosts[side].stopped_until_us;
        let now_us = self.agenda.now_us();
        match until_us > now_us {
            true => {
                self.plan(until_us - now_us, what);
                None
            }
            false => Some(what),
        }
    }

    fn side_of(&self, what: &Happens) -> Option<(usize, u32)> {
        match what {
            Happens::Tick { side, epoch } => Some((*side, *epoch)),
            Happens::Job(id, _) | Happens::TooLong(id) => {
                let job = &self.jobs[*id as usize];
                Some((job.side, job.epoch))
            }
            Happens::Poll(pair) | Happens::Stop(pair) | Happens::Destroyed(pair) => {
                let pair = &self.pairs[*pair as usize - 1];
                Some((pair.side, pair.epoch))
            }
            Happens::Answered(asked, _) => {
                let asked = &self.asked[*asked as usize];
                Some((asked.side, asked.epoch))
            }
            _ => None,
        }
    }

    fn happen(&mut self, what: Happens) {
        let what = match self.side_of(&what) {
            Some((side, epoch)) => {
                let host = &self.hosts[side];
                if host.epoch != epoch || !host.is_alive {
                    return;
                }
                match self.is_held(side, what) {
                    Some(what) => what,
                    None => return,
                }
            }
            None => what,
        };
        match what {
            Happens::Fault => {}
            Happens::Tick { side, .. } => self.tick(side),
            Happens::Job(id, answer) => self.go_on(id, answer),
            Happens::TooLong(id) => self.too_long(id),
            Happens::Message(asked) => self.message(asked),
            Happens::Answered(asked, answer) => {
                let job = self.asked[asked as usize].job;
                if self.jobs[job as usize].awaits == Some(asked) {
                    self.jobs[job as usize].awaits = None;
                    self.go_on(job, Some(answer));
                }
            }
            Happens::Packet { from, to, number, flight } => self.arrives(from, to, number, flight),
            Happens::Resend { pair, number } => {
                let at = &self.pairs[pair as usize - 1];
                if self.hosts[at.side].epoch == at.epoch && self.hosts[at.side].is_alive {
                    self.send(pair, number);
                }
            }
            Happens::Acknowledged { pair, number } => self.acknowledged(pair, number),
            Happens::Poll(pair) => self.poll(pair),
            Happens::Stop(pair) => self.give_up(pair),
            Happens::Destroyed(pair) => {
                self.poll(pair);
                self.pair(pair).state = State::Gone;
            }
            Happens::GoOn(side) => {
                if self.hosts[side].stopped_until_us <= self.agenda.now_us() {
                    self.hosts[side].stopped_until_us = 0;
                }
            }
            Happens::Restart(side) => self.restart(side),
        }
    }

    pub(super) fn send_question(&mut self, side: usize, job: u32, question: Question) -> u32 {
        let epoch = self.hosts[side].epoch;
        self.asked.push(Asked { side, epoch, job, question });
        let number = self.asked.len() as u32 - 1;
        let at = self.agenda.now_us();
        self.choices.tell(number.into(), || format!("{at:>10} us  {side} asks {question:?}"));
        if self.loses_messages > 0 && self.choices.chance(self.loses_messages) {
            self.choices.reach("a message is lost");
            return number;
        }
        let delay = self.delay(&DELAYS_US);
        self.plan(delay, Happens::Message(number));
        if delay > 10_000_000 {
            self.choices.reach("a message comes late");
        }
        if self.loses_messages > 0 && self.choices.chance(30) {
            // The client has sent it on a connection that was closed meanwhile, and sends it on another one.
            self.choices.reach("a message comes twice");
            let delay = self.delay(&DELAYS_US);
            self.plan(delay, Happens::Message(number));
        }
        number
    }

    fn message(&mut self, asked: u32) {
        let Asked { side, question, .. } = self.asked[asked as usize];
        let to = 1 - side;
        if !self.hosts[to].is_alive {
            return self.plan(300, Happens::Answered(asked, Answer::Refused("nobody listens")));
        }
        if self.is_held(to, Happens::Message(asked)).is_some() {
            self.answer(to, asked, question);
        }
    }

    pub(super) fn send_answer(&mut self, side: usize, asked: u32, answer: Answer) {
        let at = self.agenda.now_us();
        self.choices.tell(asked.into(), || format!("{at:>10} us  {side} answers {answer:?}"));
        if self.loses_messages > 0 && self.choices.chance(self.loses_messages) {
            return self.choices.reach("a message is lost");
        }
        let delay = self.delay(&DELAYS_US);
        self.plan(delay, Happens::Answered(asked, answer));
    }

    fn befall(&mut self) {
        let side = self.choices.below(2) as usize;
        let what = self.choices.weighted(&[10, 2, 2, 2, 2, 2, 1, 1]);
        let at = self.agenda.now_us();
        self.choices.tell(what as u64, || format!("{at:>10} us  befalls {side}: {what}"));
        match what {
            0 => {
                if self.hosts[side].is_alive && self.hosts[side].stopped_until_us == 0 {
                    (0..self.choices.within(1, 4)).for_each(|_| self.submit(side));
                }
            }
            1 => self.kill(side),
            2 => {
                let for_us = self.choices.pick(&[20_000, 2_000_000, 15_000_000]);
                if self.hosts[side].is_alive && self.hosts[side].stopped_until_us == 0 {
                    self.choices.reach("an engine is stopped");
                    self.hosts[side].stopped_until_us = self.agenda.now_us() + for_us;
                    self.plan(for_us, Happens::GoOn(side));
                }
            }
            3 => self.is_cut ^= true,
            4 => self.loses = self.choices.pick(&[0, 100, 600]),
            5 => self.loses_messages = self.choices.pick(&[0, 100, 600]),
            6 => self.port(side, !self.hosts[side].port_up),
            _ => (0..2).for_each(|side| {
                if self.hosts[side].is_alive && self.hosts[side].stopped_until_us == 0 {
                    self.submit(side);
                }
            }),
        }
    }

    fn port(&mut self, side: usize, up: bool) {
        let host = &mut self.hosts[side];
        if !host.is_alive || host.stopped_until_us > 0 || host.port_up == up {
            return;
        }
        host.port_up = up;
        match up {
            true => self.feed(side, super::super::Event::PortUp),
            false => {
                self.choices.reach("a port goes down");
                self.feed(side, super::super::Event::PortDown("the port is down"));
            }
        }
    }

    fn kill(&mut self, side: usize) {
        if !self.hosts[side].is_alive {
            return;
        }
        self.choices.reach("an engine is killed");
        self.hosts[side].is_alive = false;
        let delay = self.choices.pick(&[1_000, 500_000, 5_000_000]);
        self.plan(delay, Happens::Restart(side));
    }

    fn restart(&mut self, side: usize) {
        self.incarnations += 1;
        // It reads the descriptor of the peer as it is now.
        let known = self.hosts[1 - side].incarnation;
        self.hosts[side] = Host::new(self.hosts[side].epoch + 1, self.incarnations, known);
    }

    fn heal(&mut self) {
        (self.is_cut, self.loses, self.loses_messages, self.is_healed) = (false, 0, 0, true);
        for side in 0..2 {
            if !self.hosts[side].is_alive {
                self.restart(side);
            }
            self.hosts[side].stopped_until_us = 0;
            self.port(side, true);
        }
    }

    /// With nothing in the way, each side reaches the other.
    fn check_traffic(&mut self) {
        for side in 0..2 {
            self.hosts[side].known = self.hosts[1 - side].incarnation;
        }
        // One after the other: neither is to depend on what the other one sends.
        let first = self.choices.below(2) as usize;
        for side in [first, 1 - first] {
            self.submit(side);
            self.run_for(DEADLINE_US);
            let ended = self.flights.last().and_then(|flight| flight.ended);
            assert_eq!(ended, Some(true), "side {side} does not reach the other one");
        }
        self.run_for(SETTLED_US);
        let ups = [0, 1].map(|side: usize| self.hosts[side].machine.up().copied());
        let [Some(one), Some(two)] = ups else { panic!("not connected: {ups:?}") };
        let peers = [self.pair(one).peer, self.pair(two).peer];
        assert_eq!(peers, [Some(two), Some(one)], "the ends of a rail belong to different connections");
    }

    fn end(&mut self) {
        (0..2).for_each(|side| self.feed(side, super::super::Event::Stopped("the engine ends")));
        self.run_for(SETTLED_US);
        for (place, pair) in self.pairs.iter().enumerate() {
            let is_dead = self.hosts[pair.side].epoch != pair.epoch;
            assert!(is_dead || pair.state == State::Gone, "queue pair {} is left", place + 1);
        }
        for flight in &self.flights {
            let is_dead = self.hosts[flight.side].epoch != flight.epoch;
            assert!(is_dead || flight.ended.is_some(), "a WRITE has no end");
        }
    }
}
