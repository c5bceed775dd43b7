//! What holds after every step, when all settles, and when the rail is stopped.

use super::*;

impl World {
    /// What holds after every step.
    pub(in super::super::super) fn check(&self) {
        let posted: usize = self.connections.iter().map(|connection| connection.posted).sum();
        let found = self.waiting.len() + posted + self.elsewhere + self.ended;
        assert_eq!(found, self.flights as usize, "the model has lost a flight");
        assert_eq!(self.machine.is_trusted(), !self.is_suspect, "trusted without a proof, or never again");
        assert_eq!(self.machine.failed(), self.failures);
        for attempt in self.tasks.iter().map(|task| task.attempt).chain(self.attempt) {
            let counts = self.attempt == Some(attempt);
            assert_eq!(self.machine.is_current(attempt), counts, "an abandoned attempt counts");
        }
        match self.machine.phase() {
            Phase::Connecting { connection, ready_by_ms } => {
                let bounded = connection.is_some() && ready_by_ms.is_some();
                assert!(bounded || self.attempt.is_some(), "it waits for an attempt that has ended");
            }
            Phase::Paused { retry_at_ms } => {
                assert!(*retry_at_ms <= self.now_ms + LONGEST_PAUSE_MS, "paused for too long");
            }
            Phase::Idle => assert!(!self.is_suspect, "a failed rail is not proved again"),
            _ => {}
        }
        if self.threads.is_empty() {
            self.check_rest();
        }
    }

    /// What holds when every action is performed.
    fn check_rest(&self) {
        let rails = self.machine.connection().copied();
        for (connection, number) in self.connections.iter().zip(1..) {
            assert_eq!(
                rails != Some(number),
                connection.stopped,
                "connection {number} leaks, or is used after its end"
            );
        }
        assert!(rails.is_some() || !self.counted, "a connection that is gone counts");
        assert!(
            self.waiting.front().is_none_or(|flight| *flight > self.owed),
            "flights wait for a rail that failed"
        );
        let up = self.machine.up();
        assert!(up.is_none() || self.waiting.is_empty(), "flights wait although there is room");
    }

    /// However it came to be: when nobody answers any more, every path ends up, paused or at rest, and nothing waits
    /// for ever.
    pub(in super::super::super) fn settle(&mut self) {
        for _ in 0..64 {
            self.finish();
            while !self.tasks.is_empty() {
                self.end_task(0, self.tasks[0].used, false, "refused");
            }
            self.finish();
            // Probes that do not arrive are noticed, as anything posted is.
            if let Phase::Proving { connection, lacking: false } = *self.machine.phase() {
                self.happen(Event::Lost(connection, "stalled"), None);
            }
            (self.room, self.has_route) = (QUEUES, true);
            self.now_ms += 20_000;
            self.tick();
            self.finish();
            self.check();
            if self.tasks.is_empty() && self.waiting.is_empty() {
                break;
            }
        }
        assert!(self.waiting.is_empty(), "flights wait for ever");
        // Once more, for a connection that the peer asked for and a driver that never comes back.
        self.now_ms += 200_000;
        self.tick();
        self.finish();
        let ended = match self.machine.phase() {
            Phase::Idle | Phase::Up(_) | Phase::Paused { .. } => true,
            Phase::Proving { lacking, .. } => !lacking,
            Phase::Connecting { .. } => self.attempt.is_some(),
            Phase::Stopped => false,
        };
        assert!(ended, "{:?}", self.machine.phase());
    }

    /// The rail is stopped in the middle of anything; what comes later finds no rail.
    pub(in super::super::super) fn stop(mut self) {
        self.stopped = true;
        self.happen(Event::Stopped("destroyed"), None);
        self.finish();
        assert!(self.waiting.is_empty(), "flights wait for a rail that is stopped");
        for what in [What::PortUp, What::Submit, What::Ask, What::Make, What::Connect, What::Wait] {
            self.step(Step { what, which: 0, ms: u16::MAX, is_late: false });
        }
        self.finish();
        self.check();
        assert_eq!(*self.machine.phase(), Phase::Stopped);
        for connection in 1..=self.connections.len() as u32 {
            self.flush(connection, usize::MAX);
        }
        assert_eq!(self.elsewhere + self.ended, self.flights as usize, "flights never come back");
    }
}
