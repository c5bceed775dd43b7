//! WRITEs of a peer: this engine pulls the bytes.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::{Inbound, Peer, State, Wanted, NOTHING};
use crate::memory::{PeerAccess, RegionUse};
use crate::transport::shm::pull::{self, Loss, Pull, MOST_PULLS};
use crate::transport::shm::reactor::Next;
use crate::transport::shm::wire::End;

/// Bytes pulled between two looks at the socket. Chosen: some 0.2 ms.
const CHUNK: u64 = 1 << 20;
/// WRITEs that are few.
const FEW: usize = 4;
/// For how long it is known who the peer's process is, if its page says that it has the connection. Chosen: a process that is stopped
/// is so for longer, mostly, and no number comes to another process in that time.
const FRESH_US: u64 = 1000;

impl Inbound {
    /// Pulls the front of the queue, as much as fits into one call.
    pub(super) fn pull(&self, state: MutexGuard<'_, State>) -> Next {
        // Long lists take time to be made.
        match state.queue.len() {
            0..=FEW => self.pull_up_to::<FEW>(state),
            _ => self.pull_up_to::<MOST_PULLS>(state),
        }
    }

    fn pull_up_to<const N: usize>(&self, mut state: MutexGuard<'_, State>) -> Next {
        let Some(peer) = state.peer else { return self.next(state, Ok(())) };
        let (mut wanted, mut bytes) = ([NOTHING; N], 0);
        let mut count = 0;
        while let Some(one) = state.queue.front().copied() {
            let fits = count == 0 || bytes + one.pull.len <= CHUNK;
            if !fits || count == N {
                break;
            }
            state.queue.pop_front();
            wanted[count] = one;
            count += 1;
            bytes += one.pull.len;
        }
        let wanted = &wanted[..count];
        // Without room for the answers nothing is begun.
        if state.ended.try_reserve(count).is_err() {
            return self.next(state, Err("there is no memory for answers"));
        }
        self.call_for_help(&mut state);
        let now_us = self.shared.threads.now_us();
        let is_fresh = now_us.saturating_sub(peer.verified_us) < FRESH_US && state.holds(&peer);
        drop(state);
        let mut ends = [End::Withdrawn; N];
        let outcome = match peer.is_stale || wanted.is_empty() {
            true => Ok(false),
            false => self.pull_all::<N>(&peer, wanted, &mut ends, is_fresh),
        };
        let mut state = self.state.lock();
        match outcome {
            // If the kernel was asked at all.
            Ok(verified) => {
                state.peer.iter_mut().filter(|_| verified).for_each(|peer| peer.verified_us = now_us)
            }
            // The peer has given up the connection, and may only still wait for the word that nothing more is pulled.
            Err(Loss::Stale) => {
                ends = [End::Withdrawn; N];
                state.peer.iter_mut().for_each(|peer| peer.is_stale = true);
            }
            Err(_) => return self.next(state, Err("its memory cannot be read any more")),
        }
        for (wanted, end) in wanted.iter().zip(ends) {
            state.ended.push([wanted.tag, end as u64]);
            if end == End::Applied {
                self.shared.stats.bytes_pulled.fetch_add(wanted.pull.len, Relaxed);
            }
        }
        self.shared.stats.inbound_requests.fetch_add(wanted.len() as u64, Relaxed);
        // What was left in the ring while the queue was full, nobody tells of.
        let outcome = self.receive_by_ring(&mut state).and_then(|()| self.flush(&mut state));
        self.next(state, outcome)
    }

    /// How each of them ended; an error if none counts. `is_fresh`: it is known that the peer has the connection. `Ok(true)`: the
    /// kernel was asked who it is.
    fn pull_all<const N: usize>(
        &self,
        peer: &Peer,
        wanted: &[Wanted],
        ends: &mut [End],
        is_fresh: bool,
    ) -> Result<bool, Loss> {
        // Before as well: a process that was stopped must not pull what was given up long ago.
        let checks = [peer.check];
        if !is_fresh {
            pull::verify(&peer.source, &checks)?;
        }
        let mut uses: [Option<RegionUse>; N] = [const { None }; N];
        let mut pulls = [Pull { from: 0, to: 0, len: 0 }; N];
        let mut open = 0;
        for (wanted, (held, end)) in wanted.iter().zip(uses.iter_mut().zip(ends.iter_mut())) {
            let Pull { from, to, len } = wanted.pull;
            *held = self.shared.registry.use_for_peer(to, len, PeerAccess::WRITE);
            *end = if held.is_some() { End::Applied } else { End::Refused };
            let Some(held) = held else {
                self.note_rejected();
                continue;
            };
            let way = match wanted.memory {
                0 => None,
                memory => self.state.lock().mappings.way(memory, from, Some(held.region())),
            };
            if !way.is_some_and(|way| way.copy(to, len)) {
                pulls[open] = wanted.pull;
                open += 1;
            }
        }
        // What has come counts if the peer has the connection afterwards, too.
        let came = is_fresh && (open == 0 || pull::pull_unproven(&peer.source, &pulls[..open]));
        if came && self.state.lock().holds(peer) {
            return Ok(false);
        }
        match pull::pull(&peer.source, &pulls[..open], &checks) {
            Ok(()) => return Ok(true),
            Err(Loss::Theirs | Loss::Ours) => {}
            Err(loss) => return Err(loss),
        }
        // One of them is at fault; each is tried by itself.
        for (wanted, end) in wanted.iter().zip(ends).filter(|(_, end)| **end == End::Applied) {
            match pull::pull(&peer.source, &[wanted.pull], &checks) {
                Ok(()) => {}
                Err(Loss::Theirs) => *end = End::SourceFault,
                Err(Loss::Ours) => {
                    *end = End::TargetFault;
                    if self.shared.log.admit("fault", "") {
                        tracing::error!(
                            "a registered buffer is not mapped; unregister memory before freeing it"
                        );
                    }
                }
                Err(loss) => return Err(loss),
            }
        }
        Ok(true)
    }

    /// Other threads pull too, where there is much.
    pub(super) fn call_for_help(&self, state: &mut State) {
        let reactors = self.shared.threads.reactors();
        if state.queue.is_empty() {
            state.has_help = false;
        } else if !state.has_help && reactors.len() > 1 {
            let left: u64 = state.queue.iter().map(|wanted| wanted.pull.len).sum();
            if left >= CHUNK {
                state.has_help = true;
                let others = reactors.iter().filter(|reactor| !Arc::ptr_eq(reactor, &self.reactor));
                let Some(me) = self.me.upgrade() else { return };
                others.for_each(|reactor| reactor.work(me.clone()));
            }
        }
    }
}
