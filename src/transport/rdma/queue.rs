//! One queue pair and the work requests on it. Every work request has its own number, signalled or not: an error
//! completion names the one that failed, so those before it are known to have succeeded.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::attention::{Attention, Listed};
use super::credit::Credit;
use super::flight::{Flight, Loss, Lost};
use super::places::Places;
use super::verbs::{self, wc, Chain, Qp};
use crate::error::Result;

/// In a chain every work request whose place is a multiple of this asks for a completion, and the last. Chosen: one
/// completion retires eight, and room comes back in eighths of a full chain.
const SIGNAL_EVERY: usize = 8;

/// What happened to a queue as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Takes work requests.
    Open,
    /// Stopped since then (ms of the transport's clock); waits for its flush completions.
    Draining(u64),
}

/// A queue pair with its ring. Shared by whoever posts and whoever polls.
pub(super) struct Queue {
    /// Of the completion queue.
    credit: Arc<Credit>,
    /// Leads from the ids of work requests to queues.
    places: Arc<Places<Queue>>,
    /// Those with something posted, of which this is one then.
    busy: Arc<Attention<Queue>>,
    listed: Listed,
    /// Key in that table; the upper half of the ids of its work requests.
    key: u32,
    number: u32,
    ring: Mutex<Ring>,
    /// Time of the last post to an empty ring, or of the last completion, ms.
    progress_ms: AtomicU64,
    /// Of the flights in the ring. Written under its lock; read without, to choose a queue.
    bytes: AtomicU64,
    depth: usize,
    /// Somebody sees to it that the queue pair is destroyed.
    handed_over: AtomicBool,
    /// Held while the queue pair is destroyed: whoever destroys it too returns no sooner than it is gone.
    ending: Mutex<()>,
    /// Set right after the connection is made.
    owner: OnceLock<Arc<dyn Owner>>,
    /// Its connection, once that was given up, until the queue pair is gone: what comes back has to be told where it was.
    held: Mutex<Option<Arc<dyn Any + Send + Sync>>>,
}

/// What a queue belongs to. The queue only keeps it: whoever hears of completions knows the type.
pub(super) trait Owner: Any + Send + Sync {}

/// Guards the queue pair and what is posted on it, oldest first.
struct Ring {
    /// `None` once destroyed. Shared only with a `connect` that is under way, before anything is posted.
    qp: Option<Arc<Qp>>,
    flights: VecDeque<Flight>,
    /// Number of the oldest.
    first: u32,
    state: State,
}

/// What goes into one chain at the most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Flights.
    pub count: usize,
    /// The first flight with which the chain has as many bytes is its last.
    pub bytes: u64,
}

/// What a completion retired.
#[derive(Default)]
pub(super) struct Retired {
    /// Done.
    pub done: Vec<Flight>,
    /// Bytes of those.
    pub bytes: u64,
    /// Came back.
    pub lost: Lost,
}

impl Queue {
    /// A queue over a queue pair in state INIT that takes `depth` work requests.
    pub(super) fn new(
        qp: Qp,
        depth: usize,
        credit: &Arc<Credit>,
        places: &Arc<Places<Queue>>,
        busy: &Arc<Attention<Queue>>,
    ) -> Result<Arc<Self>> {
        places.attach(|key| Queue {
            credit: credit.clone(),
            places: places.clone(),
            busy: busy.clone(),
            listed: Listed::default(),
            key,
            number: qp.number(),
            ring: Mutex::new(Ring {
                qp: Some(Arc::new(qp)),
                flights: VecDeque::new(),
                first: 0,
                state: State::Open,
            }),
            progress_ms: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            depth,
            handed_over: AtomicBool::new(false),
            ending: Mutex::new(()),
            owner: OnceLock::new(),
            held: Mutex::new(None),
        })
    }

    /// Says once what the queue belongs to.
    pub(super) fn set_owner(&self, owner: Arc<dyn Owner>) {
        let _ = self.owner.set(owner);
    }

    /// What the queue belongs to; `None` while it is being made.
    pub(super) fn owner<T: Owner>(&self) -> Option<&T> {
        let owner: &dyn Any = &**self.owner.get()?;
        owner.downcast_ref()
    }

