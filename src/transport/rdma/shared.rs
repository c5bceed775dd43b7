//! What NICs, rails and links of one transport share, and the reaction to completions.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use parking_lot::RwLock;
use tokio::sync::Semaphore;

use super::completions::Retire;
use super::connection::Connection;
use super::errors::completion_error;
use super::flight::{Flight, Loss, Lost};
use super::link::RdmaLink;
use super::memory::Memory;
use super::nic::Nic;
use super::queue::{Queue, Retired};
use super::rail::{Owner, Rail};
use super::{Host, Identity};
use crate::config::Config;
use crate::error::{Class, Code, Error};
use crate::observe::log::RateLimit;
use crate::runtime::control::Control;
use crate::topology::select::Selector;
use crate::topology::Matrix;

/// Requests of peers that may be in the driver at once.
pub const ACCEPT_AT_ONCE: usize = 4;

/// One installed transport.
pub struct Shared {
    /// Settings.
    pub config: Arc<Config>,
    /// Where handshakes run.
    pub control: Arc<Control>,
    /// What the engine does for us.
    pub host: Arc<dyn Host>,
    /// Who we are.
    pub identity: Identity,
    /// Every NIC that could be opened; the index space of keys and rows.
    pub nics: Vec<Arc<Nic>>,
    /// Rows of the local matrix.
    pub selector: Selector,
    /// The local matrix.
    pub matrix: Matrix,
    /// Registered regions.
    pub memory: Memory,
    /// Links by number; a number is never used again.
    pub links: RwLock<Vec<Weak<RdmaLink>>>,
    /// Counters.
    pub stats: Stats,
    /// Lets few requests of peers into the driver at once: each may wait there for a second for an address that nobody
    /// has, and look-ups and our own connections need threads too.
    pub accepting: Semaphore,
    /// Limits repeated log lines.
    pub log: RateLimit,
    /// No more work is taken.
    pub stopped: AtomicBool,
    /// For rails that are made on behalf of this.
    pub me: OnceLock<Weak<Shared>>,
    /// Zero of the transport's clock.
    pub started: Instant,
    /// State of the random numbers.
    pub seed: AtomicU32,
}

/// Counters of the transport.
#[derive(Default)]
pub struct Stats {
    /// Slices put on another rail, or on the same one again.
    pub reposted: AtomicU64,
    /// Connections set up.
    pub connections: AtomicU64,
    /// Queue pairs destroyed because no completions came.
    pub destroyed_without_completion: AtomicU64,
    /// Connection requests refused.
    pub rejected: AtomicU64,
    /// Connections evicted for lack of room.
    pub evicted: AtomicU64,
}

impl Shared {
    /// Milliseconds of the transport's clock.
    pub fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64 + 1
    }

    /// Nanoseconds of the transport's clock.
    pub fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64 + 1_000_000
    }

    /// Not for secrets.
    pub fn random(&self) -> u32 {
        let step = |x: u32| Some(x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        self.seed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).unwrap_or(0) >> 8
    }

    /// No more work is taken.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// A link by its number, while it is in use.
    pub fn link(&self, number: u32) -> Option<Arc<RdmaLink>> {
        self.links.read().get(number as usize).and_then(Weak::upgrade)
    }

    /// The rail from a NIC to a peer's NIC.
    pub fn rail(&self, nic: &Arc<Nic>, peer: &str) -> Arc<Rail> {
        let me = self.me.get().cloned().unwrap_or_default();
        nic.rails.get(peer, || Rail::new(&me, nic, peer))
    }

    /// `server@nic` of a local NIC.
    pub fn own_path(&self, nic: &Nic) -> String {
        format!("{}@{}", self.identity.server, nic.name)
    }

    /// Takes up what the NIC completed; `false` if there was nothing, or another thread does it.
    pub fn poll(&self, nic: &Arc<Nic>) -> bool {
        let mut found = false;
        let mut reaper = Reaper { shared: self, failed: Vec::new(), lost: Vec::new() };
        for completions in &nic.completions {
            found |= completions.poll(|| self.now_ms(), &mut reaper);
        }
        let Reaper { failed, lost, .. } = reaper;
        for (rail, connection, error) in failed {
            rail.give_up(&connection, error);
        }
        for (rail, connection, flights) in lost {
            self.recover(&rail, flights, connection.as_ref(), false);
        }
        if found && nic.starved.swap(false, Ordering::SeqCst) {
            nic.rails.all().iter().filter(|rail| rail.has_waiting()).for_each(|rail| rail.pump());
        }
        found
    }

    /// Tells of a rail's failure, once per rail and interval.
    pub fn note_failure(&self, rail: &Rail, error: &Error) {
        if self.log.admit("rail", &rail.peer) && !self.is_stopped() {
            tracing::warn!("rail {} failed: {error}", rail.name());
        }
    }
}

