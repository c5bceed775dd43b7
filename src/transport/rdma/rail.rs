//! A rail: one local NIC to one NIC of a peer. It outlives its connections: waits, connects, posts, pauses after a
//! failure, proves itself before it carries data again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::connection::Connection;
use super::flight::{Flight, Loss};
use super::link::RdmaLink;
use super::meter::Meter;
use super::nic::Nic;
use super::shared::Shared;
use super::RailState;
use crate::error::{Class, Error};

/// Pause after the first failure; doubled with each further one.
const FIRST_PAUSE_MS: u64 = 100;
/// Longest pause, whatever the setting: asking costs little, and traffic is to be back soon after the cause is gone.
const LONGEST_PAUSE_MS: u64 = 2000;

/// Where a rail stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Never used, or its connection was evicted.
    Idle,
    /// A handshake or a probe is under way.
    Connecting,
    /// Carries data.
    Up,
    /// Failed; not before `retry_at_ms`.
    Paused,
}

/// A rail. Any thread.
pub struct Rail {
    /// The local end.
    pub nic: Arc<Nic>,
    /// The other end: `server@nic`.
    pub peer: String,
    shared: Weak<Shared>,
    /// Where data is posted; the hot path reads only this.
    up: ArcSwapOption<Connection>,
    /// Guards what waits for room or for a connection, oldest first.
    waiting: Mutex<VecDeque<Flight>>,
    /// Length of `waiting`; written under its lock.
    waiting_len: AtomicUsize,
    /// Bytes posted or waiting, and bandwidth.
    pub meter: Meter,
    /// Used since the eviction hand passed.
    visited: AtomicBool,
    /// Last use by a link, ms.
    wanted_ms: AtomicU64,
    /// 0: may be chosen; else the number of failures in a row.
    failures: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    /// Guards the fields that change with the phase. Short.
    state: Mutex<State>,
    /// Guards making and connecting queue pairs; held while the driver works. Never taken on a data path.
    pub setup: Mutex<()>,
}

struct State {
    phase: Phase,
    /// Being set up, waiting for the peer's ready message, or up.
    connection: Option<Arc<Connection>>,
    retry_at_ms: u64,
    last_error: Option<Error>,
    /// The link whose route leads to the peer.
    route: Weak<RdmaLink>,
}

impl Rail {
    /// A rail that is not connected.
    pub fn new(shared: &Weak<Shared>, nic: &Arc<Nic>, peer: &str) -> Arc<Self> {
        Arc::new(Rail {
            nic: nic.clone(),
            peer: peer.to_string(),
            shared: shared.clone(),
            up: ArcSwapOption::empty(),
            waiting: Mutex::default(),
            waiting_len: AtomicUsize::new(0),
            meter: Meter::new(nic.meter.port_rate()),
            visited: AtomicBool::new(false),
            wanted_ms: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            state: Mutex::new(State {
                phase: Phase::Idle,
                connection: None,
                retry_at_ms: 0,
                last_error: None,
                route: Weak::new(),
            }),
            setup: Mutex::new(()),
        })
    }

    /// Takes over `flights` (emptied): posts what there is room for; the rest waits.
    pub fn submit(&self, flights: &mut VecDeque<Flight>, link: &Weak<RdmaLink>, now_ns: u64) {
        let bytes = flights.iter().map(Flight::len).sum();
        self.meter.begin(bytes, now_ns);
        self.nic.meter.begin(bytes, now_ns);
        self.wanted_ms.store(now_ns / 1_000_000, Ordering::Relaxed);
        if !self.visited.load(Ordering::Relaxed) {
            self.visited.store(true, Ordering::Relaxed);
        }
        if self.waiting_len.load(Ordering::SeqCst) == 0 {
            if let Some(connection) = &*self.up.load() {
                if let Err(errno) = connection.post(flights, now_ns / 1_000_000) {
                    self.post_failed(connection, errno);
                }
                if flights.is_empty() {
                    return;
                }
            }
        }
        {
            let mut waiting = self.waiting.lock();
            waiting.extend(flights.drain(..));
            self.waiting_len.store(waiting.len(), Ordering::SeqCst);
        }
        self.state.lock().route = link.clone();
        self.pump();
    }

