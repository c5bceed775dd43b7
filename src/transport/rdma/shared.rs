//! What NICs, rails and links of one transport share.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::RwLock;
use tokio::sync::Semaphore;

use super::destroyer::Destroyer;
use super::inbox::Inbox;
use super::memory::Memory;
use super::nic::Nic;
use super::origin::Origin;
use super::rail::Rail;
use super::rails::Rails;
use super::report::{Host, Identity};
use super::stats::Stats;
use crate::config::Config;
use crate::error::Error;
use crate::observe::log::RateLimit;
use crate::runtime::clock;
use crate::runtime::control::Control;
use crate::topology::select::Selector;
use crate::topology::Matrix;

/// Requests of peers that may be in the driver at once. Chosen: a quarter of the engine's blocking threads.
pub(super) const ACCEPT_AT_ONCE: usize = 4;

/// One installed transport.
pub(super) struct Shared {
    /// Settings.
    pub config: Arc<Config>,
    /// Where handshakes run.
    pub control: Arc<Control>,
    /// What the engine does for us.
    pub host: Arc<dyn Host>,
    /// Our identity.
    pub identity: Identity,
    /// Every NIC that could be opened; the index space of keys and rows.
    pub nics: Vec<Arc<Nic>>,
    /// Connections to peers' NICs, by the NIC's index.
    pub rails: Vec<Rails>,
    /// Where notifications of upstream's peers arrive, by the NIC's index.
    pub inboxes: Vec<Inbox>,
    /// Rows of the local matrix.
    pub selector: Selector,
    /// The local matrix.
    pub matrix: Matrix,
    /// Registered regions.
    pub memory: Memory,
    /// Destroys queue pairs.
    pub destroyer: Arc<Destroyer>,
    /// Links by number; a number is never used again.
    pub links: RwLock<Vec<Weak<dyn Origin>>>,
    /// Counters.
    pub stats: Stats,
    /// Lets few requests of peers into the driver at once: each may wait there for a second for an address that nobody
    /// has, and look-ups and our own connections need threads too.
    pub accepting: Semaphore,
    /// Limits repeated log lines.
    pub log: RateLimit,
    /// No more work is taken.
    pub stopped: AtomicBool,
    /// Given to the rails, which call back.
    pub me: OnceLock<Weak<Shared>>,
    /// State of the random numbers.
    pub seed: AtomicU32,
}

impl Shared {
    /// Milliseconds of the monotonic clock.
    pub(super) fn now_ms(&self) -> u64 {
        clock::now_ns() / 1_000_000
    }

    /// Nanoseconds of the monotonic clock.
    pub(super) fn now_ns(&self) -> u64 {
        clock::now_ns()
    }

    /// A random number; not for secrets.
    pub(super) fn random(&self) -> u32 {
        let step = |x: u32| Some(x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        self.seed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).unwrap_or(0) >> 8
    }

    /// No more work is taken.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// A link by its number, while it is in use.
    pub(super) fn link(&self, number: u32) -> Option<Arc<dyn Origin>> {
        self.links.read().get(number as usize).and_then(Weak::upgrade)
    }

    /// Every link in use.
    pub(super) fn links(&self) -> Vec<Arc<dyn Origin>> {
        self.links.read().iter().filter_map(Weak::upgrade).collect()
    }

    /// The rails of a NIC.
    pub(super) fn rails(&self, nic: &Nic) -> &Rails {
        &self.rails[nic.index]
    }

    /// The inbox of a NIC.
    pub(super) fn inbox(&self, nic: &Nic) -> &Inbox {
        &self.inboxes[nic.index]
    }

    /// The rail from a NIC to a peer's NIC.
    pub(super) fn rail(&self, nic: &Arc<Nic>, peer: &str) -> Arc<Rail> {
        let me = self.me.get().cloned().unwrap_or_default();
        self.rails(nic).get(peer, || Rail::new(me, &self.config, nic, peer))
    }

    /// `server@nic` of a local NIC.
    pub(super) fn own_path(&self, nic: &Nic) -> String {
        format!("{}@{}", self.identity.server, nic.name)
    }

    /// Logs a rail's failure, once per peer and interval.
    pub(super) fn note_failure(&self, rail: &Rail, error: &Error) {
        if self.log.admit("rail", &rail.peer) && !self.is_stopped() {
            tracing::warn!("rail {} failed: {error}", rail.name());
        }
    }
}
