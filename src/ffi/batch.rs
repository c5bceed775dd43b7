//! `transfer_engine_ext.h`, batches as a whole: how all tasks stand, giving them up, and when their ranges are quiet.

use std::ffi::c_int;

use super::guard::{out, with_engine};
use super::types::{batch_id_t, transfer_engine_t, transfer_status, STATUS_COMPLETED, STATUS_WAITING};
use crate::engine::batch::Drained;

/// `struct transfer_status`.
pub type transfer_status_t = transfer_status;

/// How the tasks of a batch stand.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mte_batch_status {
    /// Tasks submitted so far.
    pub tasks: usize,
    /// Those that are COMPLETED.
    pub completed: usize,
    /// Those that are FAILED. The rest runs.
    pub failed: usize,
    /// Bytes at their destination, of all tasks.
    pub transferred_bytes: u64,
}

/// `struct mte_batch_status`.
pub type mte_batch_status_t = mte_batch_status;

/// Fills *summary with how the tasks of a batch stand, and the first room entries of tasks with the status of each, in the
/// order in which they were submitted. One call in place of getTransferStatus for each task; moves data along as that does.
/// tasks may be NULL when room is 0. 0; -1 no such batch, or NULL.
#[no_mangle]
pub unsafe extern "C" fn mte_batch_status(
    engine: transfer_engine_t,
    batch_id: batch_id_t,
    summary: *mut mte_batch_status_t,
    tasks: *mut transfer_status_t,
    room: usize,
) -> c_int {
    with_engine(engine, |engine| {
        let summary = out(summary, "summary")?;
        if room > 0 {
            out(tasks, "tasks")?;
        }
        let found = engine.batch_status(batch_id, |index, status, transferred_bytes| {
            if index < room {
                // SAFETY: the caller provides `room` entries.
                unsafe { tasks.add(index).write(transfer_status { status, transferred_bytes }) };
            }
        })?;
        let filled = mte_batch_status {
            tasks: found.tasks,
            completed: found.completed,
            failed: found.failed,
            transferred_bytes: found.bytes,
        };
        // SAFETY: a valid pointer by the API's contract.
        unsafe { summary.write(filled) };
        Ok(0)
    })
}

/// Fills *status with how a batch stands as a whole: STATUS_WAITING while a task runs; then STATUS_FAILED if one failed, else
/// STATUS_COMPLETED, also without tasks; and the bytes of all. Moves data along as getTransferStatus does. 0; -1 no such batch,
/// or NULL. A name that newer programs use.
#[no_mangle]
pub unsafe extern "C" fn getBatchTransferStatus(
    engine: transfer_engine_t,
    batch_id: batch_id_t,
    status: *mut transfer_status_t,
) -> c_int {
    with_engine(engine, |engine| {
        let to = out(status, "status")?;
        let mut failure = STATUS_COMPLETED;
        let found = engine.batch_status(batch_id, |_, status, _| {
            if !matches!(status, STATUS_WAITING | STATUS_COMPLETED) {
                failure = status;
            }
        })?;
        let runs = found.completed + found.failed < found.tasks;
        let status = if runs { STATUS_WAITING } else { failure };
        // SAFETY: a valid pointer by the API's contract.
        unsafe { to.write(transfer_status { status, transferred_bytes: found.bytes }) };
        Ok(0)
    })
}

/// Gives up every task of a batch that still runs: it becomes FAILED (mte_task_error: class CANCELED), or COMPLETED if it was
/// just ending. Does not wait; the tasks end shortly after, whatever the peers do, so mte_wait_batch follows, and only then may
/// the local buffers be used for something else. What was written at the peer by then is not taken back: mte_task_drained tells
/// when no more arrives. 0; -1 no such batch.
#[no_mangle]
pub unsafe extern "C" fn mte_cancel_batch(engine: transfer_engine_t, batch_id: batch_id_t) -> c_int {
    with_engine(engine, |engine| {
        engine.cancel_batch(batch_id)?;
        Ok(0)
    })
}

/// The task runs, or it has failed and its peer has yet to confirm that it takes no more bytes of it.
pub const MTE_DRAINED_NO: c_int = 0;
/// Neither the local nor the remote range is touched by the task any more.
pub const MTE_DRAINED_YES: c_int = 1;
/// The task has ended, so the local range is not touched any more; but bytes of its WRITE may still reach the remote range, and
/// nobody can tell when that is over: the peer does not answer, or is not of this library.
pub const MTE_DRAINED_UNKNOWN: c_int = 2;

/// Sets *drained to MTE_DRAINED_*: whether the ranges of a task may be used for something else. A terminal status says so of the
/// local range. Of the remote range of a WRITE, COMPLETED does, unless it had to be sent twice to a peer that could not be asked;
/// after a failure the peer is asked in the background, for up to a minute: MTE_DRAINED_NO until then, and for good
/// MTE_DRAINED_UNKNOWN without an answer. Ask before the batch is freed. 0; -1 no such task.
#[no_mangle]
pub unsafe extern "C" fn mte_task_drained(
    engine: transfer_engine_t,
    batch_id: batch_id_t,
    task_id: usize,
    drained: *mut c_int,
) -> c_int {
    with_engine(engine, |engine| {
        let drained = out(drained, "drained")?;
        let found = match engine.task_drained(batch_id, task_id)? {
            Drained::No => MTE_DRAINED_NO,
            Drained::Yes => MTE_DRAINED_YES,
            Drained::Unknown => MTE_DRAINED_UNKNOWN,
        };
        // SAFETY: a valid pointer by the API's contract.
        unsafe { drained.write(found) };
        Ok(0)
    })
}
