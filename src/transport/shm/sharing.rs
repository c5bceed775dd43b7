//! Telling a peer of shared memory of ours.

use std::os::fd::AsRawFd;

use socket2::Socket;

use super::kernel;
use super::wire::{Kind, Message, FEW_BYTES};
use crate::memory::shared::SharedMemory;

/// Sends the descriptor of `memory`, unless it is among those that were `told`; gives its id, or 0 if the peer could not be told
/// now.
pub(super) fn share(socket: &Socket, told: &mut Vec<u64>, memory: &SharedMemory) -> u64 {
    if told.contains(&memory.id) {
        return memory.id;
    }
    let mut message = Message::<FEW_BYTES>::new(Kind::Share);
    message.push(&[memory.id, memory.addr, memory.len]);
    let fits = told.try_reserve(1).is_ok();
    if !fits || kernel::send_with(socket.as_raw_fd(), message.bytes(), memory.fd()).is_err() {
        return 0;
    }
    told.push(memory.id);
    memory.id
}
