//! Random lives of a rail, judged by a model of everything around it: attempts, queue pairs, the peer, flights, time.
//! `PROPTEST_CASES` says how many; what fails is shrunk.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

/// The least number of sequences. `make test` asks for a million.
const CASES: u32 = 2_000;
/// Most steps of a sequence. Chosen: a failure, a pause, a proof and a second failure with bystanders fit.
const STEPS: usize = 48;
/// Longest pause: that of the machine, and a quarter of it for the jitter.
const LONGEST_PAUSE_MS: u64 = 2500;

/// What the world does. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    /// A link submits a flight.
    Submit,
    /// An attempt makes queue pairs.
    Make(u8),
    /// An attempt succeeds with the queue pairs that it made last.
    Connect(u8),
    /// An attempt goes on with other queue pairs.
    StartOver(u8),
    /// An attempt ends without success.
    GiveUp {
        which: u8,
        usable: bool,
    },
    /// The peer asks for a connection.
    Ask,
    /// The driver has connected what the peer asked for, and the peer says ready.
    Accept(u8),
    Ready(u8),
    /// Probes that were posted arrive.
    Arrive(u8),
    /// A connection fails, or is interrupted.
    Lose(u8),
    Interrupt(u8),
    Retire,
    PortDown,
    PortUp,
    /// Time passes.
    Wait(u16),
    /// The next probes find room on all queue pairs, or not.
    Room(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Submit),
        3 => any::<u8>().prop_map(Step::Make),
        3 => any::<u8>().prop_map(Step::Connect),
        1 => any::<u8>().prop_map(Step::StartOver),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(which, usable)| Step::GiveUp { which, usable }),
        1 => Just(Step::Ask),
        2 => any::<u8>().prop_map(Step::Accept),
        2 => any::<u8>().prop_map(Step::Ready),
        3 => any::<u8>().prop_map(Step::Arrive),
        2 => any::<u8>().prop_map(Step::Lose),
        1 => any::<u8>().prop_map(Step::Interrupt),
        1 => Just(Step::Retire),
        1 => Just(Step::PortDown),
        2 => Just(Step::PortUp),
        4 => any::<u16>().prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Room),
    ];
    prop::collection::vec(step, 1..STEPS)
}

/// Queue pairs.
#[derive(Default, Debug)]
struct Connection {
    stopped: bool,
    /// Probes are under way.
    probes: bool,
    /// All probes have arrived since they were posted.
    proved: bool,
    posted: Vec<u32>,
}

/// The world around one rail.
struct World {
    machine: Machine<u32, &'static str>,
    now_ms: u64,
    used_ms: u64,
    room: bool,
    port_up: bool,
    /// Attempts under way, abandoned ones too, with the queue pairs each has made last.
    attempts: Vec<(Attempt, Option<u32>)>,
    connections: BTreeMap<u32, Connection>,
    waiting: VecDeque<u32>,
    /// Handed back or flushed: placed on other rails.
    elsewhere: Vec<u32>,
    /// Failed because the rail is stopped.
    ended: Vec<u32>,
    flights: u32,
    /// The rail has failed, and has not been proved since.
    is_suspect: bool,
    failures: u64,
    stopped: bool,
}

impl World {
    fn new() -> Self {
        let pauses = Pauses { most: Duration::from_secs(30), least: Duration::ZERO };
        World {
            machine: Machine::new(pauses, true),
            now_ms: 1,
            used_ms: 0,
            room: true,
            port_up: true,
            attempts: Vec::new(),
            connections: BTreeMap::new(),
            waiting: VecDeque::new(),
            elsewhere: Vec::new(),
            ended: Vec::new(),
            flights: 0,
            is_suspect: false,
            failures: 0,
            stopped: false,
        }
    }

