//! Registering memory and taking it back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Engine;
use crate::error::{Error, Result};
use crate::memory::{PeerAccess, Range, Region, Registry, Reserved};
use crate::observe::durations::{self, Timed};
use crate::transport::Transport;

/// How long an unregistration waits for the uses of the region to end by themselves. Chosen: healthy transfers end
/// within it. The C header promises a second.
const GRACE: Duration = Duration::from_secs(1);
/// How long it waits for them to end once they are aborted. Chosen: four times the half second after which RDMA
/// destroys a queue pair that does not give its memory back.
const ABORT_LIMIT: Duration = Duration::from_secs(2);
/// Pause between two aborts meanwhile. Chosen: a use that slipped past the first is caught soon, and the pause is short
/// beside the wait.
const ABORT_INTERVAL: Duration = Duration::from_millis(50);
/// A buffer in a descriptor's JSON text, without the name. Counted: an address of 15 digits, a length of 11.
const BUFFER_JSON_BYTES: usize = 56;
/// What the two keys for one NIC add to it. Counted: ten digits and a comma each.
const KEYS_JSON_BYTES: usize = 22;
/// Upstream's default of `MC_HANDSHAKE_MAX_LENGTH`.
const UPSTREAM_FRAME_BYTES: usize = 1 << 20;

impl Engine {
    /// Registers all of `ranges` or none, on every transport. -1 empty or wrapping, -7 overlap, also with regions
    /// that another thread is registering; -202 if a NIC cannot, -200 if the store cannot. With `MC_ALLOW_REREGISTER` a region
    /// that is registered exactly so is counted once more.
    pub fn register(&self, ranges: &[Range], location: &str, remote: impl Into<PeerAccess>) -> Result<()> {
        let begun = Instant::now();
        let outcome = self.register_all(ranges, location, remote.into());
        durations::ended(Timed::Registration, begun, outcome.is_ok());
        outcome
    }

    fn register_all(&self, ranges: &[Range], location: &str, remote: PeerAccess) -> Result<()> {
        let _installed = self.transports().keep();
        let transports = self.transports().all();
        let Reserved { added, again } = self.local.registry.reserve(ranges, location, remote)?;
        if let Err(error) = prepare(&self.local.registry, &transports, &added) {
            self.take_back(&transports, again);
            return Err(error);
        }
        // Also if none is new: whoever registered it first may not have published it.
        if let Err(error) = self.publish() {
            self.take_back(&transports, added);
            self.take_back(&transports, again);
            self.publish_soon();
            return Err(error);
        }
        self.warn_of_size();
        Ok(())
    }

    /// Undoes a registration of each of `regions`; those that nobody else has registered are given up.
    fn take_back(&self, transports: &[Arc<dyn Transport>], mut regions: Vec<Arc<Region>>) {
        regions.retain(|region| self.local.registry.withdraw(region));
        if !regions.is_empty() {
            self.publish_soon();
            release_all(&self.local.registry, transports, &regions);
        }
    }

    /// Unregisters the regions that start at `addrs`, unless they are registered once more; the first error is returned, the
    /// others are unregistered all the same. Peers are told, then running uses are waited for and at last aborted.
    pub fn unregister(&self, addrs: impl Iterator<Item = u64>) -> Result<()> {
        let _installed = self.transports().keep();
        let transports = self.transports().all();
        let mut first_error = None;
        let mut revoked: Vec<Arc<Region>> = Vec::new();
        for addr in addrs {
            match self.local.registry.revoke(addr) {
                Ok(None) => {}
                Ok(Some(region)) => {
                    // All at once is one publication, but what cannot be listed is unregistered all the same.
                    if revoked.try_reserve(1).is_err() {
                        self.give_up(&transports, &mut revoked, &mut first_error);
                    }
                    match revoked.capacity() {
                        0 => self.give_up(&transports, &mut vec![region], &mut first_error),
                        _ => revoked.push(region),
                    }
                }
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        self.give_up(&transports, &mut revoked, &mut first_error);
        first_error.map_or(Ok(()), Err)
    }

    /// Tells peers that `revoked` are gone, and lets go of them.
    fn give_up(
        &self,
        transports: &[Arc<dyn Transport>],
        revoked: &mut Vec<Arc<Region>>,
        first_error: &mut Option<Error>,
    ) {
        if !revoked.is_empty() {
            if let Err(error) = self.publish() {
                self.publish_soon();
                first_error.get_or_insert(error);
            }
        }
        release_all(&self.local.registry, transports, revoked);
        revoked.clear();
    }

    /// Without a store nothing is refused here: a peer of this project takes `MC_METADATA_MAX_BYTES`.
    /// Upstream peers read 1 MiB unless they are told otherwise.
    fn warn_of_size(&self) {
        if !self.store.is_peer_to_peer() {
            return;
        }
        let count = self.local.registry.count();
        let keys = self.nics().len() * KEYS_JSON_BYTES;
        let bytes = count * (BUFFER_JSON_BYTES + self.local.name.len() + keys);
        if bytes > UPSTREAM_FRAME_BYTES && self.log.admit("descriptor size", "") {
            tracing::warn!(
                "the descriptor with {count} buffers has about {bytes} bytes; upstream peers read 1048576 unless \
                 they set MC_HANDSHAKE_MAX_LENGTH"
            );
        }
    }
}

/// Has every transport prepare reserved regions, and only then opens them to uses and publication. If one transport cannot,
/// nothing stays behind. The registry's lock is not held meanwhile.
fn prepare(registry: &Registry, transports: &[Arc<dyn Transport>], regions: &[Arc<Region>]) -> Result<()> {
    // All were registered before.
    if regions.is_empty() {
        return Ok(());
    }
    for (index, transport) in transports.iter().enumerate() {
        if let Err(error) = transport.register(regions) {
            let done = transports[..index].iter().rev();
            done.for_each(|earlier| regions.iter().for_each(|region| earlier.unregister(region)));
            regions.iter().for_each(|region| registry.remove(region));
            return Err(error.context(format!("register with {}", transport.name())));
        }
    }
    registry.open(regions);
    Ok(())
}

fn release_all(registry: &Registry, transports: &[Arc<dyn Transport>], revoked: &[Arc<Region>]) {
    revoked.iter().for_each(|region| release(registry, transports, region));
}

/// Lets the uses of a revoked region end, then has the transports give it up, then frees its range.
fn release(registry: &Registry, transports: &[Arc<dyn Transport>], region: &Arc<Region>) {
    let mut idle = region.wait_idle(GRACE);
    let deadline = Instant::now() + ABORT_LIMIT;
    // Again and again: a request may be on its way from one queue to another.
    while !idle && Instant::now() < deadline {
        transports.iter().for_each(|transport| transport.abort(region));
        idle = region.wait_idle(ABORT_INTERVAL);
    }
    if !idle {
        tracing::error!("region at {:#x} is unregistered although it is still in use", region.addr);
    }
    transports.iter().for_each(|transport| transport.unregister(region));
    registry.remove(region);
}

#[cfg(test)]
mod tests;
