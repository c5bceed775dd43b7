//! How a rail comes by its connection and loses it: whatever changes its phase.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::super::connection::Connection;
use super::super::flight::Loss;
use super::super::route::Route;
use super::{Keys, Phase, Rail, State};
use crate::error::{Code, Error};
use crate::runtime::backoff::Backoff;

/// Pauses after failures. The longest holds whatever the setting: asking costs little, and traffic is to be back soon
/// after the cause is gone.
const PAUSES: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(2) };
/// Pause of a failed rail whose connection was taken away while it was being proved, ms.
const RETIRED_PAUSE_MS: u64 = 1000;

impl Rail {
    /// Starts a handshake unless one is under way, or the rail is paused.
    pub fn connect(&self) {
        let Some(keeper) = self.keeper.upgrade() else { return };
        let now = keeper.now_ms();
        let due = |state: &State| match state.phase {
            Phase::Idle => true,
            Phase::Paused => now >= state.retry_at_ms,
            Phase::Connecting | Phase::Up => false,
        };
        let known = {
            let state = self.state.lock();
            if !due(&state) || !self.nic.is_active() {
                return;
            }
            state.route.as_ref().and_then(Weak::upgrade)
        };
        // The last link to use the rail may be gone while others, to the same peer by another name, wait.
        let waiting = || self.waiting.lock().front().map(|flight| flight.link);
        let Some(route) = known.or_else(|| keeper.route(waiting()?)) else { return };
        {
            let mut state = self.state.lock();
            if !due(&state) {
                return;
            }
            state.phase = Phase::Connecting;
        }
        if let Some(me) = self.me.upgrade() {
            keeper.connect(me, route);
        }
    }

    /// The connection that is being set up or is up.
    pub fn connection(&self) -> Option<Arc<Connection>> {
        self.state.lock().connection.clone()
    }

    /// Keeps a connection that is being set up. `asked`: on the peer's demand; otherwise `false` when our own attempt is
    /// over already.
    pub fn set_connection(&self, connection: &Arc<Connection>, asked: bool) -> bool {
        let replaced = {
            let mut state = self.state.lock();
            if !asked && state.phase != Phase::Connecting {
                return false;
            }
            self.up.store(None);
            state.phase = Phase::Connecting;
            state.connection.replace(connection.clone())
        };
        // One that stopped by itself, which nobody has taken up yet.
        if let (Some(old), Some(keeper)) = (replaced, self.keeper.upgrade()) {
            let text = format!("{} was connected anew", self.name());
            old.give_up(Error::new(Code::Endpoint, text), keeper.now_ms());
        }
        true
    }

    /// Both ends are ready. A rail that failed before has to prove first that packets get through.
    pub fn ready(&self, connection: &Arc<Connection>) {
        let Some(keeper) = self.keeper.upgrade() else { return };
        {
            let mut state = self.state.lock();
            let current = state.connection.as_ref().is_some_and(|known| Arc::ptr_eq(known, connection));
            if !current || (state.phase == Phase::Up && self.up.load().is_some()) {
                return;
            }
            state.phase = Phase::Connecting;
        }
        if self.failures.load(Ordering::Relaxed) == 0 {
            return self.proved(connection);
        }
        self.probe(connection, keeper.now_ms());
    }

    fn probe(&self, connection: &Arc<Connection>, now_ms: u64) {
        if let Err(errno) = connection.post_probes(now_ms) {
            self.post_failed(connection, errno);
        }
    }

    /// The connection carries packets.
    pub fn proved(&self, connection: &Arc<Connection>) {
        {
            let mut state = self.state.lock();
            let current = state.connection.as_ref().is_some_and(|known| Arc::ptr_eq(known, connection));
            if !current || connection.cause().is_some() {
                return;
            }
            state.phase = Phase::Up;
            self.failures.store(0, Ordering::Relaxed);
            self.up.store(Some(connection.clone()));
        }
        self.pump();
    }

    /// Gives a connection up: what is posted comes back by completions, what waits is placed anew.
    pub fn give_up(&self, connection: &Arc<Connection>, error: Error) {
        let Some(keeper) = self.keeper.upgrade() else { return };
        // A connection that never carried data is a failed attempt of everything that waits for it.
        let carried = self.up.load().as_ref().is_some_and(|up| Arc::ptr_eq(up, connection));
        if !connection.give_up(error.clone(), keeper.now_ms()) {
            return;
        }
        if self.failed_with(error, Some(connection)) {
            self.turn_away(if carried { Loss::Flushed } else { Loss::Unconnected });
        }
    }

    /// Has what waits placed anew, or fail.
    pub fn turn_away(&self, loss: Loss) {
        let Some(keeper) = self.keeper.upgrade() else { return };
        let lost = self.take_waiting(|_| true).into_iter().map(|flight| (flight, loss)).collect();
        keeper.recover(self, lost, Keys::Good);
    }

