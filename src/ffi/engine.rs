//! Life cycle, transports, local address.

use std::ffi::{c_char, c_int, c_void};

use super::guard::{copy_text, guard, handle, name, out, text, with_engine};
use super::types::{transfer_engine_t, transport_t};
use crate::engine::{handles, Engine};
use crate::error::Error;
use crate::runtime::signals;

/// Creates an engine. NULL on failure; mte_last_error says why.
///
/// metadata_conn_string: "P2PHANDSHAKE" (no store), "etcd://host:port,..." (also without the scheme),
/// "http://host:port/metadata" or https, "redis://host:port" or rediss. local_server_name: host or host:port; with
/// P2PHANDSHAKE the port is ignored and a free one is taken, see getLocalIpAndPort.
/// ip_or_host_name and rpc_port are ignored. auto_discover: non-zero installs a transport.
#[no_mangle]
pub unsafe extern "C" fn createTransferEngine(
    metadata_conn_string: *const c_char,
    local_server_name: *const c_char,
    ip_or_host_name: *const c_char,
    rpc_port: u64,
    auto_discover: c_int,
) -> transfer_engine_t {
    let _ = (ip_or_host_name, rpc_port);
    guard(|| {
        // SAFETY: C strings by the API's contract.
        let connection = unsafe { name(metadata_conn_string, "metadata_conn_string") }?;
        // SAFETY: as above.
        let server = unsafe { name(local_server_name, "local_server_name") }?;
        Ok(handle(handles::insert(Engine::create(connection, server, auto_discover != 0)?)?))
    })
}

/// Destroys an engine: transfers in flight become FAILED, every thread ends. Registered memory
/// is not touched. NULL and unknown handles are ignored.
#[no_mangle]
pub unsafe extern "C" fn destroyTransferEngine(engine: transfer_engine_t) {
    guard(|| {
        if !engine.is_null() {
            handles::remove(engine as u64)?.destroy();
        }
        Ok(())
    })
}

/// Looks for NICs again, for the next installTransport("rdma"). 0, also if there are none; -300 if the system has no
/// NUMA interface.
#[no_mangle]
pub unsafe extern "C" fn discoverTopology(engine: transfer_engine_t) -> c_int {
    with_engine(engine, |engine| {
        engine.discover_topology()?;
        Ok(0)
    })
}

/// Writes "host:port" of the handshake port, truncated to buf_len with a NUL; with P2PHANDSHAKE
/// this is the segment name. 0, or -1.
#[no_mangle]
pub unsafe extern "C" fn getLocalIpAndPort(
    engine: transfer_engine_t,
    buf_out: *mut c_char,
    buf_len: usize,
) -> c_int {
    with_engine(engine, |engine| {
        let buf = out(buf_out, "buf_out")?;
        if buf_len == 0 {
            return Err(Error::invalid("buf_len is 0"));
        }
        // SAFETY: the caller provides `buf_len` bytes.
        unsafe { copy_text(&engine.address().to_string(), buf, buf_len) };
        Ok(0)
    })
}

/// Installs a transport ("rdma" or "tcp") and returns its handle, the same one every time; NULL on
/// failure. args: NULL, or `args[0]` is NULL or the NIC priority matrix as JSON text.
#[no_mangle]
pub unsafe extern "C" fn installTransport(
    engine: transfer_engine_t,
    proto: *const c_char,
    args: *mut *mut c_void,
) -> transport_t {
    with_engine(engine, |engine| {
        // SAFETY: a C string by the API's contract.
        let proto = unsafe { text(proto, "proto") }?;
        // SAFETY: `args` has at least one element if it is not NULL.
        let first = if args.is_null() { std::ptr::null_mut() } else { unsafe { *args } };
        let matrix = if first.is_null() {
            None
        } else {
            // SAFETY: args[0] is a C string by the API's contract.
            Some(unsafe { text(first.cast(), "args[0]") }?)
        };
        let name = engine.install_transport(proto, matrix)?;
        Ok(name.as_ptr() as transport_t)
    })
}

/// Does nothing. 0.
#[no_mangle]
pub unsafe extern "C" fn uninstallTransport(engine: transfer_engine_t, proto: *const c_char) -> c_int {
    with_engine(engine, |_| {
        // SAFETY: a C string by the API's contract.
        unsafe { text(proto, "proto") }?;
        Ok(0)
    })
}

/// On SIGTERM or SIGINT from now on: this engine is destroyed, then the process exits with 128
/// plus the signal's number. Installs process-wide handlers, which the library never does otherwise.
#[no_mangle]
pub unsafe extern "C" fn enableGracefulShutdown(engine: transfer_engine_t) {
    with_engine(engine, |engine| {
        engine.release_at_shutdown();
        signals::install(handles::destroy_marked);
        Ok(())
    })
}
