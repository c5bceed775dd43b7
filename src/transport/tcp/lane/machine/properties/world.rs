//! The world around one lane: what performs the machine's actions, and judges them.

mod traffic;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::super::events::{Action, Event, Why};
use super::super::{Limits, Machine, Stage};
use super::peer::Peer;
use super::steps::{Said, Step};
use crate::error::{Class, Error};
use crate::transport::slice::{Op, Sink, Slice, Task, Work};
use crate::transport::tcp::ends::{Down, Rules};
use crate::transport::tcp::pipeline::{Frames, Pipeline, Terms, RUN};
use crate::transport::tcp::request::Request;
use crate::transport::tcp::stats::Stats;
use crate::transport::tcp::wire::STATUS_LEN;

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
    /// WRITEs of dead connections whose peer was asked to close its end.
    behind: Vec<Vec<Request>>,
    silence: Silence,
}

/// What the peer's silence amounts to, as seen at the ticks.
#[derive(Default)]
struct Silence {
    /// The connection and its traffic at the tick before, and when that was first seen.
    seen: Option<(u32, u64, u64)>,
    /// The question that waits for an answer, and its connection.
    question: Option<(u32, u32)>,
}

impl World {
    pub(super) fn new() -> Self {
        let status_timeout = Duration::from_secs(STATUS_TIMEOUT_SECS);
        World {
            machine: Machine::new(Limits { status_timeout, min_rate: MIN_RATE, asks: true }),
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
            behind: Vec::new(),
            silence: Silence::default(),
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
            Action::Ask(question) => {
                let connection = self.open.as_ref().expect("asked without a connection").number;
                assert!(self.silence.question.is_none_or(|(_, of)| of != connection), "asked twice");
                self.silence.question = Some((question, connection));
            }
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
            Why::Stuck(error) => Down::Stuck(error),
            Why::Silent => Down::Canceled(error("silent")),
            Why::Overdue { .. } => {
                self.gave_up = true;
                Down::Canceled(error("slow"))
            }
        };
        let fenced = open.terms.v2 && open.terms.reusable && open.terms.incarnation != 0;
        let rules = Rules { peer: "peer", rail: "rail", fenced, resend_writes: false };
        let ends = self.pipeline.tear_down(&down, &rules);
        for request in ends.again.iter().filter(|request| request.op() == Op::Write) {
            let again = !matches!(down, Down::Rejected) && open.may_have_executed(request.len());
            assert!(!again, "a WRITE is sent again that the peer may still execute");
        }
        assert!(fenced || ends.behind.is_empty(), "WRITEs wait for a word that nobody will say");
        ends.failed.into_iter().for_each(|(request, error)| request.fail(error));
        if !ends.behind.is_empty() {
            self.behind.push(ends.behind.into_iter().map(|(request, _)| request).collect());
        }
        self.push(ends.again);
    }

    fn confirm(&mut self, which: usize, closed: bool) {
        let Some(which) = which.checked_rem(self.behind.len()) else { return };
        let requests = self.behind.swap_remove(which);
        match closed {
            true => self.push(requests),
            false => requests.into_iter().for_each(|request| request.fail(error("no answer"))),
        }
    }

    fn answer(&mut self, said: Said) {
        let Some((question, connection)) = self.silence.question.take() else { return };
        let (current, silent) = (self.machine.connection().copied(), self.silence.seen);
        let traffic = self.pipeline.traffic();
        self.feed(match said {
            Said::Alive => Event::Alive(question),
            Said::Nothing => Event::Silent { question, traffic },
            Said::Unreachable => {
                Event::Unreachable { question, traffic, down: Down::Dropped(error("no route")) }
            }
        });
        let alive = said == Said::Alive;
        let was_silent = silent.is_some_and(|(of, then, _)| (of, then) == (connection, traffic));
        let given_up = current.is_some() && self.machine.connection().copied() != current;
        assert_eq!(given_up, !alive && was_silent && current == Some(connection), "given up for its silence");
        if alive && was_silent {
            self.silence.seen = silent.map(|(of, traffic, _)| (of, traffic, self.now_secs));
        }
    }

