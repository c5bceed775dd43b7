//! What a lane's executor does (`lane.rs`, `exchange.rs`): feeds the machine, performs its actions, and moves bytes
//! between requests and the connection.

use std::time::{Duration, Instant};

use super::peer::Kind;
use super::wire::{Body, Chunk};
use super::world::{Happening, World};
use super::Fault;
use crate::error::Error;
use crate::transport::slice::{canceled, Op, Slice};
use crate::transport::tcp::ends::{Down, Ends, Rules};
use crate::transport::tcp::lane::events::{Action, Event, Why};
use crate::transport::tcp::lane::machine::{Limits, Machine, Stage};
use crate::transport::tcp::pipeline::{Abandoned, Frames, Moved, Pipeline, RUN};
use crate::transport::tcp::request::Request;
use crate::transport::tcp::wire::{HEADER_LEN, STATUS_LEN};

/// Settings of the simulated engine.
pub(super) const STATUS_TIMEOUT: Duration = Duration::from_secs(8);
const MIN_RATE: u64 = 64;
/// `MC_TCP_LIVENESS_SEC`.
const LIVENESS_US: u64 = 3_000_000;
/// Bytes that our kernel keeps of a connection.
const ROOM: usize = 160;

type What = Event<usize, Down, Error>;
type Doing = Action<usize, Down, Error>;

/// A lane; its connections are numbers of wires.
pub(super) struct Lane {
    pub machine: Machine<usize, Error>,
    pub pipeline: Pipeline,
    frames: Frames,
    /// A buffer that requests have is not mapped.
    pub unmapped: Option<u64>,
}

impl Lane {
    pub(super) fn new() -> Self {
        let limits = Limits { status_timeout: STATUS_TIMEOUT, min_rate: MIN_RATE, asks: true };
        Lane {
            machine: Machine::new(limits),
            pipeline: Pipeline::default(),
            frames: [[0; STATUS_LEN]; RUN],
            unmapped: None,
        }
    }
}

pub(super) fn error(text: &'static str) -> Error {
    Error::invalid(text)
}