    fn feed(&mut self, event: Event<u32, &'static str>) {
        let before = self.machine.up().copied();
        let proves = matches!(event, Event::Proved(_));
        let now = Now { ms: self.now_ms, random: (self.now_ms as u32).wrapping_mul(2_654_435_761) };
        let actions = self.machine.on(event, now);
        // What is published at once, before any action is performed.
        if let Some(connection) = self.machine.up().copied().filter(|up| before != Some(*up)) {
            assert!(!self.is_suspect || proves, "a failed rail carries data before it is proved");
            let proved = self.connections[&connection].proved;
            assert!(!proves || proved, "proved without probes");
            self.is_suspect = false;
        }
        for action in actions {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action<u32, &'static str>) {
        match action {
            Action::Connect(attempt) => {
                assert!(self.port_up && !self.stopped, "begun without a port");
                let current = self.attempts.iter().filter(|(known, _)| self.machine.is_current(*known));
                assert_eq!(current.count(), 0, "two attempts at a time");
                assert!(self.machine.is_current(attempt));
                assert!(self.machine.connection().is_none(), "begun although there is a connection");
                self.attempts.push((attempt, None));
            }
            Action::Probe(connection) => {
                let all = self.room;
                let found = self.connections.get_mut(&connection).unwrap();
                assert!(!found.stopped, "probed after it was stopped");
                found.probes = true;
                self.feed(Event::Probed { connection, all });
            }
            Action::Pump => self.pump(),
            Action::HandBack(loss, _) => {
                assert!(matches!(loss, Loss::Flushed | Loss::Unconnected));
                self.elsewhere.extend(self.waiting.drain(..));
            }
            Action::Fail(_) => {
                assert!(self.stopped);
                self.ended.extend(self.waiting.drain(..));
            }
            Action::Stop(connection, _) => {
                assert_ne!(
                    self.machine.connection(),
                    Some(&connection),
                    "the rail's own connection is stopped"
                );
                let found = self.connections.get_mut(&connection).unwrap();
                found.stopped = true;
                self.elsewhere.append(&mut found.posted);
            }
            Action::Vacate => {}
            Action::Report(_) => {
                self.failures += 1;
                self.is_suspect = true;
            }
            Action::Expire(connection) => self.feed(Event::Overdue(connection, "silent")),
        }
    }

    /// As the rail does it.
    fn pump(&mut self) {
        match self.machine.up().copied() {
            Some(up) => {
                let found = self.connections.get_mut(&up).unwrap();
                assert!(!found.stopped, "posted on a connection that was stopped");
                found.posted.extend(self.waiting.drain(..));
            }
            None => self.feed(Event::Wanted),
        }
    }

    fn create(&mut self) -> u32 {
        let number = self.connections.len() as u32 + 1;
        self.connections.insert(number, Connection::default());
        number
    }

    /// One of the connections that ever were, also stopped ones.
    fn some(&self, which: u8) -> Option<u32> {
        let count = self.connections.len();
        (count > 0).then(|| which as u32 % count as u32 + 1)
    }

    fn attempt(&self, which: u8) -> Option<usize> {
        (!self.attempts.is_empty()).then(|| which as usize % self.attempts.len())
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Submit => {
                self.flights += 1;
                self.used_ms = self.now_ms;
                self.waiting.push_back(self.flights);
                self.pump();
            }
            Step::Make(which) => {
                let Some(place) = self.attempt(*which) else { return };
                // Until it has other queue pairs, it goes on with those it has.
                if self.attempts[place].1.is_none() {
                    let connection = self.create();
                    self.attempts[place].1 = Some(connection);
                    self.feed(Event::Made { connection, by: By::Own(self.attempts[place].0) });
                }
            }
            Step::Connect(which) => {
                let Some(place) = self.attempt(*which) else { return };
                if let (attempt, Some(connection)) = self.attempts[place] {
                    self.attempts.remove(place);
                    self.feed(Event::Connected(attempt, connection));
                }
            }
            Step::StartOver(which) => {
                let Some(place) = self.attempt(*which) else { return };
                if let (attempt, Some(connection)) = self.attempts[place] {
                    self.attempts[place].1 = None;
                    self.feed(Event::StartedOver(attempt, connection, "bad path"));
                }
            }
            Step::GiveUp { which, usable } => {
                let Some(place) = self.attempt(*which) else { return };
                let (attempt, connection) = self.attempts.remove(place);
                let usable = *usable && connection.is_some_and(|number| !self.connections[&number].stopped);
                self.feed(Event::AttemptFailed { attempt, connection, usable, cause: "refused" });
            }
            Step::Ask => {
                let connection = self.create();
                self.feed(Event::Made { connection, by: By::Peer });
            }
            Step::Accept(which) => self.with_some(*which, Event::Accepted),
            Step::Ready(which) => self.with_some(*which, Event::Ready),
            Step::Arrive(which) => {
                let Some(connection) = self.some(*which) else { return };
                let found = self.connections.get_mut(&connection).unwrap();
                if found.probes && !found.stopped {
                    found.proved = true;
                    self.feed(Event::Proved(connection));
                }
            }
            Step::Lose(which) => self.with_some(*which, |connection| Event::Lost(connection, "cable")),
            Step::Interrupt(which) => self.with_some(*which, |number| Event::Interrupted(number, "ours")),
            Step::Retire => self.feed(Event::Retired("evicted")),
            Step::PortDown => {
                self.port_up = false;
                self.feed(Event::PortDown("no link"));
            }
            Step::PortUp => {
                self.port_up = true;
                self.feed(Event::PortUp);
            }
            Step::Wait(ms) => {
                self.now_ms += u64::from(*ms);
                self.tick();
            }
            Step::Room(room) => self.room = *room,
        }
    }

