//! Room in a batch, and what a submit call puts there.

use std::sync::Arc;

use super::{check_live, Batch, Pending};
use crate::engine::deliveries::Delivery;
use crate::engine::segment::Segment;
use crate::error::{Error, Result};
use crate::runtime::sync::atomic::Ordering;
use crate::transport::slice::Work;
use crate::transport::Link;

/// Places in a batch for one submit call; given back unless committed.
pub struct Reservation<'a> {
    pub(super) batch: &'a Batch,
    pub(super) count: usize,
}

impl Reservation<'_> {
    /// Adds the call's tasks, of which `running` have slices. The caller posts those afterwards.
    #[inline]
    pub(in crate::engine) fn commit(
        mut self,
        work: &Arc<Work>,
        running: usize,
        ways: &[(Arc<dyn Link>, Arc<Segment>)],
        notification: Option<Pending>,
    ) -> Result<()> {
        let batch = self.batch;
        let mut inner = batch.inner.lock();
        // Its engine was destroyed meanwhile: what is added now nobody would ever let go of.
        check_live(&inner)?;
        let fits = inner.works.try_reserve(1).is_ok()
            && inner.links.try_reserve(ways.len()).is_ok()
            && inner.polled.try_reserve(ways.len()).is_ok()
            && inner.segments.try_reserve(ways.len()).is_ok();
        fits.then_some(()).ok_or_else(|| Error::out_of_memory("a submit call"))?;
        inner.reserved -= std::mem::take(&mut self.count);
        let first = inner.tasks;
        inner.works.push((first, work.clone()));
        inner.tasks += work.tasks.len();
        for (link, segment) in ways {
            inner.add_link(link);
            if !inner.segments.iter().any(|known| Arc::ptr_eq(known, segment)) {
                inner.segments.push(segment.clone());
            }
        }
        if notification.is_some() {
            inner.notification = notification;
            inner.delivery = Delivery::Held;
            batch.has_notification.store(true, Ordering::Release);
        }
        batch.add_pending(running);
        Ok(())
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.count > 0 {
            self.batch.inner.lock().reserved -= self.count;
        }
    }
}
