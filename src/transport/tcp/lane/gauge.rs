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

#[cfg(test)]
mod tests {
    use super::super::super::pipeline::Terms;
    use super::super::super::request::Request;
    use super::*;
    use crate::transport::slice::deaf::work;
    use crate::transport::slice::{Op, Slice};

    #[test]
    fn the_rail_is_told_what_is_on_it() {
        let rails = [0, 1].map(|_| Arc::new(Rail::new(None)));
        let request = Request::new(Slice::new(&work(1), 0, Op::Write, 1, 2, 8, None), 0);
        let (mut pipeline, mut gauge) = (Pipeline::default(), Gauge::default());
        assert!(pipeline.open(Terms { v2: true, reusable: true, incarnation: 0 }).is_empty());
        assert!(pipeline.admit([request].into_iter(), true, |_| panic!("refused")).is_none());
        gauge.follow(&pipeline);
        let mut follow = |rail: Option<&Arc<Rail>>, pipeline: &Pipeline| {
            gauge.go_over(&rail.cloned());
            gauge.follow(pipeline);
            rails.each_ref().map(|rail| rail.meter.inflight())
        };
        assert_eq!(follow(Some(&rails[0]), &pipeline), [8, 0]);
        assert_eq!(follow(Some(&rails[1]), &pipeline), [0, 8]);
        assert_eq!(follow(None, &pipeline), [0, 0]);
        assert_eq!(follow(Some(&rails[0]), &Pipeline::default()), [0, 0]);
    }

    #[test]
    fn a_request_that_has_got_its_reply_is_through() {
        let rail = Arc::new(Rail::new(None));
        let mut gauge = Gauge { rail: Some(rail.clone()), requests: 2, bytes: 16, looked_ns: 0 };
        rail.meter.begin(16, clock::now_ns());
        gauge.note_replies(&Pipeline::default(), true);
        assert_eq!((gauge.requests, gauge.bytes, gauge.looked_ns), (0, 0, 0));
        assert_eq!((rail.meter.inflight(), rail.completed.load(Relaxed)), (0, 2));
        gauge.note_replies(&Pipeline::default(), false);
        assert_eq!(gauge.looked_ns, 0, "nobody looked");
        gauge.note_replies(&Pipeline::default(), true);
        assert!(gauge.looked_ns > 0);
    }
}
