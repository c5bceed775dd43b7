//! What a served connection answers.

use super::wire::{INCARNATION_LEN, OK_FRAME, STATUS_LEN};
use crate::memory::RegionUse;

/// Frames that answer several WRITEs in one piece of memory. Chosen: one for each of a peer's 64 requests, in 512 bytes.
pub(super) const OK_RUN: usize = 64;
/// So many of them in one piece.
pub(super) const OK_FRAMES: [u8; OK_RUN * STATUS_LEN] = {
    let mut frames = [0; OK_RUN * STATUS_LEN];
    let mut i = 0;
    while i < frames.len() {
        frames[i] = OK_FRAME[i % STATUS_LEN];
        i += 1;
    }
    frames
};

/// A reply, or several that are alike, on their way to a peer.
pub(super) enum Reply {
    /// So many OK frames.
    Ok(usize),
    /// The frame that says so.
    Rejected,
    /// Bytes of a region, which is in use until they are sent.
    Data {
        /// Keeps it registered.
        held: RegionUse,
        /// First byte.
        addr: u64,
        /// Bytes.
        len: u64,
    },
    /// The cell that proves who we are.
    Incarnation,
}

impl Reply {
    /// Its bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Reply::Ok(count) => (count * STATUS_LEN) as u64,
            Reply::Rejected => STATUS_LEN as u64,
            Reply::Data { len, .. } => *len,
            Reply::Incarnation => INCARNATION_LEN as u64,
        }
    }
}
