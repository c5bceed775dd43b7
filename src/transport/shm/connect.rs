//! Setting up a connection to a peer on this host: where it listens, the socket, who is at its other end. Runs on the control
//! plane; the proof follows in the first messages ([`super::wire::Hello`]).

#[cfg(test)]
pub(super) mod pair;

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::time::timeout;

use super::board::{numbers, Word};
use super::kernel;
use super::offer::{socket_name, ShmOffer};
use super::pull::{self, Loss, Source};
use super::ring::Ring;
use super::shared::Shared;
use super::wire::{Hello, Verdict, Welcome};
use crate::error::{Class, Code, Error, Result};
use crate::runtime::descriptors::is_scarce;
use crate::runtime::tracked::Tracked;
use crate::transport::host::Route;
use crate::transport::incarnation;

/// How long the descriptor is read again before an attempt, after a connection was lost. Chosen: a store or a peer that works
/// tells it in milliseconds.
const REREAD_LIMIT: Duration = Duration::from_millis(1500);

/// A connection to a peer.
pub(super) struct Connection {
    /// Does not block.
    pub socket: Tracked<Socket>,
    /// Readable when the peer's process has ended; `None` on old kernels, where the socket alone tells.
    pub process: Option<Tracked<OwnedFd>>,
    /// The peer's process; its cell is known once it has answered.
    pub source: Source,
    /// The peer's incarnation, as slices carry it.
    pub key: u64,
    /// For short messages, once there was one to send; `Some(None)`: there is no ring and will be none.
    pub ring: Option<Option<Ring>>,
    /// Holds while we have the connection.
    word: Option<Word>,
    shared: Arc<Shared>,
}

impl Connection {
    /// Takes the peer's answer: whether both sides can read each other.
    pub(super) fn prove(&mut self, welcome: &Welcome, peer: &str) -> Result<()> {
        let refused = |why: String| Error::new(Code::Socket, why).peer(peer);
        match welcome.verdict {
            Verdict::Proven => {}
            Verdict::Stranger => return Err(refused("another engine listens where the peer did".into())),
            Verdict::Unreadable => {
                return Err(refused(
                    "the peer is on this host and may not read this process's memory (Yama's ptrace_scope, another user \
                     namespace, a process that is not dumpable)"
                        .into(),
                ));
            }
        }
        self.source.cell = welcome.cell;
        pull::verify(&self.source, &[]).map_err(|loss| {
            let errno = if let Loss::Gone(errno) = loss { errno } else { 0 };
            let cause = std::io::Error::from_raw_os_error(errno);
            let what = "the peer is on this host, and this process may not read its memory (Yama's ptrace_scope, another user \
                        namespace, a process that is not dumpable)";
            Error::io(Code::Socket, what, &cause).peer(peer)
        })
    }

    /// The peer's pulls do not count any more.
    pub(super) fn retract(&mut self) {
        self.word.take().into_iter().for_each(|word| self.shared.board.close(word));
        self.ring.iter_mut().flatten().for_each(Ring::retract);
    }

    /// The ring, which is offered to the peer when it is first asked for.
    pub(super) fn ring(&mut self) -> Option<&mut Ring> {
        if self.ring.is_none() {
            let number = self.word.map_or(0, |word| word.number);
            let ring =
                Ring::new(number).ok().and_then(|mut ring| ring.announce(&*self.socket).ok().map(|()| ring));
            self.note_ring(ring.is_some());
            self.ring = Some(ring);
        }
        self.ring.as_mut()?.as_mut()
    }

    /// Takes the peer's page, if it came with its descriptor.
    pub(super) fn attach_ring(&mut self, fd: Option<RawFd>, len: u64) {
        if let Some(ring) = self.ring.as_mut().and_then(Option::as_mut) {
            let attached = fd.is_some_and(|fd| ring.attach(fd, len));
            self.note_ring(attached);
        }
    }

    fn note_ring(&self, is_there: bool) {
        self.shared.stats.without_ring.fetch_add(u64::from(!is_there), Relaxed);
    }

