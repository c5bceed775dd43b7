//! The installed transport: its links and its thread.

use std::sync::Arc;

use super::link::PosixShmLink;
use super::offer::NAME;
use super::shared::Shared;
use crate::error::Result;
use crate::memory::Region;
use crate::segment_desc::SegmentDesc;
use crate::transport::host::{Host, Route};
use crate::transport::links::{stopping, Links};
use crate::transport::report::RailReport;
use crate::transport::{Link, Transport};

/// The installed transport.
pub(super) struct PosixShm {
    shared: Arc<Shared>,
    links: Links<PosixShmLink>,
}

impl PosixShm {
    /// Makes it; nothing runs before there is work.
    pub(super) fn install(host: &dyn Host) -> Arc<Self> {
        Arc::new(PosixShm { shared: Arc::new(Shared::new(host)), links: Links::default() })
    }
}

impl Transport for PosixShm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn abort(&self, region: &Arc<Region>) {
        self.links.live().iter().for_each(|link| link.abort(region));
    }

    /// Nothing is published.
    fn list_buffers(&self, _: &mut SegmentDesc) -> Result<bool> {
        Ok(false)
    }

    fn link(&self, route: Arc<dyn Route>) -> Arc<dyn Link> {
        let link = PosixShmLink::new(&self.shared, route);
        if !self.links.add(&link) {
            link.close(&stopping());
        }
        link
    }

    fn rails(&self) -> Vec<RailReport> {
        self.links.live().iter().map(|link| link.report()).collect()
    }

    fn stop(&self) {
        for link in self.links.stop() {
            link.close(&stopping());
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
