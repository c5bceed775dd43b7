//! Open segments: ids, cached descriptors, and when they are read again.

mod freshness;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use once_cell::sync::OnceCell;
use parking_lot::{Mutex, RwLock};

use super::transports::{Protocol, PROTOCOLS};
use super::Engine;
use crate::config::Config;
use crate::error::{Class, Code, Error, Result};
use crate::host_port::HostPort;
use crate::metadata::{SegmentDesc, Store};
use crate::transport::{incarnation, Link};
use freshness::Freshness;

/// How long submit calls take a peer's descriptor as it is after one of them has read it again in vain.
const COVERAGE_INTERVAL: Duration = Duration::from_millis(100);

/// A descriptor as last read, prepared for look-ups.
pub struct Known {
    /// The descriptor.
    pub desc: SegmentDesc,
    /// Changes whenever the descriptor was read again and says something else.
    pub version: u64,
    /// Host of the data port: the descriptor's own, or the peer's handshake host; "" without a data port.
    pub data_host: String,
    /// The peer's incarnation as a number, whether or not it can be proven; 0 if it has none.
    pub incarnation: u64,
    /// The store's, to watch from; 0 if there is none.
    pub revision: i64,
    /// `(addr, length)` of what a request may lie in, by address.
    ranges: Vec<(u64, u64)>,
}

impl Known {
    fn new(desc: SegmentDesc, data_host: String) -> Result<Self> {
        let ranges = ranges(&desc)?;
        let id = desc.incarnation.as_deref().and_then(incarnation::unhex);
        let incarnation = id.map_or(0, |id| incarnation::key(&id));
        Ok(Known { desc, version: 0, data_host, incarnation, revision: 0, ranges })
    }

    /// `[addr, addr+len)` lies inside one published buffer; with RDMA, inside buffers that adjoin each other.
    pub fn covers(&self, addr: u64, len: u64) -> bool {
        let after = self.ranges.partition_point(|(start, _)| *start <= addr);
        let Some((start, length)) = after.checked_sub(1).map(|index| self.ranges[index]) else {
            return false;
        };
        let offset = addr - start;
        offset < length && len <= length - offset
    }
}

/// With RDMA a region may be several entries, a request may cross them, and an entry without keys is of no use.
fn ranges(desc: &SegmentDesc) -> Result<Vec<(u64, u64)>> {
    let rdma = desc.protocol == "rdma";
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    ranges.try_reserve_exact(desc.buffers.len()).map_err(|_| Error::out_of_memory("a descriptor"))?;
    let usable = desc.buffers.iter().filter(|buffer| !rdma || !buffer.rkey.is_empty());
    ranges.extend(usable.map(|buffer| (buffer.addr, buffer.length)));
    ranges.sort_unstable();
    if rdma {
        // The decoder has refused buffers that wrap around.
        ranges.dedup_by(|next, kept| {
            let adjoins = next.0 <= kept.0.saturating_add(kept.1);
            if adjoins {
                kept.1 = kept.1.max(next.0.saturating_add(next.1) - kept.0);
            }
            adjoins
        });
    }
    Ok(ranges)
}

/// An open segment. Shared by the table, links and running calls.
pub struct Segment {
    /// Id in this engine, from 1.
    pub id: i32,
    /// The name it was opened by.
    pub opened_as: String,
    store: Arc<dyn Store>,
    known: ArcSwap<Known>,
    /// Guards the replacement of `known`.
    replacing: Mutex<()>,
    /// Guards the time of the last refresh on behalf of a submit call that did not help it.
    vain_refresh: Mutex<Option<Instant>>,
    /// When and how changes are heard of.
    freshness: Freshness,
    /// Guards the peer's handshake address; forgotten when nobody answers there or the descriptor changes.
    rpc: Mutex<RpcAddress>,
    /// One per row of [`PROTOCOLS`], made on first use. Each submit call chooses by the descriptor as it is then, so
    /// a peer that comes back with another transport is reached by that one; the other link stays for its tasks.
    links: [OnceCell<Arc<dyn Link>>; PROTOCOLS.len()],
}

/// How requests reach a segment.
pub struct Way {
    /// The transport.
    pub protocol: &'static dyn Protocol,
    /// The segment's link over it.
    pub link: Arc<dyn Link>,
}

impl Segment {
    /// The descriptor as last read.
    pub fn known(&self) -> Arc<Known> {
        self.known.load_full()
    }