    /// Posts what waits, as far as there is room; starts a connection if there is none.
    pub fn pump(&self) {
        let Some(connection) = self.up.load_full() else { return self.connect() };
        let Some(shared) = self.shared.upgrade() else { return };
        let mut stale = Vec::new();
        let outcome = {
            let mut waiting = self.waiting.lock();
            let incarnation = connection.incarnation.load(Ordering::Relaxed);
            let mut post = |waiting: &mut VecDeque<Flight>| loop {
                // Only the front is looked at: much may wait, and this runs at every completion.
                while waiting.front().is_some_and(|flight| !flight.suits(incarnation)) {
                    stale.extend(waiting.pop_front());
                }
                connection.post(waiting, shared.now_ms())?;
                if waiting.front().is_none_or(|flight| flight.suits(incarnation)) {
                    return Ok(());
                }
            };
            let mut outcome = post(&mut waiting);
            if outcome.is_ok() && !waiting.is_empty() && connection.is_idle() {
                // Nothing of ours will complete and bring us back here: others hold all the credit. Again, because
                // their last completion may have come before the note.
                self.nic.starved.store(true, Ordering::SeqCst);
                outcome = post(&mut waiting);
            }
            self.waiting_len.store(waiting.len(), Ordering::SeqCst);
            outcome
        };
        if let Err(errno) = outcome {
            self.post_failed(&connection, errno);
        }
        if !stale.is_empty() {
            let lost = stale.into_iter().map(|flight| (flight, Loss::Flushed)).collect();
            shared.recover(self, lost, true);
        }
    }

    fn post_failed(&self, connection: &Arc<Connection>, errno: i32) {
        // Another thread stopped the queue meanwhile, and takes care of the rest.
        if errno != libc::ENOTCONN {
            let cause = std::io::Error::from_raw_os_error(errno);
            let error =
                Error::io(crate::error::Code::Endpoint, format!("post on {} failed", self.name()), &cause);
            self.give_up(connection, error.class(Class::Device, true));
        }
    }

    /// Flights wait here.
    pub fn has_waiting(&self) -> bool {
        self.waiting_len.load(Ordering::SeqCst) > 0
    }

    /// Takes those that wait and for which `wanted` holds.
    pub fn take_waiting(&self, wanted: impl Fn(&Flight) -> bool) -> Vec<Flight> {
        let mut waiting = self.waiting.lock();
        let (taken, left): (Vec<Flight>, VecDeque<Flight>) = {
            let mut taken = Vec::new();
            let mut left = VecDeque::with_capacity(waiting.len());
            for flight in waiting.drain(..) {
                if wanted(&flight) {
                    taken.push(flight);
                } else {
                    left.push_back(flight);
                }
            }
            (taken, left)
        };
        *waiting = left;
        self.waiting_len.store(waiting.len(), Ordering::SeqCst);
        taken
    }

    /// `count` flights with `bytes` arrived.
    pub fn settle(&self, bytes: u64, count: u64, now_ns: u64) {
        self.meter.end(bytes, now_ns);
        self.nic.meter.end(bytes, now_ns);
        self.completed.fetch_add(count, Ordering::Relaxed);
    }

    /// Flights with `bytes` leave this rail unfinished.
    pub fn withdraw(&self, bytes: u64) {
        self.meter.withdraw(bytes);
        self.nic.meter.withdraw(bytes);
    }

