//! The installed transport: its links and its thread.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::errors;
use super::link::PosixShmLink;
use super::offer::NAME;
use super::shared::Shared;
use crate::error::Result;
use crate::memory::Region;
use crate::segment_desc::SegmentDesc;
use crate::transport::host::{Host, Route};
use crate::transport::report::RailReport;
use crate::transport::{Link, Transport};

/// The installed transport.
pub(super) struct PosixShm {
    shared: Arc<Shared>,
    /// Guards the links for `abort` and `stop`; dead ones are swept when one is added.
    links: Mutex<Links>,
}

#[derive(Default)]
struct Links {
    stopped: bool,
    live: Vec<Weak<PosixShmLink>>,
}

impl PosixShm {
    /// Makes it; nothing runs before there is work.
    pub(super) fn install(host: &dyn Host) -> Arc<Self> {
        Arc::new(PosixShm { shared: Arc::new(Shared::new(host)), links: Mutex::default() })
    }

    fn live_links(&self) -> Vec<Arc<PosixShmLink>> {
        self.links.lock().live.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Transport for PosixShm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn abort(&self, region: &Arc<Region>) {
        self.live_links().iter().for_each(|link| link.abort(region));
    }

    /// Nothing is published.
    fn list_buffers(&self, _: &mut SegmentDesc) -> Result<bool> {
        Ok(false)
    }

    fn link(&self, route: Arc<dyn Route>) -> Arc<dyn Link> {
        let link = PosixShmLink::new(&self.shared, route);
        let mut links = self.links.lock();
        links.live.retain(|link| link.strong_count() > 0);
        links.live.push(Arc::downgrade(&link));
        if links.stopped {
            link.close(&errors::stopping());
        }
        link
    }

    fn rails(&self) -> Vec<RailReport> {
        self.live_links().iter().map(|link| link.report()).collect()
    }

    fn stop(&self) {
        self.links.lock().stopped = true;
        for link in self.live_links() {
            link.close(&errors::stopping());
        }
        self.shared.worker.stop();
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        self.shared.stats.snapshot()
    }
}

impl Drop for PosixShm {
    fn drop(&mut self) {
        self.stop();
    }
}
