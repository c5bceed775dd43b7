//! Tasks that have ended, for whoever counts them.

use super::{Op, Status, Task, Work};
use crate::error::Error;
use crate::runtime::sync::atomic::Ordering;

/// A task that has ended.
#[derive(Clone, Copy)]
pub struct End<'a> {
    /// Its direction; READ for a request of no bytes, which has none.
    pub op: Op,
    /// COMPLETED or FAILED.
    pub status: Status,
    /// Bytes at their destination.
    pub bytes: u64,
    /// Why it failed.
    pub error: Option<&'a Error>,
    /// From the submit call to the end, in units of 1024 ns.
    pub took: u32,
    /// How often a part of it was sent again.
    pub resent: u32,
}

impl Work {
    /// Every task that has ended. Runs over all that there are, so it only loads what stands there.
    #[inline]
    pub fn ended(&self) -> impl Iterator<Item = End<'_>> {
        self.tasks.iter().filter_map(|task| {
            let status = task.status();
            (status != Status::Waiting).then(|| End {
                op: task.op(),
                status,
                bytes: task.done_bytes(),
                error: if status == Status::Failed { task.error.get() } else { None },
                // 0 for a request of no bytes, which has no slice that could end.
                took: task.ended.load(Ordering::Relaxed).saturating_sub(1),
                resent: task.resent.load(Ordering::Relaxed),
            })
        })
    }
}

impl Task {
    #[inline]
    fn op(&self) -> Op {
        if self.writes.load(Ordering::Relaxed) {
            Op::Write
        } else {
            Op::Read
        }
    }
}
