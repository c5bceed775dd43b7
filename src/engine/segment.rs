//! An open segment: its cached descriptor, when that is read again, and the links that lead to the peer.

mod freshness;
mod hear;
pub(super) mod table;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use once_cell::sync::OnceCell;
use parking_lot::Mutex;

use super::known::Known;
use crate::error::Result;
use crate::host_port::HostPort;
use crate::metadata::Store;
use crate::runtime::aside;
use crate::transport::table::PROTOCOLS;
use crate::transport::Link;
use freshness::Freshness;

/// How long submit calls go on with the cached descriptor after one of them has read it again and its range was still
/// missing. Chosen: ten readings a second for each peer are no load for a store, and memory that a peer registers is
/// seen soon.
const COVERAGE_INTERVAL: Duration = Duration::from_millis(100);

/// An open segment. Shared by the table, links and running calls.
pub(super) struct Segment {
    /// Id in this engine, from 1.
    pub id: i32,
    /// The name it was opened by.
    pub opened_as: String,
    store: Arc<dyn Store>,
    known: ArcSwap<Known>,
    /// Guards the replacement of `known`.
    replacing: Mutex<()>,
    /// Guards the time of the last refresh after which the range of its submit call was still missing.
    fruitless_refresh: Mutex<Option<Instant>>,
    /// When and how changes are heard of.
    freshness: Freshness,
    /// Guards the peer's handshake address; forgotten when nobody answers there or the descriptor changes.
    rpc: Mutex<RpcAddress>,
    /// One per row of [`PROTOCOLS`], made on first use. Each submit call chooses by the descriptor as it is then, so
    /// a peer that comes back with another transport is reached by that one; the other link stays for its tasks.
    links: [OnceCell<Arc<dyn Link>>; PROTOCOLS.len()],
}

/// The peer's handshake address as read last.
#[derive(Default)]
struct RpcAddress {
    address: Option<HostPort>,
    /// How often it was forgotten.
    forgotten: u64,
}

impl Segment {
    fn new(
        id: i32,
        name: &str,
        store: &Arc<dyn Store>,
        known: Known,
        settings: &freshness::Settings,
    ) -> Self {
        Segment {
            id,
            opened_as: name.to_string(),
            store: store.clone(),
            known: ArcSwap::from_pointee(known),
            replacing: Mutex::new(()),
            fruitless_refresh: Mutex::new(None),
            freshness: Freshness::new(settings, store.watches() || store.is_peer_to_peer()),
            rpc: Mutex::default(),
            links: [const { OnceCell::new() }; PROTOCOLS.len()],
        }
    }

    /// The descriptor as last read.
    pub(super) fn known(&self) -> Arc<Known> {
        self.known.load_full()
    }

    /// The link over the transport of a row, which `make` makes on first use.
    pub(super) fn link(&self, row: usize, make: impl FnOnce() -> Arc<dyn Link>) -> Arc<dyn Link> {
        self.links[row].get_or_init(make).clone()
    }

    /// Reads the descriptor again; on failure the cached one stays.
    pub(super) async fn refresh(&self) -> Result<()> {
        let fresh = read(&*self.store, &self.opened_as).await?;
        self.replace(fresh);
        Ok(())
    }

    fn replace(&self, mut fresh: Known) {
        let _one = self.replacing.lock();
        let old = self.known();
        if fresh.revision != 0 && fresh.revision < self.freshness.latest() {
            return;
        }
        let changed = !old.same_as(&fresh);
        fresh.version = old.version + u64::from(changed);
        self.freshness.read_now(fresh.revision);
        self.known.store(Arc::new(fresh));
        if changed {
            self.forget_rpc_address();
        }
    }

    /// The peer's handshake address.
    pub(super) async fn rpc_address(&self) -> Result<HostPort> {
        let forgotten = {
            let rpc = self.rpc.lock();
            match &rpc.address {
                Some(address) => return Ok(address.clone()),
                None => rpc.forgotten,
            }
        };
        let address = self.store.rpc_address(&self.known().name).await?;
        let mut rpc = self.rpc.lock();
        // If the address was forgotten meanwhile, this answer may be the one that was wrong.
        if rpc.forgotten == forgotten {
            rpc.address = Some(address.clone());
        }
        Ok(address)
    }

    /// The next use of the address reads it again: nobody answered there.
    pub(super) fn forget_rpc_address(&self) {
        let mut rpc = self.rpc.lock();
        rpc.address = None;
        rpc.forgotten += 1;
    }

    /// Whether a submit call may refresh now.
    pub(super) fn may_refresh(&self) -> bool {
        self.fruitless_refresh.lock().is_none_or(|then| then.elapsed() >= COVERAGE_INTERVAL)
    }

    /// A submit call has refreshed, and its range is still missing. A refresh that helped does not count: a peer may
    /// register region after region, and each may be used at once.
    pub(super) fn note_fruitless_refresh(&self) {
        *self.fruitless_refresh.lock() = Some(Instant::now());
    }
}

/// Fetches a descriptor and prepares it. An error of the store, or `ERR_MALFORMED_JSON`.
pub(super) async fn read(store: &dyn Store, name: &str) -> Result<Known> {
    let (desc, revision) = store.get_at(name).await?;
    let known = aside::run(desc.weight(), move || Known::new(desc, revision)).await;
    known.map_err(|e| e.context(store.place(name)).peer(name))
}

#[cfg(test)]
pub(super) mod tests;
