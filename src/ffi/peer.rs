//! `transfer_engine_ext.h`, peers: whether one lives, what it publishes.

use std::ffi::{c_char, c_int, c_void};

use super::guard::{name, whole_text, with_engine};
use super::types::{segment_id_t, transfer_engine_t};

/// Asks the engine of a segment on its handshake port whether it lives. 0: it answers, or it is this engine. Else why not:
/// -101 host unknown, -102 no connection or no answer, -103 malformed answer, -200 the store does not know the name. Waits for
/// MC_HANDSHAKE_CONNECT_TIMEOUT at most.
#[no_mangle]
pub unsafe extern "C" fn mte_probe_peer(engine: transfer_engine_t, segment_name: *const c_char) -> c_int {
    with_engine(engine, |engine| {
        // SAFETY: a C string by the API's contract.
        engine.probe_peer(unsafe { name(segment_name, "segment_name") }?)?;
        Ok(0)
    })
}

/// mte_probe_peer for a segment that was opened; -1 for an unknown id. A name that newer programs use.
#[no_mangle]
pub unsafe extern "C" fn probePeerAliveByID(engine: transfer_engine_t, segment_id: segment_id_t) -> c_int {
    with_engine(engine, |engine| {
        engine.probe_segment(segment_id)?;
        Ok(0)
    })
}

/// 0 for the id of a segment that was opened, also if it is closed now; -1 for any other. Asks no peer. A name that newer
/// programs use.
#[no_mangle]
pub unsafe extern "C" fn checkSegmentStatus(engine: transfer_engine_t, segment_id: segment_id_t) -> c_int {
    with_engine(engine, |engine| {
        engine.segment_status(segment_id)?;
        Ok(0)
    })
}

/// The descriptor of a segment as its owner publishes it now, as JSON text ("null" for the own one before a transport is
/// installed). buf and len as for mte_local_topology; the text may be longer at the next call. Asks the owner or the store,
/// for five seconds at most. 0; -1 unknown id; codes as openSegment.
#[no_mangle]
pub unsafe extern "C" fn mte_segment_descriptor(
    engine: transfer_engine_t,
    segment_id: segment_id_t,
    buf: *mut c_char,
    len: *mut usize,
) -> c_int {
    with_engine(engine, |engine| {
        let text = engine.segment_descriptor(segment_id)?;
        // SAFETY: `*len` bytes by the API's contract.
        unsafe { whole_text(&text, buf, len) }
    })
}

/// 1 if a byte of [addr, addr+length) lies in registered memory, else 0; -1 for an unknown engine.
#[no_mangle]
pub unsafe extern "C" fn mte_overlaps(
    engine: transfer_engine_t,
    addr: *const c_void,
    length: usize,
) -> c_int {
    with_engine(engine, |engine| Ok(engine.overlaps(addr as u64, length as u64).into()))
}
