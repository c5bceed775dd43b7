//! What every transport offers the engine. Transports never know each other, the engine or a
//! metadata store.

use std::sync::Arc;

pub mod incarnation;
pub mod local;
#[cfg(feature = "rdma")]
pub mod rdma;
pub mod slice;
pub mod tcp;

use crate::error::{Error, Result};
use crate::memory::Region;
use slice::Slice;

/// An installed transport. Methods may be called from any thread and do not block, unless
/// they say so.
pub trait Transport: Send + Sync {
    /// The protocol's name in C and in descriptors.
    fn name(&self) -> &'static str;

    /// Prepares regions for transfers: all of them or none. May block.
    fn register(&self, regions: &[Arc<Region>]) -> Result<()> {
        let _ = regions;
        Ok(())
    }

    /// Gives up what `register` made, after the region's last use. May block.
    fn unregister(&self, region: &Arc<Region>) {
        let _ = region;
    }

    /// Ends every use of a revoked region, own slices and inbound requests alike. Returns
    /// when that is under way; the caller waits for the region's use count.
    fn abort(&self, region: &Arc<Region>);

    /// Fails everything in flight, closes all sockets, joins all threads. Idempotent.
    fn stop(&self);

    /// Named counters since installation, for metrics and diagnostics.
    fn stats(&self) -> Vec<(&'static str, u64)>;
}

/// The way from this engine to one segment over one transport.
pub trait Link: Send + Sync {
    /// Whether slices can be moved at all just now; asked once per submit call, which is refused with this error
    /// as a whole. Cheap: it reads no more than a few words of memory.
    fn ready(&self) -> Result<()> {
        Ok(())
    }

    /// Length of the first slice of a request with `left` bytes to go from `source`, which lies in
    /// `region` (`None`: not registered) and has `covered` bytes up to its end, to or from `remote`. At least 1, at most
    /// `min(left, covered)`.
    fn cut(&self, region: Option<&Region>, source: u64, covered: u64, remote: u64, left: u64) -> u64;

    /// Posts `slices`, whose addresses were checked against the descriptor of the peer's
    /// `incarnation` (see [`incarnation::key`]; 0: unknown). Each is finished later, on any thread, whatever happens.
    fn submit(&self, slices: Vec<Slice>, incarnation: u64);

    /// Moves what can be moved now, without blocking, on the caller's thread. `false`
    /// when nothing was to be had.
    fn poll(&self) -> bool;

    /// The caller is going to sleep: completions must be picked up by our own threads.
    fn rely_on_threads(&self);

    /// Fails everything that waits or is under way with `error` and closes the connections.
    fn close(&self, error: &Error);
}
