//! What a rail does next: a machine without I/O, locks, clock or randomness. Events go in, with the time and a random
//! number; actions come out, for the rail to perform.
//!
//! ```text
//!            Wanted                 Ready, and trusted
//!   Idle ───────────► Connecting ─────────────────────► Up
//!    ▲ ▲    Made by the peer │ │ Ready, and failed before ▲
//!    │ │                     │ └───────► Proving ─────────┘ Proved
//!    │ └─ TakenAway ─ (all) ─┤             │
//!    │                       ▼ Lost, AttemptFailed, Overdue, PortDown
//!    └── (only trusted)    Paused ── Tick when it is time ──► Connecting
//! ```
//!
//! Two sides may connect at once, so an own attempt (the task that does the handshake) and the connection that is being
//! set up are separate things: an attempt may go on with a connection that the peer asked for. An attempt has a number;
//! one that was abandoned still ends some day, and whatever it says then changes nothing.

use std::time::Duration;

use super::super::flight::Loss;
use super::events::{Action, Attempt, By, Event, Now, Pauses, Why};
use crate::runtime::backoff::Backoff;

/// Pauses after failures. Chosen: the first about what a switch needs to send packets another way; the longest,
/// whatever the setting, because asking costs a handshake, and traffic is to be back soon after the cause is gone.
const PAUSES: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(2) };
/// Pause of a failed rail whose connection was taken away while it was being proved. Chosen: it was taken away for good
/// reason, so its proof is not urgent.
const TAKEN_AWAY_PAUSE_MS: u64 = 1000;
/// How long a peer may take to say that it is ready; upstream's value.
const READY_LIMIT_MS: u64 = 10_000;
/// How long the driver may take to connect the queue pairs that a peer asked for. Chosen: 64 of them may wait a second
/// each for the peer's address. Only a bug of ours can take longer; the rail is not to hang for it.
const JOIN_LIMIT_MS: u64 = 100_000;
/// A failed rail is tried again and again if it was used within this time. Chosen: a batch job's pause between two
/// steps.
const USED_WITHIN_MS: u64 = 60_000;

/// Where a rail stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase<C> {
    /// Never used, or its connection was taken away.
    Idle,
    /// Both ends are not ready yet. There is an attempt, or a connection that the peer asked for, or both.
    Connecting {
        /// Once there are queue pairs.
        connection: Option<C>,
        /// If the peer asked for the connection: until when it may take to say that it is ready.
        ready_by_ms: Option<u64>,
    },
    /// It failed before: probes have to arrive before it carries data.
    Proving {
        /// On this one.
        connection: C,
        /// Some queue pairs have not got their probe.
        lacking: bool,
    },
    /// Carries data.
    Up(C),
    /// Failed.
    Paused {
        /// Not tried again before.
        retry_at_ms: u64,
    },
    /// For good.
    Stopped,
}

/// The state of a rail.
#[derive(Debug)]
pub(super) struct Machine<C, E> {
    pauses: Pauses,
    phase: Phase<C>,
    /// Own attempt that counts.
    attempt: Option<Attempt>,
    /// Attempts so far.
    attempts: u64,
    port_up: bool,
    /// Failures in a row. With none the rail is trusted: a new connection carries data without a proof.
    failures: u32,
    /// Failures ever.
    failed: u64,
    last_error: Option<E>,
}

type Actions<C, E> = Vec<Action<C, E>>;

impl<C: Clone + PartialEq, E: Clone> Machine<C, E> {
    /// A rail that is not connected.
    pub(super) fn new(pauses: Pauses, port_up: bool) -> Self {
        Machine {
            pauses,
            phase: Phase::Idle,
            attempt: None,
            attempts: 0,
            port_up,
            failures: 0,
            failed: 0,
            last_error: None,
        }
    }

    /// Output: the connection on which data is posted.
    pub(super) fn up(&self) -> Option<&C> {
        match &self.phase {
            Phase::Up(connection) => Some(connection),
            _ => None,
        }
    }

