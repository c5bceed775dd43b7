//! The way to one peer: what waits until its process is proven, and for the thread.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::errors;
use super::offer::{PosixShmOffer, NAME};
use super::picked;
use super::reached::Reached;
use super::shared::Shared;
use super::watch::watch;
use super::worker::Work;
use crate::error::{Class, Error, Result};
use crate::memory::Region;
use crate::runtime::clock;
use crate::transport::host::Route;
use crate::transport::links::stopping;
use crate::transport::report::RailReport;
use crate::transport::slice::{canceled, Ends, Slice};
use crate::transport::Link;

/// Bytes of a slice at the most. Chosen: some 0.2 ms of copying, after which others have their turn and whoever unregisters the
/// memory need not wait longer.
const SLICE: u64 = 1 << 20;
/// Bytes that a submit call copies by itself. Chosen: what takes less than the wake-up of another thread does.
const INLINE: u64 = 256 << 10;
/// How long it may take to find the peer's process: a store may have to be asked.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// How often what waits is looked at meanwhile.
const SWEEP: Duration = Duration::from_millis(100);
/// How long a call is refused at once after the peer was not proven to be here. Chosen: a look takes milliseconds.
const PAUSE: Duration = Duration::from_secs(1);

/// Link to one peer; kept by its segment, and by batches with work on it.
pub(super) struct PosixShmLink {
    me: Weak<PosixShmLink>,
    /// Of the transport.
    shared: Arc<Shared>,
    /// To the peer.
    route: Arc<dyn Route>,
    /// Slices completed.
    completed: AtomicU64,
    /// The descriptor is being read again.
    rereading: AtomicBool,
    /// Guards what waits, and for what.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stage: Stage,
    /// Each with the process that it was checked for.
    waiting: VecDeque<(Slice, u64)>,
    /// The thread has it on its list.
    is_listed: bool,
    /// When what waits was looked at.
    swept: Option<Instant>,
    /// The descriptor may be of a process that has ended.
    is_stale: bool,
    /// Why the peer was not proven to be here, and until when nobody looks again.
    refused: Option<(Error, Instant)>,
    failures: u64,
    last_error: String,
}

#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    Looking,
    Up(Arc<Reached>),
    Closed(Error),
}

impl PosixShmLink {
    /// A link that knows nothing of the peer's process; the first request looks for it.
    pub(super) fn new(shared: &Arc<Shared>, route: Arc<dyn Route>) -> Arc<Self> {
        Arc::new_cyclic(|me| PosixShmLink {
            me: me.clone(),
            shared: shared.clone(),
            route,
            completed: AtomicU64::new(0),
            rereading: AtomicBool::new(false),
            state: Mutex::default(),
        })
    }

    /// The peer's name, for messages.
    fn peer(&self) -> &str {
        self.route.peer()
    }

    /// What is shown of it.
    pub(super) fn report(&self) -> RailReport {
        let state = self.state.lock();
        let shown = match &state.stage {
            Stage::Looking => "connecting",
            Stage::Up(_) => "up",
            Stage::Idle | Stage::Closed(_) if state.refused.is_some() => "paused",
            Stage::Idle | Stage::Closed(_) => "idle",
        };
        RailReport {
            local: NAME.into(),
            peer: self.peer().into(),
            state: shown,
            inflight_bytes: 0,
            waiting: state.waiting.len(),
            completed: self.completed.load(Relaxed),
            failures: state.failures,
            last_error: state.last_error.clone(),
        }
    }

    /// Copies the slice, which was checked for the peer's process `checked_for`, and finishes it. It is completed only if the
    /// process is still there afterwards.
    fn carry(&self, slice: Slice, checked_for: u64, reached: &Arc<Reached>, ends: &mut Ends) {
        if let Some(error) = self.unwanted(&slice) {
            return slice.fail(error);
        }
        if slice.is_revoked() {
            return slice.fail_revoked();
        }
        if is_other(checked_for, reached) {
            return slice.fail(errors::restarted(self.peer()));
        }
        let offered = self.route.offer();
        let offer = offered.offer.as_ref().and_then(|offer| PosixShmOffer::of(&**offer));
        let outcome = reached.copy(&slice, offer, self.peer());
        let me = self.me.clone();
        let lose = move |reached: &Arc<Reached>, error: &Error| {
            me.upgrade().into_iter().for_each(|link| link.lose(reached, error));
        };
        watch(&self.shared.control, reached, self.peer(), lose);
        if !reached.is_alive() {
            let error = errors::ended(reached.pid(), self.peer());
            self.lose(reached, &error);
            return slice.fail(error);
        }
        match outcome {
            Ok(()) => {
                self.shared.stats.bytes.fetch_add(slice.len, Relaxed);
                self.shared.stats.slices.fetch_add(1, Relaxed);
                self.completed.fetch_add(1, Relaxed);
                ends.complete(slice, clock::now_ns());
            }
            Err(error) => {
                if error.kind() == Class::Rejected {
                    self.read_again();
                }
                slice.fail(error);
            }
        }
    }

