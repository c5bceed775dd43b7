//! A lane's few small messages, which go through the ring of its connection where the peer looks for them.

use std::time::Instant;

use super::{Down, Lane, Stage};
use crate::runtime::clock;
use crate::transport::shm::awaited::Awaited;
use crate::transport::shm::ends::{finish, unless_unwanted};
use crate::transport::shm::errors;
use crate::transport::shm::kernel::MOST_MESSAGES;
use crate::transport::shm::ring::Ring;
use crate::transport::shm::wire::{End, Kind, Message, FEW_BYTES};

/// WRITEs that are told through the ring, if no more wait. Chosen: many share the price of a message in the socket.
const FEW: usize = 4;
/// How often a caller who polls looks into the socket, in which long answers come and whatever found the ring full. Chosen: more
/// often would cost the short answers as much time as they take.
const SOCKET_AGAIN_US: u64 = 20;

impl Lane {
    fn ring(&mut self) -> Option<&mut Ring> {
        match &mut self.stage {
            Stage::Up(connection) => connection.ring.as_mut()?.as_mut(),
            _ => None,
        }
    }

    /// Tells the peer of a few WRITEs. What is left goes through the socket.
    pub(super) fn tell_by_ring(&mut self, peer: &str) -> Result<(), Down> {
        if self.writes.is_empty() || self.writes.len() > FEW {
            return Ok(());
        }
        let Stage::Up(connection) = &mut self.stage else { return Ok(()) };
        if !connection.ring().is_some_and(|ring| ring.takes()) || !self.awaited.reserve(FEW) {
            return Ok(());
        }
        if !self.awaits() {
            self.heard = Instant::now();
        }
        let now_ns = clock::now_ns();
        let mut told = false;
        while self.ring().is_some_and(Ring::takes) {
            let Some(slice) = self.writes.pop_front() else { break };
            let Some(slice) = unless_unwanted(slice) else { continue };
            slice.note_posted(now_ns);
            let (local, remote, len) = (slice.local, slice.remote, slice.len);
            let memory = self.share(&slice);
            let tag = self.awaited.add(Awaited::Write(slice));
            if let Some(ring) = self.ring() {
                ring.put(Kind::Write, &[tag, local, remote, len, memory]);
            }
            self.told_by_ring += 1;
            told = true;
        }
        if told && self.ring().is_some_and(|ring| ring.must_wake()) {
            let mut message = Message::<FEW_BYTES>::new(Kind::Wake);
            message.push(&[0]);
            // A socket that is full wakes the peer anyway.
            self.send(&message, peer)?;
        }
        Ok(())
    }

    /// Takes in what is in the ring. `Ok(true)`: something was.
    pub(in crate::transport::shm) fn receive_by_ring(&mut self, peer: &str) -> Result<bool, Down> {
        let mut now_ns = 0;
        for _ in 0..MOST_MESSAGES {
            let Some((kind, [tag, end, ..])) = self.ring().and_then(Ring::take) else { break };
            let end = End::of(end).filter(|_| kind == Kind::Ended as u64);
            let end = end.ok_or_else(|| errors::nonsense(peer))?;
            if now_ns == 0 {
                now_ns = clock::now_ns();
                self.heard = Instant::now();
                self.is_probed = false;
                // It reads, so there may be room.
                self.is_full = false;
            }
            self.written += u64::from(end == End::Applied);
            finish(self.awaited.take(tag), end, now_ns, peer);
        }
        Ok(now_ns != 0)
    }

    /// For a caller who asks again soon: what is in the ring, and what is in the socket where the peer may use that.
    pub(in crate::transport::shm) fn receive_polled(
        &mut self,
        now_us: u64,
        peer: &str,
    ) -> Result<bool, Down> {
        let mut has_ring = false;
        if let Some(ring) = self.ring().filter(|ring| ring.is_attached()) {
            ring.wake();
            has_ring = true;
        }
        let rang = self.receive_by_ring(peer)?;
        // Also where the ring never runs dry.
        if has_ring && now_us < self.socket_due_us {
            return Ok(rang);
        }
        self.socket_due_us = now_us + SOCKET_AGAIN_US;
        Ok(self.receive_from_socket(peer)? | rang)
    }

    /// Nobody polls from now on, so the peer has to tell. `true`: there is something in the ring already.
    pub(in crate::transport::shm) fn sleep(&mut self) -> bool {
        self.ring().is_some_and(Ring::sleep)
    }
}
