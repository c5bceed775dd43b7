//! Looking at tasks: status, waiting, and the notification that the last look sends.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::{Batch, Drained, Report, Summary};
use super::deliveries::Delivery;
use super::segments::LOCAL_SEGMENT;
use super::Engine;
use crate::error::{Class, Code, Error, Result};
use crate::transport::slice::Status;

/// So many looks in a row may find nothing before a polling thread lets others run. Chosen: a small request mostly ends
/// within so many, and a thread that polls for nothing soon makes room.
const LOOKS_BEFORE_YIELD: u32 = 32;

/// `STATUS_TIMEOUT`, upstream's number; given only with `MC_REPORT_TIMEOUT`.
const TIMEOUT: i32 = 5;

impl Engine {
    /// As [`super::handles::task_status`].
    #[cfg(any(test, feature = "internals"))]
    pub fn task_status(&self, batch_id: u64, task: usize) -> Result<(i32, u64)> {
        self.status_in(&self.batch(batch_id)?, task)
    }

    /// `STATUS_*` and bytes done of a task; -1 if there is no such task. Moves data along
    /// while the task is not terminal, and may send the batch's notification.
    pub(super) fn status_in(&self, batch: &Arc<Batch>, task: usize) -> Result<(i32, u64)> {
        let look = || batch.with_task(task, |task| (task.status(), task.done_bytes()));
        let (mut status, mut bytes) = look()?;
        if status == Status::Waiting {
            let moved = batch.poll();
            (status, bytes) = look()?;
            give_way(moved || status != Status::Waiting);
        }
        if status == Status::Completed {
            self.send_due_notification(batch);
        }
        let mut number = status as i32;
        if status == Status::Failed
            && self.config.report_timeout
            && batch.with_task(task, |task| task.error().is_some_and(|e| e.kind() == Class::Timeout))?
        {
            number = TIMEOUT;
        }
        Ok((number, bytes))
    }

    /// Why a task failed; `None` while it has not.
    pub fn task_error(&self, batch_id: u64, task: usize) -> Result<Option<Error>> {
        self.batch(batch_id)?.with_task(task, |task| task.error().cloned())
    }

    /// The counts of a batch's tasks; `each` sees status and bytes of every one. Moves data along while tasks run.
    pub fn batch_status(&self, batch_id: u64, mut each: impl FnMut(usize, i32, u64)) -> Result<Summary> {
        let batch = self.batch(batch_id)?;
        if !batch.is_done() {
            give_way(batch.poll() || batch.is_done());
        }
        let report_timeout = self.config.report_timeout;
        let summary = batch.summary(|index, status, task| {
            let late = || task.error().is_some_and(|error| error.kind() == Class::Timeout);
            let number = if report_timeout && late() { TIMEOUT } else { status as i32 };
            each(index, number, task.done_bytes());
        })?;
        if summary.completed > 0 {
            self.send_due_notification(&batch);
        }
        Ok(summary)
    }

    /// Gives up what runs of a batch. Does not wait: the tasks end shortly afterwards.
    pub fn cancel_batch(&self, batch_id: u64) -> Result<()> {
        self.batch(batch_id)?.cancel()
    }

    /// Whether the ranges of a task are touched any more.
    pub fn task_drained(&self, batch_id: u64, task: usize) -> Result<Drained> {
        self.batch(batch_id)?.drained(task)
    }

    /// How far a task has come, and when.
    pub fn task_report(&self, batch_id: u64, task: usize) -> Result<Report> {
        self.batch(batch_id)?.report(task)
    }

    /// Sleeps until every task is terminal; -4 when `limit` passes first. Counts as a poll.
    pub fn wait_batch(&self, batch_id: u64, limit: Option<Duration>) -> Result<()> {
        let batch = self.batch(batch_id)?;
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        // What has arrived already needs no sleep.
        if !batch.is_done() {
            batch.poll();
        }
        if !batch.wait(deadline) {
            let text = "the time-out passed while tasks of the batch were running";
            return Err(Error::new(Code::BatchBusy, text).transient(Class::Timeout));
        }
        self.send_due_notification(&batch);
        Ok(())
    }

    /// A descriptor that is readable while every submitted task is terminal.
    pub fn batch_fd(&self, batch_id: u64) -> Result<i32> {
        self.batch(batch_id)?.descriptor()
    }

    /// What became of the notification that a submit call gave the batch.
    pub fn batch_delivery(&self, batch_id: u64) -> Result<Delivery> {
        self.batch(batch_id)?.delivery()
    }

    /// Hands the notification to the control plane: whoever polls waits for no peer.
    fn send_due_notification(&self, batch: &Arc<Batch>) {
        let Some(due) = batch.take_due_notification() else { return };
        if due.target == LOCAL_SEGMENT {
            return batch.note_delivery(self.notify(LOCAL_SEGMENT as u64, due.notification));
        }
        let name = due.notification.name.clone();
        let sent = self.delivery(due.target as u64, due.notification);
        let (under_way, batch, log) = (self.deliveries.begin(), batch.clone(), self.log.clone());
        self.control.spawn(async move {
            let outcome = match sent {
                Ok(sent) => sent.await,
                Err(error) => Err(error),
            };
            if let Err(error) = &outcome {
                if log.admit("notification", error.peer_name()) {
                    tracing::warn!("notification '{name}' of a completed batch is lost: {error}");
                }
            }
            batch.note_delivery(outcome);
            drop(under_way);
        });
    }
}

/// After some fruitless looks in a row, yields the processor: a caller that polls in a loop
/// must not starve the threads that would give it something to see.
fn give_way(fruitful: bool) {
    thread_local!(static FRUITLESS: Cell<u32> = const { Cell::new(0) });
    FRUITLESS.with(|count| {
        if fruitful {
            count.set(0);
        } else if count.get() < LOOKS_BEFORE_YIELD {
            count.set(count.get() + 1);
        } else {
            std::thread::yield_now();
        }
    });
}
