//! The model of everything around a rail: attempts, queue pairs, the peer, flights, time.

mod begin;
mod judge;

use std::collections::VecDeque;

use super::super::*;
use super::steps::{Step, What};

/// Longest pause: that of the machine, and a quarter of it for the jitter.
const LONGEST_PAUSE_MS: u64 = 2500;
/// Queue pairs of a connection. Chosen: the least with which some have their probe and others lack it.
const QUEUES: u8 = 2;
/// What an attempt says that finds itself abandoned. It explains nothing to whoever waits.
const UNWANTED: &str = "unwanted";

type Doing = Action<u32, &'static str>;
type Happening = Event<u32, &'static str>;

/// What a thread has still to do.
#[derive(Debug)]
enum Todo {
    Act(Doing),
    Feed(Happening),
    /// Posts what waits on the connection that it found up.
    Post(u32),
    /// Looks whether the rail has kept what this attempt made.
    Keep(Attempt, u32),
}

/// A thread in the middle of something, and the attempt whose task runs on it.
struct Thread {
    todo: VecDeque<Todo>,
    of: Option<Attempt>,
    /// It holds the lock under which queue pairs are made.
    makes: bool,
}

impl Thread {
    fn new<const N: usize>(todo: [Todo; N]) -> Self {
        Thread { todo: todo.into(), of: None, makes: false }
    }
}

/// The task of an attempt, and the queue pairs that it uses.
struct Task {
    attempt: Attempt,
    used: Option<u32>,
}

/// Queue pairs.
#[derive(Default)]
struct Connection {
    /// Some queue pair has stopped by itself.
    broken: bool,
    stopped: bool,
    /// The peer has asked for it too.
    asked: bool,
    probes: u8,
    arrived: u8,
    posted: usize,
}

impl Connection {
    fn is_open(&self) -> bool {
        !self.broken && !self.stopped
    }
}

/// The world around one rail.
pub(super) struct World {
    machine: Machine<u32, &'static str>,
    now_ms: u64,
    used_ms: u64,
    room: u8,
    port_up: bool,
    has_route: bool,
    threads: Vec<Thread>,
    /// Under way, abandoned ones too.
    tasks: Vec<Task>,
    /// The attempt that counts: begun, neither ended nor abandoned.
    attempt: Option<Attempt>,
    /// By number less one.
    connections: Vec<Connection>,
    /// The last one that the rail has heard of.
    made: u32,
    /// Flights are numbers too, the oldest in front.
    waiting: VecDeque<u32>,
    /// How many were handed back or flushed, to be placed on other rails.
    elsewhere: usize,
    /// How many failed because the rail is stopped.
    ended: usize,
    flights: u32,
    /// Flights up to this one waited when the rail failed, and must not wait any more.
    owed: u32,
    /// The rail has failed, and has not been proved since.
    is_suspect: bool,
    failures: u64,
    stopped: bool,
    /// The connection counts among those that may be evicted.
    counted: bool,
}

impl World {
    pub(super) fn new() -> Self {
        let pauses = Pauses { most: Duration::from_secs(30), least: Duration::ZERO };
        World {
            machine: Machine::new(pauses, true),
            now_ms: 1,
            used_ms: 0,
            room: QUEUES,
            port_up: true,
            has_route: true,
            threads: Vec::new(),
            tasks: Vec::new(),
            attempt: None,
            connections: Vec::new(),
            made: 0,
            waiting: VecDeque::new(),
            elsewhere: 0,
            ended: 0,
            flights: 0,
            owed: 0,
            is_suspect: false,
            failures: 0,
            stopped: false,
            counted: false,
        }
    }

    fn at(&mut self, connection: u32) -> &mut Connection {
        &mut self.connections[connection as usize - 1]
    }

