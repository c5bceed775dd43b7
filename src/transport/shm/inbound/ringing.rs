//! Requests of a peer that come through the ring of its connection, and answers that go there.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;

use super::{Inbound, Peer, State, Wanted, MOST_QUEUED};
use crate::transport::shm::kernel::MOST_MESSAGES;
use crate::transport::shm::reactor::{Next, Watched};
use crate::transport::shm::ring::Ring;
use crate::transport::shm::wire::{Kind, Message, FEW_BYTES};

/// Answers that go through the ring, if there are no more. Chosen: many share the price of a message in the socket.
const FEW: usize = 4;

/// The ring, and whether the peer reads it: a caller there who polled once may never do so again.
pub(super) struct Ringing {
    ring: Ring,
    /// How many answers were there at the last look.
    looked: u64,
    /// How many there were when the peer was last told of them.
    told: u64,
}

impl Ringing {
    /// From now on this side looks.
    pub(super) fn wake(&mut self) -> bool {
        self.ring.wake();
        true
    }

    /// From now on it does not. `true`: there is something.
    pub(super) fn sleep(&mut self) -> bool {
        self.ring.sleep()
    }

    /// There are answers that the peer has not taken, and has not been told of.
    fn is_unread(&self) -> bool {
        let (sent, taken) = self.ring.progress();
        taken < sent && self.told < sent
    }
}

impl State {
    /// By its page, the peer still has the connection.
    pub(super) fn holds(&self, peer: &Peer) -> bool {
        self.ring.as_ref().is_some_and(|ringing| ringing.ring.peer_has(peer.check.1))
    }

    /// There are answers in the ring that may have to be told of.
    pub(super) fn awaits_reader(&self) -> bool {
        self.ring.as_ref().is_some_and(Ringing::is_unread)
    }
}

impl Inbound {
    /// Takes the peer's page and answers with one. Where there is none, the socket is used as before.
    pub(super) fn take_ring(
        &self,
        state: &mut State,
        fd: &impl AsRawFd,
        len: u64,
    ) -> Result<(), &'static str> {
        if state.ring.is_some() {
            return Err("it sent a second ring");
        }
        // Nobody asks whether this side still has the connection: the answers tell.
        let ring = Ring::new(0).ok().and_then(|mut ring| {
            let is_there = ring.attach(fd.as_raw_fd(), len) && ring.announce(&*self.socket).is_ok();
            is_there.then_some(ring)
        });
        self.shared.stats.without_ring.fetch_add(u64::from(ring.is_none()), Relaxed);
        state.ring = ring.map(|ring| Ringing { ring, looked: 0, told: 0 });
        Ok(())
    }

    /// Takes in what is in the ring, unless the queue is full. `Err`: why the connection ends.
    pub(super) fn receive_by_ring(&self, state: &mut State) -> Result<(), &'static str> {
        match state.queue.len() < MOST_QUEUED {
            true => self.receive_all_by_ring(state),
            false => Ok(()),
        }
    }

    /// As [`Inbound::receive_by_ring`], whatever is in the queue.
    pub(super) fn receive_all_by_ring(&self, state: &mut State) -> Result<(), &'static str> {
        let State { ring: Some(ringing), queue, .. } = state else { return Ok(()) };
        if !ringing.ring.has_more() {
            return Ok(());
        }
        queue.try_reserve(MOST_MESSAGES).map_err(|_| "there is no memory for its requests")?;
        for _ in 0..MOST_MESSAGES {
            let Some((kind, [tag, from, to, len, memory, _])) = ringing.ring.take() else { break };
            if kind != Kind::Write as u64 {
                return Err("it put what is no request into the ring");
            }
            queue.push_back(Wanted::new([tag, from, to, len, memory])?);
        }
        Ok(())
    }

    /// Answers through the ring, if the peer looks there.
    pub(super) fn answer_by_ring(&self, state: &mut State) {
        let State { ring: Some(ringing), ended, .. } = state else { return };
        if ended.is_empty() || ended.len() > FEW {
            return;
        }
        let mut put = 0;
        while put < ended.len() && ringing.ring.takes() {
            ringing.ring.put(Kind::Ended, &ended[put]);
            put += 1;
        }
        ended.drain(..put);
        if put > 0 && ringing.ring.must_wake() {
            self.tell(ringing);
        }
    }

    /// Tells the peer to look into the ring. A socket that is full makes it look anyway.
    fn tell(&self, ringing: &mut Ringing) {
        ringing.told = ringing.ring.progress().0;
        let mut message = Message::<FEW_BYTES>::new(Kind::Wake);
        message.push(&[0]);
        let _ = self.socket.send_with_flags(message.bytes(), libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT);
    }

    /// Tells the peer of answers that it has left in the ring since the last look.
    pub(super) fn remind(&self) {
        let mut state = self.state.lock();
        let Some(ringing) = &mut state.ring else { return };
        let (sent, taken) = ringing.ring.progress();
        if ringing.is_unread() && taken < ringing.looked {
            self.tell(ringing);
        }
        ringing.looked = sent;
    }

    /// What is done when the thread looks at the ring: `None` if there is nothing.
    pub(super) fn glance_at_ring(&self) -> Option<Next> {
        let mut state = self.state.try_lock()?;
        let has_more = state.ring.as_ref().is_some_and(|ringing| ringing.ring.has_more());
        // With a full queue, or answers that the socket does not take, nothing is taken in.
        let has_room = state.queue.len() < MOST_QUEUED && !state.owes();
        if !has_more || !has_room || state.ended_by.is_some() {
            return None;
        }
        let outcome = self.receive_by_ring(&mut state);
        match self.next(state, outcome) {
            Next::Work => Some(self.work()),
            next => Some(next),
        }
    }
}
