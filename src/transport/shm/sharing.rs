//! Telling a peer of shared memory of ours, and of its end.

use std::os::fd::AsRawFd;
use std::sync::{Arc, Weak};

use socket2::Socket;

use super::kernel;
use super::wire::{Kind, Message, FEW_BYTES};
use crate::memory::shared::SharedMemory;

/// Shared memory of ours that the peer of a connection was told of, with its ids.
#[derive(Default)]
pub(super) struct Told(Vec<(u64, Weak<SharedMemory>)>);

impl Told {
    /// Sends the descriptor of `memory`, unless the peer has it; gives its id, or 0 if the peer could not be told now, or must
    /// not have it.
    pub(super) fn share(&mut self, socket: &Socket, memory: &Arc<SharedMemory>) -> u64 {
        if self.0.iter().any(|(id, _)| *id == memory.id) {
            return memory.id;
        }
        let mut message = Message::<FEW_BYTES>::new(Kind::Share);
        message.push(&[memory.id, memory.addr, memory.len]);
        let fits = memory.can_be_shared() && self.0.try_reserve(1).is_ok();
        if !fits || kernel::send_with(socket.as_raw_fd(), message.bytes(), memory.fd()).is_err() {
            return 0;
        }
        self.0.push((memory.id, Arc::downgrade(memory)));
        memory.id
    }

    /// Tells the peer of memory that was freed since, as far as the socket takes it: the pages stay for as long as the peer has
    /// mapped them.
    pub(super) fn unshare_freed(&mut self, socket: &Socket) {
        self.0.retain(|(id, memory)| {
            let mut message = Message::<FEW_BYTES>::new(Kind::Unshare);
            message.push(&[*id]);
            let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
            memory.strong_count() > 0 || socket.send_with_flags(message.bytes(), flags).is_err()
        });
    }
}
