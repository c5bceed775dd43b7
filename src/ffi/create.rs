//! `transfer_engine_ext.h`, engines: creation with transports and devices, what is installed, topology.

use std::ffi::{c_char, c_int};

use super::guard::{guard, handle, name, optional, text, whole_text, with_engine};
use super::types::{transfer_engine_t, transport_t};
use crate::engine::{handles, topology, Engine, Wanted};

/// Creates an engine as createTransferEngine does, with its transports and the NICs that it may use. NULL on failure.
///
/// protocol: NULL or "": none is installed yet. "auto": the one that suits this machine, RDMA where a NIC works, else TCP. Else
/// the transports to install, separated by commas ("rdma", "tcp", "rdma,tcp"): all of them, or creation fails.
/// devices: NULL or "": every NIC. Else the only NICs that discovery finds, separated by commas; MC_TE_FILTERS holds as well. A
/// NIC matrix that is given (MC_CUSTOM_TOPO_JSON, `args[0]` of installTransport) is taken as it is.
#[no_mangle]
pub unsafe extern "C" fn mte_create_engine(
    metadata_conn_string: *const c_char,
    local_server_name: *const c_char,
    protocol: *const c_char,
    devices: *const c_char,
) -> transfer_engine_t {
    guard(|| {
        // SAFETY: C strings by the API's contract, here and below.
        let connection = unsafe { name(metadata_conn_string, "metadata_conn_string") }?;
        // SAFETY: as above.
        let server = unsafe { name(local_server_name, "local_server_name") }?;
        // SAFETY: as above.
        let (protocol, devices) = unsafe { (optional(protocol, "protocol")?, optional(devices, "devices")?) };
        let engine = Engine::create_with(connection, server, Wanted::parse(protocol), devices)?;
        Ok(handle(handles::insert(engine)?))
    })
}

/// The handle of a transport that is installed, as installTransport gave it; NULL if it is not.
#[no_mangle]
pub unsafe extern "C" fn mte_transport(engine: transfer_engine_t, proto: *const c_char) -> transport_t {
    with_engine(engine, |engine| {
        // SAFETY: a C string by the API's contract.
        let name = engine.installed(unsafe { text(proto, "proto") }?)?;
        Ok(name.as_ptr() as transport_t)
    })
}

/// 1 if this transport is installed and no other, else 0; -1 for an unknown engine, or NULL.
#[no_mangle]
pub unsafe extern "C" fn mte_only_transport(engine: transfer_engine_t, proto: *const c_char) -> c_int {
    // SAFETY: a C string by the API's contract.
    with_engine(engine, |engine| Ok(engine.has_only(unsafe { text(proto, "proto") }?).into()))
}

/// The port of getLocalIpAndPort; -1 for an unknown engine. A name that newer programs use.
#[no_mangle]
pub unsafe extern "C" fn getRpcPort(engine: transfer_engine_t) -> c_int {
    with_engine(engine, |engine| Ok(engine.address().port.into()))
}

/// The NIC priority matrix in use as JSON text, "{}" if there is none: copies up to *len bytes of it into buf, truncated, with a
/// NUL, and sets *len to the bytes that the whole takes, NUL included. buf may be NULL when *len is 0. 0, or -1.
#[no_mangle]
pub unsafe extern "C" fn mte_local_topology(
    engine: transfer_engine_t,
    buf: *mut c_char,
    len: *mut usize,
) -> c_int {
    // SAFETY: `*len` bytes by the API's contract.
    with_engine(engine, |engine| unsafe { whole_text(&engine.topology_text(), buf, len) })
}

/// The NIC priority matrix that an engine created with these devices would discover on this machine now, without one. devices
/// as for mte_create_engine; buf and len as for mte_local_topology. 0; -1; -300 if the system has no NUMA interface.
#[no_mangle]
pub unsafe extern "C" fn mte_discover_topology(
    devices: *const c_char,
    buf: *mut c_char,
    len: *mut usize,
) -> c_int {
    guard(|| {
        // SAFETY: a C string by the API's contract.
        let devices = unsafe { optional(devices, "devices") }?;
        let found = topology::survey_machine(devices)?;
        // SAFETY: `*len` bytes by the API's contract.
        unsafe { whole_text(&found, buf, len) }
    })
}
