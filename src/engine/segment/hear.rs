//! How an open segment hears of changes: the store tells, or the descriptor is read again in the background.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::Arc;

use super::{Known, Segment};
use crate::metadata::Change;
use crate::runtime::control::Control;

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

    fn hear(self: &Arc<Self>, change: Change, control: &Control) {
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
                self.freshness.latest.store(0, SeqCst);
                self.refresh_soon(control);
            }
        }
    }

    fn refresh_soon(self: &Arc<Self>, control: &Control) {
        if self.freshness.awaited.swap(true, SeqCst) {
            return;
        }
        let (segment, reading) = (self.clone(), self.freshness.reading.clone());
        control.spawn(async move {
            // The semaphore is never closed.
            let _turn = reading.acquire().await;
            segment.freshness.awaited.store(false, SeqCst);
            if let Err(error) = segment.refresh().await {
                tracing::debug!("descriptor of '{}' not read again: {error}", segment.opened_as);
            }
        });
    }
}
