//! What a lane does next: a machine without I/O, locks or clock. Events go in; at most one action comes out, for the
//! lane to perform before it lets go of its lock.
//!
//! ```text
//!        Pushed, Wanted                Attached
//!   Idle ─────────────► Connecting ──────────────► Up
//!    ▲ ▲                  │    ▲                   │ │
//!    │ └─ ConnectFailed ──┘    └── Replied: spent, ┘ │
//!    │                             and more waits    │
//!    └─ Replied: spent · Down · stuck · overdue ─────┘      from anywhere: Closed, for good
//! ```
//!
//! What holds after every event, and is tested in `properties`:
//!
//! - There is at most one attempt to connect: `Connect` is asked for only on the way into Connecting, which is left only
//!   when the attempt has ended, or for good.
//! - A closed lane asks for nothing but to refuse what comes.
//! - A connection that was spent or has ended is handed out with the action, so the lane cannot use it again.
//! - What waits has a connection, an attempt, or is handed back with the action that takes those away.
//! - A peer that moves nothing while something is awaited is asked whether it lives, once at a time; what it answers counts
//!   only for the connection and the silence that it was asked in.
//! - The deadline of a request begins with its turn: when it is the oldest on a connection. So it restarts with each
//!   reply.

use std::time::{Duration, Instant};

use super::events::{Action, Event, Why};

/// Settings that say how long a peer may take to answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// `MC_TCP_STATUS_TIMEOUT_SEC`.
    pub status_timeout: Duration,
    /// `MC_TCP_MIN_RATE`, bytes per second; at least 1.
    pub min_rate: u64,
    /// Peers are asked whether they are alive.
    pub asks: bool,
}

/// How long nothing moves before the peer is asked whether it lives. Chosen: a network that loses a packet has sent it
/// again by then, and with the answer's limit a peer that is gone is known in less than five seconds.
const SILENCE: Duration = Duration::from_secs(1);

impl Limits {
    /// How long a request of so many bytes may take from its turn to its reply.
    pub(super) fn allowed(&self, bytes: u64) -> Duration {
        self.status_timeout.saturating_add(Duration::from_secs(bytes / self.min_rate))
    }
}

/// Where a lane stands.
enum Phase<C, E> {
    /// Not connected; the next request connects.
    Idle,
    /// The control plane is connecting.
    Connecting,
    /// Requests flow.
    Up {
        /// Over this one.
        connection: C,
        /// When the oldest request got its turn. Means nothing while there is none.
        turn_began: Instant,
        /// How long nothing has moved.
        silence: Silence,
    },
    /// For good: requests fail with this.
    Closed(E),
}

/// Nothing moves although something is awaited.
#[derive(Default)]
struct Silence {
    /// Since this tick; `None` while nothing is awaited.
    since: Option<Instant>,
    /// What had moved by then.
    traffic: u64,
    /// The question that the peer has yet to answer.
    asked: Option<u32>,
}

/// A lane as whoever chooses among lanes sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// Not connected.
    Down,
    /// Connecting.
    Rising,
    /// Connected.
    Up,
}

/// The state of a lane.
pub(super) struct Machine<C, E> {
    limits: Limits,
    phase: Phase<C, E>,
    /// Questions asked so far.
    questions: u32,
}

impl<C, E: Clone> Machine<C, E> {
    /// A lane that is not connected.
    pub(super) fn new(limits: Limits) -> Self {
        Machine { limits, phase: Phase::Idle, questions: 0 }
    }

    /// The connection over which requests flow.
    pub(super) fn connection(&self) -> Option<&C> {
        match &self.phase {
            Phase::Up { connection, .. } => Some(connection),
            _ => None,
        }
    }

    /// Published output: whether there is a connection, or will be.
    pub(super) fn stage(&self) -> Stage {
        match self.phase {
            Phase::Idle | Phase::Closed(_) => Stage::Down,
            Phase::Connecting => Stage::Rising,
            Phase::Up { .. } => Stage::Up,
        }
    }

