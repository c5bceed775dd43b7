//! Memory of the process that engines of other processes can map: allocated and given up. It belongs to no engine.

use super::Engine;
use crate::error::{Code, Error, Result};
use crate::memory::shared;

impl Engine {
    /// Allocates memory that other processes of this host can map; `flags` as `mte_allocate_shared` has them.
    pub fn allocate_shared(&self, len: u64, flags: i32, node: i32) -> Result<u64> {
        const HUGE: i32 = 1;
        if flags & !HUGE != 0 {
            return Err(Error::invalid(format!("flags {flags:#x} are not known")));
        }
        shared::allocate(len, flags & HUGE != 0, u32::try_from(node).ok()).map(|memory| memory.addr)
    }

    /// Gives it up; -1 while a part of it is registered, -3 if nothing was allocated there.
    pub fn free_shared(&self, addr: u64) -> Result<()> {
        let memory = shared::starting_at(addr).ok_or_else(|| unknown(addr))?;
        if self.local.registry.overlaps(addr, memory.len) {
            return Err(Error::invalid(format!(
                "the shared memory at {addr:#x} is registered; unregister it first"
            )));
        }
        free_unasked(addr)
    }
}

/// Gives it up, whoever has it registered: it stays mapped for them. -3 if nothing was allocated there.
pub fn free_unasked(addr: u64) -> Result<()> {
    shared::free(addr).then_some(()).ok_or_else(|| unknown(addr))
}

fn unknown(addr: u64) -> Error {
    let text = format!("mte_allocate_shared gave no memory at {addr:#x}, or it was freed");
    Error::new(Code::AddressNotRegistered, text)
}
