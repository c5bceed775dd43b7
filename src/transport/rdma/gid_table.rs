//! What an engine would make of a port's GID table, read off sysfs without opening the device: for whoever looks at a machine
//! before an engine runs there.

use std::fs;
use std::net::Ipv6Addr;
use std::path::Path;

use super::gid;
use super::verbs::sysfs_gid;

/// The ranks of entries that [`gid::rank`] calls degraded.
const CONFINED: [u8; 2] = [3, 5];
/// The rank of entries that are no RoCE v2 and not InfiniBand's, as [`gid::rank`] gives it.
const UNROUTABLE: u8 = 6;

/// An entry of the table that is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position.
    pub index: u8,
    /// The address in the notation of IPv6, in which those of IPv4 can be read.
    pub gid: String,
    /// The name of its network device, if it has one.
    pub netdev: Option<String>,
    /// Lower is better.
    pub rank: u8,
}

impl Entry {
    /// RoCE v1, or of a kind that is not known: no router passes it on.
    pub fn is_unroutable(&self) -> bool {
        self.rank >= UNROUTABLE
    }

    /// A link-local address of RoCE, or one of an overlay on this host: it leads no farther than to the next router.
    pub fn is_confined(&self) -> bool {
        CONFINED.contains(&self.rank)
    }

    /// Why it has its rank, as a few words.
    pub fn why(&self) -> &'static str {
        match self.rank {
            0 => "routable, with a network device",
            1 => "routable, its network device unknown",
            2 => "a private IPv4 address, with a network device",
            3 => "link-local or of an overlay, with a network device",
            4 => "a private IPv4 address, its network device unknown",
            5 => "link-local, its network device unknown",
            _ => "RoCE v1, which is not routed",
        }
    }
}

/// The entries of the table in the port's folder `port`, best first: in the order in which an engine tries them.
pub fn read(port: &Path, is_infiniband: bool) -> Vec<Entry> {
    let Ok(files) = fs::read_dir(port.join("gids")) else { return Vec::new() };
    let indices = files.filter_map(|file| file.ok()?.file_name().to_str()?.parse::<u8>().ok());
    let entries = indices.filter_map(|index| {
        let entry = sysfs_gid(port, index.into(), is_infiniband)?;
        let netdev = fs::read_to_string(port.join(format!("gid_attrs/ndevs/{index}"))).ok();
        let netdev = netdev.map(|name| name.trim().to_string()).filter(|name| !name.is_empty());
        let rank = gid::rank(&entry, netdev.as_deref());
        Some(Entry { index, gid: Ipv6Addr::from(entry.gid).to_string(), netdev, rank })
    });
    let mut entries: Vec<Entry> = entries.collect();
    entries.sort_by_key(|entry| (entry.rank, entry.index));
    entries
}
