//! Notifications on their way: whoever polls a batch hands one over and goes on, and the control plane delivers it.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::error::Error;

/// What became of a batch's notification.
#[derive(Clone, Debug, Default)]
pub enum Delivery {
    /// The batch has none.
    #[default]
    None,
    /// Tasks are still running, or one failed, after which it is never sent.
    Held,
    /// All tasks are COMPLETED, and it is on its way.
    Sending,
    /// The target has taken it.
    Delivered,
    /// It was not taken.
    Lost(Error),
}

/// How many are on their way, so that `destroy` can wait for them.
#[derive(Default)]
pub(super) struct Deliveries {
    under_way: Mutex<usize>,
    ended: Condvar,
}

impl Deliveries {
    /// Counts one until the result is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        *self.under_way.lock() += 1;
        UnderWay(self.clone())
    }

    /// Sleeps until none is under way, or `deadline`.
    pub(super) fn wait(&self, deadline: Instant) {
        let mut count = self.under_way.lock();
        while *count > 0 {
            if self.ended.wait_until(&mut count, deadline).timed_out() {
                return;
            }
        }
    }
}

/// One notification on its way.
pub(super) struct UnderWay(Arc<Deliveries>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.0.under_way.lock() -= 1;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wait_ends_with_the_last_one_or_at_its_deadline() {
        let deliveries = Arc::new(Deliveries::default());
        deliveries.wait(Instant::now());
        let (one, two) = (deliveries.begin(), deliveries.begin());
        let deadline = Instant::now() + Duration::from_millis(10);
        deliveries.wait(deadline);
        assert!(Instant::now() >= deadline);
        drop(one);
        std::thread::scope(|scope| {
            scope.spawn(|| deliveries.wait(Instant::now() + Duration::from_secs(60)));
            drop(two);
        });
        assert_eq!(*deliveries.under_way.lock(), 0);
    }
}
