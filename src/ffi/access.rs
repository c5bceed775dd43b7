//! `transfer_engine_ext.h`, memory that peers may only read, or only write.

use std::ffi::{c_char, c_int, c_void};

use super::guard::{name, with_engine};
use super::types::transfer_engine_t;
use crate::error::Error;
use crate::memory::{PeerAccess, Range};

/// mte_register_memory: peers may read the region.
pub const MTE_PEERS_READ: c_int = 1;
/// mte_register_memory: peers may write the region.
pub const MTE_PEERS_WRITE: c_int = 2;

/// As registerLocalMemory, for peers that may only read the region (MTE_PEERS_READ), only write it (MTE_PEERS_WRITE), both (the
/// sum), or not reach it (0). This engine refuses what is not allowed, over RDMA its NICs do, and the peer's request fails. Bytes
/// that may not be written are not changed by peers; bytes that may not be read are not handed out, but to processes of the same user on
/// this host, which can read them anyway. Over RDMA the peer's connection has to be made again after a refusal, and memory must be
/// mapped writable. The descriptor does not say what is allowed: a peer finds out by trying. 0; -1 for other bits; codes of
/// registerLocalMemory.
#[no_mangle]
pub unsafe extern "C" fn mte_register_memory(
    engine: transfer_engine_t,
    addr: *mut c_void,
    length: usize,
    location: *const c_char,
    peers: c_int,
) -> c_int {
    with_engine(engine, |engine| {
        // SAFETY: a C string by the API's contract.
        let location = unsafe { name(location, "location") }?;
        let access = PeerAccess::of_bits(peers.into()).ok_or_else(|| {
            Error::invalid(format!(
                "{peers} is no sum of MTE_PEERS_READ ({MTE_PEERS_READ}) and MTE_PEERS_WRITE ({MTE_PEERS_WRITE})"
            ))
        })?;
        engine.register(&[Range { addr: addr as u64, len: length as u64 }], location, access)?;
        Ok(0)
    })
}
