//! What the control plane does of its own accord, in steps between which anything may happen: attempts to connect, fences, and
//! readings of the descriptor. The order of the steps is that of `connect.rs` and `fence.rs`.

use super::super::{Attempt, By, Event};
use super::nic::State;
use super::world::{Happens, World};
use super::Fault;

/// As in `connect.rs`.
const HANDSHAKE_LIMIT_US: u64 = 10_000_000;
/// As in `fence.rs`.
const FENCE_LIMIT_US: u64 = 1_000_000;
const READ_LIMIT_US: u64 = 3_000_000;
/// How long the driver takes.
const DRIVER_US: [u64; 4] = [300, 300, 20_000, 1_500_000];

/// What one engine asks the other one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question {
    Connect { pair: u32, to: u64, own: u64, number: u64 },
    Ready { pair: u32, to: u64 },
    Withdraw { pair: u32 },
    Descriptor,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// Queue pairs, and how many requests of its own there were.
    Pair(u32, u64),
    Incarnation(u64),
    Done,
    Refused(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step {
    Begin,
    /// The lock is ours.
    Locked,
    Made,
    Asked,
    /// The lock is ours again.
    Connect,
    Connected,
    Ready,
}

#[derive(Debug)]
pub(super) enum Kind {
    Attempt(Attempt),
    /// The peer's question that this answers.
    Join {
        asked: u32,
        to_pair: u32,
        incarnation: u64,
        number: u64,
    },
    /// Flights that wait for the word of the peer about a pair.
    Fence {
        of: u32,
        flights: Vec<u32>,
        follows: bool,
    },
    Reread {
        flights: Vec<u32>,
    },
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) side: usize,
    pub(super) epoch: u32,
    kind: Kind,
    step: Step,
    /// The connection that it is about.
    pub(super) pair: Option<u32>,
    /// The incarnation that an attempt began with: the descriptor may be read again meanwhile.
    to: u64,
    /// The question whose answer it waits for.
    pub(super) awaits: Option<u32>,
    is_over: bool,
}

impl Job {
    pub(super) fn new(kind: Kind) -> Self {
        Job { side: 0, epoch: 0, kind, step: Step::Begin, pair: None, to: 0, awaits: None, is_over: false }
    }

    pub(super) fn attempt(attempt: Attempt) -> Self {
        Job::new(Kind::Attempt(attempt))
    }

    pub(super) fn fence(of: u32, flights: Vec<u32>) -> Self {
        Job::new(Kind::Fence { of, flights, follows: false })
    }

    pub(super) fn follow(of: u32) -> Self {
        Job::new(Kind::Fence { of, flights: Vec::new(), follows: true })
    }

    pub(super) fn reread(flights: Vec<u32>) -> Self {
        Job::new(Kind::Reread { flights })
    }
}

