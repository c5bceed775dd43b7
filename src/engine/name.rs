//! What a local server name may be. One that peers could not open or reach is refused when the engine is created, where
//! somebody can do something about it.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::host_port::{is_ipv6, HostPort};
use crate::metadata;

/// Checks `name`, whose host and port are `server`. `ERR_INVALID_ARGUMENT` with the reason.
pub(super) fn check(connection: &str, name: &str, server: &HostPort, config: &Config) -> Result<()> {
    let is_address = metadata::is_peer_to_peer(connection) || config.legacy_rpc_port_binding;
    let wrong = |why: &str| {
        // Cut, and without what would break a line: anything may have been passed.
        let shown: String = name.chars().take(LONGEST_SHOWN).collect();
        Err(Error::invalid(format!("local server name {shown:?} {why}")))
    };
    if server.host.is_empty() {
        return wrong("has no host; pass host or host:port");
    }
    if name.trim() != name || name.chars().any(char::is_control) {
        return wrong(
            "has a blank at an end or a control character, which is a slip; pass host or host:port",
        );
    }
    if name.starts_with('/') {
        return wrong(
            "begins with a slash, which openSegment strips, so that nobody could open it; leave it out",
        );
    }
    if !is_address {
        return Ok(());
    }
    let is_literal = is_ipv6(&server.host);
    if !is_literal && server.host.contains(['/', ' ', ':', '[', ']', '@', '?', '#', ',']) {
        return wrong("is not an address that peers can connect to; pass host or host:port, an IPv6 address in brackets");
    }
    if is_literal && !config.use_ipv6 {
        return wrong(
            "is an IPv6 address, and the handshake port is IPv4; set MC_USE_IPV6=1, or pass an IPv4 address",
        );
    }
    Ok(())
}

/// Characters of a name that a message repeats. Chosen: more than any host name has.
const LONGEST_SHOWN: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::host_port;

    fn checked(connection: &str, name: &str, config: &Config) -> Result<()> {
        check(connection, name, &host_port::parse(name, 12001), config)
    }

    #[test]
    fn p33_names_that_nobody_could_open_or_reach_are_refused_with_the_reason() {
        let plain = Config::default();
        let six = Config { use_ipv6: true, ..Config::default() };
        let legacy = Config { legacy_rpc_port_binding: true, ..Config::default() };
        for (connection, config) in [("P2PHANDSHAKE", &plain), ("etcd://h", &plain), ("http://h/m", &legacy)]
        {
            for name in ["h", "h:1", "127.0.0.1", "127.0.0.1:9", "node-1.example", "h:x"] {
                checked(connection, name, config).unwrap();
            }
            for (name, why) in [
                ("", "no host"),
                (":1", "no host"),
                (" ", "blank"),
                ("\n", "blank"),
                ("h ", "blank"),
                ("a\u{7f}", "blank"),
                ("/lead", "slash"),
            ] {
                let error = checked(connection, name, config).unwrap_err();
                assert_eq!(error.code(), Code::InvalidArgument);
                assert!(error.text().contains(why) && !error.text().contains('\n'), "{name:?}: {error}");
            }
        }
        for (connection, config) in [("P2PHANDSHAKE", &plain), ("redis://h", &legacy)] {
            for name in ["http://h:1", "[127.0.0.1]:1", "[h]:1", "a:b:1", "u@h", "a b"] {
                let error = checked(connection, name, config).unwrap_err();
                assert!(error.text().contains("peers can connect to"), "{name}: {error}");
            }
            for name in ["::1", "[::1]:7", "fe80::1%eth0"] {
                assert!(checked(connection, name, config).unwrap_err().text().contains("MC_USE_IPV6"));
            }
        }
        for name in ["::1", "[::1]:7", "fe80::1%eth0"] {
            checked("P2PHANDSHAKE", name, &six).unwrap();
        }
        // In a store a name is a key and nothing else.
        for name in ["rack/7/node", "a b:9", "a:b:1", "[h]:1"] {
            checked("etcd://h", name, &plain).unwrap();
        }
        let long = checked("P2PHANDSHAKE", &format!("{}/", "x".repeat(1 << 20)), &plain).unwrap_err();
        assert!(long.text().len() < 1000);
    }
}
