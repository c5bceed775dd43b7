//! `transfer_engine_ext.h`, one task in full: what it is doing or why it failed, where, and when it came how far.

use std::ffi::{c_char, c_int};

use super::ext::error_info;
use super::guard::{copy_field, out, with_engine};
use super::types::{batch_id_t, transfer_engine_t};
use crate::engine::batch::Report;

/// A task in full. Times count from the submit call, in microseconds; -1: not reached, or not known.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mte_task_report {
    /// STATUS_*.
    pub status: c_int,
    /// As in mte_task_error_info; 0 while the task has not failed.
    pub code: c_int,
    /// MTE_CLASS_*; 0 while the task has not failed.
    pub error_class: c_int,
    /// 1 when the same request may succeed later.
    pub retryable: c_int,
    /// errno of the operating system, or 0.
    pub os_errno: c_int,
    /// How often it was sent; 0 while it waits. A request that was cut counts each piece that was sent again.
    pub attempts: u32,
    /// Bytes at their destination.
    pub transferred_bytes: u64,
    /// The submit call, by CLOCK_MONOTONIC, in nanoseconds.
    pub submitted_ns: u64,
    /// It had a connection; 0: there was one already.
    pub connected_us: i64,
    /// Its first byte left, or was asked for: until then it was queued.
    pub posted_us: i64,
    /// It became COMPLETED or FAILED.
    pub completed_us: i64,
    /// Peer's name or address, or "".
    pub peer: [c_char; 128],
    /// After a failure the local end of the connection that failed: a NIC, or an address; or "".
    pub nic: [c_char; 64],
    /// Both ends of it: local -> remote; or "".
    pub rail: [c_char; 256],
    /// What happened where and what to do, NUL-terminated. Behind a neighbour's failure stands what that one failed of.
    pub text: [c_char; 512],
}

/// `struct mte_task_report`.
pub type mte_task_report_t = mte_task_report;

/// Fills *report with all that is known of a task, running or not. 0; -1 no such task, or NULL.
#[no_mangle]
pub unsafe extern "C" fn mte_task_report(
    engine: transfer_engine_t,
    batch_id: batch_id_t,
    task_id: usize,
    report: *mut mte_task_report_t,
) -> c_int {
    with_engine(engine, |engine| {
        let report = out(report, "report")?;
        let filled = filled(&engine.task_report(batch_id, task_id)?);
        // SAFETY: a valid pointer by the API's contract.
        unsafe { report.write(filled) };
        Ok(0)
    })
}

fn filled(report: &Report) -> mte_task_report {
    let Report { status, bytes, error, phases } = report;
    let time = |after: Option<u32>| after.map_or(-1, i64::from);
    let why = error_info(error.as_ref());
    let rail = error.as_ref().map_or("", |error| error.rail_name());
    let mut filled = mte_task_report {
        status: *status as c_int,
        code: why.code,
        error_class: why.error_class,
        retryable: why.retryable,
        os_errno: why.os_errno,
        attempts: phases.attempts,
        transferred_bytes: *bytes,
        submitted_ns: phases.submitted_ns,
        connected_us: time(phases.connected_us),
        posted_us: time(phases.posted_us),
        completed_us: time(phases.ended_us),
        peer: why.peer,
        nic: [0; 64],
        rail: [0; 256],
        text: why.text,
    };
    copy_field(rail.split_once(" -> ").map_or("", |(local, _)| local), &mut filled.nic);
    copy_field(rail, &mut filled.rail);
    filled
}