    fn cancel(&mut self, which: usize) {
        let Some(which) = which.checked_rem(self.works.len()) else { return };
        self.works[which].cancel();
        self.take_out(Slice::is_given_up, "canceled");
        for group in &mut self.behind {
            let canceled: Vec<Request> = group.extract_if(.., |request| request.is_given_up()).collect();
            canceled.into_iter().for_each(|request| request.fail(error("canceled")));
        }
    }

    fn push(&mut self, requests: Vec<Request>) {
        let first = self.pipeline.is_empty();
        let is_open = self.machine.connection().is_some();
        let left =
            self.pipeline.admit(requests.into_iter(), is_open, |request| request.fail(error("refused")));
        assert!(left.is_none());
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
            Step::Cancel(which) => self.cancel(which.into()),
            Step::Confirm { which, closed } => self.confirm(which.into(), closed),
            Step::Answer(said) => self.answer(said),
            Step::Want => self.feed(Event::Wanted),
            Step::Abort(region) => self.abort(u64::from(region) % REGIONS),
            Step::Wait(secs) => self.wait(secs.into()),
            Step::Close => self.feed(Event::Closed(error("destroyed"))),
        }
    }

    fn submit(&mut self, count: u8, reads: u8, incarnation: u64) {
        let tasks = (0..count).map(|_| Task::default()).collect();
        let work = Work::new(tasks, None, self.ended.clone());
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

    fn abort(&mut self, region: u64) {
        let is_in = |slice: &Slice| slice.remote % REGIONS == region;
        self.take_out(is_in, "unregistered");
        for group in &mut self.behind {
            let taken: Vec<Request> =
                group.extract_if(.., |request| request.slice().is_some_and(is_in)).collect();
            taken.into_iter().for_each(|request| request.fail(error("unregistered")));
        }
    }

    fn take_out(&mut self, which: impl Fn(&Slice) -> bool, why: &'static str) {
        let taken = self.pipeline.abandon(&which);
        let stuck = taken.stuck.then(|| error(why));
        self.feed(Event::Abandoned { next: taken.next, stuck });
        taken.slices.into_iter().for_each(|slice| slice.fail(error(why)));
        let left = self.pipeline.abandon(which);
        assert!(left.slices.is_empty() && !left.stuck, "memory is in use after it was given up");
    }

    fn wait(&mut self, secs: u64) {
        self.now_secs += secs;
        self.gave_up = false;
        let late = self.turn.is_some_and(|(_, bytes)| {
            self.now_secs - self.turn_began_secs > STATUS_TIMEOUT_SECS + bytes / MIN_RATE
        });
        let (awaited, traffic) = (self.pipeline.awaited_bytes(), self.pipeline.traffic());
        let asked = self.silence.question;
        let now = awaited.and(self.open.as_ref()).map(|open| (open.number, traffic));
        self.feed(Event::Tick { awaited, traffic, paused: Duration::ZERO });
        assert_eq!(self.gave_up, late, "the deadline of a turn");
        let before = self.silence.seen;
        let unmoved =
            before.zip(now).filter(|((of, then, _), now)| (*of, *then) == *now).map(|(before, _)| before);
        let answer_due = asked.zip(now).is_some_and(|((_, of), (number, _))| of == number);
        let asks = !late && !answer_due && unmoved.is_some_and(|(_, _, since)| self.now_secs > since);
        assert_eq!(self.silence.question != asked, asks, "asked without silence, or not asked in it");
        self.silence.seen = unmoved.or(now.map(|(number, traffic)| (number, traffic, self.now_secs)));
        if unmoved.is_none() {
            // It was asked in another silence: the answer will count for nothing.
            self.silence.question = None;
        }
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
        let behind: usize = self.behind.iter().map(Vec::len).sum();
        assert_eq!(
            names.into_inner().len() + behind + ended,
            self.pushed,
            "a request is lost, or ends twice"
        );
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
            self.step(&Step::Confirm { which: 0, closed: true });
            self.step(&Step::Attach(terms));
            self.check();
            if self.pipeline.is_empty() && self.behind.is_empty() {
                break;
            }
        }
        assert!(self.pipeline.is_empty() && self.behind.is_empty(), "requests are sent for ever");
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
