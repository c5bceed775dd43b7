//! Server names and peer-to-peer segment names: a host and an optional port.

use once_cell::sync::Lazy;

use crate::observe::log::RateLimit;
use std::fmt;
use std::net::Ipv6Addr;

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
            static LOG: Lazy<RateLimit> = Lazy::new(RateLimit::default);
            if LOG.admit("port", text) {
                tracing::warn!("port in '{text}' is not a number from 0 to 65535; using {default_port}");
            }
            default_port
        })
    });
    HostPort { host: host.to_string(), port }
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
    // A colon in the scope starts a port: `fe80::1%eth0:123`.
    !scope.contains(':') && address.parse::<Ipv6Addr>().is_ok()
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
