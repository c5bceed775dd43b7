//! Memory that engines of other processes on this host can map.
// A constant that only the generated headers use.
#![allow(dead_code)]

use std::ffi::{c_int, c_void};

use super::guard::{guard, out, with_engine};
use super::types::transfer_engine_t;
use crate::engine::shared;

/// mte_allocate_shared: with huge pages, if the system has them.
pub const MTE_SHARED_HUGE: c_int = 1;

/// Allocates length zero bytes that engines of other processes on this host can map, and stores their address in *addr. Register
/// it as any other memory; between two regions of such memory bytes are copied without system calls (transport shm). flags: 0
/// or MTE_SHARED_HUGE. numa_node: where its pages are made, -1: anywhere. Valid until mte_free_shared; do not unmap it, nor
/// change its protection. 0; -1 no bytes or a wrong flag, -300 no such node, -202 no room.
#[no_mangle]
pub unsafe extern "C" fn mte_allocate_shared(
    engine: transfer_engine_t,
    length: usize,
    flags: c_int,
    numa_node: c_int,
    addr: *mut *mut c_void,
) -> c_int {
    with_engine(engine, |engine| {
        let addr = out(addr, "addr")?;
        let made = engine.allocate_shared(length as u64, flags, numa_node)?;
        // SAFETY: a valid pointer by the API's contract.
        unsafe { addr.write(made as *mut c_void) };
        Ok(0)
    })
}

/// Frees what mte_allocate_shared gave. 0; -1 when a part of it is still registered with this engine, -3 when it is no such memory.
/// Other engines of the process are not asked: where one has it registered, it stays mapped until that one unregisters it, or is
/// destroyed. engine may be NULL, also after the engine that allocated was destroyed; then none is asked.
#[no_mangle]
pub unsafe extern "C" fn mte_free_shared(engine: transfer_engine_t, addr: *mut c_void) -> c_int {
    if engine.is_null() {
        return guard(|| shared::free_unasked(addr as u64).map(|()| 0));
    }
    with_engine(engine, |engine| {
        engine.free_shared(addr as u64)?;
        Ok(0)
    })
}
