//! A port and its GID table as data, and what sysfs tells about them that older libraries do not.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use rdma_sys::{ibv_mtu, ibv_port_attr};

/// State of a port; only `Active` moves data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// No link.
    Down,
    /// Link, not configured by the subnet manager.
    Init,
    /// Configured, not active yet.
    Armed,
    /// Usable.
    Active,
    /// Another `enum ibv_port_state`.
    Other(u32),
}

/// A port as of the moment of the query.
#[derive(Clone, Debug)]
pub struct Port {
    /// Whether it is usable.
    pub state: PortState,
    /// Bytes; 0 if the driver gave a code we do not know.
    pub active_mtu: u32,
    /// 0 on Ethernet.
    pub lid: u16,
    /// InfiniBand link layer, as opposed to Ethernet.
    pub is_infiniband: bool,
    /// Speed of a lane times width; 0 if unknown.
    pub bits_per_second: u64,
    /// Entries of the GID table, used or not.
    pub gid_table_len: u32,
}

/// What a GID is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GidKind {
    /// Of an InfiniBand port.
    InfiniBand,
    /// RoCE v1: Ethernet frames, not routable.
    RoceV1,
    /// RoCE v2: UDP, routable.
    RoceV2,
    /// Another `enum ibv_gid_type`; `u32::MAX` if neither library nor sysfs tells.
    Other(u32),
}

/// An entry of a port's GID table that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GidEntry {
    /// The GID, in network byte order.
    pub gid: [u8; 16],
    /// What it is for.
    pub kind: GidKind,
    /// Interface index of its net device; 0: none or unknown.
    pub ndev_ifindex: u32,
}

/// `struct ibv_gid_entry`, which rdma-sys lacks.
#[repr(C, align(8))]
#[derive(Default)]
pub(super) struct RawGidEntry {
    gid: [u8; 16],
    index: u32,
    port: u32,
    kind: u32,
    ndev_ifindex: u32,
}

impl RawGidEntry {
    /// `None` for an entry without a GID.
    pub(super) fn into_entry(self) -> Option<GidEntry> {
        let kind = match self.kind {
            0 => GidKind::InfiniBand,
            1 => GidKind::RoceV1,
            2 => GidKind::RoceV2,
            other => GidKind::Other(other),
        };
        (self.gid != [0; 16]).then_some(GidEntry { gid: self.gid, kind, ndev_ifindex: self.ndev_ifindex })
    }
}

impl Port {
    pub(super) fn from_raw(raw: &ibv_port_attr, folder: &PortFolder) -> Self {
        /// `IBV_LINK_LAYER_ETHERNET`.
        const ETHERNET: u8 = 2;
        let bits_per_second = lane_rate(raw.active_speed) * lanes(raw.active_width);
        Port {
            state: match raw.state {
                1 => PortState::Down,
                2 => PortState::Init,
                3 => PortState::Armed,
                4 => PortState::Active,
                other => PortState::Other(other),
            },
            active_mtu: mtu_bytes(raw.active_mtu),
            lid: raw.lid,
            // Old drivers leave it unspecified, and all of them are InfiniBand.
            is_infiniband: raw.link_layer != ETHERNET,
            // Speeds from XDR on do not fit into the field.
            bits_per_second: if bits_per_second == 0 { folder.rate() } else { bits_per_second },
            gid_table_len: u32::try_from(raw.gid_tbl_len).unwrap_or(0),
        }
    }
}

fn mtu_bytes(code: ibv_mtu::Type) -> u32 {
    match code {
        1..=5 => 128 << code,
        _ => 0,
    }
}

/// The code of `bytes`, if it is an MTU at all.
pub(super) fn mtu_code(bytes: u32) -> Option<ibv_mtu::Type> {
    (1..=5).find(|code| mtu_bytes(*code) == bytes)
}

/// Nominal bits per second of one lane: SDR, DDR, QDR, FDR10, FDR, EDR, HDR, NDR.
fn lane_rate(active_speed: u8) -> u64 {
    let mega = match active_speed {
        1 => 2_500,
        2 => 5_000,
        4 | 8 => 10_000,
        16 => 14_000,
        32 => 25_000,
        64 => 50_000,
        128 => 100_000,
        _ => 0,
    };
    mega * 1_000_000
}

