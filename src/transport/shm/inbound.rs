//! A connection of a peer, as its target: says which memory may be read, and pulls what the peer wants written. One thread
//! reads the socket; others may help to pull.

mod pulling;
mod ringing;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use socket2::Socket;

use self::ringing::Ringing;
use super::kernel;
use super::mapped::Mappings;
use super::pull::{self, Check, Pull, Source};
use super::reactor::{Next, Reactor, Watched};
use super::shared::Shared;
use super::sharing::Told;
use super::wire::{self, End, Hello, Kind, Message, Verdict, Welcome, FEW_BYTES, MOST_BYTES, MOST_ENTRIES};
use crate::memory::PeerAccess;
use crate::runtime::epoll;
use crate::runtime::tracked::Tracked;

/// WRITEs that wait to be pulled; with more, the socket is not read. Chosen: several messages, and 128 KiB of memory.
const MOST_QUEUED: usize = 4096;
/// Longest WRITE that is taken. Chosen: far above what this project's engines cut requests into, and a call that pulls it takes
/// milliseconds.
const LONGEST: u64 = 64 << 20;
/// How long a connection may be open without a greeting. Chosen: engines send it at once.
const GREETING_LIMIT: Duration = Duration::from_secs(5);

const NOTHING: Wanted = Wanted { tag: 0, pull: Pull { from: 0, to: 0, len: 0 }, memory: 0 };

/// A connection of a peer.
pub(super) struct Inbound {
    token: u64,
    socket: Tracked<Socket>,
    shared: Arc<Shared>,
    reactor: Arc<Reactor>,
    /// As the kernel knows the peer.
    pid: i32,
    me: Weak<Inbound>,
    state: Mutex<State>,
}

struct State {
    since: Instant,
    /// Once it is proven.
    peer: Option<Peer>,
    queue: VecDeque<Wanted>,
    /// Answers that the socket has not taken.
    ended: Vec<[u64; 2]>,
    granted: Vec<[u64; 6]>,
    /// For short messages, once the peer has offered it.
    ring: Option<Ringing>,
    /// Shared memory of the peer, and that of ours which the peer was told of.
    mappings: Mappings,
    told: Told,
    buffer: Vec<u8>,
    interest: u32,
    /// Other threads were asked to help with what is in the queue.
    has_help: bool,
    ended_by: Option<&'static str>,
}

#[derive(Clone, Copy)]
struct Peer {
    source: Source,
    /// The word that says that the peer still has the connection.
    check: Check,
    /// The word did not hold: nothing is pulled any more.
    is_stale: bool,
    /// When the process was last seen to be the peer, as [`Threads::now_us`](crate::runtime::reactor::threads::Threads::now_us).
    verified_us: u64,
}

/// A WRITE.
#[derive(Clone, Copy)]
struct Wanted {
    tag: u64,
    pull: Pull,
    /// The id of the peer's shared memory that it is from; 0: none.
    memory: u64,
}

impl Inbound {
    /// A connection that was accepted; it is watched from now on. `None`: it is refused.
    pub(super) fn new(
        shared: &Arc<Shared>,
        reactor: &Arc<Reactor>,
        socket: Tracked<Socket>,
    ) -> Option<Arc<Self>> {
        let refuse = |why: &str| {
            shared.stats.inbound_refused.fetch_add(1, Relaxed);
            if shared.log.admit("shm refused", "") {
                tracing::warn!("a connection of this host was refused: {why}");
            }
            None
        };
        let most = shared.config.tcp_max_inbound;
        if shared.inbound.load(Relaxed) >= most || crate::runtime::descriptors::is_scarce(socket.as_raw_fd())
        {
            return refuse("too many are open (MC_TCP_MAX_INBOUND, ulimit -n)");
        }
        let Ok((pid, user)) = kernel::credentials(socket.as_raw_fd()) else {
            return refuse("the kernel does not tell whose it is");
        };
        if user != kernel::own_user() || pid <= 0 {
            return refuse("it is another user's, or from another pid namespace");
        }
        let token = shared.threads.next_token();
        reactor.watch(socket.as_raw_fd(), token, epoll::IN).ok()?;
        shared.inbound.fetch_add(1, Relaxed);
        Some(Arc::new_cyclic(|me| Inbound {
            token,
            socket,
            shared: shared.clone(),
            reactor: reactor.clone(),
            pid,
            me: me.clone(),
            state: Mutex::new(State {
                since: Instant::now(),
                peer: None,
                queue: VecDeque::new(),
                ended: Vec::new(),
                granted: Vec::new(),
                ring: None,
                mappings: Mappings::default(),
                told: Told::default(),
                buffer: Vec::new(),
                interest: epoll::IN,
                has_help: false,
                ended_by: None,
            }),
        }))
    }

