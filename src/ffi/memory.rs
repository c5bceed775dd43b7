//! Registering memory.

use std::ffi::{c_char, c_int, c_void};

use super::guard::{list, name, with_engine};
use super::types::{buffer_entry_t, transfer_engine_t};
use crate::error::Error;
use crate::memory::Range;

/// Registers [addr, addr+length) for transfers. location: "cpu:N", "cuda:N", "*", …
/// remote_accessible 0: peers may not reach it. 0; -1 bad range; -7 overlap, unless it is a registered region exactly and
/// MC_ALLOW_REREGISTER is 1: then each registration needs an unregistration.
#[no_mangle]
pub unsafe extern "C" fn registerLocalMemory(
    engine: transfer_engine_t,
    addr: *mut c_void,
    length: usize,
    location: *const c_char,
    remote_accessible: c_int,
) -> c_int {
    with_engine(engine, |engine| {
        // SAFETY: a C string by the API's contract.
        let location = unsafe { name(location, "location") }?;
        let range = Range { addr: addr as u64, len: length as u64 };
        engine.register(&[range], location, remote_accessible != 0)?;
        Ok(0)
    })
}

/// Unregisters the region that starts at addr. Running transfers get a second, then they are
/// aborted; afterwards the memory may be freed. 0; -3 not registered.
#[no_mangle]
pub unsafe extern "C" fn unregisterLocalMemory(engine: transfer_engine_t, addr: *mut c_void) -> c_int {
    with_engine(engine, |engine| {
        engine.unregister(std::iter::once(addr as u64))?;
        Ok(0)
    })
}

/// Registers all entries or none, remote-accessible. Codes as registerLocalMemory.
#[no_mangle]
pub unsafe extern "C" fn registerLocalMemoryBatch(
    engine: transfer_engine_t,
    buffer_list: *mut buffer_entry_t,
    buffer_len: usize,
    location: *const c_char,
) -> c_int {
    with_engine(engine, |engine| {
        // SAFETY: an array of `buffer_len` entries by the API's contract.
        let entries = unsafe { list(buffer_list, buffer_len, "buffer_list") }?;
        // SAFETY: a C string by the API's contract.
        let location = unsafe { name(location, "location") }?;
        let mut ranges = Vec::new();
        ranges.try_reserve_exact(entries.len()).map_err(|_| Error::out_of_memory("a list of regions"))?;
        ranges.extend(entries.iter().map(|e| Range { addr: e.addr as u64, len: e.length as u64 }));
        engine.register(&ranges, location, true)?;
        Ok(0)
    })
}

/// Unregisters every address it can; the first error is returned.
#[no_mangle]
pub unsafe extern "C" fn unregisterLocalMemoryBatch(
    engine: transfer_engine_t,
    addr_list: *mut *mut c_void,
    addr_len: usize,
) -> c_int {
    with_engine(engine, |engine| {
        // SAFETY: an array of `addr_len` addresses by the API's contract.
        let addrs = unsafe { list(addr_list, addr_len, "addr_list") }?;
        engine.unregister(addrs.iter().map(|addr| *addr as u64))?;
        Ok(0)
    })
}
