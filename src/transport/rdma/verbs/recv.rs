//! A queue pair that receives messages, with the memory that they come into.

#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;

use super::cq::Cq;
use super::memory::{Access, Mr, Pd};
use super::qp::{Caps, Path, Qp};
use crate::error::{Error, Result};

/// A receiving queue pair and its slots, of which each holds one message.
#[derive(Debug)]
pub struct Receiver {
    // In this order: the queue pair is gone before its memory is.
    qp: Qp,
    mr: Mr,
    memory: Memory,
    slot_bytes: u32,
    slots: u32,
    id: u32,
}

/// Bytes that the NIC writes to.
#[derive(Debug)]
struct Memory(NonNull<[u8]>);

// SAFETY: plain memory, which is owned.
unsafe impl Send for Memory {}
// SAFETY: as above; the NIC writes to a slot before its completion, and this process reads it afterwards.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(len: usize) -> Result<Self> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| Error::out_of_memory("buffers for notifications"))?;
        bytes.resize(len, 0);
        Ok(Memory(NonNull::from(Box::leak(bytes.into_boxed_slice()))))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: leaked when it was made, and freed once.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl Receiver {
    /// A queue pair in INIT whose receives are posted: `slots` of `slot_bytes` each. Their completions go to `cq`, with `id` in
    /// the upper half of the work request's id and the slot in the lower one. `ERR_ENDPOINT` or `ERR_CONTEXT` with errno;
    /// `ERR_MEMORY`. Blocks on the driver.
    pub fn open(
        pd: &Arc<Pd>,
        cq: &Arc<Cq>,
        (port, pkey_index): (u8, u16),
        (slots, slot_bytes): (u32, u32),
        id: u32,
    ) -> Result<Self> {
        let memory = Memory::new(slots as usize * slot_bytes as usize)?;
        let start = memory.0.cast::<u8>().as_ptr().expose_provenance() as u64;
        // SAFETY: the memory lives as long as the region, being dropped after it.
        let mr = unsafe { Mr::register(pd, start, memory.0.len() as u64, Access::default()) }?;
        let caps = Caps { max_wr: 1, max_sge: 1, max_inline: 0 };
        let qp = Qp::create_with(pd, cq, &caps, slots)?;
        qp.init_closed(port, pkey_index)?;
        let receiver = Receiver { qp, mr, memory, slot_bytes, slots, id };
        for slot in 0..slots {
            receiver.post(slot).map_err(|errno| {
                super::library::refused(crate::error::Code::Endpoint, "cannot post a receive", errno)
            })?;
        }
        Ok(receiver)
    }

    /// The number that peers connect to.
    pub fn number(&self) -> u32 {
        self.qp.number()
    }

    /// Lets the peer at the other end send. Blocks on the driver.
    pub fn connect(&self, to: &Path) -> Result<()> {
        self.qp.receive_ready(to)?;
        self.qp.send_ready(1)
    }

    /// Shows the message of `len` bytes whose completion named `slot`, and makes room for the next one. To be called once
    /// for each completion. Errno if the room is refused: then the peer cannot send any more.
    pub fn take<T>(&self, slot: u32, len: u32, read: impl FnOnce(&[u8]) -> T) -> std::result::Result<T, i32> {
        if slot >= self.slots || len > self.slot_bytes {
            return Err(libc::EINVAL);
        }
        let at = slot as usize * self.slot_bytes as usize;
        // SAFETY: inside the memory, as was checked. The receive is complete, and the NIC does not know of the slot any
        // more until it is posted again.
        let bytes =
            unsafe { std::slice::from_raw_parts(self.memory.0.cast::<u8>().as_ptr().add(at), len as usize) };
        let result = read(bytes);
        self.post(slot).map(|()| result)
    }

    fn post(&self, slot: u32) -> std::result::Result<(), i32> {
        let at = u64::from(slot) * u64::from(self.slot_bytes);
        let start = self.memory.0.cast::<u8>().as_ptr().expose_provenance() as u64;
        let id = u64::from(self.id) << 32 | u64::from(slot);
        // SAFETY: a slot of the registered memory, which is dropped after the queue pair.
        unsafe { self.qp.post_recv(id, start + at, self.slot_bytes, self.mr.lkey()) }
    }
}
