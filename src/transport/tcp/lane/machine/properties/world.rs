//! The world around one lane: what performs the machine's actions, and judges them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::super::events::{Action, Event, Why};
use super::super::{Limits, Machine, Stage};
use super::peer::Peer;
use super::steps::Step;
use crate::error::{Class, Error};
use crate::transport::slice::{Op, Sink, Slice, Task, Work};
use crate::transport::tcp::ends::Down;
use crate::transport::tcp::pipeline::{Frames, Moved, Pipeline, Terms, RUN};
use crate::transport::tcp::request::Request;
use crate::transport::tcp::stats::Stats;
use crate::transport::tcp::wire::{REJECTED_FRAME, STATUS_LEN};

/// Chosen: one [`Step::Wait`] may exceed it, and many do not.
const STATUS_TIMEOUT_SECS: u64 = 30;
/// Chosen: so low that the bytes of requests, which are few here, move the deadline.
const MIN_RATE: u64 = 4;
/// Regions that requests have their memory in. Chosen: an abort picks some requests, and seldom all.
const REGIONS: u64 = 4;

#[derive(Default)]
struct Ended(AtomicUsize);

impl Sink for Ended {
    fn task_ended(&self, _: bool) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// The world around one lane.
pub(super) struct World {
    machine: Machine<u32, Error>,
    pipeline: Pipeline,
    /// Memory that status frames are received into.
    frames: Frames,
    stats: Stats,
    start: Instant,
    now_secs: u64,
    attempting: bool,
    watchable: bool,
    /// Connections made; the last one has this number, and these terms.
    connections: u32,
    terms: Terms,
    open: Option<Peer>,
    closed: bool,
    works: Vec<Arc<Work>>,
    ended: Arc<Ended>,
    /// Requests submitted.
    pushed: usize,
    /// The connection and the request that have their turn, and since when.
    turn: Option<(u32, u64)>,
    turn_began_secs: u64,
    /// A connection was taken down because the peer was slow.
    gave_up: bool,
}

impl World {
    pub(super) fn new() -> Self {
        let status_timeout = Duration::from_secs(STATUS_TIMEOUT_SECS);
        World {
            machine: Machine::new(Limits { status_timeout, min_rate: MIN_RATE }),
            pipeline: Pipeline::default(),
            frames: [[0; STATUS_LEN]; RUN],
            stats: Stats::default(),
            start: Instant::now(),
            now_secs: 0,
            attempting: false,
            watchable: true,
            connections: 0,
            terms: Terms::default(),
            open: None,
            closed: false,
            works: Vec::new(),
            ended: Arc::default(),
            pushed: 0,
            turn: None,
            turn_began_secs: 0,
            gave_up: false,
        }
    }

    fn feed(&mut self, event: Event<u32, Down, Error>) {
        let now = self.start + Duration::from_secs(self.now_secs);
        if let Some(action) = self.machine.on(event, || now) {
            self.perform(action);
        }
    }

    /// As the lane does it. The link has this lane only.
    fn perform(&mut self, action: Action<u32, Down, Error>) {
        match action {
            Action::Connect => self.attempt(),
            Action::Send => assert!(self.open.is_some(), "sent without a connection"),
            Action::Begin => self.begin(),
            Action::Discard(number) => assert!(self.closed && number == self.connections, "thrown away"),
            Action::Retire { connection, connect } => {
                let open = self.leave(connection);
                assert!(!open.terms.reusable && open.answered > 0, "left although it was good");
                assert_eq!(connect, !self.pipeline.is_empty());
                if connect {
                    self.attempt();
                }
            }
            Action::TakeDown(connection, why) => self.take_down(connection, why),
            Action::HandBack { unwatched, error } => {
                unwatched.into_iter().for_each(|number| drop(self.leave(number)));
                self.fail_all(&error);
            }
            Action::Close(connection, error) => {
                connection.into_iter().for_each(|number| drop(self.leave(number)));
                self.closed = true;
                self.fail_all(&error);
            }
            Action::Refuse(error) => {
                assert!(self.closed, "refused without reason");
                self.fail_all(&error);
            }
        }
    }

    fn attempt(&mut self) {
        assert!(!self.attempting, "two attempts at a time");
        assert!(!self.closed, "a closed lane connects");
        assert!(self.open.is_none(), "connects although there is a connection");
        self.attempting = true;
    }

    fn begin(&mut self) {
        assert!(self.open.is_none() && !self.closed);
        let terms = self.terms;
        self.open = Some(Peer::new(self.connections, terms));
        if !std::mem::replace(&mut self.watchable, true) {
            return self.feed(Event::AttachRefused(error("unwatchable")));
        }
        for stranger in self.pipeline.open(terms) {
            assert!(![0, terms.incarnation].contains(&stranger.incarnation), "not a stranger");
            stranger.fail(error("restarted"));
        }
    }

