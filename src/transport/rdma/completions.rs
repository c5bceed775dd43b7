//! One completion queue: credit for posting, the table from work-request numbers to queues, and polling by whoever asks.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;

use super::queue::{Queue, Retired};
use super::verbs::{Channel, Context, Cq, Wc};
use crate::error::{Code, Error, Result};

/// Completions taken from the queue at a time.
const BATCH: usize = 64;
/// Bits of a key that say the place; the others are the generation.
const PLACE_BITS: u32 = 20;

/// A completion queue of a NIC. Any thread.
pub struct Completions {
    cq: Arc<Cq>,
    depth: i64,
    /// Work requests that may still be posted. Counted in work requests, not in signalled ones: a flush makes a
    /// completion for each, and a queue that overruns takes all its queue pairs down.
    free: AtomicI64,
    /// Guards polling together with retiring: two pollers would retire out of order.
    poller: Mutex<Poller>,
    /// Guards the table of queues.
    table: Mutex<Table>,
}

struct Poller {
    wcs: Box<[Wc]>,
    retired: Retired,
}

#[derive(Default)]
struct Table {
    queues: Vec<Place>,
    vacant: Vec<u32>,
}

struct Place {
    generation: u32,
    queue: Option<Arc<Queue>>,
}

/// Hears what a poll found; called without any lock of the completion queue but the poller's.
pub trait Retire {
    /// `count` work requests of `queue` are retired. `done` and `lost` are to be emptied.
    /// `drained`: the queue is stopped and empty.
    fn retired(&mut self, queue: &Arc<Queue>, retired: &mut Retired, drained: bool);
}

impl Completions {
    /// A queue of `depth` entries that signals `channel`.
    pub fn open(context: &Arc<Context>, depth: u32, channel: &Arc<Channel>, vector: u32) -> Result<Self> {
        Ok(Completions {
            cq: Cq::create(context, depth, channel, vector)?,
            depth: i64::from(depth),
            free: AtomicI64::new(i64::from(depth)),
            poller: Mutex::new(Poller {
                wcs: vec![Wc::default(); BATCH].into_boxed_slice(),
                retired: Retired::default(),
            }),
            table: Mutex::default(),
        })
    }

    /// The verbs object, for creating queue pairs.
    pub fn cq(&self) -> &Arc<Cq> {
        &self.cq
    }

    /// Takes credit for up to `wanted` work requests; how many may be posted.
    pub fn reserve(&self, wanted: usize) -> usize {
        let wanted = wanted as i64;
        let left = self.free.fetch_sub(wanted, Ordering::SeqCst) - wanted;
        let missing = (-left).clamp(0, wanted);
        if missing > 0 {
            self.free.fetch_add(missing, Ordering::SeqCst);
        }
        (wanted - missing) as usize
    }

    /// Gives credit back.
    pub fn release(&self, count: usize) {
        self.free.fetch_add(count as i64, Ordering::SeqCst);
    }

    /// Work requests under way.
    pub fn outstanding(&self) -> usize {
        (self.depth - self.free.load(Ordering::SeqCst)).max(0) as usize
    }

    /// Asks for an event at the next completion.
    pub fn arm(&self) -> Result<()> {
        self.cq.arm()
    }

    /// Enters a new queue, which is told its key.
    pub fn attach(&self, make: impl FnOnce(u32) -> Queue) -> Result<Arc<Queue>> {
        let mut table = self.table.lock();
        let place = match table.vacant.pop() {
            Some(place) => place,
            None if table.queues.len() < 1 << PLACE_BITS => {
                table.queues.push(Place { generation: 0, queue: None });
                table.queues.len() as u32 - 1
            }
            None => {
                let text = "the table of queue pairs is full; lower MC_MAX_EP_PER_CTX";
                return Err(Error::new(Code::Endpoint, text));
            }
        };
        let entry = &mut table.queues[place as usize];
        entry.generation = entry.generation.wrapping_add(1);
        let queue = Arc::new(make(entry.generation << PLACE_BITS | place));
        entry.queue = Some(queue.clone());
        Ok(queue)
    }

    /// Takes a queue out; completions with its key are stale from now on.
    pub fn detach(&self, queue: &Queue) {
        let place = queue.key() & ((1 << PLACE_BITS) - 1);
        let mut table = self.table.lock();
        let taken = table.queues.get_mut(place as usize).and_then(|entry| match &entry.queue {
            // Keys come round again after 4096 generations.
            Some(held) if std::ptr::eq(&**held, queue) => entry.queue.take(),
            _ => None,
        });
        if taken.is_some() {
            table.vacant.push(place);
        }
        drop(table);
        drop(taken);
    }

    fn find(&self, key: u32) -> Option<Arc<Queue>> {
        let place = key & ((1 << PLACE_BITS) - 1);
        let table = self.table.lock();
        let queue = table.queues.get(place as usize)?.queue.as_ref()?;
        (queue.key() == key).then(|| queue.clone())
    }

    /// Every queue.
    pub fn queues(&self) -> Vec<Arc<Queue>> {
        self.table.lock().queues.iter().filter_map(|place| place.queue.clone()).collect()
    }

    /// Polls until the queue is empty, unless another thread does. `false` when nothing was there.
    pub fn poll(&self, now_ms: impl Fn() -> u64, hear: &mut dyn Retire) -> bool {
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
                    last = self.find(key);
                }
                let Some(queue) = &last else { continue };
                let number = completion.wr_id as u32;
                if let Some((retired_count, drained)) = queue.retire(number, completion, now, retired) {
                    self.release(retired_count);
                    hear.retired(queue, retired, drained);
                }
            }
            if count < BATCH {
                return found;
            }
        }
    }
}