    /// Output: whether the rail may be chosen as any other.
    pub(super) fn is_trusted(&self) -> bool {
        self.failures == 0
    }

    /// Output: `Tick` does nothing while nothing waits.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Up(_) | Phase::Stopped)
    }

    /// Where the rail stands.
    pub(super) fn phase(&self) -> &Phase<C> {
        &self.phase
    }

    /// Whether this is the own attempt that counts.
    pub(super) fn is_current(&self, attempt: Attempt) -> bool {
        self.attempt == Some(attempt)
    }

    /// Being set up, being proved, or up.
    pub(super) fn connection(&self) -> Option<&C> {
        match &self.phase {
            Phase::Connecting { connection, .. } => connection.as_ref(),
            Phase::Proving { connection, .. } | Phase::Up(connection) => Some(connection),
            Phase::Idle | Phase::Paused { .. } | Phase::Stopped => None,
        }
    }

    /// Failures so far.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    /// The last failure, or why the last connection was taken away.
    pub(super) fn last_error(&self) -> Option<&E> {
        self.last_error.as_ref()
    }

    /// One step.
    pub(super) fn on(&mut self, event: Event<C, E>, now: Now) -> Actions<C, E> {
        let mut out = Vec::new();
        match event {
            Event::Wanted => self.wanted(now, &mut out),
            Event::Unreachable(attempt) => {
                if self.ends(attempt) {
                    self.settle(now, &mut out);
                }
            }
            Event::Made { connection, by } => self.made(connection, by, now, &mut out),
            Event::Accepted(connection) => {
                if let Phase::Connecting { connection: Some(known), ready_by_ms } = &mut self.phase {
                    if *known == connection {
                        *ready_by_ms = Some(now.ms + READY_LIMIT_MS);
                    }
                }
            }
            Event::Connected(attempt, connection) => {
                if !self.ends(attempt) {
                    self.discard(connection, Why::Unwanted, &mut out);
                } else if self.has(&connection) {
                    self.ready(connection, &mut out);
                } else {
                    self.discard(connection, Why::Unwanted, &mut out);
                    self.settle(now, &mut out);
                }
            }
            Event::Ready(connection) => self.ready(connection, &mut out),
            Event::Probed { connection: probed, all } => match &mut self.phase {
                Phase::Proving { connection, lacking } if *connection == probed => *lacking = !all,
                _ => {}
            },
            Event::Proved(proved) => match &self.phase {
                Phase::Proving { connection, .. } if *connection == proved => {
                    self.failures = 0;
                    self.phase = Phase::Up(proved);
                    out.push(Action::Pump);
                }
                _ => {}
            },
            Event::StartedOver(attempt, connection, cause) => {
                if self.is_current(attempt) && self.has(&connection) {
                    self.phase = Phase::Connecting { connection: None, ready_by_ms: None };
                    self.release(Some(connection), cause, &mut out);
                } else {
                    self.discard(connection, Why::Because(cause), &mut out);
                }
            }
            Event::AttemptFailed { attempt, connection, usable, cause } => {
                self.attempt_failed(attempt, connection, usable, cause, now, &mut out);
            }
            Event::Lost(connection, cause) => {
                if self.has(&connection) {
                    self.fail(cause, now, &mut out);
                } else {
                    out.push(Action::Stop(connection, Why::Because(cause)));
                }
            }
            Event::Overdue(connection, cause) => {
                if self.has(&connection) && self.is_overdue(now) {
                    self.fail(cause, now, &mut out);
                }
            }
            Event::TakenAway(cause) => self.take_away(cause, now, &mut out),
            Event::Interrupted(connection, cause) => {
                if self.has(&connection) {
                    self.take_away(cause, now, &mut out);
                }
            }
            Event::PortDown(cause) => {
                self.port_up = false;
                // An attempt without queue pairs too: those that it makes now would be refused, for no reason that
                // says anything to whoever waits.
                if matches!(self.phase, Phase::Connecting { .. } | Phase::Proving { .. } | Phase::Up(_)) {
                    self.fail(cause, now, &mut out);
                }
            }
            Event::PortUp => {
                self.port_up = true;
                if let Phase::Paused { retry_at_ms } = &mut self.phase {
                    *retry_at_ms = now.ms;
                }
            }
            Event::Tick { waiting, used_ms } => self.tick(waiting, used_ms, now, &mut out),
            Event::Stopped(cause) => {
                let connection = self.connection().cloned();
                (self.phase, self.attempt) = (Phase::Stopped, None);
                self.release(connection, cause.clone(), &mut out);
                out.push(Action::Fail(cause));
            }
        }
        out
    }

    fn wanted(&mut self, now: Now, out: &mut Actions<C, E>) {
        match &self.phase {
            Phase::Up(_) => out.push(Action::Pump),
            Phase::Idle => self.begin(out),
            Phase::Paused { retry_at_ms } if now.ms >= *retry_at_ms => self.begin(out),
            Phase::Stopped => out.extend(self.last_error.clone().map(Action::Fail)),
            Phase::Connecting { .. } | Phase::Proving { .. } | Phase::Paused { .. } => {}
        }
    }

    fn begin(&mut self, out: &mut Actions<C, E>) {
        if self.port_up {
            self.attempts += 1;
            let attempt = Attempt(self.attempts);
            self.attempt = Some(attempt);
            self.phase = Phase::Connecting { connection: None, ready_by_ms: None };
            out.push(Action::Connect(attempt));
        }
    }

    fn made(&mut self, connection: C, by: By, now: Now, out: &mut Actions<C, E>) {
        let is_welcome = match by {
            By::Own(attempt) => self.is_current(attempt) && matches!(self.phase, Phase::Connecting { .. }),
            By::Peer => self.phase != Phase::Stopped,
        };
        if !is_welcome || !self.port_up {
            return self.discard(connection, Why::Unwanted, out);
        }
        let before = self.connection().cloned();
        let ready_by_ms = (by == By::Peer).then_some(now.ms + JOIN_LIMIT_MS);
        self.phase = Phase::Connecting { connection: Some(connection), ready_by_ms };
        // No other is made while one is open, so that one had stopped by itself, and nobody has noticed yet.
        out.extend(before.map(|before| Action::Stop(before, Why::Renewed)));
    }

    fn ready(&mut self, ready: C, out: &mut Actions<C, E>) {
        match &self.phase {
            Phase::Connecting { connection: Some(known), .. } if *known == ready => {}
            _ => return,
        }
        if self.is_trusted() {
            self.phase = Phase::Up(ready);
            out.push(Action::Pump);
        } else {
            self.phase = Phase::Proving { connection: ready.clone(), lacking: true };
            out.push(Action::Probe(ready));
        }
    }

    fn attempt_failed(
        &mut self,
        attempt: Attempt,
        connection: Option<C>,
        usable: bool,
        cause: E,
        now: Now,
        out: &mut Actions<C, E>,
    ) {
        let counts = self.ends(attempt);
        match connection {
            // The peer's own request has brought it up: it is as good as one of ours.
            Some(used) if self.has(&used) && usable && self.is_accepted() => {}
            Some(used) if self.has(&used) && counts => self.fail(cause, now, out),
            None if counts && self.connection().is_none() => self.fail(cause, now, out),
            other => {
                if let Some(used) = other {
                    self.discard(used, Why::Because(cause), out);
                }
                if counts {
                    self.settle(now, out);
                }
            }
        }
    }

    fn tick(&mut self, waiting: bool, used_ms: u64, now: Now, out: &mut Actions<C, E>) {
        if waiting && !self.port_up && self.phase != Phase::Stopped {
            out.push(Action::HandBack(Loss::Flushed, self.last_error.clone()));
        }
        if self.is_overdue(now) {
            out.extend(self.connection().cloned().map(Action::Expire));
        }
        let is_used = now.ms.saturating_sub(used_ms) < USED_WITHIN_MS;
        match &self.phase {
            Phase::Proving { connection, lacking: true } => out.push(Action::Probe(connection.clone())),
            Phase::Paused { .. } if waiting || is_used => self.wanted(now, out),
            _ if waiting => self.wanted(now, out),
            _ => {}
        }
    }

    /// The connection, or the attempt that has none yet, has failed.
    fn fail(&mut self, cause: E, now: Now, out: &mut Actions<C, E>) {
        let connection = self.connection().cloned();
        // A connection that never carried data is a failed attempt of everything that waits for it.
        let loss = if self.up().is_some() { Loss::Flushed } else { Loss::Unconnected };
        let pause = PAUSES.pause(self.failures.into()).min(self.pauses.most);
        let pause = Backoff::spread(pause, now.random).max(self.pauses.least).as_millis() as u64;
        (self.phase, self.attempt) = (Phase::Paused { retry_at_ms: now.ms + pause }, None);
        self.failures = self.failures.saturating_add(1);
        self.failed += 1;
        self.release(connection, cause.clone(), out);
        out.push(Action::Report(cause.clone()));
        out.push(Action::HandBack(loss, Some(cause)));
    }

    fn take_away(&mut self, cause: E, now: Now, out: &mut Actions<C, E>) {
        let connection = self.connection().cloned();
        match self.phase {
            Phase::Stopped => return,
            Phase::Idle | Phase::Paused { .. } => {}
            Phase::Connecting { .. } | Phase::Proving { .. } | Phase::Up(_) => self.rest(now),
        }
        self.attempt = None;
        self.release(connection, cause, out);
    }

    /// An attempt has ended without a connection. One that the peer asked for is still waited for; any other would
    /// never become ready, and is stopped.
    fn settle(&mut self, now: Now, out: &mut Actions<C, E>) {
        if let Phase::Connecting { connection, ready_by_ms: None } = &self.phase {
            let connection = connection.clone();
            self.rest(now);
            if let Some(connection) = connection {
                out.extend([Action::Stop(connection, Why::Unwanted), Action::Vacate]);
            }
        }
    }

    /// Without a connection and without a new failure. A rail that failed before still has to be proved, and `Tick` is
    /// to begin with that.
    fn rest(&mut self, now: Now) {
        self.phase = match self.is_trusted() {
            true => Phase::Idle,
            false => Phase::Paused { retry_at_ms: now.ms + TAKEN_AWAY_PAUSE_MS },
        };
    }

    /// Whether `attempt` counts; it does not from now on.
    fn ends(&mut self, attempt: Attempt) -> bool {
        let counts = self.is_current(attempt);
        if counts {
            self.attempt = None;
        }
        counts
    }

    fn has(&self, connection: &C) -> bool {
        self.connection() == Some(connection)
    }

    /// The peer's own request has brought the connection up, or will.
    fn is_accepted(&self) -> bool {
        !matches!(self.phase, Phase::Connecting { ready_by_ms: None, .. })
    }

    fn is_overdue(&self, now: Now) -> bool {
        matches!(self.phase, Phase::Connecting { ready_by_ms: Some(limit), .. } if now.ms >= limit)
    }

    /// Stops a connection that is not the rail's.
    fn discard(&self, connection: C, why: Why<E>, out: &mut Actions<C, E>) {
        if !self.has(&connection) {
            out.push(Action::Stop(connection, why));
        }
    }

    /// Stops what was the rail's connection.
    fn release(&mut self, connection: Option<C>, cause: E, out: &mut Actions<C, E>) {
        self.last_error = Some(cause.clone());
        if let Some(connection) = connection {
            out.extend([Action::Stop(connection, Why::Because(cause)), Action::Vacate]);
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
#[path = "../../../../tests/sim/rails/mod.rs"]
mod sim;
#[cfg(test)]
mod tests;