    /// The first transport that the peer offers, that is installed, and that works now; if none works, the first
    /// of them, whose link says why. -6 if only RDMA leads there, -1 if nothing does.
    pub fn way(self: &Arc<Self>, engine: &Engine, known: &Known) -> Result<Way> {
        let offered =
            PROTOCOLS.iter().zip(&self.links).filter(|(protocol, _)| protocol.is_offered(&known.desc));
        let ways = offered.filter_map(|(protocol, link)| {
            let link = link.get_or_try_init(|| protocol.link(engine, self).ok_or(())).ok()?.clone();
            Some(Way { protocol: *protocol, link })
        });
        match pick(ways) {
            Pick::Best(way) => Ok(way),
            Pick::InsteadOf(better, way) => {
                engine.note_fallback(&known.desc.name, better.protocol.name(), way.protocol.name())?;
                Ok(way)
            }
            Pick::None => Err(unreachable_by(&known.desc)),
        }
    }

    /// Reads the descriptor again; on failure the cached one stays.
    pub async fn refresh(&self) -> Result<()> {
        let fresh = read(&*self.store, &self.opened_as).await?;
        self.replace(fresh);
        Ok(())
    }

    fn replace(&self, mut fresh: Known) {
        let _one = self.replacing.lock();
        let old = self.known();
        if fresh.revision != 0 && fresh.revision < self.freshness.latest() {
            return;
        }
        let changed = !old.desc.same_as(&fresh.desc);
        fresh.version = old.version + u64::from(changed);
        self.freshness.read_now(fresh.revision);
        self.known.store(Arc::new(fresh));
        if changed {
            self.forget_rpc_address();
        }
    }

    /// The peer's handshake address.
    pub async fn rpc_address(&self) -> Result<HostPort> {
        let forgotten = {
            let rpc = self.rpc.lock();
            match &rpc.address {
                Some(address) => return Ok(address.clone()),
                None => rpc.forgotten,
            }
        };
        let address = self.store.rpc_address(&self.known().desc.name).await?;
        let mut rpc = self.rpc.lock();
        // Else the answer may be older than what made it be forgotten.
        if rpc.forgotten == forgotten {
            rpc.address = Some(address.clone());
        }
        Ok(address)
    }

    /// The next use of the address reads it again: nobody answered there.
    pub fn forget_rpc_address(&self) {
        let mut rpc = self.rpc.lock();
        rpc.address = None;
        rpc.forgotten += 1;
    }

    /// Whether a submit call may refresh now.
    pub fn may_refresh(&self) -> bool {
        self.vain_refresh.lock().is_none_or(|then| then.elapsed() >= COVERAGE_INTERVAL)
    }

    /// A submit call has refreshed, and what it needs is still not there. A refresh that helped does not count: a
    /// peer may register one region after the other, and have each used at once.
    pub fn note_vain_refresh(&self) {
        *self.vain_refresh.lock() = Some(Instant::now());
    }
}

/// As read last.
#[derive(Default)]
struct RpcAddress {
    address: Option<HostPort>,
    /// How often it was.
    forgotten: u64,
}

/// Which of the ways to a segment is taken.
enum Pick {
    /// The first one; either it works, or none does.
    Best(Way),
    /// The second, because the first does not work.
    InsteadOf(Way, Way),
    None,
}

fn pick(ways: impl Iterator<Item = Way>) -> Pick {
    let mut first = None;
    for way in ways {
        let works = way.link.ready().is_ok();
        match (first.take(), works) {
            (None, true) => return Pick::Best(way),
            (Some(first), true) => return Pick::InsteadOf(first, way),
            (None, false) => first = Some(way),
            (earlier, false) => first = earlier,
        }
    }
    first.map_or(Pick::None, Pick::Best)
}

fn unreachable_by(desc: &SegmentDesc) -> Error {
    let SegmentDesc { name, protocol, .. } = desc;
    if protocol == "rdma" {
        let text = match desc.devices.is_empty() {
            true => format!("segment '{name}' is reached by rdma only, and publishes no NIC that works"),
            false => format!(
                "segment '{name}' is reached by rdma only, which is not installed here; call installTransport(\"rdma\")"
            ),
        };
        return Error::new(Code::DeviceNotFound, text).peer(name);
    }
    let text = match protocol.as_str() {
        "tcp" if desc.tcp_data_port == 0 => format!("segment '{name}' publishes no TCP data port"),
        _ => format!("segment '{name}' is reached by '{protocol}', which is not installed here"),
    };
    Error::invalid(text).peer(name)
}

