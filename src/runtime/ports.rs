//! Listening ports: a random free one of the configured range. A handshake port is bound when it is chosen, and its owner
//! decides when it listens; a data port listens at once.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::tracked::Tracked;
use crate::config::Config;
use crate::error::{Code, Error, Result};

/// A bound, non-blocking socket.
pub struct BoundPort {
    socket: Tracked<Socket>,
    port: u16,
}

impl BoundPort {
    /// For handshakes: the wildcard address of the configured family, without SO_REUSEADDR.
    pub fn handshake(config: &Config) -> Result<Self> {
        let family = if config.use_ipv6 { Domain::IPV6 } else { Domain::IPV4 };
        Self::pick(config, |port| bind(family, port, false))
    }

    /// For handshakes on a port that was chosen by the user.
    pub fn fixed(config: &Config, port: u16) -> Result<Self> {
        let family = if config.use_ipv6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = bind(family, port, true)
            .map_err(|e| Error::io(Code::Socket, format!("cannot bind handshake port {port}"), &e))?;
        Ok(BoundPort { socket, port })
    }

    /// For data: both families, or IPv4 where IPv6 is switched off. It listens already, because only then the port is
    /// ours: with SO_REUSEADDR several sockets may be bound to one port, and the first that listens has it.
    pub fn dual_stack(config: &Config) -> Result<Self> {
        let listening = |family, port| {
            let socket = bind(family, port, true)?;
            socket.listen(config.listen_backlog)?;
            Ok(socket)
        };
        Self::pick(config, |port| listening(Domain::IPV6, port)).or_else(|error| {
            tracing::info!("data port on IPv4 only: {error}");
            Self::pick(config, |port| listening(Domain::IPV4, port))
        })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts to listen, if it does not yet; non-blocking. The port stays taken by this value until it is dropped.
    pub fn listen(&self, backlog: i32) -> Result<Tracked<TcpListener>> {
        self.socket
            .listen(backlog)
            .map_err(|e| Error::io(Code::Socket, format!("cannot listen on port {}", self.port), &e))?;
        Tracked::open(|| self.socket.try_clone().map(TcpListener::from))
            .map_err(|e| Error::io(Code::Socket, "cannot duplicate a descriptor", &e))
    }

    /// Tries the ports of the range from a random one on, each of them once. Upstream tries 500 random ones, which may
    /// miss the last free port of a range.
    fn pick(config: &Config, take: impl Fn(u16) -> std::io::Result<Tracked<Socket>>) -> Result<Self> {
        let (min, max) = (config.min_rpc_port, config.max_rpc_port);
        let count = u32::from(max - min) + 1;
        let first =
            getrandom::u32().map_err(|e| Error::new(Code::Socket, format!("no random numbers: {e}")))?;
        let mut failure = None;
        for step in 0..count {
            let port = min + ((first % count + step) % count) as u16;
            match take(port) {
                Ok(socket) => return Ok(BoundPort { socket, port }),
                Err(error) if taken(&error) => failure = Some(error),
                Err(error) => {
                    return Err(Error::io(Code::Socket, format!("cannot bind port {port}"), &error))
                }
            }
        }
        let what = format!("no free port from {min} to {max} (MC_MIN_RPC_PORT, MC_MAX_RPC_PORT)");
        Err(failure
            .map_or_else(|| Error::new(Code::Socket, what.clone()), |e| Error::io(Code::Socket, &what, &e)))
    }
}

/// In use, or kept from us by a security policy: another port may do.
fn taken(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::AddrInUse | std::io::ErrorKind::PermissionDenied)
}

fn bind(family: Domain, port: u16, reuse: bool) -> std::io::Result<Tracked<Socket>> {
    let kind = Type::STREAM.cloexec().nonblocking();
    let socket = Tracked::open(|| Socket::new(family, kind, Some(Protocol::TCP)))?;
    let address = if family == Domain::IPV6 {
        socket.set_only_v6(!reuse)?;
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
    } else {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
    };
    socket.set_reuse_address(reuse)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_from_the_range_and_refuse_connections_until_they_listen() {
        let config = Config::default();
        let port = BoundPort::handshake(&config).unwrap();
        assert!((15000..=17000).contains(&port.port()));
        let address = ("127.0.0.1", port.port());
        assert!(std::net::TcpStream::connect(address).is_err());
        let _listener = port.listen(1).unwrap();
        assert!(std::net::TcpStream::connect(address).is_ok());
    }

    #[test]
    fn a_full_range_is_an_error_that_names_it() {
        let taken = BoundPort::handshake(&Config::default()).unwrap();
        let config = Config { min_rpc_port: taken.port(), max_rpc_port: taken.port(), ..Config::default() };
        let error = BoundPort::handshake(&config).err().unwrap();
        assert_eq!(error.code(), Code::Socket);
        assert!(error.text().contains("MC_MIN_RPC_PORT"), "{error}");
    }

    #[test]
    fn engines_that_start_at_once_in_a_tight_range_get_a_port_each() {
        const ENGINES: usize = 16;
        // Free ports in a row, as far as one can know: bound and given back.
        let start = (20_000..30_000)
            .step_by(64)
            .find(|start| (0..2 * ENGINES as u16).all(|i| bind(Domain::IPV6, start + i, false).is_ok()));
        let start = start.unwrap();
        let config =
            Config { min_rpc_port: start, max_rpc_port: start + 2 * ENGINES as u16 - 1, ..Config::default() };
        for _ in 0..20 {
            let barrier = std::sync::Barrier::new(ENGINES);
            let ports: Vec<_> = std::thread::scope(|scope| {
                let engine = || {
                    barrier.wait();
                    let handshake = BoundPort::handshake(&config).unwrap();
                    let data = BoundPort::dual_stack(&config).unwrap();
                    barrier.wait();
                    let listeners = (handshake.listen(1).unwrap(), data.listen(1).unwrap());
                    (handshake, data, listeners)
                };
                let engines: Vec<_> = (0..ENGINES).map(|_| scope.spawn(engine)).collect();
                engines.into_iter().map(|engine| engine.join().unwrap()).collect()
            });
            let mut all: Vec<_> = ports.iter().flat_map(|(one, two, _)| [one.port(), two.port()]).collect();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), 2 * ENGINES);
        }
    }
}
