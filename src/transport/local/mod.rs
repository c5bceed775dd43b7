//! Copies inside this process, for `LOCAL_SEGMENT` and the engine's own name.

#![allow(unsafe_code)]

use super::slice::{Op, Slice};
use crate::memory::RegionUse;

/// Copies the slice on the calling thread and completes it. `target` is a use of the
/// registered region that holds the slice's remote side.
pub fn copy(slice: Slice, target: &RegionUse) {
    let region = target.region();
    debug_assert!(slice.remote >= region.addr && slice.remote + slice.len <= region.addr + region.len);
    let (from, to) = match slice.op {
        Op::Read => (slice.remote, slice.local),
        Op::Write => (slice.local, slice.remote),
    };
    // SAFETY: both ranges were registered by the caller, who promises that they stay mapped
    // while a use is held; overlapping ranges are allowed by `copy`.
    unsafe { std::ptr::copy(from as *const u8, to as *mut u8, slice.len as usize) };
    slice.complete();
}
