//! The engine of a tool that visits a segment for a while.

use std::net::{ToSocketAddrs, UdpSocket};
use std::sync::Arc;

use super::settings::settings;
use crate::engine::{Engine, Wanted};
use crate::error::{Error, Result};
use crate::host_port::{self, HostPort};
use crate::metadata;
use crate::transport::table::PROTOCOLS;

/// Makes an engine from which `segment` can be reached, with the transports that suit this machine. In a store it is called
/// `mte-<tool>-` and a random number. The caller destroys it.
pub(super) fn engine(connection: &str, segment: &str, tool: &str) -> Result<Arc<Engine>> {
    let port = settings().handshake_port;
    let name = if metadata::is_peer_to_peer(connection) {
        near(&host_port::parse(segment.trim_start_matches('/'), port))
    } else {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|e| Error::invalid(format!("no random numbers: {e}")))?;
        format!("mte-{tool}-{:016x}", u64::from_ne_bytes(random))
    };
    Engine::create_with(connection, &name, Wanted::Suitable, "")
}

/// Adds the transport that needs no NIC, which every peer has.
pub(super) fn add_plain(engine: &Arc<Engine>) -> Result<()> {
    if let Some(plain) = PROTOCOLS.iter().find(|row| !row.is_extension() && !row.needs_nics()) {
        engine.install_transport(plain.name(), None)?;
    }
    Ok(())
}

/// The address of this machine that leads to `peer`, as far as it is known without asking anybody but the resolver.
fn near(peer: &HostPort) -> String {
    let own = || {
        let peer = (peer.host.as_str(), peer.port).to_socket_addrs().ok()?.next()?;
        let any = if peer.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any).ok()?;
        // Sends nothing: it only has the kernel look for a route.
        socket.connect(peer).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    match own() {
        Some(std::net::IpAddr::V6(address)) => format!("[{address}]"),
        Some(address) => address.to_string(),
        None => "127.0.0.1".into(),
    }
}