    /// Why nobody waits for it any more.
    fn unwanted(&self, slice: &Slice) -> Option<Error> {
        if slice.is_given_up() {
            return Some(canceled());
        }
        let is_late = slice.work().deadline().is_some_and(|deadline| Instant::now() >= deadline);
        is_late.then(|| errors::late(self.peer()))
    }

    /// Ends every use of a revoked region. What is being copied ends by itself, within one slice.
    pub(super) fn abort(&self, region: &Region) {
        self.end_those(|slice| slice.is_in(region), Slice::fail_revoked);
    }

    /// Fails what nobody waits for any more.
    fn sweep(&self) {
        let is_meant = |slice: &Slice| self.unwanted(slice).is_some();
        self.end_those(is_meant, |slice| {
            let error = self.unwanted(&slice).unwrap_or_else(|| errors::late(self.peer()));
            slice.fail(error);
        });
    }

    /// Ends what waits and is meant. Without the lock: whoever hears of it may come back.
    fn end_those(&self, is_meant: impl Fn(&Slice) -> bool, end: impl Fn(Slice)) {
        loop {
            let (out, is_all) =
                picked::take_out(&mut self.state.lock().waiting, |(slice, _)| is_meant(slice));
            out.into_iter().for_each(|(slice, _)| end(slice));
            if is_all {
                return;
            }
        }
    }

    /// Looks for the peer's process, on the control plane.
    fn look(&self, state: &mut State) {
        state.stage = Stage::Looking;
        let is_stale = std::mem::take(&mut state.is_stale);
        let (shared, route) = (self.shared.clone(), self.route.clone());
        let guard = Looking(Some(self.me.clone()));
        self.shared.control.spawn(async move {
            let mut found = std::pin::pin!(tokio::time::timeout(
                LOOK_LIMIT,
                Reached::find(&shared.config, &*route, is_stale)
            ));
            let outcome = loop {
                match tokio::time::timeout(SWEEP, &mut found).await {
                    Ok(outcome) => break outcome,
                    Err(_) => guard.link().into_iter().for_each(|link| link.sweep()),
                }
            };
            guard.done(outcome.unwrap_or_else(|_| Err(errors::not_found_in_time(route.peer()))));
        });
    }

    fn looked(&self, outcome: Result<Reached>) {
        let mut state = self.state.lock();
        if !matches!(state.stage, Stage::Looking) {
            return;
        }
        match outcome {
            Ok(reached) => {
                self.shared.stats.proven.fetch_add(1, Relaxed);
                state.stage = Stage::Up(Arc::new(reached));
                let now = clock::now_ns();
                state.waiting.iter().for_each(|(slice, _)| slice.note_connected(now));
                self.have_copied(state);
            }
            Err(error) => {
                self.shared.stats.not_proven.fetch_add(1, Relaxed);
                if error.kind() == Class::Unsupported {
                    state.refused = Instant::now().checked_add(PAUSE).map(|until| (error.clone(), until));
                }
                self.fall(state, &error);
            }
        }
    }

    /// The process of `reached` is not there any more.
    fn lose(&self, reached: &Arc<Reached>, error: &Error) {
        let state = self.state.lock();
        if matches!(&state.stage, Stage::Up(current) if Arc::ptr_eq(current, reached)) {
            self.shared.stats.lost.fetch_add(1, Relaxed);
            self.fall(state, error);
        }
    }

    /// Back to the beginning: what waits fails.
    fn fall(&self, mut state: MutexGuard<'_, State>, error: &Error) {
        let stage = std::mem::replace(&mut state.stage, Stage::Idle);
        state.is_stale = true;
        state.failures += 1;
        state.last_error = error.text().to_string();
        fail_waiting(state, error);
        drop(stage);
    }

    /// Has the thread copy what waits.
    fn have_copied(&self, mut state: MutexGuard<'_, State>) {
        if state.waiting.is_empty() || state.is_listed {
            return;
        }
        let me: Weak<dyn Work> = self.me.clone();
        match self.shared.worker.add(me) {
            Ok(()) => state.is_listed = true,
            Err(error) => fail_waiting(state, &error),
        }
    }

    /// Has the descriptor read again: it lists what the peer does not have.
    fn read_again(&self) {
        if self.rereading.swap(true, Relaxed) {
            return;
        }
        let (route, me) = (self.route.clone(), self.me.clone());
        self.shared.control.spawn(async move {
            // If it cannot be read now, the next request that fails tries again.
            let _ = route.refresh().await;
            me.upgrade().into_iter().for_each(|link| link.rereading.store(false, Relaxed));
        });
    }
}

fn fail_waiting(mut state: MutexGuard<'_, State>, error: &Error) {
    let failed = std::mem::take(&mut state.waiting);
    drop(state);
    failed.into_iter().for_each(|(slice, _)| slice.fail(error.clone()));
}

