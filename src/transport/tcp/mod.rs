//! The TCP transport: payload over kernel sockets, both framings, both roles.

mod connect;
mod ends;
mod inbound;
mod lane;
mod link;
mod offer;
mod reactor;
mod request;
mod row;
mod sock;
mod stats;
mod stream;
pub mod wire;

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};

use super::host::{Host, Route};
use super::{Link, Transport};
use crate::config::Config;
use crate::error::{Class, Code, Error, Result};
use crate::memory::{Region, Registry};
use crate::observe::log::RateLimit;
use crate::runtime::control::Control;
use crate::runtime::fork::Tracked;
use crate::runtime::ports::BoundPort;
use crate::segment_desc::SegmentDesc;
use link::TcpLink;
use reactor::Reactor;
pub use row::Row;
use sock::Socket;
use stats::Stats;

/// Where a peer's data port is and what it speaks, from its descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The peer's name, for messages.
    pub peer: String,
    /// Host name or address.
    pub host: String,
    /// Data port.
    pub port: u16,
    /// `tcp_proto_version`; 2 and up: status frames and persistent connections.
    pub proto_version: u32,
    /// Incarnation id and the address of the cell that holds it, if the peer has one.
    pub incarnation: Option<([u8; wire::INCARNATION_LEN], u64)>,
}

/// What lanes, inbound connections and reactors share.
pub struct Shared {
    config: Arc<Config>,
    registry: Arc<Registry>,
    control: Arc<Control>,
    /// Published cell that peers read to prove who they talk to.
    incarnation: [u8; wire::INCARNATION_LEN],
    stats: Stats,
    log: RateLimit,
    started: Instant,
    next_lane: AtomicU64,
    next_reactor: AtomicUsize,
    inbound: AtomicUsize,
    reactors: OnceLock<Vec<Arc<Reactor>>>,
}

/// The installed transport.
pub struct Tcp {
    shared: Arc<Shared>,
    host: Arc<dyn Host>,
    port: u16,
    /// Guards the links for `abort` and `stop`; dead ones are swept when one is added.
    links: Mutex<Links>,
    /// Guards the join handles; `stop` takes them.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Links {
    stopped: bool,
    live: Vec<Weak<TcpLink>>,
}

impl Tcp {
    /// Opens the data port and starts the threads.
    pub fn install(host: Arc<dyn Host>) -> Result<Arc<Self>> {
        let config = host.config();
        let bound = BoundPort::dual_stack(config)?;
        let port = bound.port();
        let listener = Tracked::new(bound.listen(config.listen_backlog)?);
        let shared = Arc::new(Shared {
            config: config.clone(),
            registry: host.registry().clone(),
            control: host.control().clone(),
            incarnation: *host.incarnation(),
            stats: Stats::default(),
            log: RateLimit::default(),
            started: Instant::now(),
            next_lane: AtomicU64::new(1),
            next_reactor: AtomicUsize::new(0),
            inbound: AtomicUsize::new(0),
            reactors: OnceLock::new(),
        });
        let threads = match config.tcp_threads {
            0 => (std::thread::available_parallelism().map_or(1, usize::from) / 2).clamp(1, 4),
            count => count,
        };
        let reactors: Vec<_> = (0..threads).map(|_| Reactor::new()).collect::<Result<_>>()?;
        let _ = shared.reactors.set(reactors);
        let tcp = Arc::new(Tcp { shared, host, port, links: Mutex::default(), threads: Mutex::default() });
        for (index, reactor) in tcp.shared.reactors().iter().enumerate() {
            tcp.threads.lock().push(reactor.run(index, tcp.shared.clone())?);
        }
        if let Some(first) = tcp.shared.reactors().first() {
            first.listen(listener);
        }
        Ok(tcp)
    }