    /// Starts a handshake unless one is under way, or the rail is paused.
    pub fn connect(&self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let now = shared.now_ms();
        let route = {
            let mut state = self.state.lock();
            let due = match state.phase {
                Phase::Idle => true,
                Phase::Paused => now >= state.retry_at_ms,
                Phase::Connecting | Phase::Up => false,
            };
            let Some(route) = state.route.upgrade().filter(|_| due && self.nic.is_active()) else { return };
            state.phase = Phase::Connecting;
            route
        };
        let rail = self.nic.rails.find(&self.peer);
        if let Some(rail) = rail.filter(|rail| std::ptr::eq(&**rail, self)) {
            shared.connect(rail, route);
        }
    }

    /// The connection that is being set up or is up.
    pub fn connection(&self) -> Option<Arc<Connection>> {
        self.state.lock().connection.clone()
    }

    /// Keeps a connection that is being set up.
    pub fn set_connection(&self, connection: &Arc<Connection>) {
        self.state.lock().connection = Some(connection.clone());
    }

    /// Waits for the peer's ready message, or for a probe.
    pub fn set_connecting(&self) {
        self.state.lock().phase = Phase::Connecting;
    }

    /// Both ends are ready. A rail that failed before has to prove first that packets get through.
    pub fn ready(&self, connection: &Arc<Connection>) {
        let Some(shared) = self.shared.upgrade() else { return };
        {
            let mut state = self.state.lock();
            let current = state.connection.as_ref().is_some_and(|known| Arc::ptr_eq(known, connection));
            if !current || (state.phase == Phase::Up && self.up.load().is_some()) {
                return;
            }
            state.phase = Phase::Connecting;
        }
        if self.failures.load(Ordering::Relaxed) == 0 {
            return self.proved(connection);
        }
        if let Err(errno) = connection.post_probes(shared.now_ms()) {
            self.post_failed(connection, errno);
        }
    }

    /// The connection carries packets.
    pub fn proved(&self, connection: &Arc<Connection>) {
        {
            let mut state = self.state.lock();
            let current = state.connection.as_ref().is_some_and(|known| Arc::ptr_eq(known, connection));
            if !current || connection.cause().is_some() {
                return;
            }
            state.phase = Phase::Up;
            self.failures.store(0, Ordering::Relaxed);
            self.up.store(Some(connection.clone()));
        }
        self.pump();
    }

    /// Gives a connection up: what is posted comes back by completions, what waits is placed anew.
    pub fn give_up(&self, connection: &Arc<Connection>, error: Error) {
        let Some(shared) = self.shared.upgrade() else { return };
        // A connection that never carried data is a failed attempt of everything that waits for it.
        let carried = self.up.load().as_ref().is_some_and(|up| Arc::ptr_eq(up, connection));
        if !connection.give_up(error.clone(), shared.now_ms()) {
            return;
        }
        self.failed_with(error, Some(connection));
        let loss = if carried { Loss::Flushed } else { Loss::Unconnected };
        let lost: Vec<_> = self.take_waiting(|_| true).into_iter().map(|flight| (flight, loss)).collect();
        shared.recover(self, lost, false);
    }

    /// A handshake or probe failed: what waits is placed anew or fails.
    pub fn connect_failed(&self, error: Error) {
        let Some(shared) = self.shared.upgrade() else { return };
        let connection = self.connection();
        if let Some(connection) = connection {
            connection.give_up(error.clone(), shared.now_ms());
            self.failed_with(error, Some(&connection));
        } else {
            self.failed_with(error, None);
        }
        let lost: Vec<_> =
            self.take_waiting(|_| true).into_iter().map(|flight| (flight, Loss::Unconnected)).collect();
        shared.recover(self, lost, false);
    }

