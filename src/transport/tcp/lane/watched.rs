//! A lane as its reactor sees it.

use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::reactor::Watched;
use super::errors;
use super::events::Event;
use super::Lane;
use crate::error::Error;
use crate::memory::Region;
use crate::transport::slice::Slice;

impl Watched for Lane {
    fn on_ready(self: Arc<Self>) -> bool {
        self.interest.note_event();
        self.look()
    }

    /// Nothing is done while another thread is at it, or a caller polls.
    fn look(self: Arc<Self>) -> bool {
        let Some(state) = self.state.try_lock() else {
            return false;
        };
        if self.interest.is_polled(|| self.shared.threads.now_us()) {
            return false;
        }
        self.advance(state, true);
        // Locked anew: after a teardown there is nothing to arm.
        self.arm(&self.state.lock());
        true
    }

    fn listed(&self) -> &AtomicBool {
        &self.interest.listed
    }

    fn abort(self: Arc<Self>, region: &Region) {
        Lane::abort(&self, region);
    }

    fn check_deadlines(self: Arc<Self>, now: Instant, paused: Duration) -> bool {
        // The first lane minds what waits for any of them.
        let link = (self.is_one_of_several_ways && self.place == 0).then(|| self.link.upgrade()).flatten();
        link.iter().for_each(|link| link.tick(now));
        if !self.published.is_busy() {
            let mut state = self.state.lock();
            // Looked at under the lock: whoever lets something wait minds the lane afterwards.
            let waits = link.as_ref().is_some_and(|link| link.has_deadlines());
            state.is_minded = waits || !state.pipeline.is_empty();
            return state.is_minded;
        }
        if self.shared.config.slice_timeout.is_some() {
            let due = |slice: &Slice| slice.work().deadline().is_some_and(|deadline| deadline <= now);
            self.abandon(due, &errors::late(self.peer()));
        }
        let state = self.state.lock();
        let (awaited, traffic) = (state.pipeline.awaited_bytes(), state.traffic());
        self.feed_at(state, Event::Tick { awaited, traffic, paused }, || now);
        true
    }

    fn close(self: Arc<Self>, error: &Error) {
        Lane::close(&self, error);
    }
}
