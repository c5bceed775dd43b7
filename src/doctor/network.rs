//! What TCP needs of the kernel: ports to listen on, socket buffers, congestion control.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::files::{bytes, Files};
use super::finding::Finding;
use crate::config::Config;
use crate::runtime::interfaces::{self, Interface};
use crate::runtime::ports::bind_address;

/// Free ports below which engines may find none. Chosen: two for each engine, and some engines per host.
const FEW_PORTS: usize = 32;
/// The state LISTEN in the kernel's tables of sockets.
const LISTEN: &str = "0A";

/// What was read; `None`: not told.
#[derive(Clone, Debug, Default)]
pub(super) struct Network {
    /// `net.ipv4.ip_local_port_range`
    pub ephemeral: Option<RangeInclusive<u16>>,
    /// Ports that the kernel gives to nobody by itself.
    pub reserved: Vec<RangeInclusive<u16>>,
    /// Ports that are listened on.
    pub taken: BTreeSet<u16>,
    /// `net.core.rmem_max` and `wmem_max`
    pub buffers: Option<(u64, u64)>,
    /// Names of congestion controls.
    pub congestion: Option<Vec<String>>,
    /// Addresses of this host.
    pub addresses: Option<Vec<IpAddr>>,
}

impl Network {
    pub(super) fn read(files: &Files) -> Self {
        let of = |name: &str| files.text(format!("proc/sys/net/{name}"));
        let range = of("ipv4/ip_local_port_range");
        let ephemeral = || {
            let mut ends = range.as_deref()?.split_whitespace().map(|end| end.parse::<u16>().ok());
            Some(ends.next()??..=ends.next()??)
        };
        let size = |name: &str| files.number(format!("proc/sys/net/core/{name}"));
        let buffers = || Some((size("rmem_max")?, size("wmem_max")?));
        let words = |text: String| text.split_whitespace().map(String::from).collect();
        let all = |found: Vec<Interface>| found.into_iter().map(|interface| interface.address).collect();
        let tables = ["proc/net/tcp", "proc/net/tcp6"].map(|table| files.text(table).unwrap_or_default());
        Network {
            ephemeral: ephemeral(),
            reserved: of("ipv4/ip_local_reserved_ports").map(|text| ranges(&text)).unwrap_or_default(),
            taken: tables.iter().flat_map(|table| listening(table)).collect(),
            buffers: buffers(),
            congestion: of("ipv4/tcp_available_congestion_control").map(words),
            addresses: files.is_machine().then(interfaces::list).and_then(Result::ok).map(all),
        }
    }
}

/// `1,5-8`.
fn ranges(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).collect()
}

/// The ports of a table of sockets: `0: 00000000:3A98 00000000:0000 0A …`.
fn listening(table: &str) -> Vec<u16> {
    let port = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let local = words.next()?;
        let port = local.rsplit_once(':')?.1;
        (words.nth(1)? == LISTEN).then(|| u16::from_str_radix(port, 16).ok()).flatten()
    };
    table.lines().filter_map(port).collect()
}

pub(super) fn findings(network: &Network, config: &Config) -> Vec<Finding> {
    let found = [
        Some(listen_address(network, config)),
        Some(ports(network, config)),
        overlap(network, config),
        handshake_port(network, config),
        buffers(network, config),
        congestion(network, config),
    ];
    found.into_iter().flatten().collect()
}

/// Whoever reaches the ports reaches offered memory.
fn listen_address(network: &Network, config: &Config) -> Finding {
    let check = "listen address";
    match bind_address(config) {
        Err(error) => Finding::fault(check, error.text(), "correct MC_BIND_ADDRESS"),
        Ok(None) => Finding::ok(
            check,
            "all of this host: whoever reaches one may reach memory; MC_BIND_ADDRESS names one",
        ),
        Ok(Some(address)) => match &network.addresses {
            // All of 127.0.0.0/8 are the loopback's.
            Some(own) if !own.contains(&address) && !address.is_loopback() => {
                let remedy = "set MC_BIND_ADDRESS to an address of this host (ip address), or unset it";
                Finding::fault(
                    check,
                    format!("{address} (MC_BIND_ADDRESS) is not an address of this host"),
                    remedy,
                )
            }
            _ => Finding::ok(check, format!("{address} only (MC_BIND_ADDRESS)")),
        },
    }
}

