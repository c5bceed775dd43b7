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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::slice::{Op, Slice, Task};

    const COMPLETED: Option<(i32, u64)> = Some((Status::Completed as i32, 8));

    /// A batch of `count` tasks, of which all but the last have moved 8 bytes, and that one's slice.
    fn batch(count: usize) -> (Arc<Batch>, Arc<Work>, Slice) {
        let batch = Arc::new(Batch::new(count).unwrap());
        let work = Work::new((0..count).map(|_| Task::default()).collect(), None, batch.clone());
        batch.reserve(count).unwrap().commit(&work, count, &[], None).unwrap();
        let mut slices: Vec<_> =
            (0..count as u32).map(|task| Slice::new(&work, task, Op::Read, 1, 2, 8, None)).collect();
        let last = slices.pop().unwrap();
        slices.into_iter().for_each(|slice| slice.complete(0));
        (batch, work, last)
    }

    #[test]
    fn only_what_is_completed_in_the_batch_seen_last_is_known() {
        let (batch, work, slice) = batch(3);
        remember(7, 9, &batch, 4, &work);
        assert_eq!([4, 5].map(|task| completed(7, 9, task)), [COMPLETED; 2]);
        assert_eq!([0, 3, 6, 7].map(|task| completed(7, 9, task)), [None; 4], "others, and one that runs");
        assert_eq!((completed(7, 8, 4), completed(6, 9, 4)), (None, None), "another batch, another engine");
        slice.complete(0);
        assert_eq!(completed(7, 9, 6), COMPLETED);
        batch.free(|_, _| {}).unwrap();
        assert_eq!(completed(7, 9, 4), None, "it is freed");
    }

    #[test]
    fn a_forgotten_batch_is_let_go_and_no_other() {
        let ((one, work, slice), (other, ..)) = (batch(2), batch(2));
        remember(7, 9, &one, 0, &work);
        forget(&other);
        assert_eq!(completed(7, 9, 0), COMPLETED);
        forget(&one);
        assert_eq!(completed(7, 9, 0), None);
        slice.complete(0);
    }

    #[test]
    fn a_call_of_one_task_is_not_remembered() {
        let (batch, work, slice) = batch(1);
        slice.complete(0);
        remember(7, 9, &batch, 0, &work);
        assert_eq!(completed(7, 9, 0), None);
    }
}
