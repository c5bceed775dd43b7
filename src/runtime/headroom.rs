//! Whether memory is left. Some allocations have no form that can fail (nodes of std's maps), and one that fails ends the
//! host. Where a peer or a caller decides how many of them there are, this is asked before.

use crate::error::{Error, Result};

/// What must be left beside the bytes asked for. From glibc: an arena of a thread other than the first grows by mappings
/// of 128 MiB at the most (twice `HEAP_MAX_SIZE`); where there is no room for one, each small piece takes a page.
const ARENA_BYTES: usize = 128 << 20;
/// Bytes that [`check`] lets pass unseen. Chosen: as much as a peer takes in one request by default.
const UNSEEN_BYTES: usize = 1 << 20;

/// Whether `bytes` more could be allocated now, in whatever pieces. A hint: others allocate too.
pub fn has_room(bytes: usize) -> bool {
    let mut probe: Vec<u8> = Vec::new();
    let fits = probe.try_reserve_exact(bytes.saturating_add(ARENA_BYTES)).is_ok();
    // Without this the compiler may leave the allocation out, and say that it succeeded.
    std::hint::black_box(&mut probe);
    fits
}

/// `ERR_MEMORY` for `what` if it takes more than a mebibyte and [`has_room`] says that it does not fit.
pub fn check(bytes: usize, what: &str) -> Result<()> {
    if bytes > UNSEEN_BYTES && !has_room(bytes) {
        return Err(Error::out_of_memory(what));
    }
    Ok(())
}

/// A copy of a text of any length; `ERR_MEMORY` for `what` if it does not fit.
pub fn copy(text: &str, what: &str) -> Result<String> {
    let mut copy = String::new();
    copy.try_reserve_exact(text.len()).map_err(|_| Error::out_of_memory(what))?;
    copy.push_str(text);
    Ok(copy)
}
