//! Telling the store what peers may know of this engine. Peers that ask us directly need nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::local::Local;
use crate::error::{Class, Result};
use crate::metadata::Store;
use crate::observe::log::RateLimit;
use crate::runtime::backoff::Backoff;

/// Pauses before a failed publication is tried again in the background. Chosen: a store that is back has the descriptor
/// within two seconds.
const PAUSES: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(2) };
/// Pause after a refusal, which ends when somebody gives the store room, restores a password or frees the name. Chosen:
/// a person does that, for whom ten seconds are soon.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);

/// Publications of one engine: one at a time, each with the descriptor as it is when its turn has come, so that no old
/// one comes last, and one for all who wait.
pub(super) struct Publisher {
    store: Arc<dyn Store>,
    local: Arc<Local>,
    /// Changes so far.
    pub wanted: AtomicU64,
    /// Held by whoever publishes.
    pub turn: tokio::sync::Mutex<Outcome>,
    /// The background tries until the store has the last change.
    pub settling: AtomicBool,
    /// Ends the pause of the background.
    pub changed: Notify,
    log: RateLimit,
}

/// How the last publication ended.
pub(super) struct Outcome {
    /// The changes it carried.
    pub upto: u64,
    pub result: Result<()>,
}

impl Publisher {
    /// Nothing is published yet.
    pub(super) fn new(store: Arc<dyn Store>, local: Arc<Local>) -> Arc<Self> {
        Arc::new(Publisher {
            store,
            local,
            wanted: AtomicU64::new(0),
            turn: tokio::sync::Mutex::new(Outcome { upto: 0, result: Ok(()) }),
            settling: AtomicBool::new(false),
            changed: Notify::new(),
            log: RateLimit::default(),
        })
    }

    /// Returns once the store has every change up to `change`, or refuses one that carried it.
    pub(super) async fn publish(&self, change: u64) -> Result<()> {
        let mut turn = self.turn.lock().await;
        if turn.upto >= change {
            return turn.result.clone();
        }
        let upto = self.wanted.load(SeqCst);
        let result = match self.local.descriptor() {
            Some(desc) => self.store.put(desc).await.map_err(|e| e.context("publish the descriptor")),
            None => Ok(()),
        };
        *turn = Outcome { upto, result: result.clone() };
        result
    }

    /// Publishes until the store has everything.
    pub(super) async fn settle(self: Arc<Self>) {
        let mut failures: u64 = 0;
        loop {
            // A change of its own: a publication that failed is not taken for an answer.
            let change = self.wanted.fetch_add(1, SeqCst) + 1;
            match self.publish(change).await {
                // The engine is being destroyed.
                Err(error) if error.kind() == Class::Canceled => return,
                Err(error) => {
                    if self.log.admit("publish", "") {
                        tracing::warn!("the descriptor is not published yet, trying on: {error}");
                    }
                    let next = if error.retryable() { PAUSES.pause(failures) } else { REFUSED_PAUSE };
                    // What is registered or unregistered meanwhile may be what the store takes.
                    let _ = tokio::time::timeout(next, self.changed.notified()).await;
                    failures = failures.saturating_add(1);
                    continue;
                }
                Ok(()) => {}
            }
            self.settling.store(false, SeqCst);
            if self.wanted.load(SeqCst) == change || self.settling.swap(true, SeqCst) {
                return;
            }
        }
    }
}