    /// Its mark on the list of busy ones.
    pub(super) fn listed(&self) -> &Listed {
        &self.listed
    }

    /// Queue pair number.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Key in the completion queue's table.
    pub(super) fn key(&self) -> u32 {
        self.key
    }

    /// Connects to the peer's queue pair. Blocks, with RoCE for a second if nobody has the peer's address.
    pub(super) fn connect(&self, to: &verbs::Path, rd_atomic: u8) -> Result<()> {
        // Not under the lock: the NIC thread takes it for every queue.
        let qp = self.ring.lock().qp.clone().ok_or_else(|| {
            crate::error::Error::new(crate::error::Code::Endpoint, "the queue pair is gone")
        })?;
        qp.receive_ready(to)?;
        qp.send_ready(rd_atomic)
    }

    /// Work requests under way.
    pub(super) fn outstanding(&self) -> usize {
        self.ring.lock().flights.len()
    }

    /// Bytes under way.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Posts flights from the front of `flights` in one chain: up to the limits `most`, as many as there is room for,
    /// and none from the first on that does not suit `incarnation`. Returns their bytes, if any were posted. Errno when the
    /// queue is not open, or refused some: then it is stopped, and those that it took will come back.
    pub(super) fn post(
        self: &Arc<Self>,
        flights: &mut VecDeque<Flight>,
        most: Limits,
        incarnation: u64,
        chain: &mut Chain,
        now_ns: u64,
    ) -> std::result::Result<Option<u64>, i32> {
        let mut ring = self.ring.lock();
        let ring = &mut *ring;
        let Some(qp) = ring.qp.as_ref().filter(|_| ring.state == State::Open) else {
            return Err(libc::ENOTCONN);
        };
        let room = (self.depth - ring.flights.len()).min(most.count).min(Chain::CAPACITY);
        let (mut fit, mut bytes) = (0, 0);
        for flight in flights.iter().take(room) {
            if bytes >= most.bytes || !flight.suits(incarnation) {
                break;
            }
            (fit, bytes) = (fit + 1, bytes + flight.len());
        }
        // On first use: at a node with many peers most queue pairs only ever serve the other side.
        if ring.flights.capacity() == 0 && ring.flights.try_reserve_exact(self.depth).is_err() {
            return Ok(None);
        }
        // No more than will be used: another thread that finds none left would wait for a completion.
        let count = if fit == 0 { 0 } else { self.credit.reserve(fit) };
        if count == 0 {
            return Ok(None);
        }
        let next = ring.first.wrapping_add(ring.flights.len() as u32);
        for (position, flight) in flights.iter().take(count).enumerate() {
            let id = u64::from(self.key) << 32 | u64::from(next.wrapping_add(position as u32));
            chain.push(&flight.request(id, (position + 1) % SIGNAL_EVERY == 0));
            flight.note_posted(now_ns);
        }
        chain.signal_last();
        if ring.flights.is_empty() {
            self.progress_ms.store(now_ns / 1_000_000, Relaxed);
        }
        let outcome = qp.post(chain);
        let posted = outcome.as_ref().map_or_else(|e| e.posted, |()| count);
        if posted < count {
            self.credit.release(count - posted);
        }
        if posted < fit {
            bytes = flights.iter().take(posted).map(Flight::len).sum();
        }
        self.bytes.store(self.bytes.load(Relaxed) + bytes, Relaxed);
        if posted == flights.len() {
            // As one copy of memory.
            ring.flights.append(flights);
        } else {
            ring.flights.extend(flights.drain(..posted));
        }
        self.busy.call(self);
        match outcome {
            Ok(()) => Ok(Some(bytes)),
            Err(refused) => {
                // The tail that was posted may be unsignalled: only a flush makes it complete.
                stop(ring, now_ns / 1_000_000);
                Err(refused.errno)
            }
        }
    }

