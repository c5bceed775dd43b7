//! How an open segment hears of changes: the store tells, or the descriptor is read again in the background.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::Arc;
use std::time::Duration;

use super::{Known, Segment};
use crate::error::{Class, Result};
use crate::metadata::Change;
use crate::runtime::backoff::Backoff;
use crate::runtime::control::Control;

/// Pauses before a descriptor is read again that the store has no news of and could not be read. Chosen: a store that is back is asked
/// within ten seconds, and one that is not has little of it.
const PAUSES: Backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(10) };

impl Segment {
    /// Asks the store to tell of changes, if it can.
    pub(crate) fn start_watch(self: &Arc<Self>, control: &Arc<Control>) {
        let since = self.known().revision;
        let (me, of) = (Arc::downgrade(self), Arc::downgrade(control));
        let changed = Box::new(move |change| {
            let (Some(segment), Some(control)) = (me.upgrade(), of.upgrade()) else { return };
            segment.hear(change, &control);
        });
        let _ = self
            .freshness
            .watch
            .get_or_try_init(|| self.store.watch(&self.opened_as, since, changed).ok_or(()));
    }

    /// Reads a descriptor that is in use and old again, in the background.
    pub(crate) fn revalidate(self: &Arc<Self>, control: &Control) {
        if self.freshness.is_due() {
            self.refresh_soon(control);
        }
    }

    pub(super) fn hear(self: &Arc<Self>, change: Change, control: &Control) {
        match change {
            Change::To(desc, revision) => match Known::new(*desc, revision) {
                Ok(known) => self.replace(known, self.begin_reading()),
                Err(error) if self.freshness.log.admit("watch", &self.opened_as) => {
                    tracing::warn!("the new descriptor of '{}' is not used: {error}", self.opened_as);
                }
                Err(_) => {}
            },
            // What comes next may come later than the owner's new start, so opening the segment again asks.
            Change::Gone => self.suspect(),
            Change::Unknown => {
                // The store may have begun to count anew.
                self.newest.lock().forget_revisions(self.readings.last());
                self.refresh_soon(control);
            }
        }
    }

    /// Reads the descriptor in the background. One that the store could not tell of is read until the store has answered.
    fn refresh_soon(self: &Arc<Self>, control: &Control) {
        if self.freshness.awaited.swap(true, SeqCst) {
            return;
        }
        let mut segment = self.clone();
        control.spawn(async move {
            let mut failures = 0;
            while let Err(error) = segment.read_in_background().await {
                tracing::debug!("descriptor of '{}' not read again: {error}", segment.opened_as);
                let is_absent = error.kind() == Class::Metadata;
                if is_absent || !segment.newest.lock().is_unknown() {
                    return;
                }
                // A pause must not keep the segment.
                let waits = Arc::downgrade(&segment);
                drop(segment);
                tokio::time::sleep(PAUSES.pause(failures)).await;
                failures = failures.saturating_add(1);
                let Some(still) = waits.upgrade() else { return };
                if !still.newest.lock().is_unknown() || still.freshness.awaited.swap(true, SeqCst) {
                    return;
                }
                segment = still;
            }
        });
    }

    /// In its turn among those of this segment, and of the engine.
    async fn read_in_background(&self) -> Result<()> {
        let _own = self.freshness.background.lock().await;
        // The semaphore is never closed.
        let _turn = self.freshness.reading.acquire().await;
        self.freshness.awaited.store(false, SeqCst);
        self.refresh().await
    }
}
