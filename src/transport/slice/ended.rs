//! Tasks that have ended, for whoever counts them.

use super::{Op, Status, Task, Work};
use crate::error::{Class, Error};
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

impl End<'_> {
    /// The class of its failure.
    pub fn class(&self) -> Class {
        self.error.map_or(Class::Internal, |error| error.kind())
    }
}

impl Work {
    /// Every task that has ended. Runs over all that there are, so it only loads what stands there.
    #[inline]
    pub fn ended(&self) -> impl Iterator<Item = End<'_>> {
        self.tasks.iter().filter_map(|task| {
            let status = task.status();
            (status != Status::Waiting).then(|| task.end(status))
        })
    }

    /// The same, each with the place of its target.
    pub fn ended_by_target(&self) -> impl Iterator<Item = (u16, End<'_>)> {
        self.tasks.iter().filter_map(|task| {
            let status = task.status();
            (status != Status::Waiting).then(|| (task.place.load(Ordering::Relaxed), task.end(status)))
        })
    }

    /// The same, of [`Work::all`].
    pub fn all_by_target<'e>(&'e self, otherwise: &'e Error) -> impl Iterator<Item = (u16, End<'e>)> {
        self.tasks.iter().map(|task| task.place.load(Ordering::Relaxed)).zip(self.all(otherwise))
    }

    /// Every task; one that has not ended as FAILED with `otherwise`.
    pub fn all<'e>(&'e self, otherwise: &'e Error) -> impl Iterator<Item = End<'e>> {
        self.tasks.iter().map(move |task| match task.status() {
            Status::Waiting => End { error: Some(otherwise), ..task.end(Status::Failed) },
            status => task.end(status),
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

    /// What there is to count of it, given that it ended with this status.
    #[inline]
    fn end(&self, status: Status) -> End<'_> {
        End {
            op: self.op(),
            status,
            bytes: self.done_bytes(),
            error: if status == Status::Failed { self.error.get() } else { None },
            // 0 for a request of no bytes, which has no slice that could end.
            took: self.ended.load(Ordering::Relaxed).saturating_sub(1),
            resent: self.resent.load(Ordering::Relaxed),
        }
    }
}