/// Hears what a poll found.
struct Reaper<'a> {
    shared: &'a Shared,
    /// Given up after the poll, because all that waits for them is placed anew then.
    failed: Vec<(Arc<Rail>, Arc<Connection>, Error)>,
    /// Worked on after the poll: it posts elsewhere.
    lost: Vec<(Arc<Rail>, Option<Arc<Connection>>, Lost)>,
}

impl Retire for Reaper<'_> {
    fn retired(&mut self, queue: &Arc<Queue>, retired: &mut Retired, drained: bool) {
        let Some(owner) = queue.owner::<Owner>() else { return };
        let rail = &owner.rail;
        let connection = owner.connection.upgrade();
        if !retired.done.is_empty() {
            // Before the ends are told: whoever hears of the last one finds nothing under way any more.
            let bytes = retired.done.iter().map(Flight::len).sum();
            let count = retired.done.iter().filter(|flight| flight.slice.is_some()).count();
            rail.settle(bytes, count as u64, self.shared.now_ns());
            let mut proved = false;
            for flight in retired.done.drain(..) {
                match flight.slice {
                    Some(slice) => slice.complete(),
                    None => proved = true,
                }
            }
            if let Some(connection) = connection.as_ref().filter(|_| proved) {
                if connection.note_proof() {
                    rail.proved(connection);
                }
            }
        }
        if !retired.lost.is_empty() {
            if let Some(connection) = connection.clone().filter(|connection| connection.cause().is_none()) {
                self.fail(rail, connection, &retired.lost);
            }
            let key = |connection: &Option<Arc<Connection>>| connection.as_ref().map(Arc::as_ptr);
            match self.lost.last_mut() {
                Some((_, known, lost)) if key(known) == key(&connection) && connection.is_some() => {
                    lost.append(&mut retired.lost);
                }
                _ => self.lost.push((rail.clone(), connection, std::mem::take(&mut retired.lost))),
            }
        }
        if drained {
            // Empty, so nothing comes back from it.
            queue.destroy();
        }
        if rail.has_waiting() && rail.is_up() {
            rail.pump();
        }
    }
}

impl Reaper<'_> {
    /// Notes that a connection is to be given up, for the first reason.
    fn fail(&mut self, rail: &Arc<Rail>, connection: Arc<Connection>, lost: &[(Flight, Loss)]) {
        if self.failed.iter().any(|(_, known, _)| Arc::ptr_eq(known, &connection)) {
            return;
        }
        let error = lost.iter().find_map(|(_, loss)| completion_error(&rail.name(), &rail.peer, *loss));
        // A NIC stops a queue pair by itself on which the peer did what it must not; there is no other sign.
        let stopped = || {
            let text =
                format!("{}: a queue pair had stopped, perhaps for a bad request of the peer", rail.name());
            Error::new(Code::Endpoint, text).class(Class::Network, true).peer(&rail.peer)
        };
        self.failed.push((rail.clone(), connection, error.unwrap_or_else(stopped)));
    }
}