    /// Reads messages and takes them in; what is left is told by the next event. `Err`: why the connection ends.
    fn receive(&self, state: &mut State) -> Result<(), &'static str> {
        // Kept, since to make one takes as long as a call.
        let mut buffer = std::mem::take(&mut state.buffer);
        if buffer.is_empty() {
            buffer.try_reserve_exact(MOST_BYTES).map_err(|_| "there is no memory for messages")?;
            buffer.resize(MOST_BYTES, 0);
        }
        self.receive_by_ring(state)?;
        for _ in 0..kernel::MOST_MESSAGES {
            if state.queue.len() >= MOST_QUEUED || state.owes() {
                break;
            }
            match kernel::receive(self.socket.as_raw_fd(), &mut buffer) {
                Ok((0, _)) => return Err("the peer has hung up"),
                Ok((len, passed)) => self.take(state, &buffer[..len], passed)?,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Err("the connection failed"),
            }
            // What is granted is waited for.
            self.flush(state)?;
        }
        self.receive_by_ring(state)?;
        state.buffer = buffer;
        Ok(())
    }

    fn take(
        &self,
        state: &mut State,
        bytes: &[u8],
        passed: Option<Tracked<OwnedFd>>,
    ) -> Result<(), &'static str> {
        const MEMORY: &str = "there is no memory for its requests";
        let (kind, mut entries) = wire::decode(bytes).ok_or("it sent what is no message")?;
        if kind == Kind::Hello {
            let hello = entries.next().as_ref().and_then(|entry| Hello::decode(entry));
            return self.greet(state, &hello.ok_or("it greeted in another version")?);
        }
        if state.peer.is_none() {
            return Err("it did not greet");
        }
        match kind {
            Kind::Write => {
                state.queue.try_reserve(MOST_ENTRIES).map_err(|_| MEMORY)?;
                for [tag, from, to, len, memory, ..] in entries {
                    state.queue.push_back(Wanted::new([tag, from, to, len, memory])?);
                }
            }
            Kind::Withdraw => {
                // What it takes back may be in the ring still.
                self.receive_all_by_ring(state)?;
                state.ended.try_reserve(MOST_ENTRIES).map_err(|_| MEMORY)?;
                for [tag, ..] in entries {
                    if let Some(at) = state.queue.iter().position(|wanted| wanted.tag == tag) {
                        state.queue.remove(at);
                        state.ended.push([tag, End::Withdrawn as u64]);
                    }
                }
            }
            Kind::Ask => {
                state.granted.try_reserve(MOST_ENTRIES).map_err(|_| MEMORY)?;
                for [tag, addr, len, ..] in entries {
                    let grant = self.grant(state, tag, addr, len);
                    state.granted.push(grant);
                }
            }
            Kind::Share => {
                let [id, base, len, ..] = entries.next().ok_or("it shared nothing")?;
                // This process may have no descriptor left: then the kernel copies.
                passed.into_iter().for_each(|fd| state.mappings.add(id, base, len, &*fd));
            }
            Kind::Unshare => entries.for_each(|[id, ..]| state.mappings.remove(id)),
            Kind::Ring => {
                let [len, ..] = entries.next().ok_or("it offered no ring")?;
                // As for shared memory.
                passed.map_or(Ok(()), |fd| self.take_ring(state, &*fd, len))?;
            }
            // What is in the ring is taken below.
            Kind::Wake => {}
            Kind::Hello | Kind::Welcome | Kind::Ended | Kind::Grant => {
                return Err("it sent what is no request")
            }
        }
        Ok(())
    }

    /// The proof of both sides.
    fn greet(&self, state: &mut State, hello: &Hello) -> Result<(), &'static str> {
        let source = Source { pid: self.pid, cell: hello.cell, id: hello.own };
        let verdict = match pull::verify(&source, &[hello.word]) {
            _ if hello.expected != self.shared.id() => Verdict::Stranger,
            Ok(()) => Verdict::Proven,
            Err(_) => Verdict::Unreadable,
        };
        let welcome = Welcome { own: self.shared.id(), cell: self.shared.board.cell(), verdict };
        let sent = self.socket.send_with_flags(welcome.encode().bytes(), libc::MSG_NOSIGNAL);
        if verdict == Verdict::Proven && sent.is_ok() && state.peer.is_none() {
            self.shared.stats.inbound_accepted.fetch_add(1, Relaxed);
            state.peer = Some(Peer { source, check: hello.word, is_stale: false, verified_us: 0 });
            return Ok(());
        }
        self.shared.stats.inbound_refused.fetch_add(1, Relaxed);
        Err("it could not be proven that it is on this host and whom it expects")
    }

    /// The answer to a range that a peer wants to read.
    fn grant(&self, state: &mut State, tag: u64, addr: u64, len: u64) -> [u64; 6] {
        let held = self.shared.registry.use_for_peer(addr, len, PeerAccess::READ);
        let found = held.as_ref().and_then(|held| Some((held.region(), self.shared.word_of(held.region())?)));
        match found {
            Some((region, word)) => {
                let memory = region.kind.shared();
                let memory = memory.map_or(0, |memory| state.told.share(&self.socket, memory));
                [tag, region.addr, region.len, word.addr, word.number, memory]
            }
            None => {
                self.note_rejected();
                [tag, 0, 0, 0, 0, 0]
            }
        }
    }

    fn note_rejected(&self) {
        self.shared.stats.inbound_rejected.fetch_add(1, Relaxed);
    }

    /// Sends what is owed, as far as the socket takes it.
    fn flush(&self, state: &mut State) -> Result<(), &'static str> {
        self.send(&mut state.granted, Kind::Grant)?;
        self.answer_by_ring(state);
        self.send(&mut state.ended, Kind::Ended)
    }

    fn send<const W: usize>(&self, entries: &mut Vec<[u64; W]>, kind: Kind) -> Result<(), &'static str> {
        loop {
            let sent = match entries.len() {
                0 => return Ok(()),
                1..=4 => self.send_some::<W, FEW_BYTES>(entries, kind)?,
                _ => self.send_some::<W, MOST_BYTES>(entries, kind)?,
            };
            if sent == 0 {
                return Ok(());
            }
            entries.drain(..sent);
        }
    }

    /// Sends a message with the first of `entries` and says how many they were; 0: the socket is full.
    fn send_some<const W: usize, const N: usize>(
        &self,
        entries: &[[u64; W]],
        kind: Kind,
    ) -> Result<usize, &'static str> {
        let mut message = Message::<N>::new(kind);
        let mut count = 0;
        while count < entries.len() && !message.is_full() {
            message.push(&entries[count]);
            count += 1;
        }
        match self.socket.send_with_flags(message.bytes(), libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) {
            Ok(_) => Ok(count),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(0),
            Err(_) => Err("the connection failed"),
        }
    }

    /// What is watched, and what is to be done, after any of the above.
    fn next(&self, mut state: MutexGuard<'_, State>, outcome: Result<(), &'static str>) -> Next {
        match outcome {
            Err(why) => return self.end(&mut state, why),
            Ok(()) if state.ended_by.is_some() => return Next::Close,
            Ok(()) => {}
        }
        let full = state.queue.len() >= MOST_QUEUED;
        let interest = match state.owes() {
            true => epoll::OUT,
            false if full => 0,
            false => epoll::IN,
        };
        if interest != state.interest {
            state.interest = interest;
            self.reactor.rewatch(self.socket.as_raw_fd(), self.token, interest);
        }
        match state.queue.is_empty() || state.owes() {
            true if state.awaits_reader() => Next::Look,
            true => Next::Done,
            false => Next::Work,
        }
    }

    fn end(&self, state: &mut State, why: &'static str) -> Next {
        state.queue.clear();
        if state.ended_by.replace(why).is_none() {
            tracing::debug!("a connection of process {} ends: {why}", self.pid);
            self.reactor.unwatch(self.socket.as_raw_fd());
        }
        Next::Close
    }
}