    /// One step. The clock is read only where a turn begins or is measured.
    pub(super) fn on<D>(
        &mut self,
        event: Event<C, D, E>,
        now: impl FnOnce() -> Instant,
    ) -> Option<Action<C, D, E>> {
        match event {
            Event::Pushed { first } => match &self.phase {
                Phase::Up { .. } => {
                    self.turn(first, now);
                    Some(Action::Send)
                }
                Phase::Idle => {
                    self.phase = Phase::Connecting;
                    Some(Action::Connect)
                }
                Phase::Connecting => None,
                Phase::Closed(error) => Some(Action::Refuse(error.clone())),
            },
            Event::Wanted => matches!(self.phase, Phase::Idle).then(|| {
                self.phase = Phase::Connecting;
                Action::Connect
            }),
            Event::Attached(connection) => match self.phase {
                Phase::Connecting => {
                    let silence = Silence::default();
                    self.phase = Phase::Up { connection, turn_began: now(), silence };
                    Some(Action::Begin)
                }
                _ => Some(Action::Discard(connection)),
            },
            Event::AttachRefused(error) => {
                let unwatched = Some(self.leave(Phase::Idle)?);
                Some(Action::HandBack { unwatched, error })
            }
            Event::ConnectFailed(error) => match self.phase {
                Phase::Connecting => {
                    self.phase = Phase::Idle;
                    Some(Action::HandBack { unwatched: None, error })
                }
                _ => None,
            },
            Event::Replied { spent: true, more } => {
                let connection = self.leave(if more { Phase::Connecting } else { Phase::Idle })?;
                Some(Action::Retire { connection, connect: more })
            }
            Event::Replied { more, .. } => {
                self.turn(more, now);
                None
            }
            Event::Down(down) => self.take_down(Why::Down(down)),
            Event::Abandoned { stuck: Some(error), .. } => self.take_down(Why::Stuck(error)),
            Event::Abandoned { next, .. } => {
                self.turn(next, now);
                None
            }
            Event::Tick { awaited, traffic, paused } => self.tick(awaited, traffic, paused, now),
            Event::Alive(question) => {
                if let Some(silence) = self.silence_of(question) {
                    *silence = Silence { since: Some(now()), asked: None, ..*silence };
                }
                None
            }
            Event::Silent { question, traffic } => self.end_silence(question, traffic, Why::Silent),
            Event::Unreachable { question, traffic, down } => {
                self.end_silence(question, traffic, Why::Down(down))
            }
            Event::Closed(error) => {
                if matches!(self.phase, Phase::Closed(_)) {
                    return None;
                }
                let connection = self.leave(Phase::Idle);
                self.phase = Phase::Closed(error.clone());
                Some(Action::Close(connection, error))
            }
        }
    }

    fn tick<D>(
        &mut self,
        awaited: Option<u64>,
        traffic: u64,
        paused: Duration,
        now: impl FnOnce() -> Instant,
    ) -> Option<Action<C, D, E>> {
        let Phase::Up { turn_began, silence, .. } = &mut self.phase else { return None };
        let Some(bytes) = awaited else {
            *silence = Silence::default();
            return None;
        };
        let now = now();
        *turn_began = now.min(*turn_began + paused);
        let allowed = self.limits.allowed(bytes);
        if now.saturating_duration_since(*turn_began) > allowed {
            return self.take_down(Why::Overdue { bytes, allowed });
        }
        let since = match silence.since {
            Some(since) if silence.traffic == traffic && paused.is_zero() => since,
            _ => {
                *silence = Silence { since: Some(now), traffic, asked: None };
                return None;
            }
        };
        let is_due = now.saturating_duration_since(since) >= SILENCE && silence.asked.is_none();
        if !is_due || !self.limits.asks {
            return None;
        }
        self.questions = self.questions.wrapping_add(1);
        silence.asked = Some(self.questions);
        Some(Action::Ask(self.questions))
    }

    /// The connection ends, unless the silence does not last in which that question was asked.
    fn end_silence<D>(&mut self, question: u32, traffic: u64, why: Why<D, E>) -> Option<Action<C, D, E>> {
        let silence = self.silence_of(question)?;
        if silence.traffic != traffic {
            // Something has moved since the last tick.
            *silence = Silence::default();
            return None;
        }
        self.take_down(why)
    }

    /// The silence in which that question was asked, if it lasts.
    fn silence_of(&mut self, question: u32) -> Option<&mut Silence> {
        match &mut self.phase {
            Phase::Up { silence, .. } if silence.asked == Some(question) => Some(silence),
            _ => None,
        }
    }

    /// If `begins`, another request has become the oldest on the connection.
    fn turn(&mut self, begins: bool, now: impl FnOnce() -> Instant) {
        if let (true, Phase::Up { turn_began, .. }) = (begins, &mut self.phase) {
            *turn_began = now();
        }
    }

    fn take_down<D>(&mut self, why: Why<D, E>) -> Option<Action<C, D, E>> {
        self.leave(Phase::Idle).map(|connection| Action::TakeDown(connection, why))
    }

    /// Gives the connection out, and goes on in `next`; changes nothing if there is none.
    fn leave(&mut self, next: Phase<C, E>) -> Option<C> {
        match std::mem::replace(&mut self.phase, next) {
            Phase::Up { connection, .. } => Some(connection),
            other => {
                self.phase = other;
                None
            }
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
#[path = "../../../../tests/sim/tcp/mod.rs"]
mod sim;
#[cfg(test)]
mod tests;