impl World<'_> {
    /// The simulated time, as the machine wants it.
    fn instant(&self) -> Instant {
        self.start + self.agenda.now()
    }

    pub(super) fn feed(&mut self, lane: usize, event: What) {
        let now = self.instant();
        if let Some(action) = self.lanes[lane].machine.on(event, || now) {
            self.perform(lane, action);
        }
    }

    fn perform(&mut self, lane: usize, action: Doing) {
        match action {
            Action::Connect => self.begin_attempt(lane),
            Action::Send => self.advance(lane, false),
            Action::Begin => self.begin(lane),
            Action::Ask(question) => self.ask(lane, question),
            Action::Discard(wire) => self.close_here(wire),
            Action::Retire { connection, connect } => {
                self.close_here(connection);
                if connect {
                    self.begin_attempt(lane);
                }
            }
            Action::TakeDown(wire, why) => self.take_down(lane, wire, why),
            Action::HandBack { unwatched, error } => {
                unwatched.into_iter().for_each(|wire| self.close_here(wire));
                let waiting = self.lanes[lane].pipeline.close();
                self.connect_failed(lane, waiting, error);
            }
            Action::Close(wire, error) => {
                wire.into_iter().for_each(|wire| self.close_here(wire));
                self.lanes[lane].pipeline.close().into_iter().for_each(|request| request.fail(error.clone()));
            }
            Action::Refuse(error) => {
                self.lanes[lane].pipeline.close().into_iter().for_each(|request| request.fail(error.clone()));
            }
        }
    }

    fn begin(&mut self, lane: usize) {
        let Some(&wire) = self.lanes[lane].machine.connection() else { return };
        let terms = self.terms(self.wires[wire].start);
        let strangers = self.lanes[lane].pipeline.open(terms);
        strangers.into_iter().for_each(|request| request.fail(error("the peer restarted")));
        // As the epoll of a fresh connection, which is ready to send.
        self.agenda.plan(1, Happening::Look { lane });
    }

    /// Appends requests to a lane.
    pub(super) fn push(&mut self, lane: usize, requests: Vec<Request>) {
        let it = &mut self.lanes[lane];
        let first = it.pipeline.is_empty();
        let is_up = it.machine.connection().is_some();
        let refuse = |request: Request| match request.is_given_up() {
            true => request.fail(canceled()),
            false => request.fail(error("the peer restarted")),
        };
        let left = it.pipeline.admit(requests.into_iter(), is_up, refuse);
        assert!(left.is_none());
        if !self.lanes[lane].pipeline.is_empty() {
            self.mind();
            self.feed(lane, Event::Pushed { first });
        }
    }

    /// Bytes that went either way, as far as the peer's kernel has them.
    fn traffic(&self, lane: usize) -> u64 {
        let it = &self.lanes[lane];
        let kept = it.machine.connection().map_or(0, |wire| self.wires[*wire].out_bytes as u64);
        it.pipeline.traffic().wrapping_sub(kept)
    }

    pub(super) fn tick_lane(&mut self, lane: usize) {
        let now = self.instant();
        let due = |slice: &Slice| slice.work().deadline().is_some_and(|deadline| deadline <= now);
        let taken = self.lanes[lane].pipeline.abandon(due);
        if !taken.slices.is_empty() || taken.stuck {
            self.choices.reach("a request is late");
        }
        self.end_taken(lane, taken, &error("late"));
        let awaited = self.lanes[lane].pipeline.awaited_bytes();
        let traffic = self.traffic(lane);
        self.feed(lane, Event::Tick { awaited, traffic, paused: Duration::ZERO });
    }

    /// Whether the peer lives is asked on its handshake port.
    fn ask(&mut self, lane: usize, question: u32) {
        let is_foreign = self.kind != Kind::Ours;
        let limit_us = if is_foreign { 10_000_000 } else { LIVENESS_US };
        match self.answers {
            true => {
                let delay_us = self.choices.pick(&[100, 3_000, 400_000]);
                let answers = !self.choices.chance(self.loses);
                self.agenda.plan(delay_us, Happening::Asked { lane, question, answers });
                self.agenda.plan(limit_us, Happening::Silent { lane, question });
            }
            false => self.feed(lane, Event::Alive(question)),
        }
    }

    /// The question has arrived.
    pub(super) fn peer_asked(&mut self, lane: usize, question: u32, answers: bool) {
        if answers && self.peer.runs() && !self.is_cut {
            self.feed(lane, Event::Alive(question));
        }
    }

    /// The question was not answered in time, or it was, and then this says nothing.
    pub(super) fn peer_silent(&mut self, lane: usize, question: u32) {
        self.advance(lane, true);
        let traffic = self.traffic(lane);
        let before = self.lanes[lane].machine.connection().copied();
        self.feed(lane, Event::Silent { question, traffic });
        if before.is_some() && self.lanes[lane].machine.connection().copied() != before {
            self.choices.reach("a silent peer is given up");
        }
    }

    /// Reads replies (`read`) and sends requests as far as the connection goes.
    pub(super) fn advance(&mut self, lane: usize, read: bool) {
        let Some(&wire) = self.lanes[lane].machine.connection() else { return };
        let mut moved = Moved::default();
        let outcome = if read { self.receive(lane, wire, &mut moved) } else { Ok(()) };
        let outcome = outcome.and_then(|()| {
            self.send(lane, wire, &mut moved).map_err(|down| match self.receive(lane, wire, &mut moved) {
                Err(Down::Rejected) => Down::Rejected,
                _ => down,
            })
        });
        match outcome {
            Ok(()) => {
                let pipeline = &self.lanes[lane].pipeline;
                let (spent, more) = (pipeline.is_spent(), !pipeline.is_empty());
                if moved.replies {
                    self.feed(lane, Event::Replied { spent, more });
                }
            }
            Err(down) => self.feed(lane, Event::Down(down)),
        }
    }

    fn receive(&mut self, lane: usize, number: usize, moved: &mut Moved) -> Result<(), Down> {
        loop {
            let it = &mut self.lanes[lane];
            let wire = &mut self.wires[number];
            if wire.inbox.is_empty() {
                return wire.end.map_or(Ok(()), |end| Err(end.down()));
            }
            let frame_len = if it.pipeline.is_v2() { STATUS_LEN as u64 } else { 0 };
            let run = it.pipeline.incoming();
            let (mut skip, mut taken) = (run.skip, 0);
            let count = run.requests.len();
            for (request, frame) in run.requests.zip(&mut it.frames) {
                let body = if request.op() == Op::Read { request.len() } else { 0 };
                let is_unmapped =
                    |slice: &Slice| it.unmapped == Some(slice.local) && request.op() == Op::Read;
                if request.slice().is_some_and(is_unmapped) && taken > 0 {
                    // The kernel says how much it has copied, and nothing of the rest.
                    break;
                }
                if request.slice().is_some_and(is_unmapped) {
                    self.choices.reach("a buffer is not mapped");
                    if count > 1 {
                        it.pipeline.be_cautious();
                        return self.receive(lane, number, moved);
                    }
                    return Err(Down::Fault { sending: false });
                }
                for at in skip..frame_len + body {
                    let Some(byte) = wire.inbox.pop_front() else { break };
                    taken += 1;
                    if at < frame_len {
                        frame[at as usize] = byte;
                    } else if let Some(slice) = request.slice() {
                        let local = slice.local + at - frame_len;
                        self.rules.touch(local);
                        self.rules.local[local as usize] = byte;
                    }
                }
                skip = 0;
            }
            if taken == 0 {
                return Err(Down::Protocol("the peer sent bytes that nobody asked for".into()));
            }
            it.pipeline.note_received(taken, &mut it.frames, moved, &self.stats)?;
        }
    }

    fn send(&mut self, lane: usize, number: usize, moved: &mut Moved) -> Result<(), Down> {
        while self.lanes[lane].pipeline.wants_to_send() {
            if self.wires[number].end == Some(super::wire::End::Dead) {
                return Err(super::wire::End::Dead.down());
            }
            let it = &mut self.lanes[lane];
            let room = ROOM.saturating_sub(self.wires[number].out_bytes);
            let run = it.pipeline.outgoing();
            let count = run.requests.len();
            let (mut skip, mut bytes, mut asked) = (run.skip as usize, Vec::new(), 0);
            let mut begun = Vec::new();
            for request in run.requests {
                let mut whole = request.header.to_vec();
                if let (Op::Write, Some(slice)) = (request.op(), request.slice()) {
                    if it.unmapped == Some(slice.local) {
                        self.choices.reach("a buffer is not mapped");
                        if count > 1 {
                            it.pipeline.be_cautious();
                            return self.send(lane, number, moved);
                        }
                        return Err(Down::Fault { sending: true });
                    }
                    let local = slice.local as usize..(slice.local + slice.len) as usize;
                    whole.extend(&self.rules.local[local]);
                    let begins = skip <= HEADER_LEN && bytes.len() + HEADER_LEN - skip.min(HEADER_LEN) < room;
                    if begins {
                        self.rules.touch(slice.local);
                        begun.push((request.remote(), request.len(), request.was_sent));
                    }
                }
                asked += whole.len() - skip;
                let left = room.saturating_sub(bytes.len());
                bytes.extend(whole[skip..].iter().take(left));
                skip = 0;
            }
            for (addr, len, was_sent) in begun {
                self.begin_body(number, addr, len, was_sent);
            }
            if bytes.is_empty() {
                moved.blocked = true;
                return Ok(());
            }
            let n = bytes.len();
            let wire = &mut self.wires[number];
            wire.out_bytes += n;
            wire.out.push_back(Chunk::Bytes(bytes));
            super::peer::plan(number, true, 1, self.choices, &mut self.agenda);
            self.lanes[lane].pipeline.note_sent(n as u64, moved, &self.stats);
            if n < asked {
                moved.blocked = true;
                return Ok(());
            }
        }
        Ok(())
    }

    fn begin_body(&mut self, number: usize, addr: u64, len: u64, was_sent: bool) {
        self.rules.begin_body(&self.wires, number, addr, len);
        if was_sent {
            self.choices.reach("a begun WRITE is sent again");
        }
        self.wires[number].bodies.push_back(Body { addr, left: len });
    }

    fn take_down(&mut self, lane: usize, number: usize, why: Why<Down, Error>) {
        let mark = self.wires[number].mark;
        self.close_here(number);
        let down = match why {
            Why::Down(down) => down,
            Why::Stuck(error) => Down::Stuck(error),
            Why::Silent => Down::Canceled(error("silent")),
            Why::Overdue { .. } => {
                self.choices.reach("an overdue peer is given up");
                Down::Canceled(error("slow"))
            }
        };
        if matches!(down, Down::Rejected) {
            self.choices.reach("a peer refuses a request");
        }
        self.say(|| format!("lane {lane} ends: {down:?}"));
        let fenced = mark != 0;
        let rules = Rules { peer: "peer", rail: "rail", fenced, resend_writes: false };
        let Ends { failed, mut again, mut behind, mut trails } =
            self.lanes[lane].pipeline.tear_down(&down, &rules);
        if self.fault == Some(Fault::NoFence) {
            again.extend(behind.drain(..).map(|(request, _)| request));
        }
        if self.fault == Some(Fault::TrailsForgotten) {
            trails.drain(..).for_each(|trail| trail.end());
        }
        match fenced && !(behind.is_empty() && trails.is_empty()) {
            true => self.follow(mark, self.wires[number].start, behind, trails),
            false => drop(trails),
        }
        self.fail_all(failed);
        self.send_again(again);
    }

    /// Ends the slices that `which` picks on all lanes and among what is parked.
    pub(super) fn abandon(&mut self, which: impl Fn(&Slice) -> bool, why: &Error) {
        for lane in 0..self.lanes.len() {
            let taken = self.lanes[lane].pipeline.abandon(&which);
            self.end_taken(lane, taken, why);
        }
        self.parked.abandon(which, |request| request.fail(why.clone()));
    }

    fn end_taken(&mut self, lane: usize, taken: Abandoned, why: &Error) {
        let stuck = taken.stuck.then(|| why.clone());
        self.feed(lane, Event::Abandoned { next: taken.next, stuck });
        taken.slices.into_iter().for_each(|slice| slice.fail(why.clone()));
    }

    /// A lane as whoever chooses sees it: what it has to do, and what connecting costs.
    pub(super) fn cost(&self, lane: usize) -> u64 {
        let it = &self.lanes[lane];
        it.pipeline.load_bytes() + if it.machine.stage() == Stage::Down { 64 } else { 0 }
    }

    /// What holds after everything that happens.
    pub(super) fn check(&self) {
        for lane in &self.lanes {
            let is_down = lane.machine.stage() == Stage::Down;
            assert!(!is_down || lane.pipeline.is_empty(), "requests wait for nothing");
        }
    }
}
