//! Random lives of a rail, against a model of everything around it: attempts, queue pairs, the peer, flights, time, and
//! threads that have taken a step of the machine and not performed its actions yet. `PROPTEST_CASES` says how many;
//! what fails is shrunk.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// The least number of sequences. `make test` asks for a million.
const CASES: u32 = 2_000;
/// Most steps of a sequence. Chosen: a failure, a pause, a proof and a second failure with bystanders fit.
const STEPS: usize = 80;
/// Longest pause: that of the machine, and a quarter of it for the jitter.
const LONGEST_PAUSE_MS: u64 = 2500;
/// Queue pairs of a connection. Chosen: the least with which some have their probe and others lack it.
const QUEUES: u8 = 2;
/// What an attempt says that finds itself abandoned. It explains nothing to whoever waits.
const UNWANTED: &str = "unwanted";

/// What the world does.
#[derive(Clone, Copy, Debug)]
enum What {
    /// A link submits a flight.
    Submit,
    /// A thread performs the next of its actions.
    Perform,
    /// An attempt makes queue pairs, or goes on with those that the peer asked for.
    Make,
    /// An attempt succeeds with its queue pairs, does without them, or ends with them.
    Connect,
    StartOver,
    GiveUp,
    GiveUpUsable,
    /// The task of an attempt takes too long, whatever it is doing; that of an abandoned one is ended.
    TimeOut,
    Abort,
    /// The peer asks for a connection; the driver connects one that it asked for; the peer says ready.
    Ask,
    Accept,
    Ready,
    /// A probe arrives.
    Arrive,
    /// A connection fails, by itself or not, or is interrupted; a flight comes back from one that is stopped.
    Break,
    Lose,
    Interrupt,
    Flush,
    Retire,
    PortDown,
    PortUp,
    /// Time passes.
    Wait,
    /// The next probes find room on so many queue pairs.
    Room,
    /// Links that lead to the peer come and go.
    Route,
}

/// How often each happens.
const MIX: [(What, u8); 23] = [
    (What::Submit, 5),
    (What::Perform, 8),
    (What::Make, 5),
    (What::Connect, 4),
    (What::StartOver, 1),
    (What::GiveUp, 2),
    (What::GiveUpUsable, 1),
    (What::TimeOut, 1),
    (What::Abort, 1),
    (What::Ask, 2),
    (What::Accept, 3),
    (What::Ready, 3),
    (What::Arrive, 6),
    (What::Break, 1),
    (What::Lose, 3),
    (What::Interrupt, 1),
    (What::Flush, 2),
    (What::Retire, 1),
    (What::PortDown, 1),
    (What::PortUp, 3),
    (What::Wait, 6),
    (What::Room, 2),
    (What::Route, 1),
];

/// One step.
#[derive(Clone, Copy, Debug)]
struct Step {
    what: What,
    /// Chooses among what there is; the newest is 0.
    which: u8,
    ms: u16,
    /// The thread is held up before it performs the actions.
    is_late: bool,
}

impl Step {
    /// One draw for a step: several would take longer than the steps themselves.
    fn of(word: u32) -> Self {
        let mut left = (word & 63) as u8;
        let place = MIX.iter().position(|(_, share)| match left.checked_sub(*share) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        });
        let what = MIX[place.unwrap_or(0)].0;
        Step { what, which: (word >> 8) as u8, ms: (word >> 16) as u16, is_late: word >> 6 & 3 == 3 }
    }
}

