//! The addresses of this machine's network interfaces.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::gate::section;
use crate::error::{Code, Error, Result};

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Device name.
    pub name: String,
    /// The address.
    pub address: IpAddr,
    /// Leading bits of the address that all hosts of its subnet share.
    pub prefix_len: u32,
    /// Up, with a carrier, and not the loopback.
    pub is_running: bool,
    /// The loopback.
    pub is_loopback: bool,
}

/// The first address of an interface that is up and running and not the loopback; IPv6 if `v6`, else IPv4.
/// `ERR_INVALID_ARGUMENT` if there is none.
pub fn first_address(v6: bool) -> Result<IpAddr> {
    choose(&addresses()?, v6)
}

/// Whether the address is one of this machine's: the loopback's, or one of an interface that is up and running.
pub fn is_own(address: IpAddr) -> Result<bool> {
    let address = address.to_canonical();
    Ok(address.is_loopback() || addresses()?.contains(&address))
}

fn choose(found: &[IpAddr], v6: bool) -> Result<IpAddr> {
    let usable = found.iter().find(|address| match address {
        IpAddr::V4(_) => !v6,
        // A link-local address means nothing without its scope.
        IpAddr::V6(address) => v6 && !address.is_unicast_link_local(),
    });
    usable.copied().ok_or_else(|| {
        let kind = if v6 { "IPv6" } else { "IPv4" };
        Error::invalid(format!(
            "no interface is up with an {kind} address that peers could use; set MC_TCP_BIND_ADDRESS"
        ))
    })
}

/// Addresses of running interfaces, without `lo`.
fn addresses() -> Result<Vec<IpAddr>> {
    Ok(list()?
        .into_iter()
        .filter(|interface| interface.is_running)
        .map(|interface| interface.address)
        .collect())
}

/// Every address of every interface, in the kernel's order.
pub fn list() -> Result<Vec<Interface>> {
    // The call opens a socket for a moment.
    let _section = section();
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: `list` outlives the call.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        let error = std::io::Error::last_os_error();
        return Err(Error::io(Code::InvalidArgument, "cannot list the network interfaces", &error));
    }
    let running = (libc::IFF_UP | libc::IFF_RUNNING) as u32;
    let mut found = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: an element of the list that getifaddrs made and that is not freed yet.
        let interface = unsafe { &*next };
        next = interface.ifa_next;
        // SAFETY: NULL, or as long as its family says.
        let Some(address) = (unsafe { address(interface.ifa_addr) }) else { continue };
        // SAFETY: as above.
        let mask = unsafe { self::address(interface.ifa_netmask) };
        // SAFETY: getifaddrs ends each name with a NUL.
        let name = unsafe { CStr::from_ptr(interface.ifa_name) };
        let is_loopback = interface.ifa_flags & libc::IFF_LOOPBACK as u32 != 0;
        found.push(Interface {
            name: name.to_string_lossy().into_owned(),
            address,
            prefix_len: mask.map_or(u32::MAX, leading_ones),
            is_running: interface.ifa_flags & running == running && !is_loopback,
            is_loopback,
        });
    }
    // SAFETY: made by getifaddrs, freed once; nothing of it is kept.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

/// # Safety
/// `address` is NULL, or points to a socket address of the length that goes with its family.
unsafe fn address(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: every socket address begins with its family.
    match i32::from(unsafe { (*address).sa_family }) {
        libc::AF_INET => {
            // SAFETY: the family says so.
            let address = unsafe { &*address.cast::<libc::sockaddr_in>() };
            Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says so.
            let address = unsafe { &*address.cast::<libc::sockaddr_in6>() };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

/// The bits of a netmask.
fn leading_ones(mask: IpAddr) -> u32 {
    match mask {
        IpAddr::V4(mask) => u32::from(mask).leading_ones(),
        IpAddr::V6(mask) => u128::from(mask).leading_ones(),
    }
}

impl Interface {
    /// `other` is in the same subnet.
    pub fn reaches(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let differ = u32::from(ours) ^ u32::from(theirs);
                differ.leading_zeros() >= self.prefix_len.min(32)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let differ = u128::from(ours) ^ u128::from(theirs);
                differ.leading_zeros() >= self.prefix_len.min(128)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_of_the_family_is_chosen_and_none_is_an_error() {
        let [local, one, two, six] =
            ["fe80::1", "10.0.0.1", "10.0.0.2", "2001:db8::1"].map(|text| text.parse::<IpAddr>().unwrap());
        for (found, v6, expected) in [
            (&[local, one, six, two][..], false, Some(one)),
            (&[local, one, six, two], true, Some(six)),
            (&[two, one], false, Some(two)),
            (&[local, one], true, None),
            (&[local, six], false, None),
            (&[], false, None),
            (&[], true, None),
        ] {
            let kind = if v6 { "IPv6" } else { "IPv4" };
            match (choose(found, v6), expected) {
                (Ok(address), Some(expected)) => assert_eq!(address, expected, "{found:?}"),
                (Err(error), None) => {
                    assert_eq!(error.code(), Code::InvalidArgument);
                    let text = error.text();
                    assert!(text.contains(kind) && text.contains("MC_TCP_BIND_ADDRESS"), "{text}");
                }
                (got, expected) => panic!("{found:?}, {kind}: {got:?} instead of {expected:?}"),
            }
        }
    }

    /// The kernel lets only own addresses be bound; a link-local one only with its scope.
    #[test]
    fn the_interfaces_addresses_are_ours_and_not_the_loopback() {
        let found = addresses().unwrap();
        for address in &found {
            assert!(!address.is_loopback(), "{address}");
            if !matches!(address, IpAddr::V6(address) if address.is_unicast_link_local()) {
                std::net::UdpSocket::bind((*address, 0)).unwrap_or_else(|e| panic!("{address}: {e}"));
            }
        }
        if found.is_empty() {
            println!("SKIP the_interfaces_addresses_are_ours: no interface is up but the loopback");
        }
    }

    #[test]
    fn a_subnet_is_what_the_netmask_says() {
        for (ours, prefix_len, theirs, expected) in [
            ("10.1.0.1", 24, "10.1.0.255", true),
            ("10.1.0.1", 24, "10.1.1.1", false),
            ("10.1.0.1", 31, "10.1.0.0", true),
            ("10.1.0.1", 32, "10.1.0.1", true),
            ("10.1.0.1", 0, "192.168.0.1", true),
            ("10.1.0.1", 24, "fd00::1", false),
            ("fd00::1", 64, "fd00::ffff", true),
            ("fd00::1", 64, "fd00:0:0:1::1", false),
            ("fd00::1", u32::MAX, "fd00::2", false),
        ] {
            let interface = Interface {
                name: "eth0".into(),
                address: ours.parse().unwrap(),
                prefix_len,
                is_running: true,
                is_loopback: false,
            };
            assert_eq!(interface.reaches(theirs.parse().unwrap()), expected, "{ours}/{prefix_len} {theirs}");
        }
    }

    #[test]
    fn the_loopback_is_listed_with_its_subnet() {
        let found = list().unwrap();
        let Some(local) = found.iter().find(|it| it.address == IpAddr::from([127, 0, 0, 1])) else {
            return println!("SKIP the_loopback_is_listed: it is not up");
        };
        assert!(local.is_loopback && !local.is_running && local.prefix_len == 8, "{local:?}");
    }
}
