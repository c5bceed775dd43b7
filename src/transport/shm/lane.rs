//! The requests and the connection of one link, under its lock: what waits, what may be read, what was sent, and what became of
//! it. Slices end here, with the lock held; nothing here waits.

mod ends;
mod reads;
mod ringing;
#[cfg(test)]
pub(super) mod tests;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use super::awaited::{Awaited, AwaitedSet};
use super::connect::Connection;
use super::ends::{finish, unless_unwanted};
use super::errors;
use super::grants::{Grant, Grants};
use super::kernel;
use super::mapped::Mappings;
use super::pull::Check;
use super::sharing::Told;
use super::wire::{self, End, Kind, Message, Welcome, FEW_BYTES, MOST_BYTES, MOST_ENTRIES};
use crate::error::Error;
use crate::runtime::clock;
use crate::runtime::tracked::Tracked;
use crate::transport::slice::{Op, Slice};

/// How far the connection is.
pub(super) enum Stage {
    /// There is none.
    Idle,
    /// One is being made on the control plane.
    Connecting,
    /// The peer has yet to answer the greeting of this time.
    Greeting(Box<Connection>, Instant),
    /// Proven.
    Up(Box<Connection>),
    /// For good.
    Closed(Error),
}

/// A connection that was given up while the peer may still pull.
pub(super) struct Lingering {
    pub connection: Box<Connection>,
    pub awaited: AwaitedSet,
    /// Shared memory that the peer was told of: it has mapped it, and keeps that until it hears of its end.
    pub told: Told,
    pub since: Instant,
}

/// A READ that may be pulled.
pub(super) struct PendingRead {
    pub slice: Slice,
    pub check: Check,
    /// The id of the peer's shared memory that it is from; 0: none.
    pub memory: u64,
    /// As in [`UnknownRead`].
    pub lapses: u8,
}

/// A READ of which the peer has not said that it may be pulled.
pub(super) struct UnknownRead {
    pub slice: Slice,
    /// How often the word of a region that it was in did not hold.
    pub lapses: u8,
}

/// All of a link.
pub(super) struct Lane {
    pub stage: Stage,
    /// Slices without a connection, with the incarnation that they are for.
    pub pending: VecDeque<(Slice, u64)>,
    /// WRITEs that the peer has yet to hear of.
    pub writes: VecDeque<Slice>,
    /// READs of which the peer has not said that they may be pulled.
    pub unknown: VecDeque<UnknownRead>,
    /// READs that may be pulled.
    pub reads: VecDeque<PendingRead>,
    /// WRITEs that the peer has heard of.
    pub awaited: AwaitedSet,
    pub lingering: Vec<Lingering>,
    grants: Grants,
    /// Shared memory of the peer.
    pub mappings: Mappings,
    /// Shared memory that the peer was told of.
    told: Told,
    /// The number of the question that the peer has to answer, and its range.
    asked: Option<(u64, u64, u64)>,
    questions: u64,
    /// Nothing goes into the socket until something comes out.
    is_full: bool,
    /// When something came last, or something to wait for began.
    pub heard: Instant,
    /// The peer was asked elsewhere whether it is alive.
    pub is_probed: bool,
    /// Changes with each connection.
    pub generation: u64,
    /// WRITEs that were completed.
    pub written: u64,
    /// WRITEs that the peer was told of through the ring.
    pub told_by_ring: u64,
    /// When whoever polls looks into the socket again.
    socket_due_us: u64,
    buffer: Vec<u8>,
}

/// Why a connection ends.
pub(super) type Down = Error;

impl Lane {
    pub(super) fn new() -> Self {
        Lane {
            stage: Stage::Idle,
            pending: VecDeque::new(),
            writes: VecDeque::new(),
            unknown: VecDeque::new(),
            reads: VecDeque::new(),
            awaited: AwaitedSet::default(),
            lingering: Vec::new(),
            grants: Grants::default(),
            mappings: Mappings::default(),
            told: Told::default(),
            asked: None,
            questions: 0,
            is_full: false,
            heard: Instant::now(),
            is_probed: false,
            generation: 0,
            written: 0,
            told_by_ring: 0,
            socket_due_us: 0,
            buffer: Vec::new(),
        }
    }

    /// Something is waited for from the peer.
    pub(super) fn awaits(&self) -> bool {
        self.asked.is_some() || !self.awaited.is_empty()
    }