/// The range that engines take their ports from.
fn ports(network: &Network, config: &Config) -> Finding {
    let check = "listen ports";
    let (min, max) = (config.min_rpc_port, config.max_rpc_port);
    let all = usize::from(max - min) + 1;
    let free = all - network.taken.range(min..=max).count();
    let seen = format!("{free} of {all} free, {min} to {max}");
    let remedy = "widen MC_MIN_RPC_PORT to MC_MAX_RPC_PORT, or see who listens there (ss -ltnp)";
    match free {
        0 | 1 => Finding::fault(check, seen, remedy),
        2..FEW_PORTS => Finding::warning(check, seen, remedy),
        _ => Finding::ok(check, seen),
    }
}

/// A port that the kernel gives to outgoing connections may be gone when an engine wants it.
fn overlap(network: &Network, config: &Config) -> Option<Finding> {
    let check = "ephemeral ports";
    let ephemeral = network.ephemeral.as_ref()?;
    let seen = format!("{} to {}", ephemeral.start(), ephemeral.end());
    let first = config.min_rpc_port.max(*ephemeral.start());
    let last = config.max_rpc_port.min(*ephemeral.end());
    let is_reserved = |port: u16| network.reserved.iter().any(|range| range.contains(&port));
    if first > last || (first..=last).all(is_reserved) {
        return Some(Finding::ok(check, seen));
    }
    Some(Finding::warning(
        check,
        format!("{seen}: outgoing connections take the listen ports {first} to {last}"),
        format!("set net.ipv4.ip_local_reserved_ports={first}-{last}, or move one of the two ranges"),
    ))
}

/// Looked at only where the engine listens on the port in its own name.
fn handshake_port(network: &Network, config: &Config) -> Option<Finding> {
    let check = "handshake port";
    let port = config.handshake_port;
    config.legacy_rpc_port_binding.then(|| match network.taken.contains(&port) {
        false => Finding::ok(check, format!("{port} is free")),
        true => Finding::warning(
            check,
            format!("{port} is taken, perhaps by an engine that runs"),
            "give the engine another port in its name, or set MC_HANDSHAKE_PORT, if it is not the engine itself",
        ),
    })
}

/// The kernel cuts what is asked for to its limit without a word.
fn buffers(network: &Network, config: &Config) -> Option<Finding> {
    let check = "socket buffers";
    let (receive, send) = network.buffers?;
    let seen = format!("at most {} to receive, {} to send", bytes(receive), bytes(send));
    let wanted = config.tcp_sockbuf_bytes as u64;
    if wanted <= receive.min(send) {
        return Some(Finding::ok(check, seen));
    }
    Some(Finding::warning(
        check,
        format!("{seen}; MC_TCP_SOCKET_BUFFER asks for {}", bytes(wanted)),
        format!("set net.core.rmem_max and net.core.wmem_max to {wanted}, or unset MC_TCP_SOCKET_BUFFER"),
    ))
}

