//! Name lookup, one address family at a time.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use tokio::sync::Semaphore;

use super::blocking;
use super::per_process::PerProcess;
use crate::config::Config;
use crate::error::{Code, Error, Result};

/// Names looked up at once, in the process. The resolver may hang, and its callers give up before it does. Chosen: the
/// other half of an engine's blocking threads stays for calls of drivers.
static LOOK_UPS: PerProcess<Semaphore> = PerProcess::new(|| Semaphore::new(blocking::THREADS / 2));

/// Which addresses of a name are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    Any,
}

impl Family {
    /// The family for handshakes: IPv6 only with `MC_USE_IPV6`, else IPv4 only.
    pub fn of(config: &Config) -> Self {
        match config.use_ipv6 {
            true => Family::V6,
            false => Family::V4,
        }
    }

    fn has(self, address: &SocketAddr) -> bool {
        match self {
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
            Family::Any => true,
        }
    }
}

/// The addresses of `host`, at least one, in the order of the system's resolver and without repeats.
///
/// A literal needs no lookup; a name is looked up on a thread for calls that block and may take as long as the resolver
/// likes, so callers set a deadline. `ERR_DNS` if that fails or no address is of `family`; -302, class RESOURCE, if there
/// is no thread for it.
pub async fn resolve(host: &str, port: u16, family: Family) -> Result<Vec<SocketAddr>> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    if let Ok(literal) = host.parse::<IpAddr>() {
        addresses.push((literal, port).into());
    } else {
        let what = || format!("look up host '{host}'");
        addresses = look_up(host, port)
            .await
            .map_err(|e| e.context(what()).peer(host))?
            .map_err(|e| Error::io(Code::Dns, what(), &e).peer(host))?;
    }
    let found = addresses.len();
    let mut seen = std::collections::HashSet::new();
    addresses.retain(|address| family.has(address) && seen.insert(*address));
    if addresses.is_empty() {
        return Err(no_address(host, found, family));
    }
    Ok(addresses)
}

async fn look_up(host: &str, port: u16) -> Result<std::io::Result<Vec<SocketAddr>>> {
    // The semaphore is never closed.
    let turn = LOOK_UPS.get().acquire().await;
    let host = host.to_string();
    let asked = blocking::run(move || {
        // Held until the resolver has ended, not until the caller gives up.
        let _turn = turn;
        (host.as_str(), port).to_socket_addrs().map(Iterator::collect)
    });
    asked.await
}

fn no_address(host: &str, found: usize, family: Family) -> Error {
    let (wanted, hint) = match family {
        Family::V4 => ("IPv4 ", "; set MC_USE_IPV6 to use IPv6"),
        Family::V6 => ("IPv6 ", "; unset MC_USE_IPV6 to use IPv4"),
        Family::Any => ("", ""),
    };
    let hint = if found > 0 { hint } else { "" };
    Error::new(Code::Dns, format!("host '{host}' has no {wanted}address{hint}")).peer(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(host: &str, family: Family) -> Result<Vec<SocketAddr>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(resolve(host, 7, family))
    }

    #[test]
    fn literals_are_filtered_by_family() {
        let v4: SocketAddr = "127.0.0.1:7".parse().unwrap();
        let v6: SocketAddr = "[::1]:7".parse().unwrap();
        assert_eq!(run("127.0.0.1", Family::V4).unwrap(), [v4]);
        assert_eq!(run("127.0.0.1", Family::Any).unwrap(), [v4]);
        assert_eq!(run("::1", Family::V6).unwrap(), [v6]);
        for (host, family, hint) in
            [("::1", Family::V4, "set MC_USE_IPV6"), ("127.0.0.1", Family::V6, "unset MC_USE_IPV6")]
        {
            let error = run(host, family).unwrap_err();
            assert_eq!(error.code(), Code::Dns);
            assert!(error.text().contains(hint), "{error}");
        }
    }

    #[test]
    fn names_are_looked_up_and_failures_are_dns_errors() {
        let found = run("localhost", Family::V4).unwrap();
        assert!(found.iter().all(|a| a.ip().is_loopback() && a.is_ipv4()));
        for host in ["no-such-host.invalid", "", "a\0b"] {
            assert_eq!(run(host, Family::Any).unwrap_err().code(), Code::Dns, "{host:?}");
        }
    }
}
