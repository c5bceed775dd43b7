//! A rail: one local NIC to one NIC of a peer. It outlives its connections: waits, connects, posts, pauses after a
//! failure, proves itself before it carries data again. The machine in `machine` says what comes next. This file feeds
//! it events, copies its outputs to where the data path reads them without a lock, and performs its actions.

mod asked;
pub(super) mod events;
mod machine;
mod made;
mod shown;
mod time;
mod waiting;

use std::collections::VecDeque;
use std::sync::atomic::{fence, AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::attention::Listed;
use super::connection::Connection;
use super::errors::{destroyed, unwanted};
use super::flight::{fail_all, Flight, Keys, Loss, Lost};
use super::gid::{LocalGid, Moved};
use super::nic::Nic;
use super::queue;
use super::route::Route;
use super::share;
use crate::config::Config;
use crate::error::{Class, Code, Error};
use crate::runtime::clock;
use crate::transport::meter::Meter;
use asked::Asked;
use events::{Action, Attempt, By, Now, Pauses, Why};
use machine::Machine;
use made::Made;
use waiting::{Served, Waiting};

/// What rails ask of the transport that they belong to. Called without the locks of the rail's state and of its waiting
/// list. The thread may hold `setup`, of this rail or another, and the lock of a completion queue's poller; so nothing
/// here takes the one, or waits for the other.
pub(super) trait Keeper: Send + Sync {
    /// Milliseconds of the transport's clock.
    fn now_ms(&self) -> u64;

    /// For jitter.
    fn random(&self) -> u32;

    /// No more work is taken.
    fn is_stopped(&self) -> bool;

    /// The route of a link, by the link's number, while it is in use.
    fn route(&self, link: u32) -> Option<Arc<dyn Route>>;

    /// Begins a handshake; the rail is told how the attempt ended.
    fn connect(&self, rail: Arc<Rail>, attempt: Attempt, route: Arc<dyn Route>);

    /// Decides what becomes of flights that waited for the rail, which failed because of `cause`; `None`: it did not
    /// fail them.
    fn recover(&self, rail: &Rail, lost: Lost, cause: Option<Error>, keys: Keys);

    /// Stops the queue pairs of a connection, and sees to it that they are destroyed. Does not wait for that.
    fn give_up(&self, connection: &Arc<Connection>, cause: Error);

    /// Fails flights because the transport is stopped; does not wait where they are many.
    fn fail(&self, flights: Box<dyn Iterator<Item = Flight> + Send>, error: &Error);

    /// The rail has no connection any more.
    fn disconnected(&self, rail: &Rail);

    /// Time changes something here: the rail is to be ticked.
    fn look_again(&self, rail: &Rail);

    /// Others have all the credit, and nothing of the rail's own brings anybody back to it. May be called with the lock of its
    /// waiting list.
    fn starves(&self, rail: &Rail);

    /// Logs a failure.
    fn note_failure(&self, rail: &Rail, error: &Error);
}

/// What happens to a rail.
pub(super) type Event = events::Event<Arc<Connection>, Error>;

/// A rail. Any thread.
pub(super) struct Rail {
    /// The local end.
    pub nic: Arc<Nic>,
    /// The other end: `server@nic`.
    pub peer: String,
    me: Weak<Rail>,
    keeper: Weak<dyn Keeper>,
    /// Output of the machine: the connection on which data is posted. The data path reads only this.
    up: ArcSwapOption<Connection>,
    /// Output of the machine: the rail may be chosen as any other.
    trusted: AtomicBool,
    /// What waits for room or for a connection.
    pub waiting: Waiting,
    /// Bytes posted or waiting, and bandwidth.
    pub meter: Meter,
    /// Used since the eviction hand passed.
    visited: AtomicBool,
    /// Last use by a link, ms.
    used_ms: AtomicU64,
    /// A link would have used it since the last look, had it not failed.
    wanted: AtomicBool,
    completed: AtomicU64,
    /// On the NIC's list of rails without credit.
    pub starves: Listed,
    /// On the NIC's list of rails that time changes.
    pub is_restless: Listed,
    /// Guards the machine and the route to the peer. Held briefly.
    state: Mutex<State>,
    made: Made,
    /// The GID that its connections are made with, where that is not the NIC's.
    pub moved: Mutex<Moved>,
    /// Guards making and connecting queue pairs; held while the driver works. Never taken on a data path.
    pub setup: Mutex<Asked>,
}

/// What the queues of a rail's connections belong to.
pub(super) struct Owner {
    /// The rail.
    pub rail: Arc<Rail>,
    /// The connection that holds the queue.
    pub connection: Weak<Connection>,
}

impl queue::Owner for Owner {}

struct State {
    machine: Machine<Arc<Connection>, Error>,
    /// The attempt under way; its task hears when this is dropped.
    task: Option<(Attempt, oneshot::Sender<()>)>,
    /// Leads to the peer, as long as a link uses it.
    route: Option<Weak<dyn Route>>,
}

impl Rail {
    /// A rail that is not connected.
    pub(super) fn new(keeper: Weak<dyn Keeper>, config: &Config, nic: &Arc<Nic>, peer: &str) -> Arc<Self> {
        let pauses = Pauses { most: config.rail_pause, least: config.conn_pause };
        Arc::new_cyclic(|me| Rail {
            nic: nic.clone(),
            peer: peer.to_string(),
            me: me.clone(),
            keeper,
            up: ArcSwapOption::empty(),
            trusted: AtomicBool::new(true),
            waiting: Waiting::default(),
            meter: Meter::new(nic.meter.port_rate()),
            visited: AtomicBool::new(false),
            used_ms: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
            completed: AtomicU64::new(0),
            starves: Listed::default(),
            is_restless: Listed::default(),
            state: Mutex::new(State {
                machine: Machine::new(pauses, nic.is_active()),
                task: None,
                route: None,
            }),
            made: Made::default(),
            moved: Mutex::default(),
            setup: Mutex::default(),
        })
    }

    /// Takes over `flights` (emptied): posts what there is room for; the rest waits.
    pub(super) fn submit(&self, flights: &mut VecDeque<Flight>, route: &Arc<dyn Route>, now_ns: u64) {
        let bytes = flights.iter().map(Flight::len).sum();
        self.meter.begin(bytes, now_ns);
        self.nic.meter.begin(bytes, now_ns);
        self.used_ms.store(now_ns / 1_000_000, Ordering::Relaxed);
        if !self.visited.load(Ordering::Relaxed) {
            self.visited.store(true, Ordering::Relaxed);
        }
        if self.waiting.is_empty() {
            if let Some(connection) = &*self.up.load() {
                if let Err(errno) = connection.post(flights, self.room(connection), now_ns) {
                    self.post_failed(connection, errno);
                }
                if flights.is_empty() {
                    return;
                }
            }
        }
        self.waiting.append(flights);
        if !flights.is_empty() {
            self.withdraw(flights.iter().map(Flight::len).sum());
            return fail_all(flights.drain(..), &Error::out_of_memory("requests that wait for a NIC"));
        }
        // After they were added: either `stop` takes them, or this sees that `stop` came before.
        if self.keeper.upgrade().is_none_or(|keeper| keeper.is_stopped()) {
            return fail_all(self.waiting.take_all(), &destroyed());
        }
        self.state.lock().route = Some(Arc::downgrade(route));
        self.keeper.upgrade().iter().for_each(|keeper| keeper.look_again(self));
        self.pump();
    }

    /// Posts what waits, as far as there is room; asks for a connection if there is none.
    pub(super) fn pump(&self) {
        let Some(connection) = self.up.load_full() else { return self.feed(Event::Wanted) };
        let Some(keeper) = self.keeper.upgrade() else { return };
        let mut stale = Vec::new();
        let outcome = self.waiting.change(|waiting| -> Result<(), i32> {
            let incarnation = connection.incarnation.load(Ordering::Relaxed);
            let mut post = |flights: &mut VecDeque<Flight>, most: u64| -> Result<Served, i32> {
                // Only the front is looked at: much may wait, and this runs at every completion.
                while flights.front().is_some_and(|flight| !flight.suits(incarnation)) {
                    stale.extend(flights.pop_front());
                }
                let room = self.room(&connection);
                if flights.is_empty() || room == 0 {
                    return Ok(if room == 0 { Served::Full } else { Served::Posted(0) });
                }
                let bytes = connection.post(flights, most.min(room), clock::now_ns())?;
                Ok(if bytes == 0 { Served::Full } else { Served::Posted(bytes) })
            };
            waiting.serve(&mut post)?;
            if !waiting.is_empty() && connection.is_idle() {
                // Nothing of ours will complete and bring us back here: others hold all the credit. Again, because
                // their last completion may have come before the note.
                keeper.starves(self);
                self.nic.starved.store(true, Ordering::SeqCst);
                waiting.serve(&mut post)?;
            }
            Ok(())
        });
        if let Err(errno) = outcome {
            self.post_failed(&connection, errno);
        }
        if !stale.is_empty() {
            if stale.iter().any(|flight: &Flight| flight.reread) {
                // These keys are from a descriptor read just now: it is the connection that leads to a process that is
                // gone. Nothing else would tell while nothing is posted on it.
                let text = format!("{} was started anew", self.peer);
                self.interrupt(&connection, Error::new(Code::Endpoint, text).transient(Class::Network));
            }
            let lost = stale.into_iter().map(|flight| (flight, Loss::Flushed)).collect();
            keeper.recover(self, lost, None, Keys::Stale);
        }
    }

    /// Bytes that may still be posted.
    #[inline]
    fn room(&self, connection: &Connection) -> u64 {
        share::room(self.meter.bytes_per_ms(), connection.queues.len(), connection.bytes())
    }

    fn post_failed(&self, connection: &Arc<Connection>, errno: i32) {
        // Another thread stopped the queue meanwhile, and takes care of the rest.
        if errno != libc::ENOTCONN {
            let cause = std::io::Error::from_raw_os_error(errno);
            let error = Error::io(Code::Endpoint, format!("post on {} failed", self.name()), &cause);
            self.feed(Event::Lost(connection.clone(), error.transient(Class::Device)));
        }
    }

    /// One step of the machine. Its outputs are copied under the lock; its actions are performed without.
    pub(super) fn feed(&self, event: Event) {
        let Some(keeper) = self.keeper.upgrade() else { return };
        let now = Now { ms: keeper.now_ms(), random: keeper.random() };
        let (actions, _abandoned, settled) = {
            let mut state = self.state.lock();
            let actions = state.machine.on(event, now);
            let up = state.machine.up();
            if self.up.load().as_ref() != up {
                self.up.store(up.cloned());
            }
            self.trusted.store(state.machine.is_trusted(), Ordering::Relaxed);
            let settled = state.machine.is_settled();
            let State { machine, task, .. } = &mut *state;
            (actions, task.take_if(|(attempt, _)| !machine.is_current(*attempt)), settled)
        };
        if !settled {
            keeper.look_again(self);
        }
        actions.into_iter().for_each(|action| self.perform(&*keeper, action));
    }

    fn perform(&self, keeper: &dyn Keeper, action: Action<Arc<Connection>, Error>) {
        match action {
            Action::Connect(attempt) => match (self.route(keeper), self.me.upgrade()) {
                (Some(route), Some(me)) => keeper.connect(me, attempt, route),
                _ => self.feed(Event::Unreachable(attempt)),
            },
            Action::Probe(connection) => match connection.post_probes(clock::now_ns()) {
                Ok(all) => self.feed(Event::Probed { connection, all }),
                Err(errno) => self.post_failed(&connection, errno),
            },
            Action::Pump => self.pump(),
            Action::HandBack(loss, cause) => {
                let lost = self.waiting.take_all().map(|flight| (flight, loss)).collect();
                keeper.recover(self, lost, cause, Keys::Good);
            }
            Action::Fail(error) => keeper.fail(Box::new(self.waiting.take_all()), &error),
            Action::Stop(connection, why) => keeper.give_up(&connection, self.explain(why)),
            Action::Vacate => keeper.disconnected(self),
            Action::Report(error) => keeper.note_failure(self, &error),
            Action::Expire(connection) => {
                let text = format!("{} did not say in time that it is ready", self.peer);
                let error = Error::new(Code::Endpoint, text).transient(Class::Timeout);
                self.feed(Event::Overdue(connection, error));
            }
        }
    }

    fn explain(&self, why: Why<Error>) -> Error {
        match why {
            Why::Because(error) => error,
            Why::Renewed => Error::new(Code::Endpoint, format!("{} was connected anew", self.name())),
            Why::Unwanted => unwanted(),
        }
    }

    /// The last link to use the rail may be gone while others, to the same peer by another name, wait.
    fn route(&self, keeper: &dyn Keeper) -> Option<Arc<dyn Route>> {
        let known = self.state.lock().route.as_ref().and_then(Weak::upgrade);
        known.or_else(|| keeper.route(self.waiting.front(|flight| flight.link)?))
    }

    /// Keeps a connection that is to be set up. An error if nobody wants it any more; it is stopped then.
    pub(super) fn keep(&self, connection: &Arc<Connection>, by: By) -> Result<(), Error> {
        self.made.add(connection);
        self.feed(Event::Made { connection: connection.clone(), by });
        let kept = self.connection().is_some_and(|known| known == *connection);
        kept.then_some(()).ok_or_else(unwanted)
    }

    /// For the task of an attempt: ends when the attempt does not count any more.
    pub(super) fn abandoned(&self, attempt: Attempt) -> oneshot::Receiver<()> {
        let (task, abandoned) = oneshot::channel();
        let mut state = self.state.lock();
        if state.machine.is_current(attempt) {
            state.task = Some((attempt, task));
        }
        abandoned
    }

    /// An error unless this is the attempt that counts.
    pub(super) fn check_current(&self, attempt: Attempt) -> Result<(), Error> {
        let current = self.state.lock().machine.is_current(attempt);
        current.then_some(()).ok_or_else(unwanted)
    }

    /// Stops the connection for a reason that is ours alone: the rail is not blamed, and connects again at once.
    pub(super) fn interrupt(&self, connection: &Arc<Connection>, why: Error) {
        self.feed(Event::Interrupted(connection.clone(), why));
        if self.has_waiting() {
            self.pump();
        }
    }

    /// Leads to itself.
    pub(super) fn me(&self) -> &Weak<Rail> {
        &self.me
    }

    /// The connection that is being set up or is up.
    pub(super) fn connection(&self) -> Option<Arc<Connection>> {
        self.state.lock().machine.connection().cloned()
    }

    /// Every connection, also one that the rail has lost, whose other end are the queue pairs `peers`.
    pub(super) fn connections_to(&self, peers: &[u32]) -> Vec<Arc<Connection>> {
        self.made.to(peers)
    }

    /// Flights wait here.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes out the waiting flights for which `wanted` holds; none if the transport is stopped meanwhile.
    pub(super) fn take_waiting(&self, wanted: impl Fn(&Flight) -> bool) -> Vec<Flight> {
        let keeper = self.keeper.upgrade();
        self.waiting.take(wanted, || keeper.as_ref().is_none_or(|keeper| keeper.is_stopped()))
    }

    /// Time until `bytes` more would be through, by what is known of the rail and of its NIC, ns.
    #[inline]
    pub(super) fn cost_ns(&self, bytes: u64) -> u64 {
        self.meter.cost_ns(bytes).max(self.nic.meter.cost_ns(bytes))
    }

    /// `count` flights with `bytes` arrived.
    pub(super) fn settle(&self, bytes: u64, count: u64, now_ns: u64) {
        let looked_ns = self.nic.looked_ns.load(Ordering::Relaxed);
        self.meter.end(bytes, now_ns, looked_ns);
        if self.meter.is_low() {
            // It is tried again after some time. Either this sees that it is not listed, or whoever looks at it sees the rate.
            fence(Ordering::SeqCst);
            self.keeper.upgrade().iter().for_each(|keeper| keeper.look_again(self));
        }
        self.nic.meter.end(bytes, now_ns, looked_ns);
        self.completed.fetch_add(count, Ordering::Relaxed);
    }

    /// Flights with `bytes` leave this rail unfinished.
    pub(super) fn withdraw(&self, bytes: u64) {
        self.meter.withdraw(bytes);
        self.nic.meter.withdraw(bytes);
    }

    /// May be chosen as any other. A rail that failed is the last resort until it has proved itself.
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::Relaxed)
    }

    /// Carries data.
    pub(super) fn is_up(&self) -> bool {
        self.up.load().is_some()
    }

    /// The last failure.
    pub(super) fn last_error(&self) -> Option<Error> {
        self.state.lock().machine.last_error().cloned()
    }

    /// Nothing posted, nothing waiting.
    pub(super) fn is_idle(&self) -> bool {
        self.meter.inflight() == 0 && !self.has_waiting()
    }

    /// Our GID for its next connection.
    pub(super) fn gid(&self) -> LocalGid {
        let moved = self.moved.lock().gid;
        moved.unwrap_or_else(|| self.nic.port().gid)
    }

    /// Nothing would be lost with it.
    pub(super) fn is_forgettable(&self) -> bool {
        self.is_idle() && self.connection().is_none()
    }

    /// Reads and clears the eviction mark.
    pub(super) fn take_visited(&self) -> bool {
        self.visited.swap(false, Ordering::Relaxed)
    }

    /// For messages: both ends.
    pub(super) fn name(&self) -> String {
        format!("{} -> {}", self.nic.name, self.peer)
    }
}
