//! The queue pairs between one local NIC and one NIC of a peer. A connection is never used again after a failure: a
//! new one with new numbers takes its place.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::flight::Flight;
use super::gid::LocalGid;
use super::nic::Nic;
use super::queue::{Limits, Owner, Queue, State};
use super::share::{self, PORTION};
use super::verbs::{Caps, Chain, Path};
use crate::config::Config;
use crate::error::{Error, Result};

/// Hop limit of packets; upstream's value.
const HOP_LIMIT: u8 = 16;
/// Work requests that one queue pair is given before the next one gets any: each more costs a doorbell. Chosen: a full
/// chain.
const MIN_SHARE: usize = 64;

/// A set of queue pairs.
pub(super) struct Connection {
    /// At least one.
    pub queues: Vec<Arc<Queue>>,
    /// The peer's numbers, once the queue pairs are connected to them.
    peer: OnceLock<Vec<u32>>,
    /// The GID it was made with.
    pub gid: LocalGid,
    /// Incarnation of the peer as a number; 0 if unknown.
    pub incarnation: AtomicU64,
    /// Why it was given up.
    cause: OnceLock<Error>,
    /// Probes that have to arrive before the connection counts as proved.
    unproved: AtomicUsize,
    /// Guards the number of queue pairs that got their probe.
    probed: Mutex<usize>,
}

/// A connection equals itself only.
impl PartialEq for Connection {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

/// The other end, for bringing the queue pairs up.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    /// GID of the peer's NIC.
    pub gid: [u8; 16],
    /// LID of its port.
    pub lid: u16,
    /// Path MTU, bytes.
    pub mtu: u32,
    /// Its queue pair numbers, as many as ours.
    pub qp_numbers: Vec<u32>,
}

/// Threads that posted so far.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The queue pair of each connection with which this thread begins. So threads seldom meet on one, and a thread does
    /// not spread what a single queue pair can carry.
    static HOME: usize = THREADS.fetch_add(1, Relaxed);
    /// Work requests on their way from a ring to the NIC.
    static CHAIN: RefCell<Box<Chain>> = RefCell::new(Chain::new());
}

impl Connection {
    /// `count` queue pairs in state INIT; `owner` makes what they belong to. Blocks on the driver.
    pub(super) fn open(
        nic: &Nic,
        config: &Config,
        count: usize,
        gid: LocalGid,
        owner: impl FnOnce(&Arc<Self>) -> Arc<dyn Owner>,
    ) -> Result<Arc<Self>> {
        let caps = Caps {
            max_wr: config.max_wr.min(nic.limits.max_qp_wr.max(1)),
            max_sge: config.max_sge.min(nic.limits.max_sge.max(1)),
            max_inline: config.max_inline,
        };
        let mut queues: Vec<Arc<Queue>> = Vec::new();
        queues.try_reserve_exact(count).map_err(|_| Error::out_of_memory("queue pairs"))?;
        for _ in 0..count {
            match nic.open_queue(&caps) {
                Ok(queue) => queues.push(queue),
                Err(error) => {
                    queues.iter().for_each(|queue| drop(queue.destroy()));
                    return Err(error);
                }
            }
        }
        let connection = Arc::new(Connection {
            queues,
            peer: OnceLock::new(),
            gid,
            incarnation: AtomicU64::new(0),
            cause: OnceLock::new(),
            unproved: AtomicUsize::new(count),
            probed: Mutex::new(0),
        });
        let owner = owner(&connection);
        connection.queues.iter().for_each(|queue| queue.set_owner(owner.clone()));
        Ok(connection)
    }

    /// Our queue pair numbers.
    pub(super) fn numbers(&self) -> Vec<u32> {
        self.queues.iter().map(|queue| queue.number()).collect()
    }

    /// The peer's numbers; `None` before `connect`.
    pub(super) fn peer_numbers(&self) -> Option<&[u32]> {
        self.peer.get().map(Vec::as_slice)
    }

    /// Connects every queue pair. Blocks on the driver.
    pub(super) fn connect(&self, nic: &Nic, config: &Config, to: &Remote) -> Result<()> {
        for (queue, number) in self.queues.iter().zip(&to.qp_numbers) {
            queue.connect(&self.path(nic, config, to, *number), nic.rd_atomic)?;
        }
        let _ = self.peer.set(to.qp_numbers.clone());
        Ok(())
    }

