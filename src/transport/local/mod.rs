//! Copies inside this process, for `LOCAL_SEGMENT` and the engine's own name.

#![allow(unsafe_code)]

use super::slice::{Op, Slice};
use crate::memory::RegionUse;

/// Bytes copied between two looks at whether a region is being unregistered.
const PIECE: u64 = 64 << 20;

/// Copies the slice on the calling thread and completes it. `target` is a use of the
/// registered region that holds the slice's remote side.
pub fn copy(slice: Slice, target: &RegionUse) {
    let region = target.region();
    debug_assert!(slice.remote >= region.addr && slice.remote + slice.len <= region.addr + region.len);
    let (from, to) = match slice.op {
        Op::Read => (slice.remote, slice.local),
        Op::Write => (slice.local, slice.remote),
    };
    let mut done = 0;
    // Overlapping ranges are copied in one piece: pieces would read what others wrote.
    let overlap = from < to + slice.len && to < from + slice.len;
    while done < slice.len {
        if slice.is_revoked() || region.revoked() {
            return slice.fail_revoked();
        }
        let piece = if overlap { slice.len } else { PIECE.min(slice.len - done) };
        // SAFETY: both ranges were registered by the caller, who promises that they stay mapped
        // while a use is held; overlapping ranges are allowed by `copy`.
        unsafe { std::ptr::copy((from + done) as *const u8, (to + done) as *mut u8, piece as usize) };
        done += piece;
    }
    slice.complete();
}
