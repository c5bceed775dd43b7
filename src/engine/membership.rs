//! Entering a metadata store when the engine is created, and leaving it when it is destroyed.

use std::sync::mpsc::{sync_channel, Receiver};
use std::time::{Duration, Instant};

use super::Engine;
use crate::error::Result;

/// How long `destroy` waits for the keys to be removed; a dead store must not hold it up. Chosen: the three limits of
/// `destroy` add up to two seconds, and a store that works needs milliseconds.
const LEAVE_LIMIT: Duration = Duration::from_millis(700);

/// Keys that are being removed.
pub(super) struct Leaving(Option<(Receiver<()>, Instant)>);

impl Leaving {
    /// Waits until they are gone, but not longer than [`LEAVE_LIMIT`] after their removal began.
    pub(super) fn wait(self) {
        if let Some((done, deadline)) = self.0 {
            // Both failures mean that nothing more can be done; expiry removes the keys.
            let _ = done.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    }
}

impl Engine {
    /// Publishes the handshake address and looks after the keys from then on. `ERR_METADATA` if the store cannot be
    /// reached in time, or another engine lives under the name.
    pub(super) fn join_store(&self) -> Result<()> {
        let (store, local) = (self.store.clone(), self.local.clone());
        self.control.block(async move { store.put_rpc_address(&local.name, &local.address).await })?;
        self.control.spawn(self.store.clone().upkeep());
        Ok(())
    }

    /// Removes this engine's keys, the handshake address first, so that nobody starts to talk to it.
    pub(super) fn leave_store(&self) -> Leaving {
        if self.store.is_peer_to_peer() {
            return Leaving(None);
        }
        let (done, left) = sync_channel(1);
        let (store, name) = (self.store.clone(), self.local.name.clone());
        self.control.spawn(async move {
            for removed in [store.remove_rpc_address(&name).await, store.remove(&name).await] {
                if let Err(error) = removed {
                    tracing::warn!("{error}; it expires where the store can let it");
                }
            }
            let _ = done.send(());
        });
        Leaving(Some((left, Instant::now() + LEAVE_LIMIT)))
    }
}