type Doing = super::Action<u32, &'static str>;
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
struct World {
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
    fn new() -> Self {
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

    fn step(&mut self, step: Step) {
        let threads = self.threads.len();
        self.begin(step);
        if !step.is_late && self.threads.len() > threads {
            while self.threads.get(threads).is_some() {
                self.perform(threads);
            }
        }
    }

    fn begin(&mut self, step: Step) -> Option<()> {
        let which = step.which;
        match step.what {
            What::Submit => {
                self.flights += 1;
                self.used_ms = self.now_ms;
                self.waiting.push_back(self.flights);
                self.threads.push(Thread::new([Todo::Act(Action::Pump)]));
            }
            What::Perform => {
                let count = self.threads.len();
                (count > 0).then(|| self.perform(usize::from(which) % count))?;
            }
            What::Make if !self.is_making() => {
                let place = self.task(which)?;
                let Task { attempt, used } = self.tasks[place];
                let known = self.machine.connection().copied();
                match known.filter(|known| self.at(*known).is_open()) {
                    _ if used.is_some() => {}
                    _ if !self.machine.is_current(attempt) => self.end_task(place, None, false, UNWANTED),
                    Some(known) => self.tasks[place].used = Some(known),
                    None => self.make(By::Own(attempt)),
                }
            }
            What::Connect => {
                let place = self.task(which)?;
                let connection = self.tasks[place].used?;
                let task = self.tasks.swap_remove(place);
                self.counted = self.machine.connection().is_some();
                self.happen(Event::Connected(task.attempt, connection), None);
            }
            What::StartOver => {
                let place = self.task(which)?;
                let task = &mut self.tasks[place];
                let (attempt, connection) = (task.attempt, task.used.take()?);
                self.happen(Event::StartedOver(attempt, connection, "bad path"), Some(attempt));
            }
            What::GiveUp | What::GiveUpUsable => {
                let place = self.task(which)?;
                let used = self.tasks[place].used;
                let is_open = used.is_some_and(|used| self.at(used).is_open());
                let usable = is_open && matches!(step.what, What::GiveUpUsable);
                self.end_task(place, used, usable, "refused");
            }
            What::TimeOut => {
                let count = self.tasks.len();
                let place = (count > 0).then(|| usize::from(which) % count)?;
                let used = self.tasks[place].used;
                let is_open = used.is_some_and(|used| self.at(used).is_open());
                self.end_task(place, used, is_open, "no answer");
            }
            What::Abort => {
                let counts = self.attempt;
                self.tasks.retain(|task| counts == Some(task.attempt));
            }
            What::Ask if !self.is_making() => {
                let known = self.machine.connection().copied();
                match known.filter(|known| self.at(*known).is_open()) {
                    Some(known) if which & 1 == 0 => self.happen(Event::Accepted(known), None),
                    Some(_) => self.happen(Event::TakenAway("connected anew"), None),
                    None => self.make(By::Peer),
                }
            }
            What::Accept => {
                let connection = self.some(which)?;
                self.happen(Event::Accepted(connection), None);
                self.counted = self.machine.connection().is_some();
            }
            What::Ready => self.happen(Event::Ready(self.some(which)?), None),
            What::Arrive => {
                let connection = self.some(which)?;
                let found = self.at(connection);
                if found.arrived < found.probes && found.is_open() {
                    found.arrived += 1;
                    if found.arrived == QUEUES {
                        self.happen(Event::Proved(connection), None);
                    }
                }
            }
            What::Break => {
                let connection = self.some(which)?;
                self.at(connection).broken = true;
                let lost = Event::Lost(connection, "bad completion");
                self.threads.push(Thread::new([Todo::Feed(lost)]));
            }
            What::Lose => self.happen(Event::Lost(self.some(which)?, "cable"), None),
            What::Interrupt => self.happen(Event::Interrupted(self.some(which)?, "ours"), None),
            What::Flush => self.flush(self.some(which)?, 1),
            What::Retire => self.happen(Event::TakenAway("evicted"), None),
            What::PortDown => {
                self.port_up = false;
                self.happen(Event::PortDown("no link"), None);
            }
            What::PortUp => {
                self.port_up = true;
                self.happen(Event::PortUp, None);
            }
            What::Wait => {
                self.now_ms += u64::from(step.ms);
                self.tick();
            }
            What::Make | What::Ask => {}
            What::Room => self.room = which % (QUEUES + 1),
            What::Route => self.has_route = which & 3 != 0,
        }
        Some(())
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

    /// What holds after every step.
    fn check(&self) {
        let posted: usize = self.connections.iter().map(|connection| connection.posted).sum();
        let found = self.waiting.len() + posted + self.elsewhere + self.ended;
        assert_eq!(found, self.flights as usize, "the model has lost a flight");
        assert_eq!(self.machine.is_trusted(), !self.is_suspect, "trusted without a proof, or never again");
        assert_eq!(self.machine.failed(), self.failures);
        for attempt in self.tasks.iter().map(|task| task.attempt).chain(self.attempt) {
            let counts = self.attempt == Some(attempt);
            assert_eq!(self.machine.is_current(attempt), counts, "an abandoned attempt counts");
        }
        match self.machine.phase() {
            Phase::Connecting { connection, ready_by_ms } => {
                let bounded = connection.is_some() && ready_by_ms.is_some();
                assert!(bounded || self.attempt.is_some(), "it waits for an attempt that has ended");
            }
            Phase::Paused { retry_at_ms } => {
                assert!(*retry_at_ms <= self.now_ms + LONGEST_PAUSE_MS, "paused for too long");
            }
            Phase::Idle => assert!(!self.is_suspect, "a failed rail is not proved again"),
            _ => {}
        }
        if self.threads.is_empty() {
            self.check_rest();
        }
    }

    /// What holds when every action is performed.
    fn check_rest(&self) {
        let rails = self.machine.connection().copied();
        for (connection, number) in self.connections.iter().zip(1..) {
            assert_eq!(
                rails != Some(number),
                connection.stopped,
                "connection {number} leaks, or is used after its end"
            );
        }
        assert!(rails.is_some() || !self.counted, "a connection that is gone counts");
        assert!(
            self.waiting.front().is_none_or(|flight| *flight > self.owed),
            "flights wait for a rail that failed"
        );
        let up = self.machine.up();
        assert!(up.is_none() || self.waiting.is_empty(), "flights wait although there is room");
    }

    /// However it came to be: when nobody answers any more, every path ends up, paused or at rest, and nothing waits
    /// for ever.
    fn settle(&mut self) {
        for _ in 0..64 {
            self.finish();
            while !self.tasks.is_empty() {
                self.end_task(0, self.tasks[0].used, false, "refused");
            }
            self.finish();
            // Probes that do not arrive are noticed, as anything posted is.
            if let Phase::Proving { connection, lacking: false } = *self.machine.phase() {
                self.happen(Event::Lost(connection, "stalled"), None);
            }
            (self.room, self.has_route) = (QUEUES, true);
            self.now_ms += 20_000;
            self.tick();
            self.finish();
            self.check();
            if self.tasks.is_empty() && self.waiting.is_empty() {
                break;
            }
        }
        assert!(self.waiting.is_empty(), "flights wait for ever");
        // Once more, for a connection that the peer asked for and a driver that never comes back.
        self.now_ms += 200_000;
        self.tick();
        self.finish();
        let ended = match self.machine.phase() {
            Phase::Idle | Phase::Up(_) | Phase::Paused { .. } => true,
            Phase::Proving { lacking, .. } => !lacking,
            Phase::Connecting { .. } => self.attempt.is_some(),
            Phase::Stopped => false,
        };
        assert!(ended, "{:?}", self.machine.phase());
    }

    /// The rail is stopped in the middle of anything; what comes later finds no rail.
    fn stop(mut self) {
        self.stopped = true;
        self.happen(Event::Stopped("destroyed"), None);
        self.finish();
        assert!(self.waiting.is_empty(), "flights wait for a rail that is stopped");
        for what in [What::PortUp, What::Submit, What::Ask, What::Make, What::Connect, What::Wait] {
            self.step(Step { what, which: 0, ms: u16::MAX, is_late: false });
        }
        self.finish();
        self.check();
        assert_eq!(*self.machine.phase(), Phase::Stopped);
        for connection in 1..=self.connections.len() as u32 {
            self.flush(connection, usize::MAX);
        }
        assert_eq!(self.elsewhere + self.ended, self.flights as usize, "flights never come back");
    }
}

fn failure(attempt: Attempt, connection: Option<u32>, usable: bool, cause: &'static str) -> Happening {
    Event::AttemptFailed { attempt, connection, usable, cause }
}

fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig { cases: asked.cases.max(CASES), failure_persistence: None, ..asked }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn p06_no_life_of_a_rail_loses_a_flight_or_hangs(
        steps in prop::collection::vec(any::<u32>().prop_map(Step::of), 1..STEPS),
        settles in any::<bool>(),
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.check();
        }
        if settles {
            world.settle();
        }
        world.stop();
    }
}