    fn with_some(&mut self, which: u8, event: impl Fn(u32) -> Event<u32, &'static str>) {
        if let Some(connection) = self.some(which) {
            self.feed(event(connection));
        }
    }

    fn tick(&mut self) {
        self.feed(Event::Tick { waiting: !self.waiting.is_empty(), used_ms: self.used_ms });
    }

    /// What holds after every step.
    fn check(&self) {
        let mut places: Vec<u32> =
            self.waiting.iter().chain(&self.elsewhere).chain(&self.ended).copied().collect();
        places.extend(self.connections.values().flat_map(|connection| &connection.posted));
        places.sort_unstable();
        let all: Vec<u32> = (1..=self.flights).collect();
        assert_eq!(places, all, "a flight is lost or in two places");
        for (number, connection) in &self.connections {
            let is_the_rails = self.machine.connection() == Some(number);
            assert_ne!(
                is_the_rails, connection.stopped,
                "connection {number} leaks, or is used after its end"
            );
        }
        assert_eq!(self.machine.is_trusted(), !self.is_suspect);
        assert_eq!(self.machine.failed(), self.failures);
        assert!(
            self.machine.up().is_none() || self.waiting.is_empty(),
            "flights wait although there is room"
        );
        if let Phase::Paused { retry_at_ms } = self.machine.phase() {
            assert!(*retry_at_ms <= self.now_ms + LONGEST_PAUSE_MS, "paused for too long");
        }
    }

    /// However it came to be: when nobody answers any more, every path ends up, paused or at rest, and nothing waits
    /// for ever.
    fn end(mut self) {
        for _ in 0..64 {
            while let Some((attempt, connection)) = self.attempts.pop() {
                self.feed(Event::AttemptFailed { attempt, connection, usable: false, cause: "refused" });
            }
            // Probes that do not arrive are noticed, as anything posted is.
            if let Phase::Proving { connection, lacking: false } = *self.machine.phase() {
                self.feed(Event::Lost(connection, "stalled"));
            }
            self.room = true;
            self.now_ms += 20_000;
            self.tick();
            self.check();
            if self.attempts.is_empty() && self.waiting.is_empty() {
                break;
            }
        }
        assert!(self.waiting.is_empty(), "flights wait for ever");
        // Once more, for a connection that the peer asked for and a driver that never comes back.
        self.now_ms += 200_000;
        self.tick();
        let proving = matches!(self.machine.phase(), Phase::Proving { .. });
        let ended = matches!(self.machine.phase(), Phase::Idle | Phase::Up(_) | Phase::Paused { .. });
        let under_way = !self.attempts.is_empty();
        assert!(ended || proving || under_way, "{:?}", self.machine.phase());
        self.stopped = true;
        self.feed(Event::Stopped("destroyed"));
        while let Some((attempt, connection)) = self.attempts.pop() {
            self.feed(Event::AttemptFailed { attempt, connection, usable: false, cause: "late" });
        }
        // What comes later finds no rail.
        self.step(&Step::PortUp);
        self.step(&Step::Submit);
        self.step(&Step::Ask);
        self.step(&Step::Wait(u16::MAX));
        self.check();
        assert!(self.attempts.is_empty() && self.waiting.is_empty());
        assert!(self
            .connections
            .values()
            .all(|connection| connection.stopped && connection.posted.is_empty()));
    }
}

fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig { cases: asked.cases.max(CASES), failure_persistence: None, ..asked }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn p06_no_life_of_a_rail_loses_a_flight_or_hangs(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.end();
    }
}