    /// The peer's process has ended, as far as the kernel tells.
    pub(super) fn has_ended(&self) -> bool {
        let process = self.process.as_ref().map(|process| process.as_raw_fd());
        process.is_some_and(|fd| crate::runtime::poll::readable([fd], 0) == [true])
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.retract();
    }
}

/// Connects and greets. The descriptor is read again first with `reread`, else after a failed attempt.
pub(super) async fn open(shared: &Arc<Shared>, route: &dyn Route, reread: bool) -> Result<Connection> {
    if reread {
        // Whether that succeeds does not matter: a store that is down must not stop transfers to known peers.
        let _ = timeout(REREAD_LIMIT, route.refresh()).await;
    }
    let id = target(route)?;
    let failed = match attempt(shared, route.peer(), &id) {
        Ok(connection) => return Ok(connection),
        Err(error) => error,
    };
    if reread || timeout(REREAD_LIMIT, route.refresh()).await.is_err() {
        return Err(failed);
    }
    match target(route)? {
        fresh if fresh == id => Err(failed),
        fresh => attempt(shared, route.peer(), &fresh),
    }
}

/// The incarnation that the peer's descriptor names.
fn target(route: &dyn Route) -> Result<[u8; incarnation::LEN]> {
    let offer = route.offer().offer;
    let offer = offer.as_ref().filter(|offer| offer.leads());
    let offer = offer.and_then(|offer| offer.as_any().downcast_ref::<ShmOffer>());
    let gone = || Error::new(Code::Socket, "the peer is not on this host any more").peer(route.peer());
    offer.map(|offer| offer.id).ok_or_else(gone)
}

fn attempt(shared: &Arc<Shared>, peer: &str, id: &[u8; incarnation::LEN]) -> Result<Connection> {
    let failed = |what: &str, e: &std::io::Error| {
        Error::io(Code::Socket, format!("{what} the peer on this host"), e).peer(peer)
    };
    let socket = Tracked::open(|| Socket::new(Domain::UNIX, Type::SEQPACKET.nonblocking(), None))
        .map_err(|e| failed("cannot make a socket to", &e).transient(Class::Resource))?;
    // Those that are left are the host program's; other transports lead to the peer as well.
    if is_scarce(socket.as_raw_fd()) {
        let text = "too many descriptors are open for a connection to the peer on this host (ulimit -n)";
        return Err(Error::new(Code::Socket, text).transient(Class::Resource).peer(peer));
    }
    socket.connect(&address(id)?).map_err(|e| failed("cannot connect to", &e))?;
    let (pid, user) =
        kernel::credentials(socket.as_raw_fd()).map_err(|e| failed("the kernel does not know", &e))?;
    if user != kernel::own_user() || pid <= 0 {
        let text = "the peer on this host runs as another user, or in another pid namespace";
        return Err(Error::new(Code::Socket, text).permanent(Class::Rejected).peer(peer));
    }
    let process = kernel::process_fd(pid).ok();
    let word = shared.board.open()?;
    let source = Source { pid, cell: 0, id: numbers(id) };
    let key = incarnation::key(id);
    let connection =
        Connection { socket, process, source, key, word: Some(word), ring: None, shared: shared.clone() };
    let cell = shared.board.cell();
    let hello = Hello { own: shared.id(), expected: numbers(id), cell, word: (word.addr, word.number) };
    let sent = connection.socket.send_with_flags(hello.encode().bytes(), libc::MSG_NOSIGNAL);
    sent.map_err(|e| failed("cannot greet", &e))?;
    Ok(connection)
}

/// Where the engine with this incarnation listens.
pub(super) fn address(id: &[u8; incarnation::LEN]) -> Result<SockAddr> {
    // The leading zero makes it an abstract name: unix(7).
    SockAddr::unix(format!("\0{}", socket_name(id)))
        .map_err(|e| Error::io(Code::Socket, "a socket's name", &e))
}