    /// A step of the machine, judged by what the world knows. The actions are still to be performed.
    fn feed(&mut self, event: Happening) -> Vec<Doing> {
        let (before, was_up) = (self.machine.connection().copied(), self.machine.up().copied());
        let proved = match event {
            Event::Proved(connection) => Some(connection),
            _ => None,
        };
        let (may_fail, must_fail) = self.expected(&event);
        let retry_at_ms = match self.machine.phase() {
            Phase::Paused { retry_at_ms } => *retry_at_ms,
            _ => 0,
        };
        match &event {
            Event::Connected(attempt, _)
            | Event::Unreachable(attempt)
            | Event::AttemptFailed { attempt, .. }
                if self.attempt == Some(*attempt) =>
            {
                self.attempt = None;
            }
            Event::Made { connection, by } => {
                self.made = *connection;
                self.at(*connection).asked = *by == By::Peer;
            }
            Event::Accepted(connection) | Event::Ready(connection) => self.at(*connection).asked = true,
            Event::TakenAway(_) | Event::Stopped(_) => self.attempt = None,
            Event::Interrupted(connection, _) if before == Some(*connection) => self.attempt = None,
            _ => {}
        }
        let now = Now { ms: self.now_ms, random: (self.now_ms as u32).wrapping_mul(2_654_435_761) };
        let actions = self.machine.on(event, now);
        let mut failed = None;
        for action in &actions {
            match action {
                Action::Report(cause) => {
                    assert!(may_fail && failed.is_none(), "blamed for what is not its fault");
                    assert_ne!(*cause, UNWANTED, "failed for a reason that says nothing");
                    failed = Some(*cause);
                    (self.attempt, self.is_suspect) = (None, true);
                    self.failures += 1;
                    self.owed = self.flights;
                }
                Action::HandBack(loss, cause) => {
                    let expected = match failed {
                        Some(_) if was_up.is_none() => Loss::Unconnected,
                        _ => Loss::Flushed,
                    };
                    assert_eq!(*loss, expected, "judged by another loss");
                    assert!(failed.is_none() || *cause == failed, "judged by another cause");
                }
                Action::Connect(attempt) => {
                    assert!(self.port_up && !self.stopped, "begun without a port");
                    assert_eq!(self.attempt, None, "two attempts at a time");
                    assert_eq!(before, None, "begun although there is a connection");
                    assert!(retry_at_ms <= self.now_ms, "begun before the pause is over");
                    self.attempt = Some(*attempt);
                }
                Action::Stop(connection, _) => {
                    let still = self.machine.connection() == Some(connection);
                    assert!(!still, "the rail's own connection is stopped");
                }
                _ => {}
            }
        }
        assert!(!must_fail || failed.is_some(), "a failure that nobody hears of");
        // What is published at once, before any action is performed.
        if let Some(up) = self.machine.up().copied().filter(|up| was_up != Some(*up)) {
            assert!(!self.is_suspect || proved == Some(up), "a failed rail carries data before it is proved");
            if self.is_suspect {
                assert_eq!(self.at(up).arrived, QUEUES, "proved without its probes");
            }
            self.is_suspect = false;
        }
        actions
    }

    /// Whether the event may make the rail fail, and whether it has to.
    fn expected(&self, event: &Happening) -> (bool, bool) {
        let rails = self.machine.connection().copied();
        match event {
            Event::Lost(connection, _) => {
                let is_rails = rails == Some(*connection);
                (is_rails, is_rails)
            }
            Event::AttemptFailed { attempt, connection, usable, .. } => {
                let counts = self.attempt == Some(*attempt);
                let asked = |used: u32| self.connections[used as usize - 1].asked;
                let spared = *usable && *connection == rails && connection.is_some_and(asked);
                (counts && !spared, counts && connection.is_none() && rails.is_none())
            }
            Event::PortDown(_) => {
                let begun = rails.is_some() || self.attempt.is_some();
                (begun, begun)
            }
            Event::Overdue(connection, _) => {
                let waits = matches!(self.machine.phase(), Phase::Connecting { .. });
                (waits && rails == Some(*connection), false)
            }
            _ => (false, false),
        }
    }

    /// A thread takes a step of the machine.
    fn happen(&mut self, event: Happening, of: Option<Attempt>) {
        let todo = self.feed(event).into_iter().map(Todo::Act).collect();
        self.threads.push(Thread { todo, of, makes: false });
    }

    /// A thread performs one action; what follows from it comes before the rest, because it is the same thread.
    fn perform(&mut self, place: usize) {
        let Some(todo) = self.threads[place].todo.pop_front() else {
            self.threads.swap_remove(place);
            return;
        };
        let next = match todo {
            Todo::Act(action) => self.act(action),
            Todo::Feed(event) => {
                let actions = self.feed(event);
                let todo = &mut self.threads[place].todo;
                actions.into_iter().rev().for_each(|action| todo.push_front(Todo::Act(action)));
                None
            }
            Todo::Post(connection) => {
                // If it was stopped meanwhile, they go on waiting.
                if self.at(connection).is_open() {
                    self.at(connection).posted += self.waiting.len();
                    self.waiting.clear();
                }
                None
            }
            Todo::Keep(attempt, connection) => {
                let kept = self.machine.connection() == Some(&connection);
                match self.tasks.iter().position(|task| task.attempt == attempt) {
                    Some(place) if kept => {
                        self.tasks[place].used = Some(connection);
                        None
                    }
                    Some(place) => {
                        self.tasks.swap_remove(place);
                        Some(Todo::Feed(failure(attempt, None, false, UNWANTED)))
                    }
                    // It has ended without waiting for this.
                    None => None,
                }
            }
        };
        if let Some(next) = next {
            self.threads[place].todo.push_front(next);
        }
    }

