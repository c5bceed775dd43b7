//! What the files of this transport share: settings, the control plane, counters and the thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

use super::worker::Worker;
use crate::config::Config;
use crate::runtime::control::Control;
use crate::transport::host::Host;

/// What links share.
pub(super) struct Shared {
    /// Settings.
    pub config: Arc<Config>,
    /// Runs the tasks that look for peers.
    pub control: Arc<Control>,
    /// Copies what callers do not.
    pub worker: Arc<Worker>,
    /// Counters.
    pub stats: Stats,
}

/// All counters since installation. Relaxed: they publish nothing but themselves.
#[derive(Default)]
pub(super) struct Stats {
    /// Bytes that were copied to and from peers' objects.
    pub bytes: AtomicU64,
    /// Slices that were completed.
    pub slices: AtomicU64,
    /// Processes that were proven to be peers.
    pub proven: AtomicU64,
    /// Attempts to prove one that failed.
    pub not_proven: AtomicU64,
    /// Processes of peers that ended.
    pub lost: AtomicU64,
}

impl Shared {
    /// What is shared by a transport without a link.
    pub(super) fn new(host: &dyn Host) -> Self {
        Shared {
            config: host.config().clone(),
            control: host.control().clone(),
            worker: Arc::default(),
            stats: Stats::default(),
        }
    }
}

impl Stats {
    /// Name and value of each.
    pub(super) fn snapshot(&self) -> Vec<(&'static str, u64)> {
        let Stats { bytes, slices, proven, not_proven, lost } = self;
        let named = [
            ("posix_shm_bytes", bytes),
            ("posix_shm_slices", slices),
            ("posix_shm_proven", proven),
            ("posix_shm_not_proven", not_proven),
            ("posix_shm_lost", lost),
        ];
        named.map(|(name, count)| (name, count.load(Relaxed))).to_vec()
    }
}
