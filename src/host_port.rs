//! Server names and peer-to-peer segment names: a host and an optional port.

use std::fmt;
use std::net::Ipv6Addr;

use crate::observe::log::RateLimit;
use crate::runtime::per_process::PerProcess;

/// A host name or address literal (IPv6 without brackets, with its `%scope` if it has one) and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Name or literal as written, brackets removed.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Splits `text`, which never fails: without a usable port the result has `default_port`, and a port text that
/// is not a decimal number up to 65535 is warned about.
pub fn parse(text: &str, default_port: u16) -> HostPort {
    let (host, port_text) = split(text);
    let port = port_text.map_or(default_port, |digits| {
        let decimal = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse().ok().filter(|_| decimal).unwrap_or_else(|| {
            static LOG: PerProcess<RateLimit> = PerProcess::new(RateLimit::default);
            if LOG.get().admit("port", text) {
                tracing::warn!("port in '{text}' is not a number from 0 to 65535; using {default_port}");
            }
            default_port
        })
    });
    HostPort { host: host.to_string(), port }
}

/// As [`parse`] for an address in a setting or a connection string, where a slip must not lead to another server: the port
/// is a number from 1 to 65535 or is not given. The error is one sentence without `text`, which may hold a password.
pub fn parse_strictly(text: &str, default_port: u16) -> Result<HostPort, String> {
    if text.contains('@') {
        return Err("a login in the address is not read".into());
    }
    if let Some(odd) = text.chars().find(|c| c.is_whitespace() || c.is_control() || "/?#\\".contains(*c)) {
        return Err(format!("{odd:?} has no place in an address"));
    }
    let (host, port_text) = split(text);
    let port = match port_text {
        None => default_port,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            let port = digits.parse().ok().filter(|port| *port != 0);
            port.ok_or_else(|| format!("port '{digits}' is not a number from 1 to 65535"))?
        }
        Some(other) => return Err(format!("port '{other}' is not a number from 1 to 65535")),
    };
    if host.is_empty() {
        return Err("the host is missing".into());
    }
    if host.contains([':', '[', ']', ',']) && !is_ipv6(host) {
        return Err(format!("'{host}' is neither a name nor an address; IPv6 addresses stand in brackets"));
    }
    Ok(HostPort { host: host.to_string(), port })
}

fn split(text: &str) -> (&str, Option<&str>) {
    if let Some((inside, rest)) = text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        if is_ipv6(inside) {
            return (inside, (!rest.is_empty()).then(|| rest.strip_prefix(':').unwrap_or(rest)));
        }
    }
    if is_ipv6(text) {
        return (text, None);
    }
    match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    }
}

/// Whether `text` is an IPv6 literal without brackets, with or without a `%scope`.
pub fn is_ipv6(text: &str) -> bool {
    let (address, scope) = text.split_once('%').unwrap_or((text, ""));
    // A colon in the scope starts a port: `fe80::1%eth0:123`. A bracket belongs to the address.
    !scope.contains([':', '[', ']']) && address.parse::<Ipv6Addr>().is_ok()
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_ipv6(&self.host) {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod random;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_form_is_split() {
        for (text, host, port) in [
            ("host", "host", 12001),
            ("1.2.3.4", "1.2.3.4", 12001),
            ("host:123", "host", 123),
            ("1.2.3.4:123", "1.2.3.4", 123),
            ("a:b:123", "a:b", 123),
            ("[::1]", "::1", 12001),
            ("[::1]:123", "::1", 123),
            ("[fe80::1%eth0]:123", "fe80::1%eth0", 123),
            ("::1", "::1", 12001),
            ("fe80::1:123", "fe80::1:123", 12001),
            ("fe80::1%eth0", "fe80::1%eth0", 12001),
            ("fe80::1%eth0:123", "fe80::1%eth0", 123),
            ("host:", "host", 12001),
            ("host:x", "host", 12001),
            ("host:12x", "host", 12001),
            ("host:+12", "host", 12001),
            ("host:-1", "host", 12001),
            ("host: 1", "host", 12001),
            ("host:65535", "host", 65535),
            ("host:65536", "host", 12001),
            ("[::1]:x", "::1", 12001),
            ("[::1]x", "::1", 12001),
            ("[host]", "[host]", 12001),
            ("[host]:123", "[host]", 123),
            ("[::1", "[:", 1),
            ("", "", 12001),
            (":123", "", 123),
        ] {
            assert_eq!(parse(text, 12001), HostPort { host: host.into(), port }, "{text}");
        }
    }

    #[test]
    fn a_slip_in_a_strict_address_is_an_error_that_names_it() {
        for (text, host, port) in [
            ("h", "h", 7),
            ("h:2379", "h", 2379),
            ("1.2.3.4:65535", "1.2.3.4", 65535),
            ("[::1]:123", "::1", 123),
            ("::1", "::1", 7),
            ("[fe80::1%eth0]:1", "fe80::1%eth0", 1),
        ] {
            assert_eq!(parse_strictly(text, 7), Ok(HostPort { host: host.into(), port }), "{text}");
        }
        for (text, named) in [
            ("h:99999", "99999"),
            ("h:2380x", "2380x"),
            ("h:", "port ''"),
            ("h:0", "port '0'"),
            ("h:-1", "-1"),
            ("h:+1", "+1"),
            ("h:23790/prefix", "'/'"),
            ("h?x", "'?'"),
            ("h #", "' '"),
            ("h\n", "'\\n'"),
            ("user:secret@h:1", "a login"),
            (":1", "host is missing"),
            ("", "host is missing"),
            ("[::1", "neither"),
            ("a:b:1", "neither"),
            ("fe80::1%eth0]:1", "neither"),
        ] {
            let said = parse_strictly(text, 7).unwrap_err();
            assert!(said.contains(named) && !said.contains("secret"), "{text}: {said}");
        }
    }

    #[test]
    fn the_printed_form_can_be_parsed_again() {
        for (text, shown) in [
            ("host:123", "host:123"),
            ("1.2.3.4", "1.2.3.4:12001"),
            ("::1", "[::1]:12001"),
            ("fe80::1%eth0:123", "[fe80::1%eth0]:123"),
        ] {
            let parsed = parse(text, 12001);
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(parse(shown, 1), parsed);
        }
    }
}