    /// As the rail does it. What it does next on the same thread is returned, because much may happen in between.
    fn act(&mut self, action: Doing) -> Option<Todo> {
        match action {
            Action::Connect(attempt) if self.has_route => {
                self.tasks.push(Task { attempt, used: None });
                None
            }
            Action::Connect(attempt) => Some(Todo::Feed(Event::Unreachable(attempt))),
            Action::Probe(connection) => {
                let room = self.room;
                let found = self.at(connection);
                if !found.is_open() {
                    return None;
                }
                found.probes = (found.probes + room).min(QUEUES);
                let all = found.probes == QUEUES;
                Some(Todo::Feed(Event::Probed { connection, all }))
            }
            Action::Pump => Some(self.machine.up().map_or(Todo::Feed(Event::Wanted), |up| Todo::Post(*up))),
            Action::HandBack(..) => {
                self.elsewhere += self.waiting.len();
                self.waiting.clear();
                None
            }
            Action::Fail(_) => {
                assert!(self.stopped);
                self.ended += self.waiting.len();
                self.waiting.clear();
                None
            }
            Action::Stop(connection, _) => {
                self.at(connection).stopped = true;
                None
            }
            Action::Vacate => {
                self.counted = false;
                None
            }
            Action::Report(_) => None,
            Action::Expire(connection) => Some(Todo::Feed(Event::Overdue(connection, "silent"))),
        }
    }

    /// Has every thread perform its actions.
    fn finish(&mut self) {
        while !self.threads.is_empty() {
            self.perform(self.threads.len() - 1);
        }
    }

    /// A thread makes queue pairs, for which the driver needs time.
    fn make(&mut self, by: By) {
        self.connections.push(Connection::default());
        let connection = self.connections.len() as u32;
        let mut thread = Thread::new([Todo::Feed(Event::Made { connection, by })]);
        thread.makes = true;
        if let By::Own(attempt) = by {
            thread.of = Some(attempt);
            thread.todo.push_back(Todo::Keep(attempt, connection));
        }
        self.threads.push(thread);
    }

    fn is_making(&self) -> bool {
        self.threads.iter().any(|thread| thread.makes)
    }

    /// One of the connections that ever were, also stopped ones; not the one that is being made.
    fn some(&self, which: u8) -> Option<u32> {
        let count = self.made;
        (count > 0).then(|| count - u32::from(which) % count)
    }

    /// One of the attempts whose task is not in the middle of something.
    fn task(&self, which: u8) -> Option<usize> {
        let count = self.tasks.len();
        let place = (count > 0).then(|| count - 1 - usize::from(which) % count)?;
        let attempt = self.tasks[place].attempt;
        self.threads.iter().all(|thread| thread.of != Some(attempt)).then_some(place)
    }

    pub(super) fn step(&mut self, step: Step) {
        let threads = self.threads.len();
        self.begin(step);
        if !step.is_late && self.threads.len() > threads {
            while self.threads.get(threads).is_some() {
                self.perform(threads);
            }
        }
    }

    fn end_task(&mut self, place: usize, used: Option<u32>, usable: bool, cause: &'static str) {
        let task = self.tasks.swap_remove(place);
        self.happen(failure(task.attempt, used, usable, cause), None);
    }

    /// What was posted comes back from a connection that is stopped.
    fn flush(&mut self, connection: u32, most: usize) {
        let found = self.at(connection);
        let count = if found.is_open() { 0 } else { found.posted.min(most) };
        found.posted -= count;
        self.elsewhere += count;
    }

    fn tick(&mut self) {
        let is_used = !self.waiting.is_empty() || self.now_ms - self.used_ms < USED_WITHIN_MS;
        let due = match self.machine.phase() {
            Phase::Idle => !self.waiting.is_empty(),
            Phase::Paused { retry_at_ms } => is_used && *retry_at_ms <= self.now_ms,
            _ => false,
        };
        let tick = Event::Tick { waiting: !self.waiting.is_empty(), used_ms: self.used_ms };
        self.happen(tick, None);
        assert!(!(due && self.port_up) || self.attempt.is_some(), "nobody tries again");
    }
}

fn failure(attempt: Attempt, connection: Option<u32>, usable: bool, cause: &'static str) -> Happening {
    Event::AttemptFailed { attempt, connection, usable, cause }
}
