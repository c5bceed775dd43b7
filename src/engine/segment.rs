//! Open segments: ids, cached descriptors, and when they are read again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use once_cell::sync::OnceCell;
use parking_lot::{Mutex, RwLock};

use super::local::unhex;
use crate::error::{Class, Code, Error, Result};
use crate::host_port::HostPort;
use crate::metadata::{SegmentDesc, Store};
use crate::transport::tcp::{incarnation_key, Endpoint, Refreshed, Route, Tcp};
use crate::transport::Link;

/// A submit call re-reads a peer's descriptor at most this often.
const COVERAGE_INTERVAL: Duration = Duration::from_millis(100);

/// A descriptor as last read, prepared for look-ups.
pub struct Known {
    /// The descriptor.
    pub desc: SegmentDesc,
    /// Host of the data port: the descriptor's own, or the peer's handshake host.
    data_host: String,
    /// `(addr, length)` of the buffers, by address.
    ranges: Vec<(u64, u64)>,
    /// The peer's incarnation as a number, 0 if it has none that can be proven.
    pub incarnation: u64,
}

impl Known {
    /// `[addr, addr+len)` lies inside one published buffer.
    pub fn covers(&self, addr: u64, len: u64) -> bool {
        let after = self.ranges.partition_point(|(start, _)| *start <= addr);
        let Some((start, length)) = after.checked_sub(1).map(|index| self.ranges[index]) else {
            return false;
        };
        let offset = addr - start;
        offset < length && len <= length - offset
    }
}

/// An open segment. Shared by the table, links and running calls.
pub struct Segment {
    /// Id in this engine, from 1.
    pub id: i32,
    /// The name it was opened by.
    pub opened_as: String,
    store: Arc<dyn Store>,
    known: ArcSwap<Known>,
    /// Guards the time of the last refresh on behalf of a submit call.
    last_refresh: Mutex<Option<Instant>>,
    link: OnceCell<Arc<dyn Link>>,
}

impl Segment {
    /// The descriptor as last read.
    pub fn known(&self) -> Arc<Known> {
        self.known.load_full()
    }

    /// The way to the peer, made on first use. -6 if only RDMA leads there, -1 if nothing does.
    pub fn link(self: &Arc<Self>, tcp: Option<&Arc<Tcp>>) -> Result<&Arc<dyn Link>> {
        self.link.get_or_try_init(|| {
            let known = self.known();
            let desc = &known.desc;
            let tcp = tcp.filter(|_| desc.tcp_data_port != 0).ok_or_else(|| unreachable_by(desc))?;
            let route = Arc::new(SegmentRoute { segment: Arc::downgrade(self), peer: desc.name.clone() });
            Ok(tcp.link(route) as Arc<dyn Link>)
        })
    }

    /// Reads the descriptor again; on failure the cached one stays.
    pub async fn refresh(&self) -> Result<()> {
        let fresh = read(&*self.store, &self.opened_as).await?;
        self.known.store(Arc::new(fresh));
        Ok(())
    }

    /// Whether a submit call may refresh now.
    pub fn may_refresh(&self) -> bool {
        let mut last = self.last_refresh.lock();
        let now = Instant::now();
        if last.is_some_and(|then| now - then < COVERAGE_INTERVAL) {
            return false;
        }
        *last = Some(now);
        true
    }
}

fn unreachable_by(desc: &SegmentDesc) -> Error {
    let SegmentDesc { name, protocol, .. } = desc;
    if protocol == "rdma" {
        let text =
            format!("segment '{name}' is reached by rdma only, and this engine has no usable RDMA device");
        return Error::new(Code::DeviceNotFound, text).peer(name);
    }
    let text = match protocol.as_str() {
        "tcp" if desc.tcp_data_port == 0 => format!("segment '{name}' publishes no TCP data port"),
        _ => format!("segment '{name}' is reached by '{protocol}', which is not installed here"),
    };
    Error::invalid(text).peer(name)
}

/// How a link finds its segment's peer. Weak: a link must not keep its segment alive.
struct SegmentRoute {
    segment: std::sync::Weak<Segment>,
    peer: String,
}

impl SegmentRoute {
    fn segment(&self) -> Result<Arc<Segment>> {
        let closed = || Error::new(Code::Socket, "the segment was closed").class(Class::Canceled, false);
        self.segment.upgrade().ok_or_else(|| closed().peer(&self.peer))
    }
}

impl Route for SegmentRoute {
    fn peer(&self) -> String {
        self.peer.clone()
    }

    fn endpoint(&self) -> Result<Endpoint> {
        let known = self.segment()?.known();
        let desc = &known.desc;
        if desc.tcp_data_port == 0 {
            return Err(
                Error::new(Code::Socket, "the peer offers no TCP data port any more").peer(&self.peer)
            );
        }
        Ok(Endpoint {
            peer: self.peer.clone(),
            host: known.data_host.clone(),
            port: desc.tcp_data_port,
            proto_version: desc.tcp_proto_version,
            incarnation: proof(desc),
        })
    }

    fn refresh(&self) -> Refreshed<'_> {
        Box::pin(async {
            let segment = self.segment()?;
            segment.refresh().await
        })
    }
}

/// What a lane reads to know that it talks to the process that the descriptor speaks of: the
/// incarnation id, and the address of the cell that holds it.
fn proof(desc: &SegmentDesc) -> Option<([u8; 16], u64)> {
    let id = desc.incarnation.as_deref().and_then(unhex)?;
    (desc.incarnation_addr != 0).then_some((id, desc.incarnation_addr))
}

/// Fetches a descriptor and what is needed to use it.
pub async fn read(store: &dyn Store, name: &str) -> Result<Known> {
    let desc = store.get(name).await?;
    let data_host = match &desc.tcp_data_host {
        Some(host) if !host.is_empty() => host.clone(),
        _ => store.rpc_address(&desc.name).await?.host,
    };
    let mut ranges = Vec::new();
    ranges.try_reserve_exact(desc.buffers.len()).map_err(|_| Error::out_of_memory("a descriptor"))?;
    ranges.extend(desc.buffers.iter().map(|buffer| (buffer.addr, buffer.length)));
    ranges.sort_unstable();
    let incarnation = proof(&desc).map_or(0, |(id, _)| incarnation_key(&id));
    Ok(Known { desc, data_host, ranges, incarnation })
}

/// The handshake address of an open segment's peer.
pub async fn address(store: Arc<dyn Store>, segment: Arc<Segment>) -> Result<HostPort> {
    let name = segment.known().desc.name.clone();
    store.rpc_address(&name).await
}

/// All open segments of an engine.
#[derive(Default)]
pub struct Table {
    /// Guards both maps; never held across I/O.
    maps: RwLock<Maps>,
}

#[derive(Default)]
struct Maps {
    by_id: HashMap<i32, Arc<Segment>>,
    by_name: HashMap<String, i32>,
    last_id: i32,
}

impl Table {
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
            last_refresh: Mutex::new(None),
            link: OnceCell::new(),
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
}
