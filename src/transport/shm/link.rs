//! The way to one peer on this host: its lane under a lock, and what is done outside of the lock: connecting, pulling, asking
//! whether the peer is alive.

mod connecting;
mod pulling;
#[cfg(test)]
mod tests;
mod watched;

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use self::pulling::CHUNK;
use super::errors;
use super::lane::{Lane, Stage};
use super::reactor::{Reactor, Watched};
use super::shared::Shared;
use crate::error::{Error, Result};
use crate::memory::Region;
use crate::runtime::epoll;
use crate::transport::host::Route;
use crate::transport::report::RailReport;
use crate::transport::slice::{canceled, Slice};
use crate::transport::Link;

/// Bytes of a slice at the most. Chosen: so that several threads share a large request, and none is at one for long.
const SLICE: u64 = 1 << 20;
/// Bytes that a submit call pulls by itself. Chosen: what takes less than the wake-up of another thread does.
const INLINE: u64 = 256 << 10;
/// How long a WRITE that was withdrawn may take to end. Chosen: a peer that runs answers within milliseconds, and whoever
/// unregisters its memory waits for it.
const WITHDRAWN_LIMIT: Duration = Duration::from_millis(500);
/// A caller that polled so lately does so still.
const POLLED_US: u64 = 1000;

/// What may be read of a lane without its lock.
const IDLE: u8 = 0;
const UP: u8 = 1;
const LOST: u8 = 2;

/// Link to one peer; kept by its segment, and by batches with work on it.
pub(super) struct ShmLink {
    me: Weak<ShmLink>,
    token: u64,
    shared: Arc<Shared>,
    reactor: Arc<Reactor>,
    route: Arc<dyn Route>,
    /// Of the lane's stage. A hint: who acts on it takes the lock.
    stage: AtomicU8,
    /// When a caller polled last, as [`Threads::now_us`](crate::runtime::reactor::threads::Threads::now_us); 0: it sleeps.
    polled: AtomicU64,
    /// The peer may have restarted since its descriptor was read.
    stale: AtomicBool,
    /// Guards the lane.
    lane: Mutex<Lane>,
    /// Guards when to try again, and what is shown.
    attempts: Mutex<Attempts>,
    /// READs that were completed.
    read: AtomicU64,
}

#[derive(Default)]
struct Attempts {
    failures: u64,
    in_a_row: u64,
    next: Option<Instant>,
    last_error: String,
}

impl ShmLink {
    /// A link without a connection; the first request, or the first question whether it leads there, makes one.
    pub(super) fn new(shared: &Arc<Shared>, route: Arc<dyn Route>) -> Arc<Self> {
        let (reactor, token) = (shared.threads.next_reactor(), shared.threads.next_token());
        let link = Arc::new_cyclic(|me| ShmLink {
            me: me.clone(),
            token,
            shared: shared.clone(),
            reactor: reactor.clone(),
            route,
            stage: AtomicU8::new(IDLE),
            polled: AtomicU64::new(0),
            stale: AtomicBool::new(false),
            lane: Mutex::new(Lane::new()),
            attempts: Mutex::default(),
            read: AtomicU64::new(0),
        });
        let watched: Weak<ShmLink> = Arc::downgrade(&link);
        reactor.adopt(token, watched);
        link
    }

    fn peer(&self) -> &str {
        self.route.peer()
    }

    /// What is shown of it.
    pub(super) fn report(&self) -> RailReport {
        let (stage, waiting, written) = {
            let lane = self.lane.lock();
            let stage = match &lane.stage {
                Stage::Idle | Stage::Closed(_) => "idle",
                Stage::Connecting | Stage::Greeting(..) => "connecting",
                Stage::Up(_) => "up",
            };
            (stage, lane.waiting(), lane.written)
        };
        let attempts = self.attempts.lock();
        let state = if stage == "idle" && attempts.next.is_some() { "paused" } else { stage };
        RailReport {
            local: super::offer::NAME.into(),
            peer: self.peer().into(),
            state,
            inflight_bytes: 0,
            waiting,
            completed: self.read.load(Relaxed) + written,
            failures: attempts.failures,
            last_error: attempts.last_error.clone(),
        }
    }

    /// Does something with the lane, then sends what can be sent; what the connection ends with is dealt with.
    fn with(&self, act: impl FnOnce(&mut Lane, &str) -> Result<bool>) -> bool {
        self.with_locked(self.lane.lock(), act)
    }

    fn with_locked(
        &self,
        mut lane: MutexGuard<'_, Lane>,
        act: impl FnOnce(&mut Lane, &str) -> Result<bool>,
    ) -> bool {
        let was_up = matches!(lane.stage, Stage::Up(_));
        let told = lane.told_by_ring;
        let outcome = act(&mut lane, self.peer()).and_then(|moved| lane.flush(self.peer()).map(|()| moved));
        if !was_up && matches!(lane.stage, Stage::Up(_)) {
            self.note_up();
        }
        if lane.told_by_ring != told {
            self.shared.stats.told_by_ring.fetch_add(lane.told_by_ring - told, Relaxed);
        }
        match outcome {
            Ok(moved) => moved,
            Err(error) => {
                self.lose(lane, &error, false);
                true
            }
        }
    }