impl Wanted {
    /// The request of a message. `Err`: why the connection ends.
    fn new([tag, from, to, len, memory]: [u64; 5]) -> Result<Self, &'static str> {
        match (1..=LONGEST).contains(&len) {
            true => Ok(Wanted { tag, pull: Pull { from, to, len }, memory }),
            false => Err("it sent a request that is too long, or empty"),
        }
    }
}

impl State {
    fn owes(&self) -> bool {
        !(self.ended.is_empty() && self.granted.is_empty())
    }
}

impl Watched for Inbound {
    fn token(&self) -> u64 {
        self.token
    }

    fn on_ready(&self) -> Next {
        let mut state = self.state.lock();
        if state.ended_by.is_some() {
            return Next::Close;
        }
        let outcome = self.flush(&mut state).and_then(|()| self.receive(&mut state));
        match self.next(state, outcome) {
            Next::Work => self.work(),
            next => next,
        }
    }

    fn work(&self) -> Next {
        let state = self.state.lock();
        match state.ended_by {
            Some(_) => Next::Close,
            None => self.pull(state),
        }
    }

    fn look(&self) -> Next {
        self.remind();
        self.on_ready()
    }

    fn attend(&self) -> bool {
        let mut state = self.state.lock();
        state.ended_by.is_none() && state.ring.as_mut().is_some_and(|ringing| ringing.wake())
    }

    fn glance(&self) -> Option<Next> {
        self.glance_at_ring()
    }

    fn doze(&self) -> bool {
        self.state.lock().ring.as_mut().is_some_and(|ringing| ringing.sleep())
    }

    fn tick(&self, now: Instant, _: Duration) -> Next {
        let mut state = self.state.lock();
        if state.peer.is_none() && now.saturating_duration_since(state.since) > GREETING_LIMIT {
            return self.end(&mut state, "it did not greet in time");
        }
        state.told.unshare_freed(&self.socket);
        match state.ended_by {
            Some(_) => Next::Close,
            None => Next::Done,
        }
    }

    fn abandon(&self) {}
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.shared.inbound.fetch_sub(1, Relaxed);
        self.reactor.unwatch(self.socket.as_raw_fd());
    }
}
