//! What the files of this transport share: settings, counters, the threads, and what is said about peers.

use std::net::{IpAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use super::door::Doubt;
use super::faults::Faults;
use super::reactor::Reactor;
use super::sock::Socket;
use super::stats::Stats;
use super::table::Table;
use super::wire;
use crate::cluster_key::{refusals, Keys, Purpose};
use crate::config::Config;
use crate::error::{Class, Code, Error, Result};
use crate::memory::Registry;
use crate::observe::log::RateLimit;
use crate::runtime::control::Control;
use crate::runtime::interfaces::Interface;
use crate::runtime::reactor::threads::Threads;
use crate::tls::Tls;
use crate::transport::host::Host;
use crate::transport::slice::Op;

/// How the kernel asks whether the peer of an idle connection is still there. Chosen: often enough to keep the entries of
/// firewalls alive, and too rarely to be noticed. Where the user time-out below is set, it decides when a silent peer is
/// given up, and the retries do not count (tcp(7)).
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
/// How long the kernel may wait for an acknowledgement: so many times `MC_TCP_STATUS_TIMEOUT_SEC`, or so many times the
/// time below if that is longer. Chosen: far above the lanes' own deadlines, which know what may be sent again.
const USER_TIMEOUTS: u32 = 4;
const LEAST_TIMEOUT: Duration = Duration::from_secs(30);

/// Congestion control of connections within the host, where nothing can be congested. Measured on two processors with BBR as
/// the system's: its pacing timers cost the loopback half of its rate (1 MiB blocks: 2.1 instead of 5.4 GB/s) and 0.29
/// instead of 0.16 CPU seconds per GB. Chosen: every kernel has this one, and lets everybody use it (tcp(7)).
const WITHIN_HOST: &str = "reno";

/// Where a peer's data port is and what it speaks, from its descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
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
pub(super) struct Shared {
    /// Settings.
    pub config: Arc<Config>,
    /// Registered memory.
    pub registry: Arc<Registry>,
    /// Runs the tasks that connect.
    pub control: Arc<Control>,
    /// The published cell: peers read it to prove that they talk to this process.
    pub incarnation: [u8; wire::INCARNATION_LEN],
    /// Counters.
    pub stats: Stats,
    /// What peers have to prove to know before they may ask for anything.
    pub keys: Option<Arc<Keys>>,
    /// How connections are made secure.
    pub tls: Option<Arc<Tls>>,
    /// The addresses that `MC_TCP_NICS` names.
    pub nics: Vec<Interface>,
    /// Keeps repeated warnings rare.
    pub log: RateLimit,
    /// The data-plane threads, over which lanes and inbound connections are spread.
    pub threads: Threads<Reactor>,
    /// Ranges of our regions that were not mapped when a peer asked for them.
    pub faults: Faults,
    /// Connections of peers that are open.
    pub inbound: Table,
}

impl Shared {
    /// What is shared by a transport of which nothing runs yet.
    pub(super) fn new(host: &dyn Host, nics: Vec<Interface>) -> Self {
        Shared {
            config: host.config().clone(),
            registry: host.registry().clone(),
            control: host.control().clone(),
            incarnation: *host.incarnation(),
            stats: Stats::default(),
            keys: Keys::of(host.config()).map(Arc::new),
            tls: Tls::of(host.config()),
            nics,
            log: RateLimit::default(),
            threads: Threads::default(),
            faults: Faults::default(),
            inbound: Table::new(host.config().tcp_max_inbound),
        }
    }

    /// Address of the cell that holds the incarnation.
    pub(super) fn cell(&self) -> u64 {
        self.incarnation.as_ptr() as u64
    }

    /// A request for `size` bytes at `addr` asks for just that cell.
    pub(super) fn is_incarnation_cell(&self, addr: u64, size: u64) -> bool {
        addr == self.cell() && size == wire::INCARNATION_LEN as u64
    }

    /// Says that a range of a registered region is not mapped, and refuses it to peers for a while: they ask again, and are
    /// to hear why.
    pub(super) fn note_fault(&self, op: Op, addr: u64, len: u64) {
        self.faults.note(op, addr, len);
        if self.log.admit("fault", "") {
            tracing::error!("a registered buffer is not mapped; unregister memory before freeing it");
        }
    }

    /// Counts and logs a connection of `peer` that was refused for lack of descriptors, or of places.
    pub(super) fn note_refused(&self, peer: &str, is_scarce: bool) {
        self.stats.inbound_refused.fetch_add(1, Relaxed);
        if self.log.admit("inbound refused", "") {
            let why = match is_scarce {
                true => "this process has few descriptors left (ulimit -n)".into(),
                false => format!("{} are open already (MC_TCP_MAX_INBOUND)", self.config.tcp_max_inbound),
            };
            tracing::warn!("data connection of {peer} refused: {why}");
        }
    }

    /// Counts and logs a request that was refused because of its address.
    pub(super) fn note_rejected(&self, socket: &Socket, header: &wire::Header) {
        self.stats.inbound_rejected.fetch_add(1, Relaxed);
        let peer = socket.peer_ip();
        if self.log.admit("rejected", &peer) {
            let wire::Header { size, addr, op, .. } = header;
            tracing::warn!(
                "refused a {op:?} of {size} bytes at {addr:#x} from {peer}: not inside one open region"
            );
        }
    }

    /// Counts and logs a connection whose peer is not believed.
    pub(super) fn note_distrusted(&self, socket: &Socket, why: &Doubt) {
        self.stats.inbound_distrusted.fetch_add(1, Relaxed);
        if let Doubt::Key(why) = why {
            refusals::note(Purpose::Data, *why);
        }
        let peer = socket.peer_ip();
        if self.log.admit("distrusted", &peer) {
            tracing::warn!("data connection of {peer} refused: {why}");
        }
    }

    /// Counts and logs that a connection has to make do with less. In strict mode that is an error.
    pub(super) fn note_fallback(
        &self,
        counter: &AtomicU64,
        what: &'static str,
        endpoint: &Endpoint,
    ) -> Result<()> {
        counter.fetch_add(1, Relaxed);
        let peer = &endpoint.peer;
        if self.config.strict {
            let text = format!("{peer} can only be reached with {what}, which MC_STRICT refuses; upgrade the peer or unset it");
            return Err(Error::new(Code::Socket, text).permanent(Class::Unsupported).peer(peer));
        }
        if self.log.admit(what, peer) {
            tracing::warn!("fall-back: {peer} is reached with {what}");
        }
        Ok(())
    }
}

/// Sets the options of either end. A failure ends nothing: it only costs speed, or a slower detection of a dead peer.
pub(super) fn set_options(stream: &TcpStream, config: &Config, log: &RateLimit) {
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUTS * config.tcp_status_timeout.max(LEAST_TIMEOUT)));
    if config.tcp_sockbuf_bytes > 0 {
        let _ = socket.set_send_buffer_size(config.tcp_sockbuf_bytes);
        let _ = socket.set_recv_buffer_size(config.tcp_sockbuf_bytes);
    }
    let congestion = config.tcp_congestion.as_deref().or_else(|| stays_here(stream).then_some(WITHIN_HOST));
    let Some(Err(error)) = congestion.map(|name| socket.set_tcp_congestion(name.as_bytes())) else { return };
    if config.tcp_congestion.is_some() && log.admit("congestion", "") {
        tracing::warn!("MC_TCP_CONGESTION is not used: {error}; see net.ipv4.tcp_allowed_congestion_control");
    }
}

