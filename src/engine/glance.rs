//! The question whether a task is COMPLETED, which callers ask most of all calls: answered without entering the engine, without
//! a lock and without a shared counter, from what this thread found the last time.

use std::cell::RefCell;
use std::sync::Arc;

use super::batch::Batch;
use crate::runtime::fork;
use crate::transport::slice::{Status, Work};

/// Submit calls of fewer tasks are looked up each time, since whoever has an answer for one of one task asks no more. Those of
/// more, too: a thread that asks no more keeps what it saw last, about 50 bytes per task.
const REMEMBERED: std::ops::RangeInclusive<usize> = 2..=4096;

/// What a thread found the last time. Ids are never issued twice, and a batch says itself when it is gone.
struct Seen {
    /// Of the process that saw it: the handles of a parent are refused.
    epoch: u32,
    token: u64,
    batch_id: u64,
    batch: Arc<Batch>,
    /// Number of the first task of the submit call.
    first: usize,
    work: Arc<Work>,
}

thread_local! {
    static LAST: RefCell<Option<Seen>> = const { RefCell::new(None) };
}

/// What [`super::handles::task_status`] gives for a task that is COMPLETED, if that is known without more ado and the poll has nothing else to do.
#[inline]
pub fn completed(token: u64, batch_id: u64, task: usize) -> Option<(i32, u64)> {
    // During thread exit the cell may be gone.
    LAST.try_with(|last| {
        let last = last.try_borrow().ok()?;
        let seen = last.as_ref().filter(|seen| seen.batch_id == batch_id && seen.token == token)?;
        if seen.epoch != fork::epoch() || seen.batch.is_gone() || seen.batch.has_notification() {
            return None;
        }
        let task = seen.work.tasks.get(task.wrapping_sub(seen.first))?;
        (task.status() == Status::Completed).then(|| (Status::Completed as i32, task.done_bytes()))
    })
    .ok()
    .flatten()
}

/// For the next question: `work`, of which `first` is the first task, is a submit call of the batch.
pub(super) fn remember(token: u64, batch_id: u64, batch: &Arc<Batch>, first: usize, work: &Arc<Work>) {
    if REMEMBERED.contains(&work.tasks.len()) {
        let seen =
            Seen { epoch: fork::epoch(), token, batch_id, batch: batch.clone(), first, work: work.clone() };
        let _before =
            LAST.try_with(|last| last.try_borrow_mut().ok().and_then(|mut last| last.replace(seen)));
    }
}

/// The batch is freed: lets go of it, if it is the one that this thread saw last.
pub(super) fn forget(batch: &Arc<Batch>) {
    let _seen = LAST.try_with(|last| {
        let mut last = last.try_borrow_mut().ok()?;
        last.take_if(|seen| Arc::ptr_eq(&seen.batch, batch))
    });
}