    /// Notes a failure and pauses; only the current connection's failure counts.
    fn failed_with(&self, error: Error, connection: Option<&Arc<Connection>>) {
        let Some(shared) = self.shared.upgrade() else { return };
        self.failed.fetch_add(1, Ordering::Relaxed);
        shared.note_failure(self, &error);
        let mut state = self.state.lock();
        let current = match (connection, &state.connection) {
            (Some(failed), Some(known)) => Arc::ptr_eq(failed, known),
            (None, None) => true,
            _ => false,
        };
        if !current {
            return;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed);
        let pause = (FIRST_PAUSE_MS << failures.min(5)).min(LONGEST_PAUSE_MS);
        let pause = pause.min(shared.config.rail_pause.as_millis() as u64);
        // Up to a quarter more, so that many rails do not come back at the same moment.
        let jitter = u64::from(shared.random()) % (pause / 4 + 1);
        let pause = (pause + jitter).max(shared.config.conn_pause.as_millis() as u64);
        state.phase = Phase::Paused;
        state.retry_at_ms = shared.now_ms() + pause;
        state.last_error = Some(error);
        state.connection = None;
        self.up.store(None);
        drop(state);
        self.nic.rails.disconnected(self);
    }

    /// Takes the connection away without blaming anybody: evicted, or the peer set up a new one.
    pub fn retire(&self, why: Error) {
        let Some(shared) = self.shared.upgrade() else { return };
        let taken = {
            let mut state = self.state.lock();
            self.up.store(None);
            state.phase = Phase::Idle;
            state.last_error = Some(why.clone());
            state.connection.take()
        };
        self.nic.rails.disconnected(self);
        if let Some(connection) = taken {
            connection.give_up(why, shared.now_ms());
        }
    }

    /// Stops the connection for a reason that is ours alone: the rail is not blamed, and connects again at once.
    pub fn interrupt(&self, connection: &Arc<Connection>, why: Error) {
        let current = self.connection().is_some_and(|known| Arc::ptr_eq(&known, connection));
        if current {
            self.retire(why);
        }
    }

    /// May be retried at once: what stood in the way has changed.
    pub fn unpause(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Paused {
            state.retry_at_ms = 0;
        }
    }

    /// Looks whether it is time to try again. For the NIC thread.
    pub fn tick(&self, now_ms: u64, wanted_for_ms: u64) {
        let due = {
            let state = self.state.lock();
            state.phase == Phase::Paused && now_ms >= state.retry_at_ms
        };
        let wanted = now_ms.saturating_sub(self.wanted_ms.load(Ordering::Relaxed)) < wanted_for_ms;
        if (due && wanted) || self.has_waiting() {
            self.pump();
        }
    }

    /// May carry data now or soon; a rail that failed has to be asked for as a last resort.
    pub fn is_trusted(&self) -> bool {
        self.failures.load(Ordering::Relaxed) == 0
    }

    /// Carries data.
    pub fn is_up(&self) -> bool {
        self.up.load().is_some()
    }

    /// The last failure.
    pub fn last_error(&self) -> Option<Error> {
        self.state.lock().last_error.clone()
    }

    /// Nothing posted, nothing waiting.
    pub fn is_idle(&self) -> bool {
        self.meter.inflight() == 0 && !self.has_waiting()
    }

    /// Nothing would be lost with it.
    pub fn is_forgettable(&self) -> bool {
        self.is_idle() && self.state.lock().connection.is_none()
    }

    /// Reads and clears the eviction mark.
    pub fn take_visited(&self) -> bool {
        self.visited.swap(false, Ordering::Relaxed)
    }

    /// For messages: both ends.
    pub fn name(&self) -> String {
        format!("{} -> {}", self.nic.name, self.peer)
    }

    /// For `showLinks`.
    pub fn describe(&self) -> RailState {
        let state = self.state.lock();
        RailState {
            local: self.nic.name.clone(),
            peer: self.peer.clone(),
            state: match state.phase {
                Phase::Idle => "idle",
                Phase::Connecting => "connecting",
                Phase::Up => "up",
                Phase::Paused => "paused",
            },
            inflight_bytes: self.meter.inflight(),
            waiting: self.waiting_len.load(Ordering::Relaxed),
            completed: self.completed.load(Ordering::Relaxed),
            failures: self.failed.load(Ordering::Relaxed),
            last_error: state.last_error.as_ref().map(|e| e.text().to_string()).unwrap_or_default(),
        }
    }
}