    /// Our handshake failed, with `connection` if it came that far: what waits is placed anew or fails. A connection
    /// that the peer's own request brought up meanwhile is kept.
    pub fn connect_failed(&self, error: Error, connection: Option<&Arc<Connection>>) {
        let Some(keeper) = self.keeper.upgrade() else { return };
        if let Some(connection) = connection {
            if connection.is_accepted() && connection.is_open() {
                tracing::debug!("{}: the peer's own request is used: {error}", self.name());
                return;
            }
            connection.give_up(error.clone(), keeper.now_ms());
        }
        if self.failed_with(error, connection) {
            self.turn_away(Loss::Unconnected);
        }
    }

    /// Notes a failure and pauses. Only the current connection's failure counts, or that of an attempt that has none:
    /// `false` if another connection or attempt has taken its place, for which then waits what waits.
    fn failed_with(&self, error: Error, connection: Option<&Arc<Connection>>) -> bool {
        let Some(keeper) = self.keeper.upgrade() else { return false };
        self.failed.fetch_add(1, Ordering::Relaxed);
        keeper.note_failure(self, &error);
        let mut state = self.state.lock();
        let current = match (connection, &state.connection) {
            (Some(failed), Some(known)) => Arc::ptr_eq(failed, known),
            (None, None) => state.phase == Phase::Connecting,
            _ => false,
        };
        if !current {
            return false;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed);
        let pause = PAUSES.pause(failures).min(keeper.config().rail_pause);
        let pause = Backoff::spread(pause, keeper.random()).max(keeper.config().conn_pause);
        let pause = pause.as_millis() as u64;
        state.phase = Phase::Paused;
        state.retry_at_ms = keeper.now_ms() + pause;
        state.last_error = Some(error);
        state.connection = None;
        self.up.store(None);
        drop(state);
        keeper.disconnected(self);
        true
    }

    /// Takes the connection away without blaming anybody: evicted, or the peer set up a new one.
    pub fn retire(&self, why: Error) {
        self.take_connection(why, Phase::Idle);
    }

    /// As [`Rail::retire`], for an attempt to connect that goes on with new queue pairs.
    pub fn start_over(&self, why: Error) {
        self.take_connection(why, Phase::Connecting);
    }

    fn take_connection(&self, why: Error, next: Phase) {
        let Some(keeper) = self.keeper.upgrade() else { return };
        let taken = {
            let mut state = self.state.lock();
            self.up.store(None);
            // One that failed before still has to be proved, and nobody but `tick` would begin.
            let unproved = next == Phase::Idle && !self.is_trusted();
            state.phase = if unproved { Phase::Paused } else { next };
            if unproved {
                state.retry_at_ms = keeper.now_ms() + RETIRED_PAUSE_MS;
            }
            state.last_error = Some(why.clone());
            state.connection.take()
        };
        keeper.disconnected(self);
        if let Some(connection) = taken {
            connection.give_up(why, keeper.now_ms());
        }
    }

    /// Stops the connection for a reason that is ours alone: the rail is not blamed, and connects again at once.
    pub fn interrupt(&self, connection: &Arc<Connection>, why: Error) {
        let current = self.connection().is_some_and(|known| Arc::ptr_eq(&known, connection));
        if current {
            self.retire(why);
            if self.has_waiting() {
                self.pump();
            }
        }
    }

    /// May be retried at once: what stood in the way has changed.
    pub fn unpause(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Paused {
            state.retry_at_ms = 0;
        }
    }

    /// Traffic that goes elsewhere because this rail failed could use it.
    pub fn want(&self, route: &Arc<dyn Route>) {
        // Once between two looks: this is the data path.
        if !self.wanted.load(Ordering::Relaxed) {
            self.wanted.store(true, Ordering::Relaxed);
            self.state.lock().route = Some(Arc::downgrade(route));
        }
    }

    /// Looks whether it is time to try again. For the NIC thread.
    pub fn tick(&self, now_ms: u64, wanted_for_ms: u64) {
        if self.wanted.load(Ordering::Relaxed) {
            self.wanted.store(false, Ordering::Relaxed);
            self.wanted_ms.store(now_ms, Ordering::Relaxed);
        }
        let (due, unproved) = {
            let state = self.state.lock();
            let unproved = state.connection.as_ref().filter(|known| known.lacks_probes()).cloned();
            (state.phase == Phase::Paused && now_ms >= state.retry_at_ms, unproved)
        };
        if let Some(connection) = unproved {
            self.probe(&connection, now_ms);
        }
        let wanted = now_ms.saturating_sub(self.wanted_ms.load(Ordering::Relaxed)) < wanted_for_ms;
        if (due && wanted) || self.has_waiting() {
            self.pump();
        }
    }
}
