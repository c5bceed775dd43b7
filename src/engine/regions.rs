//! Registering memory and taking it back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Engine;
use crate::error::Result;
use crate::memory::{Range, Region};

/// How long an unregistration waits for the uses of the region to end by themselves.
const GRACE: Duration = Duration::from_secs(1);
/// How long it waits for them to end once they are aborted.
const ABORT_LIMIT: Duration = Duration::from_secs(2);
/// A buffer in a descriptor's JSON text, without the name.
const BUFFER_JSON_BYTES: usize = 56;
/// Upstream's default of `MC_HANDSHAKE_MAX_LENGTH`.
const UPSTREAM_FRAME_BYTES: usize = 1 << 20;
/// How often they are aborted meanwhile.
const ABORT_INTERVAL: Duration = Duration::from_millis(50);

impl Engine {
    /// Registers all of `ranges` or none. -1 empty or wrapping, -7 overlap.
    pub fn register(&self, ranges: &[Range], location: &str, remote: bool) -> Result<()> {
        self.local.registry.insert(ranges, location, remote)?;
        self.warn_of_size();
        Ok(())
    }

    /// Unregisters the regions that start at `addrs`; the first error is returned, the others
    /// are unregistered all the same. Waits for running uses, then aborts them.
    pub fn unregister(&self, addrs: impl Iterator<Item = u64>) -> Result<()> {
        let mut first_error = None;
        let mut revoked: Vec<Arc<Region>> = Vec::new();
        for addr in addrs {
            match self.local.registry.revoke(addr) {
                Ok(region) => revoked.push(region),
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        for region in &revoked {
            self.release(region);
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Without a store nothing is refused here: a peer of this project takes 128 MiB. Upstream
    /// peers read 1 MiB unless they are told otherwise.
    fn warn_of_size(&self) {
        let count = self.local.registry.len();
        let bytes = count * (BUFFER_JSON_BYTES + self.local.name.len());
        if bytes > UPSTREAM_FRAME_BYTES && self.log.admit("descriptor size", "") {
            tracing::warn!(
                "the descriptor with {count} buffers has about {bytes} bytes; upstream peers read 1048576 unless \
                 they set MC_HANDSHAKE_MAX_LENGTH"
            );
        }
    }

    fn release(&self, region: &Arc<Region>) {
        let mut idle = region.wait_idle(GRACE);
        let deadline = Instant::now() + ABORT_LIMIT;
        // Again and again: a request may be on its way from one queue to another.
        while !idle && Instant::now() < deadline {
            self.transports().iter().for_each(|transport| transport.abort(region));
            idle = region.wait_idle(ABORT_INTERVAL);
        }
        if !idle {
            tracing::error!("region at {:#x} is unregistered although it is still in use", region.addr);
        }
        self.local.registry.remove(region);
    }
}