fn congestion(network: &Network, config: &Config) -> Option<Finding> {
    let check = "congestion control";
    let (wanted, known) = (config.tcp_congestion.as_ref()?, network.congestion.as_ref()?);
    let seen = format!("{wanted} (MC_TCP_CONGESTION), the kernel has {}", known.join(", "));
    Some(match known.contains(wanted) {
        true => Finding::ok(check, seen),
        false => Finding::warning(
            check,
            seen,
            format!("load it (modprobe tcp_{wanted}), or unset MC_TCP_CONGESTION"),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn config() -> Config {
        Config { min_rpc_port: 15000, max_rpc_port: 15099, ..Config::default() }
    }

    #[test]
    fn where_engines_listen_is_told_and_an_address_of_nobody_is_a_fault() {
        let own = Some(vec![IpAddr::from([10, 0, 0, 1])]);
        let network = Network { addresses: own, ..Network::default() };
        for (setting, level, word) in [
            (None, Level::Ok, "all of this host"),
            (Some("0.0.0.0"), Level::Ok, "all of this host"),
            (Some("10.0.0.1"), Level::Ok, "10.0.0.1 only"),
            (Some("127.0.0.2"), Level::Ok, "127.0.0.2 only"),
            (Some("10.0.0.2"), Level::Fault, "not an address of this host"),
            (Some("eth0"), Level::Fault, "not an IP address"),
            (Some("fd00::1"), Level::Fault, "MC_USE_IPV6"),
        ] {
            let config = Config { listen_address: setting.map(String::from), ..config() };
            let finding = listen_address(&network, &config);
            assert!(finding.level == level && finding.seen.contains(word), "{finding:?}");
        }
        let config = Config { listen_address: Some("10.0.0.2".into()), ..config() };
        assert_eq!(listen_address(&Network::default(), &config).level, Level::Ok, "not known");
    }

    #[test]
    fn a_full_range_is_a_fault_and_a_nearly_full_one_a_warning() {
        for (taken, level) in [(0, Level::Ok), (69, Level::Warning), (99, Level::Fault), (100, Level::Fault)]
        {
            let network = Network { taken: (15000..15000 + taken).collect(), ..Network::default() };
            assert_eq!(ports(&network, &config()).level, level, "{taken}");
        }
    }

    #[test]
    fn ports_that_the_kernel_gives_away_are_a_warning_unless_reserved() {
        let network = Network { ephemeral: Some(10000..=20000), ..Network::default() };
        let finding = overlap(&network, &config()).unwrap();
        assert!(finding.level == Level::Warning && finding.remedy.contains("=15000-15099"), "{finding:?}");
        let reserved = Network { reserved: ranges("7,15000-15050,15051-16000"), ..network };
        assert_eq!(overlap(&reserved, &config()).unwrap().level, Level::Ok);
        let apart = Network { ephemeral: Some(32768..=60999), ..Network::default() };
        assert_eq!(overlap(&apart, &config()).unwrap().level, Level::Ok);
        assert_eq!(overlap(&Network::default(), &config()), None);
    }

    #[test]
    fn a_handshake_port_matters_where_the_name_has_it() {
        let network = Network { taken: [12001].into(), ..Network::default() };
        let legacy = Config { legacy_rpc_port_binding: true, ..config() };
        assert_eq!(handshake_port(&network, &legacy).unwrap().level, Level::Warning);
        assert_eq!(handshake_port(&Network::default(), &legacy).unwrap().level, Level::Ok);
        assert_eq!(handshake_port(&network, &config()), None);
    }

    #[test]
    fn buffers_and_congestion_control_have_to_be_there() {
        let network = Network {
            buffers: Some((212_992, 212_992)),
            congestion: Some(vec!["reno".into(), "cubic".into()]),
            ..Network::default()
        };
        let asks = Config { tcp_sockbuf_bytes: 1 << 22, tcp_congestion: Some("bbr".into()), ..config() };
        assert_eq!(buffers(&network, &asks).unwrap().level, Level::Warning);
        assert_eq!(buffers(&network, &config()).unwrap().level, Level::Ok);
        assert!(congestion(&network, &asks).unwrap().remedy.contains("tcp_bbr"));
        let cubic = Config { tcp_congestion: Some("cubic".into()), ..config() };
        assert_eq!(congestion(&network, &cubic).unwrap().level, Level::Ok);
        assert_eq!(congestion(&network, &config()), None);
    }

    #[test]
    fn sockets_that_listen_are_found_in_the_kernels_table() {
        let table = r"sl  local_address rem_address   st
   0: 00000000:3A98 00000000:0000 0A 0:0
   1: 0100007F:3A99 0100007F:0001 01 0:0
   2: 00000000000000000000000000000000:3A9A 00000000000000000000000000000000:0000 0A 0:0
";
        assert_eq!(listening(table), [15000, 15002]);
    }
}
