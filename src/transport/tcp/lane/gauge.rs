//! What a lane tells the meter of its rail: bytes that are on it, and when they were through. Under the lane's lock.
//!
//! A lane of a peer with one address has no rail, and this costs it a look at that.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use super::super::pipeline::Pipeline;
use super::super::rail::Rail;
use crate::runtime::clock;

/// The rail, and what it was told.
#[derive(Default)]
pub(super) struct Gauge {
    rail: Option<Arc<Rail>>,
    /// Requests and bytes that the rail counts as this lane's.
    requests: usize,
    bytes: u64,
    /// When somebody looked for a reply last and there was none, ns.
    looked_ns: u64,
}

impl Gauge {
    /// The rail of the connection, or of the last one.
    pub(super) fn rail(&self) -> Option<&Arc<Rail>> {
        self.rail.as_ref()
    }

    /// There is a connection over `rail` from now on.
    pub(super) fn go_over(&mut self, rail: &Option<Arc<Rail>>) {
        self.tell(0, 0);
        self.rail.clone_from(rail);
    }

    /// The pipeline holds what it held when the lane was last published, without the requests that have got their replies
    /// since. `looked`: somebody looked for replies.
    pub(super) fn note_replies(&mut self, pipeline: &Pipeline, looked: bool) {
        let Some(rail) = &self.rail else { return };
        let now_ns = clock::now_ns();
        let done = self.requests.saturating_sub(pipeline.len());
        if done > 0 {
            let bytes = self.bytes.saturating_sub(pipeline.load_bytes());
            rail.meter.end(bytes, now_ns, self.looked_ns);
            rail.completed.fetch_add(done as u64, Relaxed);
            self.requests -= done;
            self.bytes -= bytes;
        } else if looked {
            self.looked_ns = now_ns;
        }
    }

    /// The pipeline has changed otherwise: requests came, or left without a reply.
    pub(super) fn follow(&mut self, pipeline: &Pipeline) {
        if self.rail.is_some() {
            self.tell(pipeline.len(), pipeline.load_bytes());
        }
    }

    fn tell(&mut self, requests: usize, bytes: u64) {
        if let Some(rail) = &self.rail {
            match bytes.checked_sub(self.bytes) {
                Some(0) => {}
                Some(more) => rail.meter.begin(more, clock::now_ns()),
                None => rail.meter.withdraw(self.bytes - bytes),
            }
        }
        (self.requests, self.bytes) = (requests, bytes);
    }
}