    fn note_up(&self) {
        self.stage.store(UP, Relaxed);
        self.shared.stats.connected.fetch_add(1, Relaxed);
        let mut attempts = self.attempts.lock();
        (attempts.in_a_row, attempts.next) = (0, None);
    }

    /// Ends every use of a revoked region.
    pub(super) fn abort(&self, region: &Region) {
        let error = errors::unregistered(region);
        self.with(|lane, peer| {
            lane.abandon(|slice| slice.is_in(region), &error, peer)?;
            lane.disown_withdrawn(Instant::now(), WITHDRAWN_LIMIT);
            Ok(true)
        });
    }

    /// The thread pulls what is left.
    fn leave_reads(&self) {
        if let Some(me) = self.me.upgrade().filter(|_| self.has_reads()) {
            self.reactor.work(me);
        }
    }

    fn has_reads(&self) -> bool {
        !self.lane.lock().reads.is_empty()
    }

    fn is_polled(&self) -> bool {
        let polled = self.polled.load(Relaxed);
        polled != 0 && self.shared.threads.now_us().saturating_sub(polled) < POLLED_US
    }

    fn arm(&self) {
        let lane = self.lane.lock();
        if let Stage::Up(connection) | Stage::Greeting(connection, _) = &lane.stage {
            let interest = epoll::IN | epoll::ONESHOT;
            self.reactor.rewatch(connection.socket.as_raw_fd(), self.token, interest);
        }
    }
}

impl Link for ShmLink {
    /// While it is not known whether the peer can be reached so, that is found out.
    fn leads(&self) -> bool {
        if self.stage.load(Relaxed) == UP {
            return true;
        }
        let due = self.attempts.lock().next.is_none_or(|next| Instant::now() >= next);
        if due {
            let mut lane = self.lane.lock();
            if matches!(lane.stage, Stage::Idle) {
                self.connect(&mut lane);
            }
        }
        false
    }

    fn grain(&self, _: u64, _: u64, _: u64) -> u64 {
        SLICE
    }

    fn submit(&self, slices: Vec<Slice>, incarnation: u64) {
        if self.reactor.is_dead() {
            self.abandon();
        }
        let mut lane = self.lane.lock();
        if let Stage::Closed(error) = &lane.stage {
            let error = error.clone();
            drop(lane);
            return slices.into_iter().for_each(|slice| slice.fail(error.clone()));
        }
        lane.admit(slices, incarnation);
        if matches!(lane.stage, Stage::Idle) {
            self.connect(&mut lane);
        }
        self.with_locked(lane, |lane, peer| {
            lane.sort(peer);
            Ok(true)
        });
        // Small ones at once; of many, as much as a wake-up of another thread would take.
        let mut pulled = 0;
        loop {
            match self.pull_some(INLINE - pulled) {
                0 => break,
                bytes => pulled += bytes.min(INLINE - pulled),
            }
        }
        self.leave_reads();
    }

    fn poll(&self) -> bool {
        let now_us = self.shared.threads.now_us();
        self.polled.store(now_us, Relaxed);
        let moved = match self.lane.try_lock() {
            Some(lane) if !lane.expects() => false,
            Some(lane) => self.with_locked(lane, |lane, peer| lane.receive_polled(now_us, peer)),
            None => false,
        };
        (self.pull_some(CHUNK) > 0) | moved
    }

    fn rely_on_threads(&self) {
        self.polled.store(0, Relaxed);
        self.with(|lane, peer| match lane.sleep() {
            true => lane.receive_by_ring(peer),
            false => Ok(false),
        });
        self.arm();
        self.leave_reads();
    }

    fn give_up(&self) {
        self.with(|lane, peer| {
            lane.abandon(Slice::is_given_up, &canceled(), peer)?;
            Ok(true)
        });
    }

    fn peer_lives(&self) -> Option<bool> {
        match self.stage.load(Relaxed) {
            UP => Some(true),
            LOST => Some(false),
            _ => None,
        }
    }

    fn close(&self, error: &Error) {
        let mut lane = self.lane.lock();
        if matches!(lane.stage, Stage::Closed(_)) {
            return;
        }
        if let Stage::Up(connection) | Stage::Greeting(connection, _) = &lane.stage {
            self.reactor.unwatch(connection.socket.as_raw_fd());
        }
        self.stage.store(LOST, Relaxed);
        let gone = lane.take_down(error, true, Stage::Closed(error.clone()));
        // Nobody waits for the peer's word any more.
        let lingering = std::mem::take(&mut lane.lingering);
        drop(lane);
        drop((gone, lingering));
        self.reactor.forget(self.token);
    }
}

impl Drop for ShmLink {
    fn drop(&mut self) {
        self.close(&errors::closed());
    }
}