    fn live_links(&self) -> Vec<Arc<TcpLink>> {
        self.links.lock().live.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Transport for Tcp {
    fn name(&self) -> &'static str {
        offer::NAME
    }

    fn describe(&self, desc: &mut SegmentDesc) {
        let ours = offer::Ours { host: &self.host.address().host, port: self.port, cell: self.shared.cell() };
        offer::describe(&ours, &self.shared.registry.published(), desc);
    }

    fn link(&self, route: Arc<dyn Route>) -> Arc<dyn Link> {
        let link = TcpLink::new(&self.shared, route);
        let mut links = self.links.lock();
        links.live.retain(|link| link.strong_count() > 0);
        links.live.push(Arc::downgrade(&link));
        if links.stopped {
            link.close(&stopping());
        }
        link
    }

    fn takes_any_source(&self) -> bool {
        self.shared.config.tcp_allow_unregistered_source
    }

    fn abort(&self, region: &Arc<Region>) {
        self.live_links().iter().for_each(|link| link.abort(region));
        self.shared.reactors().iter().for_each(|reactor| reactor.abort(region));
    }

    fn stop(&self) {
        self.links.lock().stopped = true;
        for link in self.live_links() {
            link.close(&stopping());
        }
        self.shared.reactors().iter().for_each(|reactor| reactor.stop());
        for thread in std::mem::take(&mut *self.threads.lock()) {
            let _ = thread.join();
        }
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        self.shared.stats.snapshot()
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn reactors(&self) -> &[Arc<Reactor>] {
        self.reactors.get().map_or(&[], Vec::as_slice)
    }

    fn next_reactor(&self) -> Arc<Reactor> {
        let reactors = self.reactors();
        reactors[self.next_reactor.fetch_add(1, Relaxed) % reactors.len()].clone()
    }

    fn next_lane_id(&self) -> u64 {
        self.next_lane.fetch_add(1, Relaxed)
    }

    fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64 + 1
    }

    fn cell(&self) -> u64 {
        self.incarnation.as_ptr() as u64
    }

    fn is_incarnation_cell(&self, addr: u64, size: u64) -> bool {
        addr == self.cell() && size == wire::INCARNATION_LEN as u64
    }

    /// Hands an accepted connection to a reactor, or closes it when there are too many.
    fn distribute(&self, stream: TcpStream) {
        if self.inbound.fetch_add(1, Relaxed) >= self.config.tcp_max_inbound {
            self.inbound_ended();
            self.stats.inbound_refused.fetch_add(1, Relaxed);
            if self.log.admit("inbound table full", "") {
                let most = self.config.tcp_max_inbound;
                tracing::warn!("data connection refused: {most} are open already (MC_TCP_MAX_INBOUND)");
            }
            return;
        }
        set_options(&stream, &self.config);
        match Socket::new(stream) {
            Ok(socket) => {
                self.stats.inbound_accepted.fetch_add(1, Relaxed);
                self.next_reactor().serve(socket);
            }
            Err(_) => self.inbound_ended(),
        }
    }

    fn inbound_ended(&self) {
        self.inbound.fetch_sub(1, Relaxed);
    }

    fn note_accept_error(&self, error: &io::Error) {
        if self.log.admit("accept", "") {
            tracing::warn!("cannot accept data connections: {error}; trying again (check ulimit -n)");
        }
    }

    fn note_fault(&self) {
        if self.log.admit("fault", "") {
            tracing::error!("a registered buffer is not mapped; unregister memory before freeing it");
        }
    }

    fn note_rejected(&self, socket: &Socket, header: &wire::Header) {
        self.stats.inbound_rejected.fetch_add(1, Relaxed);
        let peer = socket.peer_ip();
        if self.log.admit("rejected", &peer) {
            let wire::Header { size, addr, op, .. } = header;
            tracing::warn!(
                "refused a {op:?} of {size} bytes at {addr:#x} from {peer}: not inside one open region"
            );
        }
    }

    /// Counts and logs that a connection has to make do with less; an error in strict mode.
    fn note_fallback(&self, counter: &AtomicU64, what: &'static str, endpoint: &Endpoint) -> Result<()> {
        counter.fetch_add(1, Relaxed);
        let peer = &endpoint.peer;
        if self.config.strict {
            let text = format!("{peer} can only be reached with {what}, which MC_STRICT refuses; upgrade the peer or unset it");
            return Err(Error::new(Code::Socket, text).class(Class::Unsupported, false).peer(peer));
        }
        if self.log.admit(what, peer) {
            tracing::warn!("fall-back: {peer} is reached with {what}");
        }
        Ok(())
    }
}

fn thread_failed() -> Error {
    let text = "a data-plane thread of the engine failed; destroy the engine and report this";
    Error::new(Code::Socket, text).class(Class::Internal, false)
}

fn stopping() -> Error {
    Error::new(Code::Socket, "the engine is being destroyed").class(Class::Canceled, false)
}

/// Options of both ends. A failure only costs speed or a slower detection of a dead peer.
fn set_options(stream: &TcpStream, config: &Config) {
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(s(30)).with_interval(s(10)).with_retries(3);
    let _ = socket.set_tcp_keepalive(&keepalive);
    // Far above the lanes' own deadlines, which know more about what may be sent again.
    let _ = socket.set_tcp_user_timeout(Some(4 * config.tcp_status_timeout.max(s(30))));
    if config.tcp_sockbuf_bytes > 0 {
        let _ = socket.set_send_buffer_size(config.tcp_sockbuf_bytes);
        let _ = socket.set_recv_buffer_size(config.tcp_sockbuf_bytes);
    }
}

const fn s(seconds: u64) -> std::time::Duration {
    std::time::Duration::from_secs(seconds)
}
