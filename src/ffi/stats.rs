//! Diagnostics.

use std::ffi::{c_char, c_int};

use super::guard::{copy_text, out, with_engine};
use super::types::{nic_load_stat_t, transfer_engine_t};
use crate::error::Error;
use crate::transport::report::NicReport;

/// Copies the load of up to *count NICs into stats and sets *count to how many there are.
/// 0; -1 for any NULL.
#[no_mangle]
pub unsafe extern "C" fn getNicLoadStats(
    engine: transfer_engine_t,
    stats: *mut nic_load_stat_t,
    count: *mut usize,
) -> c_int {
    with_engine(engine, |engine| {
        let (first, count) = (out(stats, "stats")?, out(count, "count")?);
        let nics = engine.nics();
        // SAFETY: a valid pointer by the API's contract.
        let room = unsafe { count.read() };
        for (index, nic) in nics.iter().enumerate().take(room) {
            // SAFETY: the caller provides `room` elements.
            unsafe { first.add(index).write(load_of(nic)) };
        }
        // SAFETY: as above.
        unsafe { count.write(nics.len()) };
        Ok(0)
    })
}

fn load_of(nic: &NicReport) -> nic_load_stat_t {
    let mut device_name = [0; 64];
    // The last byte stays NUL.
    let text = nic.name.bytes().take(device_name.len() - 1);
    device_name.iter_mut().zip(text).for_each(|(to, byte)| *to = byte as c_char);
    nic_load_stat_t { device_name, inflight_bytes: nic.inflight_bytes, ewma_bandwidth_bps: nic.bandwidth_bps }
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
