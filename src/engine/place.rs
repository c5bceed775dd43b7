//! Where an engine is reached: its segment name and its handshake address.

use std::sync::Arc;

use super::local::Local;
use crate::config::Config;
use crate::error::Result;
use crate::host_port::HostPort;
use crate::metadata;
use crate::runtime::interfaces;
use crate::runtime::ports::BoundPort;
use crate::transport::incarnation;

/// The handshake port before it listens.
pub(super) enum Bound {
    /// Bound, so that nobody else takes it.
    Waits(BoundPort),
    /// To be bound when the first transport is installed.
    Later(u16),
    /// It listens.
    Listens,
}

/// Finds the segment name and the handshake address of an engine that is created as `name`; `server` is the host and
/// port in that name. Without a store a free port is taken, and host and port are the segment name. With a store the
/// segment name is `name`, and the address is this machine's.
pub(super) fn find(
    connection: &str,
    name: &str,
    server: HostPort,
    incarnation: [u8; incarnation::LEN],
    config: &Config,
) -> Result<(Arc<Local>, Bound)> {
    if metadata::is_peer_to_peer(connection) {
        let bound = BoundPort::handshake(config)?;
        let address = HostPort { host: server.host, port: bound.port() };
        let local = Local::new(address.to_string(), address, incarnation, config);
        return Ok((Arc::new(local), Bound::Waits(bound)));
    }
    let (address, bound) = if config.legacy_rpc_port_binding {
        (server.clone(), Bound::Later(server.port))
    } else {
        let host = match &config.bind_address {
            Some(host) => host.trim_start_matches('[').trim_end_matches(']').to_string(),
            None => interfaces::first_address(config.use_ipv6)?.to_string(),
        };
        let bound = BoundPort::handshake(config)?;
        (HostPort { host, port: bound.port() }, Bound::Waits(bound))
    };
    let local = Local::new(name.to_string(), address, incarnation, config).in_store();
    Ok((Arc::new(local), bound))
}