/// Lets nothing wait for ever if the control plane drops the task that looks for the peer, as it does when it stops.
struct Looking(Option<Weak<PosixShmLink>>);

impl Looking {
    fn link(&self) -> Option<Arc<PosixShmLink>> {
        self.0.as_ref()?.upgrade()
    }

    fn done(mut self, outcome: Result<Reached>) {
        if let Some(link) = self.0.take().and_then(|link| link.upgrade()) {
            link.looked(outcome);
        }
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.link().into_iter().for_each(|link| link.looked(Err(stopping())));
    }
}

impl Work for PosixShmLink {
    fn step(&self) -> bool {
        let next = {
            let mut state = self.state.lock();
            let is_due = state.swept.is_none_or(|swept| swept.elapsed() >= SWEEP);
            match (state.waiting.pop_front(), &state.stage) {
                (Some(next), Stage::Up(reached)) => {
                    let reached = reached.clone();
                    state.swept = if is_due { Some(Instant::now()) } else { state.swept };
                    Some((next, reached, is_due))
                }
                (left, _) => {
                    state.waiting.extend(left);
                    state.is_listed = false;
                    None
                }
            }
        };
        let Some(((slice, checked_for), reached, is_due)) = next else { return false };
        self.carry(slice, checked_for, &reached, &mut Ends::default());
        if is_due {
            self.sweep();
        }
        true
    }

    fn abandon(&self, error: &Error) {
        let mut state = self.state.lock();
        // What comes later hears of it too, instead of waiting for a thread that is gone.
        state.is_listed = false;
        fail_waiting(state, error);
    }
}

impl Link for PosixShmLink {
    fn ready(&self) -> Result<()> {
        match &self.state.lock().refused {
            Some((error, until)) if Instant::now() < *until => Err(error.clone()),
            _ => Ok(()),
        }
    }

    fn grain(&self, _: u64, _: u64, _: u64) -> u64 {
        SLICE
    }

    fn submit(&self, mut slices: Vec<Slice>, incarnation: u64) {
        // Closed without the lock.
        let _former;
        let mut state = self.state.lock();
        let reached = match &state.stage {
            Stage::Closed(error) => {
                let error = error.clone();
                drop(state);
                return slices.into_iter().for_each(|slice| slice.fail(error.clone()));
            }
            Stage::Up(reached) => Some(reached.clone()),
            Stage::Idle | Stage::Looking => None,
        };
        // Another process has the peer's name now, though the one before may still be there.
        let succeeded = reached.as_ref().is_some_and(|reached| is_other(incarnation, reached));
        if succeeded {
            state.stage = Stage::Idle;
        }
        let (reached, former) = if succeeded { (None, reached) } else { (reached, None) };
        _former = former;
        let inline = if reached.is_some() { few(&slices) } else { 0 };
        if state.waiting.try_reserve(slices.len() - inline).is_err() {
            drop(state);
            return slices.into_iter().for_each(|slice| slice.fail(errors::no_memory()));
        }
        state.waiting.extend(slices.drain(inline..).map(|slice| (slice, incarnation)));
        match &reached {
            // The thread copies meanwhile.
            Some(_) => self.have_copied(state),
            None if matches!(state.stage, Stage::Idle) => self.look(&mut state),
            None => {}
        }
        let mut ends = Ends::default();
        for slice in slices {
            match &reached {
                Some(reached) => self.carry(slice, incarnation, reached, &mut ends),
                None => slice.fail(errors::closed()),
            }
        }
    }

    fn poll(&self) -> bool {
        false
    }

    fn rely_on_threads(&self) {}

    fn give_up(&self) {
        self.sweep();
    }

    fn peer_lives(&self) -> Option<bool> {
        let reached = {
            let state = self.state.lock();
            match &state.stage {
                Stage::Up(reached) => reached.clone(),
                Stage::Idle if state.is_stale => return Some(false),
                _ => return None,
            }
        };
        // Without the lock: the kernel may have us wait.
        Some(reached.is_alive())
    }

    fn close(&self, error: &Error) {
        let mut state = self.state.lock();
        if matches!(state.stage, Stage::Closed(_)) {
            return;
        }
        let stage = std::mem::replace(&mut state.stage, Stage::Closed(error.clone()));
        fail_waiting(state, error);
        drop(stage);
    }
}

/// Whether a request was checked for another process than this one.
fn is_other(checked_for: u64, reached: &Reached) -> bool {
    checked_for != 0 && checked_for != u64::from(reached.pid())
}

/// How many of the first slices the caller copies.
fn few(slices: &[Slice]) -> usize {
    let mut bytes = 0;
    let fits = |slice: &&Slice| {
        bytes += slice.len;
        bytes <= INLINE
    };
    slices.iter().take_while(fits).count()
}

impl Drop for PosixShmLink {
    fn drop(&mut self) {
        self.close(&errors::closed());
    }
}
