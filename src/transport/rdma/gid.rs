//! Which GID of a port's table to use: the ranking that upstream uses, and the text form.

use std::net::Ipv4Addr;
use std::time::Instant;

use super::verbs::{GidEntry, GidKind};

/// Beginnings of the names of network devices whose addresses other hosts cannot reach; upstream's list.
const OVERLAYS: &[&str] = &["flannel", "cni", "calico", "vxlan", "docker", "tunl0"];

/// One entry of the GID table that could be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Position in the table.
    pub index: u8,
    /// The address.
    pub gid: [u8; 16],
    /// Lower is better.
    pub rank: u8,
}

/// A GID of ours as queue pairs are set up with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LocalGid {
    /// The address.
    pub bytes: [u8; 16],
    /// Its position in the port's table.
    pub index: u8,
}

/// What a peer has made of a rail's GID.
#[derive(Default)]
pub(super) struct Moved {
    /// What is used instead of the NIC's own; `None`: that.
    pub gid: Option<LocalGid>,
    /// Positions in the port's table of those that the peer has found not to work.
    pub tried: Vec<u8>,
    /// When the last of them was.
    pub since: Option<Instant>,
}

/// Rank of an entry: routable first, then private and degraded ones, those with a network device before those without.
/// `netdev` is the entry's network device, if it has one.
pub(super) fn rank(entry: &GidEntry, netdev: Option<&str>) -> u8 {
    let degraded = match entry.kind {
        GidKind::InfiniBand => false,
        GidKind::RoceV2 => is_link_local(&entry.gid) || netdev.is_some_and(is_overlay),
        GidKind::RoceV1 | GidKind::Other(_) => return 6,
    };
    let private = entry.kind == GidKind::RoceV2 && is_private_v4(&entry.gid);
    match (netdev.is_some(), degraded, private) {
        (true, true, _) => 3,
        (false, true, _) => 5,
        (true, false, true) => 2,
        (false, false, true) => 4,
        (true, false, false) => 0,
        (false, false, false) => 1,
    }
}

/// Best first; ties go to the lower index.
pub(super) fn sorted(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    candidates.sort_by_key(|candidate| (candidate.rank, candidate.index));
    candidates
}

/// 16 two-digit lower-case hex bytes joined by `:`.
pub(super) fn text(gid: &[u8; 16]) -> String {
    let bytes: Vec<String> = gid.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

/// The inverse of [`text`]; `None` unless there are exactly 16 bytes that are not all zero.
pub(super) fn parse(text: &str) -> Option<[u8; 16]> {
    let mut gid = [0; 16];
    let mut parts = text.split(':');
    for byte in &mut gid {
        let part = parts.next().filter(|part| matches!(part.len(), 1 | 2))?;
        if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    (parts.next().is_none() && gid != [0; 16]).then_some(gid)
}

/// fe80::/64.
pub(super) fn is_link_local(gid: &[u8; 16]) -> bool {
    gid[0] == 0xfe && gid[1] & 0xc0 == 0x80
}

/// Two addresses that a router, or a link, may connect: both link-local or neither, both of IPv4 or neither.
pub(super) fn are_akin(one: &[u8; 16], other: &[u8; 16]) -> bool {
    is_link_local(one) == is_link_local(other) && is_v4(one) == is_v4(other)
}

fn is_overlay(netdev: &str) -> bool {
    OVERLAYS.iter().any(|prefix| netdev.starts_with(prefix))
}

/// ::ffff:0:0/96, an IPv4 address.
fn is_v4(gid: &[u8; 16]) -> bool {
    gid[..10] == [0; 10] && gid[10..12] == [0xff, 0xff]
}

/// 10/8, 172.16/12 and 100.64/10; 192.168/16 counts as routable, as upstream has it.
fn is_private_v4(gid: &[u8; 16]) -> bool {
    if !is_v4(gid) {
        return false;
    }
    let [a, b, ..] = Ipv4Addr::new(gid[12], gid[13], gid[14], gid[15]).octets();
    a == 10 || (a == 172 && b & 0xf0 == 16) || (a == 100 && b & 0xc0 == 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: GidKind, gid: &str) -> GidEntry {
        GidEntry { gid: parse(gid).unwrap(), kind, ndev_ifindex: 0 }
    }

    fn v4(a: u8, b: u8) -> String {
        text(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, 0, 1])
    }

    const LINK_LOCAL: &str = "fe:80:00:00:00:00:00:00:00:00:00:00:00:00:00:01";
    const GLOBAL: &str = "20:01:0d:b8:00:00:00:00:00:00:00:00:00:00:00:01";

    #[test]
    fn p30_the_ranking_is_that_of_the_contract() {
        for (gid, netdev, expected) in [
            (GLOBAL.to_string(), Some("eth0"), 0),
            (v4(192, 168), Some("eth0"), 0),
            (v4(172, 32), Some("eth0"), 0),
            (GLOBAL.to_string(), None, 1),
            (v4(10, 0), Some("eth0"), 2),
            (v4(172, 31), Some("eth0"), 2),
            (v4(100, 64), Some("eth0"), 2),
            (LINK_LOCAL.to_string(), Some("eth0"), 3),
            (v4(10, 0), Some("docker0"), 3),
            (GLOBAL.to_string(), Some("cni0"), 3),
            (v4(10, 0), None, 4),
            (LINK_LOCAL.to_string(), None, 5),
        ] {
            assert_eq!(rank(&entry(GidKind::RoceV2, &gid), netdev), expected, "{gid} {netdev:?}");
        }
        assert_eq!(rank(&entry(GidKind::InfiniBand, LINK_LOCAL), None), 1);
        assert_eq!(rank(&entry(GidKind::RoceV1, GLOBAL), Some("eth0")), 6);
    }

    #[test]
    fn addresses_are_akin_in_link_and_family() {
        let gids = [LINK_LOCAL, GLOBAL, &v4(10, 0)].map(|text| parse(text).unwrap());
        for (at, one) in gids.iter().enumerate() {
            let akin = gids.each_ref().map(|other| are_akin(one, other));
            assert_eq!(akin, std::array::from_fn(|other| other == at));
        }
        assert!(are_akin(&parse(&v4(10, 0)).unwrap(), &parse(&v4(192, 168)).unwrap()));
    }

    #[test]
    fn ties_go_to_the_lower_index() {
        let candidate = |index, rank| Candidate { index, gid: [1; 16], rank };
        let order: Vec<u8> =
            sorted(vec![candidate(3, 2), candidate(1, 2), candidate(2, 0)]).iter().map(|c| c.index).collect();
        assert_eq!(order, [2, 1, 3]);
    }

    #[test]
    fn texts_round_trip_and_others_are_refused() {
        assert_eq!(text(&parse(GLOBAL).unwrap()), GLOBAL);
        let zero = "00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00";
        for bad in
            ["", ":", zero, "fe80::1", &GLOBAL[3..], &format!("{GLOBAL}:00"), &GLOBAL.replace("20", "+2")]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