impl World<'_> {
    pub(super) fn begin(&mut self, side: usize, job: Job) {
        let epoch = self.hosts[side].epoch;
        let to = self.hosts[side].known;
        self.jobs.push(Job { side, epoch, to, ..job });
        let id = self.jobs.len() as u32 - 1;
        let limit = match &self.jobs[id as usize].kind {
            Kind::Attempt(_) => HANDSHAKE_LIMIT_US,
            Kind::Fence { .. } => FENCE_LIMIT_US,
            Kind::Reread { .. } => READ_LIMIT_US,
            Kind::Join { .. } => 0,
        };
        if limit > 0 {
            self.plan(limit, Happens::TooLong(id));
        }
        self.plan(20, Happens::Job(id, None));
    }

    pub(super) fn driver(&mut self, id: u32, step: Step) {
        let delay = self.delay(&DRIVER_US);
        self.jobs[id as usize].step = step;
        self.plan(delay, Happens::Job(id, None));
    }

    /// Has the lock under which queue pairs are set up, now or when the others are through with it.
    pub(super) fn lock(&mut self, side: usize, id: u32, step: Step) {
        self.jobs[id as usize].step = step;
        let host = &mut self.hosts[side];
        match host.setup {
            None => {
                host.setup = Some(id);
                self.plan(1, Happens::Job(id, None));
            }
            Some(_) => host.queue.push_back(id),
        }
    }

    pub(super) fn unlock(&mut self, side: usize, id: u32) {
        let host = &mut self.hosts[side];
        assert_eq!(host.setup, Some(id));
        host.setup = host.queue.pop_front();
        if let Some(next) = host.setup {
            self.plan(1, Happens::Job(next, None));
        }
    }

    fn ask(&mut self, side: usize, id: u32, question: Question, step: Step) {
        self.jobs[id as usize].step = step;
        let number = self.send_question(side, id, question);
        self.jobs[id as usize].awaits = Some(number);
    }

    pub(super) fn go_on(&mut self, id: u32, answer: Option<Answer>) {
        let job = &self.jobs[id as usize];
        let (side, step, pair) = (job.side, job.step, job.pair);
        match &job.kind {
            Kind::Attempt(attempt) => {
                let attempt = *attempt;
                self.attempt(id, side, attempt, step, pair, answer);
            }
            Kind::Join { asked, to_pair, incarnation, number } => {
                let request = (*asked, *to_pair, *incarnation, *number);
                self.join(id, side, step, pair, request);
            }
            _ if job.is_over => {}
            Kind::Fence { .. } => self.fence(id, side, step, answer),
            Kind::Reread { .. } => match (step, answer) {
                (Step::Begin, _) => self.ask(side, id, Question::Descriptor, Step::Asked),
                (_, Some(Answer::Incarnation(found))) => {
                    self.hosts[side].known = found;
                    self.reread_ended(id);
                }
                _ => self.reread_ended(id),
            },
        }
    }

    /// The time of a job is up.
    pub(super) fn too_long(&mut self, id: u32) {
        let job = &self.jobs[id as usize];
        let (side, pair) = (job.side, job.pair);
        match &job.kind {
            _ if job.is_over => {}
            Kind::Attempt(attempt) => {
                let attempt = *attempt;
                self.attempt_failed(id, side, attempt, pair, "no answer in time");
            }
            Kind::Fence { .. } => self.fence_ended(id, false),
            Kind::Reread { .. } => self.reread_ended(id),
            Kind::Join { .. } => {}
        }
    }

    fn attempt_failed(
        &mut self,
        id: u32,
        side: usize,
        attempt: Attempt,
        used: Option<u32>,
        cause: &'static str,
    ) {
        if std::mem::replace(&mut self.jobs[id as usize].is_over, true) {
            return;
        }
        let usable = used.is_some_and(|pair| self.pair(pair).state == State::Open);
        self.feed(side, Event::AttemptFailed { attempt, connection: used, usable, cause });
    }

    fn attempt(
        &mut self,
        id: u32,
        side: usize,
        attempt: Attempt,
        step: Step,
        pair: Option<u32>,
        answer: Option<Answer>,
    ) {
        // What waits for nothing but the driver goes on, also when the attempt counts no more.
        let is_bound = matches!(step, Step::Locked | Step::Made | Step::Connect | Step::Connected);
        let is_over = self.jobs[id as usize].is_over;
        if !is_bound && (is_over || !self.is_current(side, attempt)) {
            if !is_over {
                self.choices.reach("an attempt is abandoned");
            }
            self.jobs[id as usize].is_over = true;
            return;
        }
        match step {
            Step::Begin => self.lock(side, id, Step::Locked),
            Step::Locked => {
                if !self.is_current(side, attempt) {
                    self.unlock(side, id);
                    return self.attempt_failed(id, side, attempt, None, "unwanted");
                }
                let made = self.hosts[side].machine.connection().copied();
                match made.filter(|made| self.pair(*made).state == State::Open) {
                    Some(made) => {
                        self.jobs[id as usize].pair = Some(made);
                        self.unlock(side, id);
                        self.request(id, side, made);
                    }
                    None => self.driver(id, Step::Made),
                }
            }
            Step::Made => {
                let made = self.open_pair(side);
                self.feed(side, Event::Made { connection: made, by: By::Own(attempt) });
                self.unlock(side, id);
                if self.hosts[side].machine.connection() != Some(&made) {
                    return self.attempt_failed(id, side, attempt, None, "unwanted");
                }
                self.jobs[id as usize].pair = Some(made);
                if !self.jobs[id as usize].is_over {
                    self.request(id, side, made);
                }
            }
            Step::Asked => match answer {
                Some(Answer::Pair(theirs, requests)) => {
                    self.theirs.insert(id, (theirs, requests));
                    self.lock(side, id, Step::Connect);
                }
                Some(Answer::Refused(why)) => self.attempt_failed(id, side, attempt, pair, why),
                _ => self.attempt_failed(id, side, attempt, pair, "nobody listens"),
            },
            Step::Connect => {
                let (Some(ours), (theirs, _)) = (pair, self.theirs[&id]) else { return };
                let (state, peer) = (self.pair(ours).state, self.pair(ours).peer);
                let problem = match peer {
                    _ if state != State::Open => Some("given up meanwhile"),
                    Some(known) if known != theirs => Some("both sides connected at once"),
                    _ => None,
                };
                if let Some(problem) = problem {
                    self.unlock(side, id);
                    return self.attempt_failed(id, side, attempt, pair, problem);
                }
                match peer {
                    Some(_) => self.brought_up(id, side, ours),
                    None => self.driver(id, Step::Connected),
                }
            }
            Step::Connected => {
                let (Some(ours), (theirs, _)) = (pair, self.theirs[&id]) else { return };
                if self.pair(ours).state != State::Open {
                    self.unlock(side, id);
                    return self.attempt_failed(id, side, attempt, pair, "the queue pair is gone");
                }
                self.pair(ours).peer = Some(theirs);
                self.brought_up(id, side, ours);
            }
            Step::Ready => match (answer, pair) {
                (Some(Answer::Done), Some(ours)) => {
                    self.jobs[id as usize].is_over = true;
                    self.feed(side, Event::Connected(attempt, ours));
                }
                (Some(Answer::Refused(why)), _) => self.attempt_failed(id, side, attempt, pair, why),
                _ => self.attempt_failed(id, side, attempt, pair, "nobody listens"),
            },
        }
    }

    fn request(&mut self, id: u32, side: usize, pair: u32) {
        let host = &mut self.hosts[side];
        host.requests += 1;
        let (to, own, number) = (self.jobs[id as usize].to, host.incarnation, host.requests);
        self.ask(side, id, Question::Connect { pair, to, own, number }, Step::Asked);
    }

    fn brought_up(&mut self, id: u32, side: usize, ours: u32) {
        let (to, (_, requests)) = (self.jobs[id as usize].to, self.theirs[&id]);
        self.pair(ours).incarnation = to;
        if self.fault != Some(Fault::NoOvertaking) {
            self.hosts[side].asked.overtake(to, Some(requests));
        }
        self.unlock(side, id);
        let Kind::Attempt(attempt) = self.jobs[id as usize].kind else { return };
        if self.jobs[id as usize].is_over || !self.is_current(side, attempt) {
            return;
        }
        self.ask(side, id, Question::Ready { pair: ours, to }, Step::Ready);
    }

    fn fence(&mut self, id: u32, side: usize, step: Step, answer: Option<Answer>) {
        let Kind::Fence { of, .. } = self.jobs[id as usize].kind else { return };
        let to = self.pair(of).incarnation;
        match (step, answer) {
            (Step::Begin, _) => self.ask(side, id, Question::Withdraw { pair: of }, Step::Asked),
            (_, Some(Answer::Incarnation(found))) => self.fence_ended(id, found == to),
            _ => self.fence_ended(id, false),
        }
    }

    fn fence_ended(&mut self, id: u32, holds: bool) {
        let job = &mut self.jobs[id as usize];
        let side = job.side;
        job.is_over = true;
        let Kind::Fence { of, flights, follows } = &mut job.kind else { return };
        let (of, flights, follows) = (*of, std::mem::take(flights), *follows);
        match holds {
            true => {
                self.choices.reach("a fence is confirmed");
                self.pair(of).is_fenced = true;
            }
            false => self.choices.reach("nobody confirms"),
        }
        if !follows {
            self.begin(side, Job::reread(flights));
        }
    }

    fn reread_ended(&mut self, id: u32) {
        let job = &mut self.jobs[id as usize];
        let side = job.side;
        job.is_over = true;
        let Kind::Reread { flights } = &mut job.kind else { return };
        let flights = std::mem::take(flights);
        self.place_again(side, flights);
    }
}
