//! An engine's own calls for publishing its descriptor.

use std::sync::atomic::Ordering::SeqCst;

use super::Engine;
use crate::error::Result;

impl Engine {
    /// Publishes the descriptor as it is now; returns when the store has it. `ERR_METADATA` if that fails; then the
    /// caller undoes what it did, and calls [`Engine::publish_soon`]: an attempt may have arrived, or another thread's
    /// publication may have carried what was undone.
    pub(super) fn publish(&self) -> Result<()> {
        self.local.changed();
        if self.store.is_peer_to_peer() {
            return Ok(());
        }
        let change = self.publisher.wanted.fetch_add(1, SeqCst) + 1;
        let publisher = self.publisher.clone();
        self.control.block(async move { publisher.publish(change).await })
    }

    /// The last publication failed, or one is under way.
    pub(super) fn is_behind(&self) -> bool {
        self.publisher.turn.try_lock().map_or(true, |turn| turn.result.is_err())
    }

    /// As [`Engine::publish`], without waiting; a failure is logged.
    pub(super) fn publish_soon(&self) {
        self.local.changed();
        if self.store.is_peer_to_peer() {
            return;
        }
        self.publisher.wanted.fetch_add(1, SeqCst);
        self.publisher.changed.notify_one();
        if !self.publisher.settling.swap(true, SeqCst) {
            self.control.spawn(self.publisher.clone().settle());
        }
    }
}
