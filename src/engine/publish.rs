//! Telling the store what peers may know of this engine. Peers that ask us directly need nothing.

use std::future::Future;

use super::Engine;
use crate::error::Result;

impl Engine {
    /// Publishes the descriptor as it is now; returns when the store has it. `ERR_METADATA` if that fails.
    pub(super) fn publish(&self) -> Result<()> {
        if self.store.is_peer_to_peer() {
            return Ok(());
        }
        self.control.block(self.publication())
    }

    /// The same without waiting; a failure is logged.
    #[cfg_attr(not(feature = "rdma"), allow(dead_code))]
    pub(super) fn publish_soon(&self) {
        if self.store.is_peer_to_peer() {
            return;
        }
        let (publication, log) = (self.publication(), self.log.clone());
        self.control.spawn(async move {
            if let Err(error) = publication.await {
                if log.admit("publish", "") {
                    tracing::warn!("the descriptor was not published again: {error}");
                }
            }
        });
    }

    /// One at a time, each with the descriptor as it is when its turn has come, so that no old one comes last.
    fn publication(&self) -> impl Future<Output = Result<()>> + Send + 'static {
        let (turn, local, store) = (self.publishing.clone(), self.local.clone(), self.store.clone());
        async move {
            let _turn = turn.lock().await;
            match local.descriptor() {
                Some(desc) => store.put(&desc).await.map_err(|e| e.context("publish the descriptor")),
                None => Ok(()),
            }
        }
    }
}
