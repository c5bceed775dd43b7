//! Tasks that have ended, for whoever counts them.

use super::{Op, Status, Task, Work};
use crate::error::Error;
use crate::runtime::sync::atomic::Ordering;

/// A task that has ended.
pub struct End<'a> {
    /// Its direction; READ for a request of no bytes, which has none.
    pub op: Op,
    /// COMPLETED or FAILED.
    pub status: Status,
    /// Bytes at their destination.
    pub bytes: u64,
    /// Why it failed.
    pub error: Option<&'a Error>,
    /// From the submit call to the end.
    pub latency_us: u32,
    /// How often a part of it was sent again.
    pub resent: u32,
}

impl Work {
    /// Calls `each` with every task that has ended.
    pub fn ended(&self, mut each: impl FnMut(&End<'_>)) {
        for (index, task) in self.tasks.iter().enumerate() {
            let status = task.status();
            if status == Status::Waiting {
                continue;
            }
            each(&End {
                op: task.op(),
                status,
                bytes: task.done_bytes(),
                error: task.error(),
                latency_us: self.phases(index as u32).and_then(|phases| phases.ended_us).unwrap_or(0),
                resent: task.resent.load(Ordering::Relaxed),
            });
        }
    }
}

impl Task {
    fn op(&self) -> Op {
        if self.writes.load(Ordering::Relaxed) {
            Op::Write
        } else {
            Op::Read
        }
    }
}
