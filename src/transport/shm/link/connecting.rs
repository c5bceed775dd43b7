//! The life of a link's connection: made on the control plane, lost, and asked about elsewhere when the peer is silent.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Weak;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::{ShmLink, LOST};
use crate::error::{Code, Error, Result};
use crate::runtime::backoff::Backoff;
use crate::runtime::epoll;
use crate::transport::links::stopping;
use crate::transport::shm::connect::{self, Connection};
use crate::transport::shm::errors;
use crate::transport::shm::lane::{Lane, Stage};

/// Silence after which the peer is asked elsewhere whether it is alive.
pub(super) const SILENCE: Duration = Duration::from_secs(1);
/// While another transport leads to the peer too: when it is tried again after a failure.
const RETRIES: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(10) };

impl ShmLink {
    /// Makes a connection, on the control plane. The stage is idle.
    pub(super) fn connect(&self, lane: &mut Lane) {
        lane.stage = Stage::Connecting;
        let (shared, route, me) = (self.shared.clone(), self.route.clone(), self.me.clone());
        let reread = self.stale.swap(false, Relaxed);
        self.shared.control.spawn(async move {
            let guard = ConnectGuard(Some(me));
            let outcome = connect::open(&shared, &*route, reread).await;
            guard.done(outcome);
        });
    }

    pub(super) fn connected(&self, outcome: Result<Connection>) {
        let mut lane = self.lane.lock();
        if !matches!(lane.stage, Stage::Connecting) {
            return;
        }
        let connection = match outcome {
            Ok(connection) => connection,
            Err(error) => return self.lose(lane, &error, false),
        };
        let watched =
            self.reactor.watch(connection.socket.as_raw_fd(), self.token, epoll::IN | epoll::ONESHOT);
        lane.stage = Stage::Greeting(Box::new(connection), Instant::now());
        if let Err(error) = watched {
            let error = Error::io(Code::Socket, "cannot watch a connection", &error);
            self.lose(lane, &error, false);
        }
    }

    /// The connection, or the attempt to make one, has ended.
    pub(super) fn lose(&self, mut lane: MutexGuard<'_, Lane>, error: &Error, may_pull: bool) {
        if matches!(lane.stage, Stage::Closed(_) | Stage::Idle) {
            return;
        }
        let was_up = matches!(lane.stage, Stage::Up(_));
        let was_busy = lane.is_busy();
        if was_up {
            self.stage.store(LOST, Relaxed);
        }
        self.stale.store(true, Relaxed);
        let mut error = error.clone();
        if let Stage::Up(connection) | Stage::Greeting(connection, _) = &lane.stage {
            self.reactor.unwatch(connection.socket.as_raw_fd());
            error =
                error.rail(format!("process {} -> process {}", std::process::id(), connection.source.pid));
        }
        let gone = lane.take_down(&error, may_pull, Stage::Idle);
        drop(lane);
        drop(gone);
        let mut attempts = self.attempts.lock();
        attempts.failures += 1;
        attempts.in_a_row = if was_up { 0 } else { attempts.in_a_row + 1 };
        attempts.next = Instant::now().checked_add(RETRIES.pause(attempts.in_a_row));
        attempts.last_error = error.text().to_string();
        drop(attempts);
        if was_up && was_busy {
            self.shared.stats.lost.fetch_add(1, Relaxed);
        }
        if !was_up {
            self.shared.stats.fallback_same_host.fetch_add(1, Relaxed);
            if self.shared.log.admit("shm", self.peer()) {
                tracing::warn!("{} says that it is on this host and is not reached so: {error}", self.peer());
            }
        }
    }

    /// Finds out whether the peer is alive, on the control plane.
    pub(super) fn probe(&self, generation: u64) {
        let limit = self.shared.config.tcp_liveness;
        let (route, me) = (self.route.clone(), self.me.clone());
        self.shared.control.spawn(async move {
            let answer = tokio::time::timeout(limit, route.probe()).await;
            // A failure of our own says nothing of the peer, nor does one that came at once.
            if answer.is_ok() {
                return;
            }
            let Some(link) = me.upgrade() else { return };
            // What has come and nobody has read is a sign of life too.
            link.with(|lane, peer| lane.receive(peer));
            let lane = link.lane.lock();
            if lane.generation == generation && lane.awaits() && lane.heard.elapsed() >= SILENCE + limit {
                link.lose(lane, &errors::silent(limit, link.peer()), true);
            }
        });
    }
}

/// Lets nothing wait for ever if the control plane drops the task that connects, as it does when it stops.
struct ConnectGuard(Option<Weak<ShmLink>>);

impl ConnectGuard {
    fn done(mut self, outcome: Result<Connection>) {
        if let Some(link) = self.0.take().and_then(|link| link.upgrade()) {
            link.connected(outcome);
        }
    }
}

impl Drop for ConnectGuard {
    fn drop(&mut self) {
        let link = self.0.take().and_then(|link| link.upgrade());
        link.into_iter().for_each(|link| link.connected(Err(stopping())));
    }
}
