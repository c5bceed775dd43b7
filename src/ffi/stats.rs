//! Diagnostics.

use std::ffi::{c_char, c_int};

use super::guard::{copy_text, out, with_engine};
use super::types::{nic_load_stat_t, transfer_engine_t};
use crate::error::Error;

/// Copies the load of up to *count NICs into stats and sets *count to the number there is.
/// 0; -1 for any NULL.
#[no_mangle]
pub unsafe extern "C" fn getNicLoadStats(
    engine: transfer_engine_t,
    stats: *mut nic_load_stat_t,
    count: *mut usize,
) -> c_int {
    with_engine(engine, |_| {
        out(stats, "stats")?;
        // No RDMA in this build, so there is no NIC to tell of.
        // SAFETY: a valid pointer by the API's contract.
        unsafe { out(count, "count")?.write(0) };
        Ok(0)
    })
}

/// Writes what connects this engine to others, as text or (json != 0) as JSON, truncated to
/// buf_len with a NUL. 0, or -1.
#[no_mangle]
pub unsafe extern "C" fn showLinks(
    engine: transfer_engine_t,
    buf_out: *mut c_char,
    buf_len: usize,
    json: c_int,
) -> c_int {
    with_engine(engine, |engine| {
        let buf = out(buf_out, "buf_out")?;
        if buf_len == 0 {
            return Err(Error::invalid("buf_len is 0"));
        }
        // SAFETY: the caller provides `buf_len` bytes.
        unsafe { copy_text(&engine.show_links(json != 0), buf, buf_len) };
        Ok(0)
    })
}
