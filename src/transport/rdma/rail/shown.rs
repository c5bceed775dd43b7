//! A rail as diagnostics show it.

use super::machine::Phase;
use super::*;
use crate::transport::report::{QueueReport, RailReport};

impl Rail {
    /// For metrics.
    pub(in super::super) fn queue(&self) -> QueueReport {
        let queues = self
            .connection()
            .map(|connection| connection.queues.iter().map(|queue| queue.outstanding()).sum());
        QueueReport {
            peer: self.peer.split('@').next().unwrap_or_default().to_string(),
            queue: self.nic.name.clone(),
            under_way: queues.unwrap_or(0),
            waiting: self.waiting.len(),
        }
    }

    /// For `showLinks`.
    pub(in super::super) fn describe(&self) -> RailReport {
        let state = self.state.lock();
        RailReport {
            local: self.nic.name.clone(),
            peer: self.peer.clone(),
            state: match state.machine.phase() {
                Phase::Idle | Phase::Stopped => "idle",
                Phase::Connecting { .. } | Phase::Proving { .. } => "connecting",
                Phase::Up(_) => "up",
                Phase::Paused { .. } => "paused",
            },
            inflight_bytes: self.meter.inflight(),
            waiting: self.waiting.len(),
            completed: self.completed.load(Ordering::Relaxed),
            failures: state.machine.failed(),
            last_error: state.machine.last_error().map(|e| e.text().to_string()).unwrap_or_default(),
        }
    }
}
