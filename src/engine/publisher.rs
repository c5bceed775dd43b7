//! Publishing the descriptor in the store. Where peers ask the engine itself there is nothing to publish.

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

/// Publications of one engine. One runs at a time, with the descriptor as it is then, so an old one never comes last;
/// it answers every call that waits.
pub(super) struct Publisher {
    store: Arc<dyn Store>,
    local: Arc<Local>,
    /// Changes so far.
    pub wanted: AtomicU64,
    /// Held by whoever publishes.
    pub turn: tokio::sync::Mutex<Outcome>,
    /// A background task is at work until the store has the last change.
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
            Ok(Some(desc)) => self.store.put(desc).await.map_err(|e| e.context("publish the descriptor")),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        *turn = Outcome { upto, result: result.clone() };
        result
    }

    /// Publishes until the store has everything.
    pub(super) async fn settle(self: Arc<Self>) {
        let mut failures: u64 = 0;
        loop {
            // A change number of its own, so that a publication that failed before is not taken for the answer.
            let change = self.wanted.fetch_add(1, SeqCst) + 1;
            match self.publish(change).await {
                // The engine is being destroyed.
                Err(error) if error.kind() == Class::Canceled => return,
                Err(error) => {
                    if self.log.admit("publish", "") {
                        tracing::warn!("the descriptor is not published yet and is tried again: {error}");
                    }
                    let next = if error.retryable() { PAUSES.pause(failures) } else { REFUSED_PAUSE };
                    // A change ends the pause: the store may take the descriptor as it is then.
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