/// How a link finds its segment. Weak: a link must not keep its segment alive.
pub struct SegmentRoute {
    segment: Weak<Segment>,
    /// The peer's name, for messages.
    pub peer: String,
}

impl SegmentRoute {
    /// A route to what `segment` leads to now.
    pub fn new(segment: &Arc<Segment>) -> Self {
        SegmentRoute { segment: Arc::downgrade(segment), peer: segment.known().desc.name.clone() }
    }

    /// The segment; an error of class CANCELED once it was closed.
    pub fn segment(&self) -> Result<Arc<Segment>> {
        let closed = || Error::new(Code::Socket, "the segment was closed").class(Class::Canceled, false);
        self.segment.upgrade().ok_or_else(|| closed().peer(&self.peer))
    }
}

/// Fetches a descriptor and what is needed to use it.
pub async fn read(store: &dyn Store, name: &str) -> Result<Known> {
    let (desc, revision) = store.get_at(name).await?;
    let data_host = match &desc.tcp_data_host {
        _ if desc.tcp_data_port == 0 => String::new(),
        Some(host) if !host.is_empty() => host.clone(),
        _ => store.rpc_address(&desc.name).await?.host,
    };
    Ok(Known { revision, ..Known::new(desc, data_host)? })
}

/// All open segments of an engine.
#[derive(Default)]
pub struct Table {
    /// Guards both maps; never held across I/O.
    maps: RwLock<Maps>,
    settings: freshness::Settings,
}

#[derive(Default)]
struct Maps {
    by_id: HashMap<i32, Arc<Segment>>,
    by_name: HashMap<String, i32>,
    last_id: i32,
}

impl Table {
    /// No segment is open.
    pub fn new(config: &Config) -> Self {
        Table { maps: RwLock::default(), settings: freshness::Settings::new(config) }
    }

    /// The segment opened by `name`.
    pub fn by_name(&self, name: &str) -> Option<Arc<Segment>> {
        let maps = self.maps.read();
        maps.by_name.get(name).and_then(|id| maps.by_id.get(id)).cloned()
    }

    /// The segment with `id`.
    pub fn by_id(&self, id: i32) -> Option<Arc<Segment>> {
        self.maps.read().by_id.get(&id).cloned()
    }

    /// Enters a segment; if another thread was faster, its id stays.
    pub fn insert(&self, name: &str, store: &Arc<dyn Store>, known: Known) -> Result<i32> {
        let mut maps = self.maps.write();
        if let Some(id) = maps.by_name.get(name) {
            return Ok(*id);
        }
        let full = || Error::new(Code::Memory, "2^31 segments were opened; destroy and recreate the engine");
        let id = maps.last_id.checked_add(1).ok_or_else(full)?;
        maps.last_id = id;
        let segment = Segment {
            id,
            opened_as: name.to_string(),
            store: store.clone(),
            known: ArcSwap::from_pointee(known),
            replacing: Mutex::new(()),
            vain_refresh: Mutex::new(None),
            freshness: Freshness::new(&self.settings, store.watches() || store.is_peer_to_peer()),
            rpc: Mutex::default(),
            links: [const { OnceCell::new() }; PROTOCOLS.len()],
        };
        maps.by_id.insert(id, Arc::new(segment));
        maps.by_name.insert(name.to_string(), id);
        Ok(id)
    }

    /// Forgets a segment; transfers under way go on.
    pub fn remove(&self, name: &str) {
        let mut maps = self.maps.write();
        if let Some(id) = maps.by_name.remove(name) {
            maps.by_id.remove(&id);
        }
    }

    /// Every open segment.
    pub fn all(&self) -> Vec<Arc<Segment>> {
        self.maps.read().by_id.values().cloned().collect()
    }

    /// The name that the segment with this server part in its NIC paths was opened by.
    #[cfg_attr(not(feature = "rdma"), allow(dead_code))]
    pub fn named_by_server(&self, server: &str) -> Option<String> {
        let named =
            |segment: &&Arc<Segment>| segment.known.load().desc.rdma_server_name.as_deref() == Some(server);
        self.maps.read().by_id.values().find(named).map(|segment| segment.opened_as.clone())
    }
}

#[cfg(all(test, feature = "rdma"))]
pub use tests::{open_with, read_again};

#[cfg(test)]
mod tests;
