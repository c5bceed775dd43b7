//! The local addresses that `MC_TCP_NICS` names, each of a NIC whose bytes go over connections of its own.

use std::net::IpAddr;

use crate::error::{Error, Result};
use crate::runtime::interfaces::Interface;

/// Most addresses, of ours and of a peer's. Chosen: no host has as many NICs, and a peer may have 16 lanes.
pub(super) const MOST: usize = 16;
/// Bytes per second of a NIC that does not tell, until its rate was measured. Chosen: 10 Gbit/s, as a virtual one says.
const ASSUMED: u64 = 1_250_000_000;
/// Bytes per second of a Mbit/s.
const MEGABIT: u64 = 125_000;

/// The addresses that `setting` names among those that were `found`: by themselves, or by their device, of which the first
/// one is taken, of IPv6 if `v6`, else of IPv4, if it has one. `ERR_INVALID_ARGUMENT` if a name or an address is not here.
pub(super) fn named(setting: &str, v6: bool, found: &[Interface]) -> Result<Vec<Interface>> {
    let mut ours: Vec<Interface> = Vec::new();
    for name in setting.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let interface = lookup(name, v6, found).ok_or_else(|| unknown(name, found))?;
        if !ours.iter().any(|known| known.address == interface.address) {
            ours.push(interface.clone());
        }
    }
    match ours.len() {
        0..=MOST => Ok(ours),
        count => Err(Error::invalid(format!("MC_TCP_NICS names {count} addresses; {MOST} are the most"))),
    }
}

fn lookup<'a>(name: &str, v6: bool, found: &'a [Interface]) -> Option<&'a Interface> {
    // A peer cannot reach a loopback, and a link-local address means nothing without its scope.
    let usable = |interface: &&Interface| match interface.address {
        IpAddr::V4(address) => !address.is_loopback(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    };
    let found = found.iter().filter(usable);
    match name.parse::<IpAddr>() {
        Ok(address) => found.clone().find(|interface| interface.address == address),
        Err(_) => {
            let of_device = found.filter(|interface| interface.name == name);
            of_device.min_by_key(|interface| interface.address.is_ipv6() != v6)
        }
    }
}

fn unknown(name: &str, found: &[Interface]) -> Error {
    let list = found.iter().filter(|interface| !interface.is_loopback);
    let list: Vec<_> = list.map(|interface| format!("{} {}", interface.name, interface.address)).collect();
    Error::invalid(format!(
        "MC_TCP_NICS names '{name}', which is neither an address of this host that peers could use nor a device with one; \
         there are: {}",
        if list.is_empty() { "none".into() } else { list.join(", ") }
    ))
}

/// The addresses of ours that peers are told: those that the data port listens at, which is `bound` alone if there is one.
pub(super) fn offered(ours: &[Interface], bound: Option<IpAddr>) -> Vec<IpAddr> {
    let listens = |address: &IpAddr| bound.is_none_or(|bound| bound == *address);
    ours.iter().map(|interface| interface.address).filter(listens).collect()
}

/// Bytes per second of `device`, as the kernel knows it.
pub(super) fn port_rate(device: &str) -> u64 {
    let told = std::fs::read_to_string(format!("/sys/class/net/{device}/speed"));
    let megabits = told.ok().and_then(|text| text.trim().parse::<u64>().ok()).filter(|rate| *rate > 0);
    // Where there is no cable it is -1, or 2^32 - 1.
    megabits.filter(|rate| *rate < u64::from(u32::MAX)).map_or(ASSUMED, |rate| rate * MEGABIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn host() -> Vec<Interface> {
        let table = [
            ("lo", "127.0.0.1"),
            ("eth0", "10.0.0.1"),
            ("eth1", "fe80::1"),
            ("eth1", "fd00::1"),
            ("eth1", "10.1.0.1"),
            ("eth1", "10.9.0.1"),
            ("eth2", "fe80::2"),
        ];
        table
            .map(|(name, address)| Interface {
                name: name.into(),
                address: address.parse().unwrap(),
                prefix_len: 24,
                is_running: true,
                is_loopback: name == "lo",
            })
            .into()
    }

    #[test]
    fn a_device_stands_for_its_first_address_of_the_family() {
        for (setting, v6, expected) in [
            ("", false, &[][..]),
            (" , ", false, &[]),
            ("eth0", false, &["10.0.0.1"]),
            ("eth0", true, &["10.0.0.1"]),
            ("eth1, eth0", false, &["10.1.0.1", "10.0.0.1"]),
            ("eth1", true, &["fd00::1"]),
            ("10.9.0.1,fd00::1", false, &["10.9.0.1", "fd00::1"]),
            ("eth1,10.1.0.1,eth1", false, &["10.1.0.1"]),
        ] {
            let ours = named(setting, v6, &host()).unwrap();
            let ours: Vec<_> = ours.iter().map(|interface| interface.address.to_string()).collect();
            assert_eq!(ours, expected, "'{setting}', IPv6: {v6}");
        }
    }

    #[test]
    fn what_is_not_there_is_an_error_that_names_it_and_what_is_there() {
        for setting in ["eth9", "10.0.0.9", "eth0,eth9", "eth2", "fe80::1", "lo", "127.0.0.1", "eth0;eth1"] {
            let error = named(setting, false, &host()).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{setting}");
            let name = setting.split(',').next_back().unwrap();
            let text = error.text();
            assert!(text.contains(&format!("'{name}'")) && text.contains("eth0 10.0.0.1"), "{text}");
        }
    }

    #[test]
    fn peers_are_told_of_addresses_that_are_listened_at() {
        let ours = named("eth0,eth1", false, &host()).unwrap();
        let [first, second] = ["10.0.0.1", "10.1.0.1"].map(|text| text.parse::<IpAddr>().unwrap());
        assert_eq!(offered(&ours, None), [first, second]);
        assert_eq!(offered(&ours, Some(second)), [second]);
        assert_eq!(offered(&ours, Some(IpAddr::from([10, 9, 0, 1]))), [] as [IpAddr; 0]);
    }

    #[test]
    fn there_are_not_more_than_lanes() {
        let many: Vec<Interface> = (0..=MOST as u8)
            .map(|i| Interface { address: IpAddr::from([10, i, 0, 1]), ..host()[1].clone() })
            .collect();
        let all: Vec<String> = many.iter().map(|interface| interface.address.to_string()).collect();
        assert_eq!(named(&all[1..].join(","), false, &many).unwrap().len(), MOST);
        assert!(named(&all.join(","), false, &many).unwrap_err().text().contains("16 are the most"));
    }

    #[test]
    fn a_device_that_does_not_tell_its_rate_counts_as_one_of_ten_gigabits() {
        assert_eq!(port_rate("no such device"), ASSUMED);
    }
}
