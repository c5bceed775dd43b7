//! Paths between two hosts that have several addresses each: from one of ours to the peer's in the same subnet, so that no
//! table of routes has to know of them.

use std::fmt;
use std::net::IpAddr;

use crate::runtime::interfaces::Interface;

/// From a local address to one of the peer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// Device that has the local address.
    pub device: String,
    /// What connections are bound to.
    pub local: IpAddr,
    /// What they lead to.
    pub remote: IpAddr,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) -> {}", self.device, self.local, self.remote)
    }
}

/// A path for each subnet that both hosts are in, in the order of our addresses. None if the peer is on this host, where no
/// NIC has to do with it.
pub(super) fn pair(ours: &[Interface], theirs: &[IpAddr]) -> Vec<Path> {
    let is_ours = |address: &IpAddr| ours.iter().any(|interface| interface.address == *address);
    let mut paths: Vec<Path> = Vec::new();
    if theirs.iter().any(is_ours) {
        return paths;
    }
    for (place, interface) in ours.iter().enumerate() {
        // The kernel sends what is for one subnet over one device, whichever address it comes from.
        let is_known = ours[..place].iter().any(|earlier| earlier.reaches(interface.address));
        let remote = theirs.iter().find(|address| interface.reaches(**address));
        let Some(remote) = remote.filter(|_| !is_known) else { continue };
        if !paths.iter().any(|path| path.remote == *remote) {
            let (device, local) = (interface.name.clone(), interface.address);
            paths.push(Path { device, local, remote: *remote });
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(ours: &[&str], theirs: &[&str]) -> Vec<String> {
        let interface = |(i, text): (usize, &&str)| {
            let (address, prefix_len) = text.split_once('/').unwrap();
            Interface {
                name: format!("eth{i}"),
                address: address.parse().unwrap(),
                prefix_len: prefix_len.parse().unwrap(),
                is_running: true,
                is_loopback: false,
            }
        };
        let ours: Vec<_> = ours.iter().enumerate().map(interface).collect();
        let theirs: Vec<_> = theirs.iter().map(|address| address.parse().unwrap()).collect();
        pair(&ours, &theirs).iter().map(Path::to_string).collect()
    }

    #[test]
    fn each_subnet_that_both_are_in_is_used_once() {
        let (one, two) = ("eth0 (10.1.0.1) -> 10.1.0.2", "eth1 (10.2.0.1) -> 10.2.0.2");
        for (ours, theirs, expected) in [
            (&["10.1.0.1/24", "10.2.0.1/24"][..], &["10.1.0.2", "10.2.0.2"][..], &[one, two][..]),
            (&["10.1.0.1/24", "10.2.0.1/24"], &["10.2.0.2", "10.1.0.2"], &[one, two]),
            (&["10.1.0.1/24", "10.2.0.1/24"], &["10.2.0.2", "10.3.0.2"], &[two]),
            (&["10.1.0.1/24", "10.1.0.3/24"], &["10.1.0.2", "10.1.0.4"], &[one]),
            (&["10.1.0.1/24"], &["10.1.0.2", "10.1.0.4"], &[one]),
            (&["10.1.0.1/24"], &["192.168.0.1"], &[]),
            (&["10.1.0.1/24"], &[], &[]),
            (&[], &["10.1.0.2"], &[]),
            (&["fd00::1/64"], &["10.1.0.2", "fd00::2"], &["eth0 (fd00::1) -> fd00::2"]),
        ] {
            assert_eq!(paths(ours, theirs), expected, "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn there_are_none_within_a_host() {
        assert!(paths(&["10.1.0.1/24", "10.2.0.1/24"], &["10.1.0.1", "10.2.0.1"]).is_empty());
        assert!(paths(&["10.1.0.1/24", "10.2.0.1/24"], &["10.1.0.9", "10.2.0.1"]).is_empty());
    }
}
