//! A rail: one local NIC to one NIC of a peer. It outlives its connections: waits, connects, posts, pauses after a
//! failure, proves itself before it carries data again.

mod phase;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::connection::Connection;
use super::errors::destroyed;
use super::flight::{fail_all, Flight, Loss, Lost};
use super::meter::Meter;
use super::nic::Nic;
use super::queue;
use super::route::Route;
use crate::config::Config;
use crate::error::{Class, Code, Error};
use crate::transport::report::RailReport;

/// What rails ask of the transport that they belong to. Called without any lock of the rail.
pub trait Keeper: Send + Sync {
    /// Settings.
    fn config(&self) -> &Config;

    /// Milliseconds of the transport's clock.
    fn now_ms(&self) -> u64;

    /// For jitter.
    fn random(&self) -> u32;

    /// No more work is taken.
    fn is_stopped(&self) -> bool;

    /// The route of a link, by the link's number, while it is in use.
    fn route(&self, link: u32) -> Option<Arc<dyn Route>>;

    /// Begins a handshake; the rail is told how it ended.
    fn connect(&self, rail: Arc<Rail>, route: Arc<dyn Route>);

    /// Decides what becomes of flights that waited for the rail.
    fn recover(&self, rail: &Rail, lost: Lost, keys: Keys);

    /// The rail has no connection any more.
    fn disconnected(&self, rail: &Rail);

    /// Tells of a failure.
    fn note_failure(&self, rail: &Rail, error: &Error);
}

/// Whether the keys of flights that come back are good for another posting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// As far as is known.
    Good,
    /// They are of another incarnation of the peer: its descriptor is read again first.
    Stale,
}

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
    me: Weak<Rail>,
    keeper: Weak<dyn Keeper>,
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
    /// A link would have used it since the last look, had it not failed.
    wanted: AtomicBool,
    /// 0: may be chosen; else the number of failures in a row.
    failures: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    /// Guards the fields that change with the phase. Short.
    state: Mutex<State>,
    /// Guards making and connecting queue pairs; held while the driver works. Never taken on a data path.
    pub setup: Mutex<()>,
}

/// What the queues of a rail's connections belong to.
pub struct Owner {
    /// The rail.
    pub rail: Arc<Rail>,
    /// The connection that holds the queue.
    pub connection: Weak<Connection>,
}

impl queue::Owner for Owner {}

struct State {
    phase: Phase,
    /// Being set up, waiting for the peer's ready message, or up.
    connection: Option<Arc<Connection>>,
    retry_at_ms: u64,
    last_error: Option<Error>,
    /// Leads to the peer, as long as a link uses it.
    route: Option<Weak<dyn Route>>,
}

impl Rail {
    /// A rail that is not connected.
    pub fn new(keeper: Weak<dyn Keeper>, nic: &Arc<Nic>, peer: &str) -> Arc<Self> {
        Arc::new_cyclic(|me| Rail {
            nic: nic.clone(),
            peer: peer.to_string(),
            me: me.clone(),
            keeper,
            up: ArcSwapOption::empty(),
            waiting: Mutex::default(),
            waiting_len: AtomicUsize::new(0),
            meter: Meter::new(nic.meter.port_rate()),
            visited: AtomicBool::new(false),
            wanted_ms: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            state: Mutex::new(State {
                phase: Phase::Idle,
                connection: None,
                retry_at_ms: 0,
                last_error: None,
                route: None,
            }),
            setup: Mutex::new(()),
        })
    }

    /// Takes over `flights` (emptied): posts what there is room for; the rest waits.
    pub fn submit(&self, flights: &mut VecDeque<Flight>, route: &Arc<dyn Route>, now_ns: u64) {
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
        // After they were added: either `stop` takes them, or this sees that it was there before.
        if self.keeper.upgrade().is_none_or(|keeper| keeper.is_stopped()) {
            return fail_all(self.take_waiting(|_| true), &destroyed());
        }
        self.state.lock().route = Some(Arc::downgrade(route));
        self.pump();
    }

    /// Posts what waits, as far as there is room; starts a connection if there is none.
    pub fn pump(&self) {
        let Some(connection) = self.up.load_full() else { return self.connect() };
        let Some(keeper) = self.keeper.upgrade() else { return };
        let mut stale = Vec::new();
        let outcome = {
            let mut waiting = self.waiting.lock();
            let incarnation = connection.incarnation.load(Ordering::Relaxed);
            let mut post = |waiting: &mut VecDeque<Flight>| loop {
                // Only the front is looked at: much may wait, and this runs at every completion.
                while waiting.front().is_some_and(|flight| !flight.suits(incarnation)) {
                    stale.extend(waiting.pop_front());
                }
                connection.post(waiting, keeper.now_ms())?;
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
            if stale.iter().any(|flight: &Flight| flight.reread) {
                // These keys are from a descriptor read just now: it is the connection that leads to a process that is
                // gone. Nothing else would tell while nothing is posted on it.
                let text = format!("{} was started anew", self.peer);
                self.interrupt(&connection, Error::new(Code::Endpoint, text).class(Class::Network, true));
            }
            let lost = stale.into_iter().map(|flight| (flight, Loss::Flushed)).collect();
            keeper.recover(self, lost, Keys::Stale);
        }
    }

    fn post_failed(&self, connection: &Arc<Connection>, errno: i32) {
        // Another thread stopped the queue meanwhile, and takes care of the rest.
        if errno != libc::ENOTCONN {
            let cause = std::io::Error::from_raw_os_error(errno);
            let error = Error::io(Code::Endpoint, format!("post on {} failed", self.name()), &cause);
            self.give_up(connection, error.class(Class::Device, true));
        }
    }

    /// Flights wait here.
    pub fn has_waiting(&self) -> bool {
        self.waiting() > 0
    }

    /// So many flights wait here.
    pub fn waiting(&self) -> usize {
        self.waiting_len.load(Ordering::SeqCst)
    }

    /// Takes those that wait and for which `wanted` holds.
    pub fn take_waiting(&self, wanted: impl Fn(&Flight) -> bool) -> Vec<Flight> {
        let mut waiting = self.waiting.lock();
        if !waiting.iter().any(&wanted) {
            return Vec::new();
        }
        let (taken, left): (Vec<Flight>, Vec<Flight>) = waiting.drain(..).partition(wanted);
        *waiting = left.into();
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
    pub fn describe(&self) -> RailReport {
        let state = self.state.lock();
        RailReport {
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
