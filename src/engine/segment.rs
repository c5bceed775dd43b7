//! An open segment: its cached descriptor, when that is read again, and the links that lead to the peer.

mod freshness;
mod hear;
mod newest;
mod opening;
pub(super) mod table;
mod turns;

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use once_cell::sync::OnceCell;
use parking_lot::Mutex;

use super::known::Known;
use super::traffic::Peer;
use crate::error::Result;
use crate::host_port::HostPort;
use crate::metadata::Store;
use crate::runtime::{aside, instant};
use crate::transport::table::PROTOCOLS;
use crate::transport::Link;
use freshness::Freshness;
pub(super) use newest::Reading;
use newest::{Newest, Readings};
use opening::Opening;
pub(super) use opening::OPEN_LIMIT;
use turns::Turns;

/// An open segment. Shared by the table, links and running calls.
pub(super) struct Segment {
    /// Id in this engine, from 1.
    pub id: i32,
    /// The name it was opened by.
    pub opened_as: String,
    /// How often it was opened and not closed since. Changed while the table of segments is locked, shared to open and
    /// exclusively to close.
    opens: AtomicUsize,
    /// All who opened it have closed it, and nobody has used it since.
    lingers: AtomicBool,
    /// Where its tasks are counted; `None`: they are not counted by peer.
    pub peer: Option<Arc<Peer>>,
    store: Arc<dyn Store>,
    known: ArcSwap<Known>,
    /// Guards the replacement of `known`.
    newest: Mutex<Newest>,
    /// Readings that have begun, those of all segments of the engine.
    readings: Arc<Readings>,
    /// Of submit calls whose range is missing.
    turns: Turns,
    /// Held while a notification is delivered to the peer.
    pub notifying: tokio::sync::Mutex<()>,
    /// When and how changes are heard of.
    freshness: Freshness,
    /// Whether it is read again when it is opened again.
    opening: Opening,
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
        reading: Reading,
        settings: &freshness::Settings,
    ) -> Self {
        Segment {
            id,
            opened_as: name.to_string(),
            opens: AtomicUsize::new(0),
            lingers: AtomicBool::new(false),
            peer: settings.peers.enter(&known.name),
            store: store.clone(),
            newest: Mutex::new(Newest::new(reading, known.revision)),
            known: ArcSwap::from_pointee(known),
            readings: settings.readings.clone(),
            turns: Turns::default(),
            notifying: tokio::sync::Mutex::default(),
            freshness: Freshness::new(settings, reading, store.watches() || store.is_peer_to_peer()),
            opening: Opening::new(reading.began),
            rpc: Mutex::default(),
            links: [const { OnceCell::new() }; PROTOCOLS.len()],
        }
    }

    /// The descriptor as last read.
    #[inline]
    pub(super) fn known(&self) -> Arc<Known> {
        self.known.load_full()
    }

    /// The link over the transport of a row, which `make` makes on first use.
    pub(super) fn link(&self, row: usize, make: impl FnOnce() -> Arc<dyn Link>) -> Arc<dyn Link> {
        self.links[row].get_or_init(make).clone()
    }

    /// Reads the descriptor again; on failure the cached one stays.
    pub(super) async fn refresh(&self) -> Result<()> {
        let reading = self.begin_reading();
        match read(&*self.store, &self.opened_as).await {
            Ok(fresh) => {
                self.replace(fresh, reading);
                Ok(())
            }
            Err(error) => {
                self.suspect();
                Err(error)
            }
        }
    }

    /// No store stands between this engine and the descriptor.
    pub(super) fn is_read_from_its_owner(&self) -> bool {
        self.store.is_peer_to_peer()
    }

    /// Its owner does not answer; it may come back as another process.
    pub(super) fn suspect(&self) {
        self.opening.suspect(self.readings.last());
    }

    /// Whether the descriptor is to be read again because the segment is opened again: its owner may be another process
    /// now. `oldest` is the age from which it is where no connection tells.
    pub(super) fn may_have_restarted(&self, oldest: Duration) -> bool {
        let known = self.known();
        let lives = known.leading().filter_map(|row| self.links[row].get()?.peer_lives());
        // A store that tells of changes need not be asked because of the age alone.
        let oldest = if self.store.watches() { Duration::MAX } else { oldest };
        // One that is up outweighs others that ended.
        self.opening.is_due(lives.max(), oldest, instant::now())
    }

    /// Has the descriptor read again for that reason, by `read`, which says whether there was an answer, or by another call.
    pub(super) fn read_for_opening(&self, read: impl FnOnce() -> bool) {
        self.opening.read_again(read);
    }

    fn begin_reading(&self) -> Reading {
        self.readings.begin()
    }

    /// Takes what a reading has found, unless what is known is newer.
    fn replace(&self, mut fresh: Known, reading: Reading) {
        let mut newest = self.newest.lock();
        if !newest.takes(reading, fresh.revision) {
            return;
        }
        let old = self.known();
        self.opening.note_read(reading);
        self.freshness.note_read(reading);
        let changed = !old.same_as(&fresh);
        fresh.version = old.version + u64::from(changed);
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

    /// Has the descriptor read again for a submit call whose range is missing, by `read` or by another call, as [`Turns`]
    /// allow. What it says afterwards is newer than the call.
    pub(super) fn read_again(&self, read: impl FnOnce()) {
        self.turns.take(read);
    }

    /// The range is still missing.
    pub(super) fn note_fruitless(&self) {
        self.turns.note_fruitless();
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

#[cfg(test)]
#[path = "../../tests/sim/freshness/mod.rs"]
mod sim;
