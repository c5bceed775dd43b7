//! Where an engine is reached: its segment name and its handshake address.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::local::Local;
use crate::config::Config;
use crate::error::Result;
use crate::host_port::HostPort;
use crate::metadata;
use crate::runtime::control::Control;
use crate::runtime::interfaces;
use crate::runtime::ports::{bind_address, BoundPort};
use crate::runtime::resolve::{resolve, Family};
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
            None => match bind_address(config)? {
                Some(address) => address.to_string(),
                None => interfaces::first_address(config.use_ipv6)?.to_string(),
            },
        };
        let bound = BoundPort::handshake(config)?;
        (HostPort { host, port: bound.port() }, Bound::Waits(bound))
    };
    let local = Local::new(name.to_string(), address, incarnation, config).in_store();
    Ok((Arc::new(local), bound))
}

/// How long the own name may take to be looked up for a warning. Chosen: as long as a resolver tries by default.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(5);

/// Warns, in the background, if the host that peers are told leads elsewhere than to the address that the ports listen at.
pub(super) fn compare(local: &Local, control: &Control, config: &Config) {
    let Ok(Some(bound)) = bind_address(config) else { return };
    let (HostPort { host, port }, family) = (local.address.clone(), Family::of(config));
    control.spawn(async move {
        let Ok(Ok(found)) = timeout(LOOK_UP_LIMIT, resolve(&host, port, family)).await else { return };
        if let Some(found) = elsewhere(&found, bound) {
            tracing::warn!(
                "peers are told to connect to {host}, which is {found}, but the ports listen at MC_BIND_ADDRESS={bound} only"
            );
        }
    });
}

/// The addresses that were found, if `bound` is none of them.
fn elsewhere(found: &[SocketAddr], bound: IpAddr) -> Option<String> {
    let found: Vec<_> = found.iter().map(|address| address.ip().to_canonical()).collect();
    let list = || found.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    (!found.contains(&bound)).then(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_elsewhere_if_none_of_its_addresses_is_bound() {
        let found: Vec<SocketAddr> =
            ["10.0.0.1:5", "[::ffff:10.0.0.2]:5"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(elsewhere(&found, "10.0.0.2".parse().unwrap()), None);
        let others = elsewhere(&found, "10.0.0.3".parse().unwrap());
        assert_eq!(others.as_deref(), Some("10.0.0.1, 10.0.0.2"));
    }
}
