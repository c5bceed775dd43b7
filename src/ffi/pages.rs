//! `transfer_engine_ext.h`, requests as a grid of pages and fields.

use std::ffi::{c_char, c_int};

use super::arrays::{chosen, limit, told};
use super::ext::mte_task_error_info_t;
use super::guard::{list, with_engine};
use super::types::{batch_id_t, segment_id_t, transfer_engine_t};
use crate::engine::grid::{Grid, FIELD_LEN};
use crate::engine::Inside;
use crate::error::{Error, Result};

/// As submitTransfer, for pages that each of several fields has (the layers of a cache). fields has five numbers per field:
/// src_base, src_stride, dst_base, dst_stride, length. For each field, and in it for each page i, one request moves length bytes
/// between src_base + `src_pages[i]` * src_stride, a local address, and dst_base + `dst_pages[i]` * dst_stride at the target, whatever
/// the opcode. The batch gets num_pages * num_fields tasks, field by field. nic as for mte_submit_arrays. Codes as
/// submitTransfer; -1 also for an address or length that is negative or leaves 64 bits.
#[no_mangle]
pub unsafe extern "C" fn mte_submit_pages(
    engine: transfer_engine_t,
    batch_id: batch_id_t,
    target_id: segment_id_t,
    opcode: c_int,
    src_pages: *const i64,
    dst_pages: *const i64,
    num_pages: usize,
    fields: *const i64,
    num_fields: usize,
    nic: *const c_char,
) -> c_int {
    with_engine(engine, |engine| {
        // SAFETY: arrays by the API's contract.
        let grid = unsafe { grid(target_id, opcode, src_pages, dst_pages, num_pages, fields, num_fields) }?;
        // SAFETY: a C string by the API's contract.
        let nics = unsafe { chosen(nic) }?;
        engine.submit_over(batch_id, grid.count(), |index| grid.request(index), None, nics)?;
        Ok(0)
    })
}

/// A transfer in one call, as mte_transfer_arrays, of what mte_submit_pages describes. max_batch_size: so many tasks are under
/// way at most; the rest follows when they have ended. 0: all at once.
#[no_mangle]
pub unsafe extern "C" fn mte_transfer_pages(
    engine: transfer_engine_t,
    target_id: segment_id_t,
    opcode: c_int,
    src_pages: *const i64,
    dst_pages: *const i64,
    num_pages: usize,
    fields: *const i64,
    num_fields: usize,
    max_batch_size: usize,
    nic: *const c_char,
    timeout_ms: i64,
    info: *mut mte_task_error_info_t,
) -> c_int {
    let transfer = |engine: &Inside| {
        // SAFETY: arrays by the API's contract.
        let grid = unsafe { grid(target_id, opcode, src_pages, dst_pages, num_pages, fields, num_fields) }?;
        // SAFETY: a C string by the API's contract.
        let nics = unsafe { chosen(nic) }?;
        engine.transfer(grid.count(), max_batch_size, |index| grid.request(index), nics, limit(timeout_ms))
    };
    // SAFETY: NULL or a valid pointer by the API's contract.
    unsafe { told(engine, transfer, info) }
}

/// # Safety
/// The arrays are NULL or have as many numbers as the counts say, which stay unchanged during the call.
pub(super) unsafe fn grid<'a>(
    target: segment_id_t,
    opcode: c_int,
    sources: *const i64,
    targets: *const i64,
    pages: usize,
    fields: *const i64,
    field_count: usize,
) -> Result<Grid<'a>> {
    let numbers = field_count.checked_mul(FIELD_LEN);
    let numbers = numbers.ok_or_else(|| Error::invalid(format!("{field_count} fields are too many")))?;
    // SAFETY: the caller's promise.
    let (sources, targets, fields) = unsafe {
        (
            list(sources, pages, "src_pages")?,
            list(targets, pages, "dst_pages")?,
            list(fields, numbers, "fields")?,
        )
    };
    Grid::new(opcode, target, sources, targets, fields)
}