/// Both ends are on this host: the kernel routes what goes to an address of its own over the loopback.
pub(super) fn stays_here(stream: &TcpStream) -> bool {
    let (Ok(ours), Ok(theirs)) = (stream.local_addr(), stream.peer_addr()) else { return false };
    is_one_host(ours.ip().to_canonical(), theirs.ip().to_canonical())
}

fn is_one_host(ours: IpAddr, theirs: IpAddr) -> bool {
    ours == theirs || ours.is_loopback() && theirs.is_loopback()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn congestion(config: &Config) -> Vec<u8> {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        set_options(&stream, config, &RateLimit::default());
        let name = SockRef::from(&stream).tcp_congestion().unwrap();
        name.into_iter().take_while(|byte| *byte != 0).collect()
    }

    #[test]
    fn nothing_paces_connections_within_the_host_unless_a_setting_says_so() {
        assert_eq!(congestion(&Config::default()), WITHIN_HOST.as_bytes());
        let available = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_allowed_congestion_control").unwrap();
        for name in available.split_whitespace() {
            let config = Config { tcp_congestion: Some(name.into()), ..Config::default() };
            assert_eq!(congestion(&config), name.as_bytes());
        }
    }

    #[test]
    fn a_connection_stays_here_if_both_ends_have_one_address_or_the_loopbacks() {
        let table = [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", true),
            ("::1", "::1", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("127.0.0.1", "10.0.0.1", false),
        ];
        for (ours, theirs, expected) in table {
            assert_eq!(
                is_one_host(ours.parse().unwrap(), theirs.parse().unwrap()),
                expected,
                "{ours} {theirs}"
            );
        }
    }
}
