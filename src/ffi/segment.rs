//! Opening segments.

use std::ffi::{c_char, c_int};

use super::guard::{name, with_engine};
use super::types::{segment_id_t, transfer_engine_t};

/// Opens a peer's segment and returns its id, the same one every time; 0 for the own name.
/// With P2PHANDSHAKE the name is "host:port". Negative: -1 bad name or no transport, -101 host
/// unknown, -102 no connection, -103 malformed descriptor, -200 no descriptor.
#[no_mangle]
pub unsafe extern "C" fn openSegment(engine: transfer_engine_t, segment_name: *const c_char) -> segment_id_t {
    with_engine(engine, |engine| {
        // SAFETY: a C string by the API's contract.
        engine.open_segment(unsafe { name(segment_name, "segment_name") }?)
    })
}

/// As openSegment, but a cached descriptor is read again first; if that fails, the code of the
/// failure is returned and the cached one stays.
#[no_mangle]
pub unsafe extern "C" fn openSegmentNoCache(
    engine: transfer_engine_t,
    segment_name: *const c_char,
) -> segment_id_t {
    with_engine(engine, |engine| {
        // SAFETY: a C string by the API's contract.
        engine.open_segment_fresh(unsafe { name(segment_name, "segment_name") }?)
    })
}

/// Undoes one openSegment. Once each has been undone, what the segment holds is given back, after ten to twenty seconds or when 16
/// others were closed too, unless a batch has work there. The id stays usable: whoever uses it again waits until the peer's
/// descriptor has been read anew. 0 for any id.
#[no_mangle]
pub unsafe extern "C" fn closeSegment(engine: transfer_engine_t, segment_id: segment_id_t) -> c_int {
    with_engine(engine, |engine| {
        engine.close_segment(segment_id);
        Ok(0)
    })
}

/// Does nothing: for EFA only. 0.
#[no_mangle]
pub unsafe extern "C" fn warmupEfaSegment(engine: transfer_engine_t, segment_name: *const c_char) -> c_int {
    with_engine(engine, |_| {
        // SAFETY: a C string by the API's contract.
        unsafe { name(segment_name, "segment_name") }?;
        Ok(0)
    })
}

/// Forgets a peer's segment; its id is invalid afterwards. 0 also when it was not open; -1 for
/// an empty name or the engine's own.
#[no_mangle]
pub unsafe extern "C" fn removeLocalSegment(engine: transfer_engine_t, segment_name: *const c_char) -> c_int {
    with_engine(engine, |engine| {
        // SAFETY: a C string by the API's contract.
        engine.remove_segment(unsafe { name(segment_name, "segment_name") }?)?;
        Ok(0)
    })
}

/// Reads the descriptors of all open segments again. 0; failures are only logged.
#[no_mangle]
pub unsafe extern "C" fn syncSegmentCache(engine: transfer_engine_t) -> c_int {
    with_engine(engine, |engine| {
        engine.sync_segments();
        Ok(0)
    })
}
