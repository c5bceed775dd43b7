//! Listening ports: a random free one of the configured range, at all addresses of this host or at one. A handshake port is bound
//! when it is chosen, and its owner decides when it listens; a data port listens at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::interfaces;
use super::tracked::Tracked;
use crate::config::Config;
use crate::error::{Code, Error, Result};

/// A bound, non-blocking socket.
pub struct BoundPort {
    socket: Tracked<Socket>,
    port: u16,
}

impl BoundPort {
    /// For handshakes: the address of `MC_BIND_ADDRESS`, or all of the configured family, without SO_REUSEADDR.
    pub fn handshake(config: &Config) -> Result<Self> {
        let address = for_handshakes(config)?;
        Self::pick(config, |port| bind(address, port, false))
    }

    /// For handshakes on a port that was chosen by the user.
    pub fn fixed(config: &Config, port: u16) -> Result<Self> {
        let socket = bind(for_handshakes(config)?, port, true)
            .map_err(|e| failed(config, format!("cannot bind handshake port {port}"), &e))?;
        Ok(BoundPort { socket, port })
    }

    /// For data: the address of `MC_BIND_ADDRESS`, or all of both families, or of IPv4 where IPv6 is switched off. It listens
    /// already, because only then the port is ours: with SO_REUSEADDR several sockets may be bound to one port, and the first that
    /// listens has it.
    pub fn data(config: &Config) -> Result<Self> {
        let listening = |address, port| {
            let socket = bind(address, port, true)?;
            socket.listen(config.listen_backlog)?;
            Ok(socket)
        };
        if let Some(address) = bind_address(config)? {
            return Self::pick(config, |port| listening(address, port));
        }
        Self::pick(config, |port| listening(Ipv6Addr::UNSPECIFIED.into(), port)).or_else(|error| {
            tracing::info!("data port on IPv4 only: {error}");
            Self::pick(config, |port| listening(Ipv4Addr::UNSPECIFIED.into(), port))
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
                Err(error) => return Err(failed(config, format!("cannot bind port {port}"), &error)),
            }
        }
        let what = format!("no free port from {min} to {max} (MC_MIN_RPC_PORT, MC_MAX_RPC_PORT)");
        Err(failure
            .map_or_else(|| Error::new(Code::Socket, what.clone()), |e| Error::io(Code::Socket, &what, &e)))
    }
}

/// The address that `MC_BIND_ADDRESS` has the ports listen at; `None`: all. `ERR_INVALID_ARGUMENT` if it is none, or if peers would
/// look for the handshake port at one of the other family.
pub fn bind_address(config: &Config) -> Result<Option<IpAddr>> {
    let Some(text) = &config.listen_address else { return Ok(None) };
    let wrong = |why| Err(Error::invalid(format!("MC_BIND_ADDRESS={text} {why}")));
    let Ok(address) = text.trim().trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() else {
        return wrong("is not an IP address; name one of this host, without a scope, or unset it");
    };
    match (address.is_ipv6(), config.use_ipv6) {
        _ if address.is_unspecified() => Ok(None),
        (true, false) => wrong("is an IPv6 address, and handshakes go by IPv4; set MC_USE_IPV6=1"),
        (false, true) => wrong("is an IPv4 address, and handshakes go by IPv6; unset MC_USE_IPV6"),
        _ => Ok(Some(address)),
    }
}

fn for_handshakes(config: &Config) -> Result<IpAddr> {
    let all: IpAddr =
        if config.use_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    Ok(bind_address(config)?.unwrap_or(all))
}

/// The error of a socket that could not be bound.
fn failed(config: &Config, what: String, error: &std::io::Error) -> Error {
    match &config.listen_address {
        Some(text) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
            let here = interfaces::list().unwrap_or_default();
            let here: Vec<_> = here.iter().map(|interface| interface.address.to_string()).collect();
            Error::invalid(format!(
                "MC_BIND_ADDRESS={text} is not an address of this host; there are: {}",
                here.join(", ")
            ))
        }
        _ => Error::io(Code::Socket, what, error),
    }
}

/// In use, or kept from us by a security policy: another port may do.
fn taken(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::AddrInUse | std::io::ErrorKind::PermissionDenied)
}

fn bind(address: IpAddr, port: u16, reuse: bool) -> std::io::Result<Tracked<Socket>> {
    let address = SocketAddr::new(address, port);
    let kind = Type::STREAM.cloexec().nonblocking();
    let socket = Tracked::open(|| Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP)))?;
    if address.is_ipv6() {
        socket.set_only_v6(!reuse)?;
    }
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

    fn bound_to(address: &str, use_ipv6: bool) -> Config {
        Config { listen_address: Some(address.into()), use_ipv6, ..Config::default() }
    }

    #[test]
    fn ports_of_one_address_are_reached_there_only() {
        let mut cases = vec![("127.0.0.2", false, "127.0.0.1")];
        if TcpListener::bind("[::1]:0").is_ok() {
            cases.push(("[::1]", true, "127.0.0.1"));
        }
        for (address, use_ipv6, other) in cases {
            let config = bound_to(address, use_ipv6);
            for port in [BoundPort::handshake(&config).unwrap(), BoundPort::data(&config).unwrap()] {
                let _listener = port.listen(1).unwrap();
                let reach = |host: &str| std::net::TcpStream::connect(format!("{host}:{}", port.port()));
                assert!(reach(address).is_ok() && reach(other).is_err(), "{address}");
            }
        }
        for all in ["0.0.0.0", "::"] {
            assert_eq!(bind_address(&bound_to(all, false)).unwrap(), None);
        }
    }

    #[test]
    fn an_address_that_cannot_be_bound_is_an_error_that_names_the_setting() {
        for (address, use_ipv6, word) in [
            // Documentation addresses, which nobody has.
            ("192.0.2.1", false, "127.0.0.1"),
            ("2001:db8::1", true, "not an address of this host"),
            ("2001:db8::1", false, "MC_USE_IPV6"),
            ("127.0.0.1", true, "MC_USE_IPV6"),
            ("eth0", false, "not an IP address"),
        ] {
            let config = bound_to(address, use_ipv6);
            for bound in
                [BoundPort::handshake(&config), BoundPort::fixed(&config, 0), BoundPort::data(&config)]
            {
                let error = bound.err().unwrap();
                if error.code() == Code::Socket && use_ipv6 {
                    println!("SKIP {address}: no IPv6 here: {error}");
                    continue;
                }
                assert_eq!(error.code(), Code::InvalidArgument, "{error}");
                assert!(error.text().contains("MC_BIND_ADDRESS") && error.text().contains(word), "{error}");
            }
        }
    }

    #[test]
    fn engines_that_start_at_once_in_a_tight_range_get_a_port_each() {
        const ENGINES: usize = 16;
        // Free ports in a row, as far as one can know: bound and given back.
        let start = (20_000..30_000).step_by(64).find(|start| {
            (0..2 * ENGINES as u16).all(|i| bind(Ipv6Addr::UNSPECIFIED.into(), start + i, false).is_ok())
        });
        let start = start.unwrap();
        let config =
            Config { min_rpc_port: start, max_rpc_port: start + 2 * ENGINES as u16 - 1, ..Config::default() };
        for _ in 0..20 {
            let barrier = std::sync::Barrier::new(ENGINES);
            let ports: Vec<_> = std::thread::scope(|scope| {
                let engine = || {
                    barrier.wait();
                    let handshake = BoundPort::handshake(&config).unwrap();
                    let data = BoundPort::data(&config).unwrap();
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
