//! A look at what a peer has sent ahead. Where a body goes is known only from its header, so each small WRITE would cost a
//! receive of its own. The headers behind the body under way are read without being taken (MSG_PEEK); then one receive puts
//! all the bodies into place. No byte goes to an address that was not checked before.

use super::sock::{Io, Iov, Socket, IOV_MAX, SCRATCH};
use super::wire::{Header, HEADER_LEN};
use crate::memory::RegionUse;
use crate::transport::slice::Op;

/// Most requests of one look. Follows from [`IOV_MAX`]: each takes two pieces of memory, and the body under way and the header
/// behind them all one each.
pub(super) const MOST: usize = IOV_MAX / 2 - 1;
/// Largest body worth looking behind. Measured on the loopback, with 64 requests in the socket: 0.06 instead of 0.15 CPU
/// seconds per GB for bodies of 4 KiB, 0.056 instead of 0.064 for 16 KiB. The look copies every byte once more.
pub(super) const SMALL: u64 = SCRATCH as u64;

/// A WRITE body under way.
pub(super) struct Body {
    /// Its region.
    pub held: RegionUse,
    /// Where the next byte goes.
    pub addr: u64,
    /// Bytes to come.
    pub left: u64,
    /// All of its bytes.
    pub size: u64,
    /// It is to be answered.
    pub v2: bool,
}

/// The bodies behind the one under way, in order: their headers have arrived, at least. None if nothing is known of them.
#[derive(Default)]
pub(super) struct Ahead(Vec<Body>);

impl Ahead {
    /// Looks behind `body`, on the guess that WRITEs of the same size follow. Ends before a request that `check` refuses, and
    /// behind one of another size. The body is [`SMALL`] at the most. `heads` has room for [`MOST`] headers; they and `scratch` are overwritten.
    pub(super) fn look(
        socket: &Socket,
        body: &Body,
        heads: &mut [u8],
        scratch: &mut [u8; SCRATCH],
        mut check: impl FnMut(&Header) -> Option<RegionUse>,
    ) -> Self {
        let mut ahead = Ahead::default();
        let size = body.size;
        let bin = scratch.as_mut_ptr() as u64;
        let mut iov = Iov::new();
        iov.push_raw(bin, body.left);
        for head in heads.chunks_exact_mut(HEADER_LEN).take(MOST) {
            iov.push_mut(head);
            iov.push_raw(bin, size);
        }
        // What went wrong, the receive that follows says too.
        let Io::Moved(n) = socket.peek(&mut iov) else { return ahead };
        let mut end = body.left;
        for head in heads.chunks_exact(HEADER_LEN).take(MOST) {
            end += HEADER_LEN as u64;
            let Ok(bytes) = head.try_into() else { break };
            let header = Header::decode(bytes);
            if (n as u64) < end || header.op != Op::Write || ahead.0.try_reserve(1).is_err() {
                break;
            }
            let Some(held) = check(&header) else { break };
            let Header { size: left, addr, v2, .. } = header;
            ahead.0.push(Body { held, addr, left, size: left, v2 });
            if left != size {
                break;
            }
            end += size;
        }
        ahead
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds room for their headers and the places of their bodies. Returns the rest of `heads`.
    pub(super) fn ask<'a>(&self, iov: &mut Iov<'a>, mut heads: &'a mut [u8]) -> &'a mut [u8] {
        for body in &self.0 {
            let (head, rest) = heads.split_at_mut(HEADER_LEN);
            iov.push_mut(head);
            iov.push_raw(body.addr, body.left);
            heads = rest;
        }
        heads
    }

    /// The bodies.
    pub(super) fn into_bodies(self) -> impl Iterator<Item = Body> {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests;