    /// Something may come from the peer that a caller waits for.
    pub(super) fn expects(&self) -> bool {
        self.awaits() || matches!(self.stage, Stage::Greeting(..))
    }

    /// Slices that the peer has not heard of.
    pub(super) fn waiting(&self) -> usize {
        self.pending.len() + self.writes.len() + self.unknown.len() + self.reads.len()
    }

    /// Something was submitted and has not ended.
    pub(super) fn is_busy(&self) -> bool {
        self.awaits() || self.waiting() > 0
    }

    /// Takes slices in. Those that there is no memory for fail.
    pub(super) fn admit(&mut self, slices: Vec<Slice>, key: u64) {
        if !self.awaits() {
            self.heard = Instant::now();
        }
        if self.pending.try_reserve(slices.len()).is_err() {
            return slices.into_iter().for_each(|slice| slice.fail(errors::no_memory()));
        }
        self.pending.extend(slices.into_iter().map(|slice| (slice, key)));
    }

    /// Sorts what waited for a connection, now that there is one.
    pub(super) fn sort(&mut self, peer: &str) {
        let Stage::Up(connection) = &self.stage else { return };
        let key = connection.key;
        let count = self.pending.len();
        let fits = self.writes.try_reserve(count).is_ok()
            && self.unknown.try_reserve(count).is_ok()
            && self.reads.try_reserve(count).is_ok();
        for (slice, meant) in std::mem::take(&mut self.pending) {
            if meant != 0 && meant != key {
                slice.fail(errors::restarted(peer));
            } else if !fits {
                slice.fail(errors::no_memory());
            } else if slice.op == Op::Write {
                self.writes.push_back(slice);
            } else {
                self.place_read(UnknownRead { slice, lapses: 0 });
            }
        }
    }

    /// Tells the peer of WRITEs and asks about READs, as far as the socket takes it. `Err`: the connection has ended.
    pub(super) fn flush(&mut self, peer: &str) -> Result<(), Down> {
        self.ask(peer)?;
        self.tell_by_ring(peer)?;
        while !self.writes.is_empty() && !self.is_full {
            match self.writes.len() {
                1..=4 => self.tell::<FEW_BYTES>(peer)?,
                _ => self.tell::<MOST_BYTES>(peer)?,
            }
        }
        Ok(())
    }

    fn tell<const N: usize>(&mut self, peer: &str) -> Result<(), Down> {
        if !self.awaited.reserve(MOST_ENTRIES.min(self.writes.len())) {
            self.writes.drain(..).for_each(|slice| slice.fail(errors::no_memory()));
            return Ok(());
        }
        let mut message = Message::<N>::new(Kind::Write);
        let mut tags = [0; MOST_ENTRIES];
        let mut count = 0;
        if !self.awaits() {
            self.heard = Instant::now();
        }
        let now_ns = clock::now_ns();
        while !message.is_full() {
            let Some(slice) = self.writes.pop_front().and_then(unless_unwanted) else {
                if self.writes.is_empty() {
                    break;
                }
                continue;
            };
            slice.note_posted(now_ns);
            let (local, remote, len) = (slice.local, slice.remote, slice.len);
            let memory = self.share(&slice);
            let tag = self.awaited.add(Awaited::Write(slice));
            message.push(&[tag, local, remote, len, memory]);
            tags[count] = tag;
            count += 1;
        }
        if count > 0 && !self.send(&message, peer)? {
            for tag in tags[..count].iter().rev() {
                if let Some(Awaited::Write(slice)) = self.awaited.take(*tag) {
                    self.writes.push_front(slice);
                }
            }
        }
        Ok(())
    }

    /// Tells the peer of the shared memory that a slice is in, once; 0: it is in none, or the peer could not be told.
    fn share(&mut self, slice: &Slice) -> u64 {
        let Some(memory) = slice.region().and_then(|region| region.kind.shared()) else { return 0 };
        let Stage::Up(connection) = &self.stage else { return 0 };
        self.told.share(&connection.socket, memory)
    }

    /// Tells the peer of shared memory that was freed.
    pub(super) fn unshare_freed(&mut self) {
        if let Stage::Up(connection) = &self.stage {
            self.told.unshare_freed(&connection.socket);
        }
    }

