//! Chains of work requests: filled by the posting thread, handed over with one doorbell.

#![allow(unsafe_code)]

use std::fmt;
use std::ptr;

use rdma_sys::{ibv_send_flags, ibv_send_wr, ibv_sge, ibv_wr_opcode};

/// One read or write of one piece of memory.
#[derive(Clone, Copy, Debug)]
pub struct Wr {
    /// Comes back in the completion.
    pub id: u64,
    /// Local to remote; else remote to local.
    pub write: bool,
    /// Local address.
    pub local: u64,
    /// Bytes.
    pub len: u32,
    /// Key of the local region.
    pub lkey: u32,
    /// Remote address.
    pub remote: u64,
    /// Key of the remote region.
    pub rkey: u32,
    /// Makes a completion if it succeeds. A failure always makes one.
    pub signaled: bool,
}

/// Up to [`Chain::CAPACITY`] work requests on their way to a queue pair; about 9 KiB, to be used again and again.
#[repr(align(64))]
pub struct Chain {
    // Two cache lines each, of which reads and writes use the first.
    wrs: [ibv_send_wr; Chain::CAPACITY],
    sges: [ibv_sge; Chain::CAPACITY],
    len: usize,
}

// SAFETY: the pointers inside are set and used within one call of `Qp::post`.
unsafe impl Send for Chain {}

/// Why a chain was not taken as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostError {
    /// So many of the first work requests were taken and will complete.
    pub posted: usize,
    /// Why the next one was not. ENOMEM: the queue is full.
    pub errno: i32,
}

impl Chain {
    /// Most work requests of a chain. Chosen: 9 KiB, which a thread keeps and its core caches.
    pub const CAPACITY: usize = 64;

    /// An empty chain.
    pub fn new() -> Box<Self> {
        // SAFETY: numbers and pointers, for which zeroes are valid.
        Box::new(unsafe { std::mem::zeroed() })
    }

    /// Work requests in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing to post.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// No room for another one.
    pub fn is_full(&self) -> bool {
        self.len == Self::CAPACITY
    }

    /// Appends `w`. The chain must not be full: panics.
    #[inline]
    pub fn push(&mut self, w: &Wr) {
        let (wr, sge) = (&mut self.wrs[self.len], &mut self.sges[self.len]);
        sge.addr = w.local;
        sge.length = w.len;
        sge.lkey = w.lkey;
        wr.wr_id = w.id;
        // An empty entry means 2^31 bytes to some devices.
        wr.num_sge = i32::from(w.len > 0);
        wr.opcode = if w.write { ibv_wr_opcode::IBV_WR_RDMA_WRITE } else { ibv_wr_opcode::IBV_WR_RDMA_READ };
        wr.send_flags = if w.signaled { ibv_send_flags::IBV_SEND_SIGNALED.0 } else { 0 };
        wr.wr.rdma.remote_addr = w.remote;
        wr.wr.rdma.rkey = w.rkey;
        self.len += 1;
    }

    /// Has the last work request make a completion too.
    #[inline]
    pub fn signal_last(&mut self) {
        if let Some(wr) = self.len.checked_sub(1).and_then(|last| self.wrs.get_mut(last)) {
            wr.send_flags = ibv_send_flags::IBV_SEND_SIGNALED.0;
        }
    }

    /// Links the work requests and empties the chain; returns the first one, or null if there is none. What it points
    /// to is valid until the chain is used or moved again.
    #[inline]
    pub(super) fn take(&mut self) -> *mut ibv_send_wr {
        let len = std::mem::take(&mut self.len);
        let Some(last) = len.checked_sub(1) else { return ptr::null_mut() };
        let (wrs, sges) = (self.wrs.as_mut_ptr(), self.sges.as_mut_ptr());
        for at in 0..len {
            let next = if at == last { ptr::null_mut() } else { wrs.wrapping_add(at + 1) };
            // SAFETY: `at` is below the length of both arrays.
            unsafe {
                (*wrs.add(at)).sg_list = sges.add(at);
                (*wrs.add(at)).next = next;
            }
        }
        wrs
    }
}

impl PostError {
    /// From what ibv_post_send returned and the first work request it refused, of a chain beginning at `first`.
    #[cold]
    pub(super) fn new(first: *const ibv_send_wr, bad: *const ibv_send_wr, errno: i32) -> Self {
        let distance = (bad as usize).wrapping_sub(first as usize) / size_of::<ibv_send_wr>();
        // A driver that does not tell took none.
        PostError { posted: if distance < Chain::CAPACITY { distance } else { 0 }, errno }
    }
}

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = std::io::Error::from_raw_os_error(self.errno);
        write!(f, "ibv_post_send took {} work requests, then: {why}", self.posted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(id: u64) -> Wr {
        Wr { id, write: true, local: 0x1000, len: 64, lkey: 1, remote: 0x2000, rkey: 2, signaled: false }
    }

    #[test]
    fn a_chain_is_linked_in_order_and_empty_afterwards() {
        let mut chain = Chain::new();
        chain.signal_last();
        assert!(chain.take().is_null());
        // The second time, what the first left behind must not show.
        for len in [Chain::CAPACITY, 3] {
            (0..len as u64).for_each(|id| chain.push(&write(id)));
            assert_eq!((chain.len(), chain.is_full()), (len, len == Chain::CAPACITY));
            chain.signal_last();
            let mut at = chain.take();
            assert!(chain.is_empty());
            for id in 0..len as u64 {
                // SAFETY: a link of the chain, which was not touched since.
                let (wr, sge) = unsafe { (&*at, &*(*at).sg_list) };
                assert_eq!((wr.wr_id, wr.num_sge, sge.addr, sge.length), (id, 1, 0x1000, 64));
                assert_eq!(wr.send_flags != 0, id + 1 == len as u64);
                at = wr.next;
            }
            assert!(at.is_null());
        }
    }

    #[test]
    fn the_refused_request_tells_how_many_were_taken() {
        let mut chain = Chain::new();
        (0..5).for_each(|id| chain.push(&write(id)));
        let first = chain.take();
        assert_eq!(PostError::new(first, first.wrapping_add(3), 12), PostError { posted: 3, errno: 12 });
        for nonsense in [ptr::null_mut(), first.wrapping_sub(1), first.wrapping_add(64)] {
            assert_eq!(PostError::new(first, nonsense, 12).posted, 0);
        }
    }
}
