//! One completion queue, polled by whoever asks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;

use super::attention::Attention;
use super::credit::Credit;
use super::places::Places;
use super::queue::{Queue, Retired};
use super::verbs::{Channel, Context, Cq, Qp, Wc};
use crate::error::Result;

/// Completions taken from the queue at a time. Upstream's value; 3 KiB.
const BATCH: usize = 64;

/// A completion queue of a NIC. Any thread.
pub(super) struct Completions {
    cq: Arc<Cq>,
    credit: Arc<Credit>,
    /// Guards polling together with retiring: two pollers would retire out of order.
    poller: Mutex<Poller>,
    places: Arc<Places<Queue>>,
    busy: Arc<Attention<Queue>>,
    /// Where `some` goes on.
    next: AtomicUsize,
}

struct Poller {
    wcs: Box<[Wc]>,
    retired: Retired,
}

/// Hears what a poll found; called without any lock of the completion queue but the poller's.
pub(super) trait Retire {
    /// Work requests of `queue` are retired; the callee empties `retired`. `drained`: the queue is stopped and empty.
    fn retired(&mut self, queue: &Arc<Queue>, retired: &mut Retired, drained: bool);
}

impl Completions {
    /// A queue of `depth` entries that signals `channel`.
    pub(super) fn open(
        context: &Arc<Context>,
        depth: u32,
        channel: &Arc<Channel>,
        vector: u32,
    ) -> Result<Self> {
        Ok(Completions {
            cq: Cq::create(context, depth, channel, vector)?,
            credit: Arc::new(Credit::new(depth)),
            poller: Mutex::new(Poller {
                wcs: vec![Wc::default(); BATCH].into_boxed_slice(),
                retired: Retired::default(),
            }),
            places: Arc::new(Places::new()),
            busy: Arc::new(Attention::new(Queue::listed)),
            next: AtomicUsize::new(0),
        })
    }

    /// The verbs object, for creating queue pairs.
    pub(super) fn cq(&self) -> &Arc<Cq> {
        &self.cq
    }

    /// Room for work requests.
    pub(super) fn credit(&self) -> &Credit {
        &self.credit
    }

    /// Asks for an event at the next completion.
    pub(super) fn arm(&self) -> Result<()> {
        self.cq.arm()
    }

    /// A queue over `qp`, which completes here and takes `depth` work requests.
    pub(super) fn attach(&self, qp: Qp, depth: usize) -> Result<Arc<Queue>> {
        Queue::new(qp, depth, &self.credit, &self.places, &self.busy)
    }

    /// Every queue.
    pub(super) fn queues(&self) -> Vec<Arc<Queue>> {
        self.places.all()
    }

    /// Those with something posted, and others that had it a moment ago.
    pub(super) fn busy(&self) -> &Attention<Queue> {
        &self.busy
    }

    /// The queues among the next `count` places of the table: those that come after the last call's, round and round.
    pub(super) fn some(&self, count: usize) -> Vec<Arc<Queue>> {
        let from = self.next.load(Ordering::Relaxed);
        let (found, next) = self.places.some(from, count);
        self.next.store(next, Ordering::Relaxed);
        found
    }

    /// Polls until the queue is empty, unless another thread does. `false` when nothing was there.
    pub(super) fn poll(&self, now_ms: impl Fn() -> u64, hear: &mut dyn Retire) -> bool {
        let Some(mut poller) = self.poller.try_lock() else { return false };
        let Poller { wcs, retired } = &mut *poller;
        let mut found = false;
        let mut last: Option<Arc<Queue>> = None;
        loop {
            let count = match self.cq.poll(wcs) {
                Ok(count) => count,
                Err(error) => {
                    tracing::error!("completion queue cannot be polled: {error}");
                    return found;
                }
            };
            if count == 0 {
                return found;
            }
            found = true;
            let now = now_ms();
            for completion in wcs.iter().take(count) {
                let key = (completion.wr_id >> 32) as u32;
                if last.as_ref().is_none_or(|queue| queue.key() != key) {
                    last = self.places.find(key);
                }
                let Some(queue) = &last else { continue };
                let number = completion.wr_id as u32;
                if let Some((retired_count, drained)) = queue.retire(number, completion, now, retired) {
                    self.credit.release(retired_count);
                    hear.retired(queue, retired, drained);
                }
            }
            if count < BATCH {
                return found;
            }
        }
    }
}