    /// A connection is handed out: it is the one in use, and is not used from now on.
    fn leave(&mut self, number: u32) -> Peer {
        let open = self.open.take().expect("left without a connection");
        assert_eq!(open.number, number, "another connection is left");
        assert!(self.machine.connection().is_none(), "used after its end");
        open
    }

    fn take_down(&mut self, connection: u32, why: Why<Down, Error>) {
        let open = self.leave(connection);
        let down = match why {
            Why::Down(down) => down,
            Why::Stuck(error) => Down::Dropped(error),
            Why::Overdue { .. } => {
                self.gave_up = true;
                Down::Canceled(error("slow"))
            }
        };
        let ends = self.pipeline.tear_down(&down, "peer");
        let may_be_executed = !matches!(down, Down::Closed(_) | Down::Rejected);
        for request in ends.again.iter().filter(|request| request.op() == Op::Write) {
            let again = may_be_executed && open.may_have_executed(request.len());
            assert!(!again, "a WRITE is sent again that the peer may still execute");
        }
        ends.failed.into_iter().for_each(|(request, error)| request.fail(error));
        self.push(ends.again);
    }

    fn push(&mut self, requests: Vec<Request>) {
        let first = self.pipeline.is_empty();
        let refused = self.pipeline.admit(requests.into_iter(), self.machine.connection().is_some());
        refused.into_iter().for_each(|request| request.fail(error("another incarnation")));
        if !self.pipeline.is_empty() {
            self.feed(Event::Pushed { first });
        }
    }

    fn fail_all(&mut self, error: &Error) {
        self.pipeline.take_all().into_iter().for_each(|request| request.fail(error.clone()));
    }

    pub(super) fn step(&mut self, step: &Step) {
        match *step {
            Step::Push { count, reads, incarnation } => self.submit(count, reads, incarnation),
            Step::Attach(terms) => self.attach(terms),
            Step::AttachInVain => {
                self.watchable = !self.attempting || self.closed;
                self.attach(Terms::default());
            }
            Step::ConnectFails => {
                if std::mem::take(&mut self.attempting) {
                    self.feed(Event::ConnectFailed(error("no route")));
                }
            }
            Step::Send(room) => self.send(room.into()),
            Step::Receive(bytes) => self.receive(bytes.into()),
            Step::Reject { which, cut } => self.reject(which.into(), cut),
            Step::Fault { sending } => self.fault(sending),
            Step::HangUp => self.end(Down::Closed(None)),
            Step::Babble => self.end(Down::Protocol("babble".into())),
            Step::NetworkFails => self.end(Down::Dropped(error("no route"))),
            Step::Abort(region) => self.abort(u64::from(region) % REGIONS),
            Step::Wait(secs) => self.wait(secs.into()),
            Step::Close => self.feed(Event::Closed(error("destroyed"))),
        }
    }

    fn submit(&mut self, count: u8, reads: u8, incarnation: u64) {
        let tasks = (0..count).map(|_| Task::default()).collect();
        let work = Arc::new(Work { tasks, deadline: None, sink: self.ended.clone() });
        let mut requests = Vec::new();
        for index in 0..count {
            self.pushed += 1;
            let (name, op) = (self.pushed as u64, if reads >> index & 1 == 1 { Op::Read } else { Op::Write });
            requests
                .push(Request::new(Slice::new(&work, index.into(), op, 1, name, name, None), incarnation));
        }
        self.works.push(work);
        self.push(requests);
    }

    fn attach(&mut self, terms: Terms) {
        if std::mem::take(&mut self.attempting) {
            self.connections += 1;
            self.terms = terms;
            self.feed(Event::Attached(self.connections));
        }
    }

    fn end(&mut self, down: Down) {
        if self.open.is_some() {
            self.feed(Event::Down(down));
        }
    }

    fn send(&mut self, room: u64) {
        let Some(open) = self.open.as_mut().filter(|_| self.pipeline.wants_to_send()) else { return };
        let bytes = open.take(self.pipeline.outgoing(), room);
        let mut moved = Moved::default();
        self.pipeline.note_sent(bytes, &mut moved, &self.stats);
        self.settle(&moved);
    }

    fn receive(&mut self, bytes: u64) {
        let Some(open) = &mut self.open else { return };
        let looked_for = self.pipeline.incoming().requests.len();
        let bytes = bytes.min(open.replies_before(looked_for));
        if bytes > 0 {
            open.answer(bytes, &mut self.frames);
            let mut moved = Moved::default();
            let outcome = self.pipeline.note_received(bytes, &mut self.frames, &mut moved, &self.stats);
            assert!(outcome.is_ok(), "good replies are refused");
            self.settle(&moved);
        }
    }

    /// Peer and pipeline have to agree on what is answered.
    fn settle(&mut self, moved: &Moved) {
        assert_eq!(moved.replies, self.open.as_mut().is_some_and(Peer::settle));
        if moved.replies {
            let (spent, more) = (self.pipeline.is_spent(), !self.pipeline.is_empty());
            self.feed(Event::Replied { spent, more });
        }
    }

