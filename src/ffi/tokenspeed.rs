//! `transfer_engine_tokenspeed.h`: the C ABI of TokenSpeed's engine host, version 1, over the same engine.

use std::ffi::{c_char, c_int, c_void};

use super::arrays::requests;
use super::engine::destroyTransferEngine;
use super::guard::{guard, handle, name, optional, with_engine};
use super::memory::{registerLocalMemory, unregisterLocalMemory};
use super::pages;
use super::types::OPCODE_WRITE;
use crate::engine::{handles, Engine, Wanted};

/// What ts_mooncake_abi_version returns.
pub const TS_MOONCAKE_ABI_VERSION: c_int = 1;

/// An engine; a handle, never followed.
#[repr(C)]
pub struct ts_mooncake_engine {
    /// Not used.
    pub handle: *mut c_void,
}

/// `struct ts_mooncake_engine`.
pub type ts_mooncake_engine_t = ts_mooncake_engine;

/// The version of this ABI, TS_MOONCAKE_ABI_VERSION.
#[no_mangle]
pub extern "C" fn ts_mooncake_abi_version() -> c_int {
    TS_MOONCAKE_ABI_VERSION
}

/// An engine with the transport that suits this machine, RDMA where a NIC works, else TCP, whatever protocol says: so upstream's
/// creation has it, and nodes of one cluster have to agree (MC_FORCE_TCP is for TCP only). RDMA uses the NICs in device_name, separated by commas ("": all). metadata_server as for
/// createTransferEngine. NULL on failure; mte_last_error says why.
#[no_mangle]
pub unsafe extern "C" fn ts_mooncake_create(
    local_hostname: *const c_char,
    metadata_server: *const c_char,
    protocol: *const c_char,
    device_name: *const c_char,
) -> *mut ts_mooncake_engine_t {
    guard(|| {
        // SAFETY: C strings by the API's contract, here and below.
        let (connection, server) =
            unsafe { (name(metadata_server, "metadata_server")?, name(local_hostname, "local_hostname")?) };
        // SAFETY: as above.
        let (_, devices) = unsafe { (name(protocol, "protocol")?, optional(device_name, "device_name")?) };
        let engine = Engine::create_with(connection, server, Wanted::Suitable, devices)?;
        Ok(handle(handles::insert(engine)?).cast())
    })
}

/// As destroyTransferEngine.
#[no_mangle]
pub unsafe extern "C" fn ts_mooncake_destroy(engine: *mut ts_mooncake_engine_t) {
    // SAFETY: any value is safe.
    unsafe { destroyTransferEngine(engine.cast()) }
}

/// The handshake port, which makes the session id together with the host name; -1 for an unknown engine.
#[no_mangle]
pub unsafe extern "C" fn ts_mooncake_rpc_port(engine: *mut ts_mooncake_engine_t) -> c_int {
    with_engine(engine.cast(), |engine| Ok(engine.address().port.into()))
}

/// As registerLocalMemory, for any location, open to peers.
#[no_mangle]
pub unsafe extern "C" fn ts_mooncake_register(
    engine: *mut ts_mooncake_engine_t,
    addr: *mut c_void,
    length: usize,
) -> c_int {
    // SAFETY: the location is a C string.
    unsafe { registerLocalMemory(engine.cast(), addr, length, c"*".as_ptr(), 1) }
}

/// As unregisterLocalMemory.
#[no_mangle]
pub unsafe extern "C" fn ts_mooncake_unregister(
    engine: *mut ts_mooncake_engine_t,
    addr: *mut c_void,
) -> c_int {
    // SAFETY: any address is safe.
    unsafe { unregisterLocalMemory(engine.cast(), addr) }
}

/// Writes `lengths[i]` bytes from `sources[i]` to `destinations[i]` at the peer whose segment is called target, for each i, and waits.
/// The peer stays open until the engine is destroyed.
/// On return the sources are not touched any more. 0, or the code of the first failure.
#[no_mangle]
pub unsafe extern "C" fn ts_mooncake_write(
    engine: *mut ts_mooncake_engine_t,
    target: *const c_char,
    sources: *const u64,
    destinations: *const u64,
    lengths: *const u64,
    count: usize,
) -> c_int {
    with_engine(engine.cast(), |engine| {
        // SAFETY: a C string by the API's contract.
        let segment = engine.open_segment(unsafe { name(target, "target") }?)?;
        // SAFETY: arrays of `count` numbers by the API's contract.
        let entry = unsafe { requests(segment, OPCODE_WRITE, sources, destinations, lengths, count) }?;
        engine.transfer(count, 0, entry, None, None)?;
        Ok(0)
    })
}

/// Writes a grid of pages and fields, as mte_transfer_pages describes it, to the peer whose segment is called target, and waits.
/// 0, or the code of the first failure.
#[no_mangle]
pub unsafe extern "C" fn ts_mooncake_write_pages(
    engine: *mut ts_mooncake_engine_t,
    target: *const c_char,
    src_pages: *const i64,
    dst_pages: *const i64,
    num_pages: usize,
    fields: *const i64,
    num_fields: usize,
    max_batch_size: usize,
) -> c_int {
    with_engine(engine.cast(), |engine| {
        // SAFETY: a C string by the API's contract.
        let segment = engine.open_segment(unsafe { name(target, "target") }?)?;
        // SAFETY: arrays by the API's contract.
        let grid = unsafe {
            pages::grid(segment, OPCODE_WRITE, src_pages, dst_pages, num_pages, fields, num_fields)
        }?;
        engine.transfer(grid.count(), max_batch_size, |index| grid.request(index), None, None)?;
        Ok(0)
    })
}
