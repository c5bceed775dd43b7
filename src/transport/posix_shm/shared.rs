//! What the files of this transport share: settings, the control plane, counters and the thread.

use std::sync::Arc;

use super::worker::Worker;
use crate::config::Config;
use crate::runtime::control::Control;
use crate::transport::counters::counters;
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

counters! {
    prefix "posix_shm_";
    /// Bytes that were copied to and from peers' objects.
    bytes,
    /// Slices that were completed.
    slices,
    /// Processes that were proven to be peers.
    proven,
    /// Attempts to prove one that failed.
    not_proven,
    /// Processes of peers that ended.
    lost,
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