    fn reject(&mut self, which: usize, cut: usize) {
        let Some(open) = self.open.as_mut().filter(|open| open.terms.v2) else { return };
        let Some(which) = which.checked_rem(self.pipeline.incoming().requests.len()) else { return };
        if which == 0 && open.is_amid_reply() {
            return;
        }
        let bytes = open.refuse(which, &mut self.frames);
        let late = STATUS_LEN - cut;
        let mut moved = Moved::default();
        let mut outcome =
            self.pipeline.note_received(bytes - late as u64, &mut self.frames, &mut moved, &self.stats);
        if late > 0 {
            assert!(outcome.is_ok(), "judged by half a frame");
            if moved.replies {
                self.feed(Event::Replied { spent: false, more: true });
            }
            self.frames[0][cut..].copy_from_slice(&REJECTED_FRAME[cut..]);
            outcome = self.pipeline.note_received(late as u64, &mut self.frames, &mut moved, &self.stats);
        }
        assert!(matches!(outcome, Err(Down::Rejected)), "a refusal is not heard");
        self.feed(Event::Down(Down::Rejected));
    }

    fn fault(&mut self, sending: bool) {
        if self.open.is_none() || sending && !self.pipeline.wants_to_send() {
            return;
        }
        let run = if sending { self.pipeline.outgoing() } else { self.pipeline.incoming() };
        match run.requests.len() {
            0 => {}
            1 => self.feed(Event::Down(Down::Fault { sending })),
            _ => self.pipeline.be_cautious(),
        }
    }

    fn abort(&mut self, region: u64) {
        let is_in = |slice: &Slice| slice.remote % REGIONS == region;
        let taken = self.pipeline.abandon(is_in);
        let stuck = taken.stuck.then(|| error("unregistered"));
        self.feed(Event::Abandoned { next: taken.next, stuck });
        taken.slices.into_iter().for_each(|slice| slice.fail(error("unregistered")));
        let left = self.pipeline.abandon(is_in);
        assert!(left.slices.is_empty() && !left.stuck, "a region is in use after it was given up");
    }

    fn wait(&mut self, secs: u64) {
        self.now_secs += secs;
        self.gave_up = false;
        let late = self.turn.is_some_and(|(_, bytes)| {
            self.now_secs - self.turn_began_secs > STATUS_TIMEOUT_SECS + bytes / MIN_RATE
        });
        self.feed(Event::Tick { awaited: self.pipeline.awaited_bytes() });
        assert_eq!(self.gave_up, late, "the deadline of a turn");
    }

    /// What holds after every step.
    pub(super) fn check(&mut self) {
        let stage = match &self.open {
            _ if self.closed => Stage::Down,
            Some(_) => Stage::Up,
            None if self.attempting => Stage::Rising,
            None => Stage::Down,
        };
        assert_eq!(self.machine.stage(), stage);
        assert_eq!(self.machine.connection(), self.open.as_ref().map(|open| &open.number));
        assert!(stage != Stage::Down || self.pipeline.is_empty(), "requests wait for nothing");
        assert!(stage != Stage::Up || !self.pipeline.is_spent(), "a spent connection is kept");
        assert_eq!(self.pipeline.is_empty(), self.pipeline.load_bytes() == 0);
        let names = RefCell::new(BTreeSet::new());
        self.pipeline.abandon(|slice| {
            assert!(names.borrow_mut().insert(slice.remote), "a request is in two places");
            false
        });
        let ended = self.ended.0.load(Relaxed);
        assert_eq!(names.into_inner().len() + ended, self.pushed, "a request is lost, or ends twice");
        let turn = self.open.as_ref().map(|open| open.number).zip(self.pipeline.awaited_bytes());
        if turn != self.turn {
            (self.turn, self.turn_began_secs) = (turn, self.now_secs);
        }
    }

    /// However it came to be: a peer that always hangs up is not tried for ever, and after the end nothing begins.
    pub(super) fn finish(mut self) {
        let terms = Terms { v2: true, reusable: true, incarnation: 1 };
        let rounds = 3 * self.pushed + 2;
        for _ in 0..rounds {
            self.step(&Step::HangUp);
            self.step(&Step::Attach(terms));
            self.check();
            if self.pipeline.is_empty() {
                break;
            }
        }
        assert!(self.pipeline.is_empty(), "requests are sent for ever");
        let push = Step::Push { count: 2, reads: 1, incarnation: 0 };
        self.step(&push);
        let late =
            [Step::Attach(terms), push.clone(), Step::ConnectFails, Step::HangUp, Step::Wait(u8::MAX), push];
        for step in std::iter::once(Step::Close).chain(late) {
            self.step(&step);
            self.check();
        }
        assert_eq!(self.ended.0.load(Relaxed), self.pushed);
        let dropped = |task: &Task| task.error().is_some_and(|error| error.kind() == Class::Internal);
        assert!(!self.works.iter().flat_map(|work| &work.tasks).any(dropped), "a request was dropped");
    }
}

fn error(text: &'static str) -> Error {
    Error::invalid(text)
}
