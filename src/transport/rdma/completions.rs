//! One completion queue, polled by whoever asks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;

use super::attention::Attention;
use super::credit::Credit;
use super::places::Places;
use super::queue::{Queue, Retired};
use super::verbs::{wc, Channel, Context, Cq, Qp, Wc};
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

    /// Polls until the queue is empty. `Some(false)` when nothing was there; `None`: another thread does it.
    pub(super) fn poll(&self, now_ms: impl Fn() -> u64, hear: &mut dyn Retire) -> Option<bool> {
        let mut poller = self.poller.try_lock()?;
        let Poller { wcs, retired } = &mut *poller;
        let mut found = false;
        let mut last: Option<Arc<Queue>> = None;
        loop {
            let count = match self.cq.poll(wcs) {
                Ok(count) => count,
                Err(error) => {
                    tracing::error!("completion queue cannot be polled: {error}");
                    return Some(found);
                }
            };
            if count == 0 {
                return Some(found);
            }
            found = true;
            let now = now_ms();
            let mut completions = wcs.iter().take(count).peekable();
            while let Some(completion) = completions.next() {
                if completions.peek().is_some_and(|next| tells_all(next, completion)) {
                    continue;
                }
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
                return Some(found);
            }
        }
    }
}

/// `next` also tells what `this` does: both are good, and of one queue pair, which retires everything up to the later one.
#[inline]
fn tells_all(next: &Wc, this: &Wc) -> bool {
    let good = this.status == wc::SUCCESS && next.status == wc::SUCCESS;
    let same = next.wr_id >> 32 == this.wr_id >> 32;
    let later = (next.wr_id as u32).wrapping_sub(this.wr_id as u32) as i32 > 0;
    good && same && later
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_later_good_completion_of_the_same_queue_pair_tells_all_of_another() {
        let of = |wr_id: u64, status: u32| {
            let mut completion = Wc::default();
            (completion.wr_id, completion.status) = (wr_id, status);
            completion
        };
        let this = of(7 << 32 | 5, wc::SUCCESS);
        assert!(tells_all(&of(7 << 32 | 6, wc::SUCCESS), &this));
        assert!(tells_all(&of(7 << 32 | 1, wc::SUCCESS), &of(7 << 32 | 0xffff_fff0, wc::SUCCESS)));
        for other in [
            of(7 << 32 | 5, wc::SUCCESS),
            of(7 << 32 | 4, wc::SUCCESS),
            of(8 << 32 | 6, wc::SUCCESS),
            of(7 << 32 | 6, wc::WR_FLUSH_ERR),
        ] {
            assert!(!tells_all(&other, &this), "{other:?}");
        }
        assert!(!tells_all(&of(7 << 32 | 6, wc::SUCCESS), &of(7 << 32 | 5, wc::WR_FLUSH_ERR)));
    }
}