    /// The way to one of the peer's queue pairs.
    pub(super) fn path(&self, nic: &Nic, config: &Config, to: &Remote, qp_number: u32) -> Path {
        Path {
            port: nic.port_number,
            mtu: to.mtu,
            gid: to.gid,
            sgid_index: self.gid.index,
            hop_limit: HOP_LIMIT,
            traffic_class: config.traffic_class,
            service_level: config.service_level,
            lid: to.lid,
            qp_number,
            rd_atomic: nic.rd_atomic,
        }
    }

    /// Posts from the front of `flights` what there is room for and what suits the peer's incarnation, and no more than the
    /// first that make `most` bytes: on this thread's queue pair, and on the others where it has clearly more to do than
    /// they, or is full. Returns the bytes. An error when a queue pair refused: the connection is to be given up.
    pub(super) fn post(
        &self,
        flights: &mut VecDeque<Flight>,
        most: u64,
        now_ns: u64,
    ) -> std::result::Result<u64, i32> {
        let count = self.queues.len();
        let share = flights.len().div_ceil(count).max(MIN_SHARE);
        let first = HOME.with(|home| *home);
        let incarnation = self.incarnation.load(Relaxed);
        let (mut place, mut full, mut bytes) = (0, 0, 0);
        CHAIN.with_borrow_mut(|chain| {
            for turn in 0.. {
                if flights.is_empty() || full == count || bytes >= most {
                    break;
                }
                place = match full {
                    0 => share::choose((first + turn) % count, count, |place| self.queues[place].bytes()),
                    // Whatever it has to do.
                    _ => (place + 1) % count,
                };
                let limits = Limits { count: share, bytes: PORTION.min(most - bytes) };
                match self.queues[place].post(flights, limits, incarnation, chain, now_ns)? {
                    Some(posted) => (full, bytes) = (0, bytes + posted),
                    None => full += 1,
                }
            }
            Ok(bytes)
        })
    }

    /// Bytes under way.
    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        self.queues.iter().map(|queue| queue.bytes()).sum()
    }

    /// Posts a probe on every queue pair, because each has to prove itself; one that got its probe earlier gets no
    /// other. `false`: some got none for lack of credit.
    pub(super) fn post_probes(&self, now_ns: u64) -> std::result::Result<bool, i32> {
        let mut probed = self.probed.lock();
        CHAIN.with_borrow_mut(|chain| {
            while let Some(queue) = self.queues.get(*probed) {
                let probe = Limits { count: 1, bytes: PORTION };
                if queue.post(&mut VecDeque::from([Flight::probe()]), probe, 0, chain, now_ns)?.is_none() {
                    return Ok(false);
                }
                *probed += 1;
            }
            Ok(true)
        })
    }

    /// One more probe arrived; true for the last one.
    pub(super) fn note_proof(&self) -> bool {
        self.unproved.fetch_sub(1, Relaxed) == 1
    }

    /// Nothing is posted on it.
    pub(super) fn is_idle(&self) -> bool {
        self.queues.iter().all(|queue| queue.outstanding() == 0)
    }

    /// Stops all queue pairs, because of `cause` unless it has another one already. Returns those with nothing posted,
    /// which are to be destroyed.
    pub(super) fn stop(&self, cause: Error, now_ms: u64) -> Vec<&Arc<Queue>> {
        let _ = self.cause.set(cause);
        self.queues.iter().filter(|queue| queue.stop(now_ms)).collect()
    }

    /// As [`Self::stop`], and destroys those. No packet of the peer gets through any more when this returns, also where
    /// another thread has begun with it. Blocks on the driver.
    pub(super) fn give_up(&self, cause: Error, now_ms: u64) {
        self.stop(cause, now_ms).into_iter().for_each(|queue| drop(queue.destroy()));
    }

    /// Why it was given up.
    pub(super) fn cause(&self) -> Option<&Error> {
        self.cause.get()
    }

    /// It was not given up and no queue pair stopped.
    pub(super) fn is_open(&self) -> bool {
        self.cause.get().is_none() && self.queues.iter().all(|queue| queue.state() == State::Open)
    }
}