    /// Moves what the completion of work request `number` retires from the ring to `into`. Returns how many work
    /// requests that are, and whether the queue is stopped and empty now; `None` for a stale completion.
    pub(super) fn retire(
        &self,
        number: u32,
        completion: &verbs::Wc,
        now_ms: u64,
        into: &mut Retired,
    ) -> Option<(usize, bool)> {
        let mut ring = self.ring.lock();
        let ring = &mut *ring;
        let count = number.wrapping_sub(ring.first).wrapping_add(1) as usize;
        if count == 0 || count > ring.flights.len() {
            return None;
        }
        self.progress_ms.store(now_ms, Relaxed);
        let good = if completion.status == wc::SUCCESS { count } else { count - 1 };
        let mut bytes = 0;
        into.done.reserve(good);
        into.done.extend(ring.flights.drain(..good).inspect(|flight| bytes += flight.len()));
        into.bytes += bytes;
        if good < count {
            if let Some(flight) = ring.flights.pop_front() {
                bytes += flight.len();
                let loss = match completion.status {
                    wc::WR_FLUSH_ERR => Loss::Flushed,
                    status => Loss::Completion(status, completion.vendor_err),
                };
                into.lost.push((flight, loss));
            }
            stop(ring, now_ms);
        }
        self.bytes.store(self.bytes.load(Relaxed) - bytes, Relaxed);
        ring.first = ring.first.wrapping_add(count as u32);
        Some((count, ring.state != State::Open && ring.flights.is_empty()))
    }

    /// Stops the queue pair: what is posted comes back by its flush completions. True if nothing is posted
    /// on it.
    pub(super) fn stop(&self, now_ms: u64) -> bool {
        let mut ring = self.ring.lock();
        stop(&mut ring, now_ms);
        ring.flights.is_empty()
    }

    /// Open, or stopped since when.
    pub(super) fn state(&self) -> State {
        self.ring.lock().state
    }

    /// A flight for which `wanted` holds is posted.
    pub(super) fn any(&self, wanted: impl Fn(&Flight) -> bool) -> bool {
        self.ring.lock().flights.iter().any(wanted)
    }

    /// Since when nothing has completed, ms, and how many bytes may have to move until something does; `None` if
    /// nothing is under way or the queue is stopped.
    pub(super) fn stalled_since(&self) -> Option<(u64, u64)> {
        let ring = self.ring.lock();
        let busy = ring.state == State::Open && !ring.flights.is_empty();
        let unsignaled = || ring.flights.iter().take(SIGNAL_EVERY).map(Flight::len).sum();
        busy.then(|| (self.progress_ms.load(Relaxed), unsignaled()))
    }

    /// Whoever gets `true` sees to it that the queue pair is destroyed.
    pub(super) fn hand_over(&self) -> bool {
        !self.handed_over.swap(true, Relaxed)
    }

    /// Keeps the connection that it belongs to until the queue pair is destroyed; not if it is already.
    pub(super) fn hold(&self, connection: Arc<dyn Any + Send + Sync>) {
        let ring = self.ring.lock();
        if ring.qp.is_some() {
            *self.held.lock() = Some(connection);
        }
    }

    /// Destroys the queue pair, after which the NIC touches nothing of it, and gives back what was still posted. Again
    /// is no harm.
    pub(super) fn destroy(&self) -> Vec<Flight> {
        let _ending = self.ending.lock();
        let (qp, flights) = {
            let mut ring = self.ring.lock();
            // Completions that come all the same are stale by their numbers.
            ring.first = ring.first.wrapping_add(ring.flights.len() as u32);
            self.bytes.store(0, Relaxed);
            (ring.qp.take(), ring.flights.drain(..).collect::<Vec<_>>())
        };
        drop(qp);
        self.places.detach(self.key, self);
        self.credit.release(flights.len());
        // After the queue pair, so that `hold` comes either before this or in vain.
        let held = self.held.lock().take();
        drop(held);
        flights
    }
}

fn stop(ring: &mut Ring, now_ms: u64) {
    if ring.state != State::Open {
        return;
    }
    ring.state = State::Draining(now_ms);
    if ring.flights.is_empty() {
        // It is destroyed next. Besides, it may be waiting in the driver for the peer's address.
        return;
    }
    if let Some(Err(error)) = ring.qp.as_ref().map(|qp| qp.error()) {
        // The scan destroys it when no completions come.
        tracing::debug!("queue pair not stopped: {error}");
    }
}
