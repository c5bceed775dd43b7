//! The addresses of this machine's network interfaces.
#![allow(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::gate::section;
use crate::error::{Code, Error, Result};

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
    // The call opens a socket for a moment.
    let _section = section();
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: `list` outlives the call.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        let error = std::io::Error::last_os_error();
        return Err(Error::io(Code::InvalidArgument, "cannot list the network interfaces", &error));
    }
    let wanted = (libc::IFF_UP | libc::IFF_RUNNING) as u32;
    let mut found = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: an element of the list that getifaddrs made and that is not freed yet.
        let interface = unsafe { &*next };
        let usable = interface.ifa_flags & wanted == wanted
            && interface.ifa_flags & libc::IFF_LOOPBACK as u32 == 0
            && !interface.ifa_addr.is_null();
        if usable {
            // SAFETY: not NULL, and as long as its family says.
            found.extend(unsafe { address(interface.ifa_addr) });
        }
        next = interface.ifa_next;
    }
    // SAFETY: made by getifaddrs, freed once; nothing of it is kept.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

/// # Safety
/// `address` points to a socket address of the length that goes with its family.
unsafe fn address(address: *const libc::sockaddr) -> Option<IpAddr> {
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
}