fn lanes(active_width: u8) -> u64 {
    match active_width {
        1 => 1,
        2 => 4,
        4 => 8,
        8 => 12,
        16 => 2,
        _ => 0,
    }
}

/// A port's folder in sysfs; what is missing there is unknown.
pub(super) struct PortFolder(PathBuf);

impl PortFolder {
    pub(super) fn new(device: &str, port: u8) -> Self {
        PortFolder(format!("/sys/class/infiniband/{device}/ports/{port}").into())
    }

    fn line(&self, file: &str) -> Option<String> {
        Some(std::fs::read_to_string(self.0.join(file)).ok()?.trim().to_owned())
    }

    fn rate(&self) -> u64 {
        self.line("rate").map_or(0, |line| parse_rate(&line))
    }

    /// The entry that `gid` is, for libraries without `_ibv_query_gid_ex`.
    pub(super) fn gid_entry(&self, gid: [u8; 16], index: u32, is_infiniband: bool) -> Option<GidEntry> {
        let kind = self.line(&format!("gid_attrs/types/{index}"));
        let ndev = self.line(&format!("gid_attrs/ndevs/{index}")).and_then(|name| CString::new(name).ok());
        let kind = gid_kind(kind.as_deref(), is_infiniband);
        // SAFETY: a terminated string.
        let ndev_ifindex = ndev.map_or(0, |name| unsafe { libc::if_nametoindex(name.as_ptr()) });
        (gid != [0; 16]).then_some(GidEntry { gid, kind, ndev_ifindex })
    }
}

/// Entry `index` of a port's GID table as the port's folder in sysfs shows it; `None` if it is empty. Opens no device.
pub fn sysfs_gid(folder: &Path, index: u32, is_infiniband: bool) -> Option<GidEntry> {
    let folder = PortFolder(folder.into());
    let gid = folder.line(&format!("gids/{index}"))?.parse::<Ipv6Addr>().ok()?;
    folder.gid_entry(gid.octets(), index, is_infiniband)
}

/// `400 Gb/sec (4X NDR)`.
fn parse_rate(line: &str) -> u64 {
    let number = line.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
    number.map_or(0, |giga| (giga * 1e9) as u64)
}

/// The kernel writes `IB/RoCE v1` for both of these.
fn gid_kind(line: Option<&str>, is_infiniband: bool) -> GidKind {
    match line {
        Some("RoCE v2") => GidKind::RoceV2,
        _ if is_infiniband => GidKind::InfiniBand,
        Some("IB/RoCE v1") => GidKind::RoceV1,
        _ => GidKind::Other(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mtus_are_converted_both_ways_and_others_are_none() {
        assert_eq!((1..=5).map(mtu_bytes).collect::<Vec<_>>(), [256, 512, 1024, 2048, 4096]);
        assert_eq!((mtu_bytes(0), mtu_bytes(6), mtu_bytes(u32::MAX)), (0, 0, 0));
        assert_eq!((mtu_code(4096), mtu_code(1500), mtu_code(0)), (Some(5), None, None));
    }

    #[test]
    fn a_rate_is_lane_speed_times_width_or_the_line_of_sysfs() {
        assert_eq!(lane_rate(128) * lanes(2), 400_000_000_000);
        assert_eq!(lane_rate(0) * lanes(2), 0);
        assert_eq!(parse_rate("800 Gb/sec (4X XDR)"), 800_000_000_000);
        assert_eq!(parse_rate("2.5 Gb/sec (1X SDR)"), 2_500_000_000);
        assert_eq!((parse_rate(""), parse_rate("?"), parse_rate("-1 Gb/sec")), (0, 0, 0));
    }

    #[test]
    fn sysfs_tells_the_kind_of_a_gid() {
        for (line, is_infiniband, kind) in [
            (Some("RoCE v2"), false, GidKind::RoceV2),
            (Some("IB/RoCE v1"), false, GidKind::RoceV1),
            (Some("IB/RoCE v1"), true, GidKind::InfiniBand),
            (None, true, GidKind::InfiniBand),
            (None, false, GidKind::Other(u32::MAX)),
        ] {
            assert_eq!(gid_kind(line, is_infiniband), kind);
        }
    }
}