    /// `false`: the socket is full.
    fn send<const N: usize>(&mut self, message: &Message<N>, peer: &str) -> Result<bool, Down> {
        let (Stage::Up(connection) | Stage::Greeting(connection, _)) = &self.stage else { return Ok(false) };
        match connection.socket.send_with_flags(message.bytes(), libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                self.is_full = true;
                Ok(false)
            }
            Err(_) => Err(errors::hung_up(peer)),
        }
    }

    /// Takes in what the peer has sent, a part of it if it is much; the rest is told by the next event, or seen by whoever polls.
    /// `Ok(true)`: something came.
    pub(super) fn receive(&mut self, peer: &str) -> Result<bool, Down> {
        let rang = self.receive_by_ring(peer)?;
        Ok(self.receive_from_socket(peer)? | rang)
    }

    fn receive_from_socket(&mut self, peer: &str) -> Result<bool, Down> {
        // Kept, since to make one takes as long as a call.
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            buffer.try_reserve_exact(MOST_BYTES).map_err(|_| errors::no_memory())?;
            buffer.resize(MOST_BYTES, 0);
        }
        let outcome = self.receive_into(&mut buffer, peer);
        self.buffer = buffer;
        outcome
    }

    fn receive_into(&mut self, buffer: &mut [u8], peer: &str) -> Result<bool, Down> {
        let mut came = false;
        for _ in 0..kernel::MOST_MESSAGES {
            let (Stage::Up(connection) | Stage::Greeting(connection, _)) = &self.stage else {
                return Ok(came);
            };
            match kernel::receive(connection.socket.as_raw_fd(), buffer) {
                Ok((0, _)) => {
                    // What it answered before it left counts.
                    self.receive_by_ring(peer)?;
                    return Err(errors::hung_up(peer));
                }
                Ok((len, passed)) => {
                    came = true;
                    self.take(&buffer[..len], passed, peer)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(came),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(errors::hung_up(peer)),
            }
        }
        Ok(came)
    }

    fn take(&mut self, bytes: &[u8], passed: Option<Tracked<OwnedFd>>, peer: &str) -> Result<(), Down> {
        let nonsense = || errors::nonsense(peer);
        let (kind, mut entries) = wire::decode(bytes).ok_or_else(nonsense)?;
        self.heard = Instant::now();
        self.is_probed = false;
        self.is_full = false;
        match (kind, &mut self.stage) {
            (Kind::Welcome, Stage::Greeting(connection, _)) => {
                let welcome =
                    entries.next().and_then(|entry| Welcome::decode(&entry[..5])).ok_or_else(nonsense)?;
                connection.prove(&welcome, peer)?;
                if let Stage::Greeting(connection, _) = std::mem::replace(&mut self.stage, Stage::Idle) {
                    self.stage = Stage::Up(connection);
                }
                self.sort(peer);
            }
            (Kind::Ended, Stage::Up(_)) => {
                let now_ns = clock::now_ns();
                for [tag, end, ..] in entries {
                    let end = End::of(end).ok_or_else(nonsense)?;
                    self.written += u64::from(end == End::Applied);
                    finish(self.awaited.take(tag), end, now_ns, peer);
                }
            }
            (Kind::Grant, Stage::Up(_)) => {
                for [number, addr, len, word, check, memory, ..] in entries {
                    let Some((_, asked, bytes)) = self.asked.take_if(|asked| asked.0 == number) else {
                        continue;
                    };
                    let grant = Grant { addr, len, check: (word, check), memory };
                    match check != 0 && grant.covers(asked, bytes) {
                        true => self.granted(grant),
                        false => self.refused(asked, bytes, peer),
                    }
                }
            }
            (Kind::Share, Stage::Up(_)) => {
                let [id, base, len, ..] = entries.next().ok_or_else(nonsense)?;
                // This process may have no descriptor left: then the kernel copies.
                passed.into_iter().for_each(|fd| self.mappings.add(id, base, len, &*fd));
            }
            (Kind::Unshare, Stage::Up(_)) => entries.for_each(|[id, ..]| self.mappings.remove(id)),
            (Kind::Ring, Stage::Up(connection)) => {
                let [len, ..] = entries.next().ok_or_else(nonsense)?;
                connection.attach_ring(passed.as_ref().map(|fd| fd.as_raw_fd()), len);
            }
            // What is in the ring was taken before.
            (Kind::Wake, Stage::Up(_)) => {
                self.receive_by_ring(peer)?;
            }
            _ => return Err(nonsense()),
        }
        Ok(())
    }
}
