//! The memory registry: an interval map of registered regions with a count of the uses in
//! flight per region. A region that is being registered takes no uses yet; one that is being
//! unregistered takes no new ones, and its owner waits for the running ones.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Code, Error, Result};
use crate::runtime::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::runtime::sync::{Condvar, Mutex, RwLock, RwLockReadGuard};

mod access;
mod kind;
pub mod shared;

pub use access::PeerAccess;
pub use kind::Kind;

/// What a caller registers.
#[derive(Clone, Debug)]
pub struct Range {
    /// First byte.
    pub addr: u64,
    /// Bytes, at least 1.
    pub len: u64,
}

/// One registered region.
pub struct Region {
    /// First byte.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// Where the memory lives, as the caller said: `cpu:0`, `*`, …
    pub location: Arc<String>,
    /// What the memory is.
    pub kind: Kind,
    /// What peers may do with it.
    pub remote: PeerAccess,
    /// Position in the order of registration, which is the order of publication.
    pub order: u64,
    /// How often it was registered and not unregistered since. Changed under the lock of the registry.
    registrations: AtomicUsize,
    /// Uses in flight: own submit calls with slices here, and inbound requests.
    uses: AtomicUsize,
    /// Set until the transports have prepared the region, and again, for good, before the owner waits for `uses`
    /// to reach 0.
    revoked: AtomicBool,
    /// The owner of the region sleeps here while it is being unregistered.
    idle: (Mutex<()>, Condvar),
}

impl Region {
    /// One behind the last byte.
    #[inline]
    pub fn end(&self) -> u64 {
        self.addr + self.len
    }

    /// Whether registering `range` so would be registering it again, exactly.
    fn is_same(&self, range: &Range, location: &str, remote: PeerAccess) -> bool {
        let is_at = (self.addr, self.len) == (range.addr, range.len);
        is_at && *self.location == location && self.remote == remote
    }

    fn holds(&self, addr: u64, len: u64) -> bool {
        addr >= self.addr && addr.checked_add(len).is_some_and(|end| end <= self.end())
    }

    /// No new uses are admitted: the region is not ready yet, or running uses should end.
    pub fn revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// Undoes one registration, with the registry locked; with the last one no new use is admitted, and `true` is returned.
    fn undo_registration(&self) -> bool {
        let is_last = self.registrations.fetch_sub(1, Ordering::SeqCst) == 1;
        if is_last {
            self.revoked.store(true, Ordering::SeqCst);
        }
        is_last
    }

    /// A use of it; `None` while it admits none.
    pub fn begin_use(self: &Arc<Self>) -> Option<RegionUse> {
        self.uses.fetch_add(1, Ordering::SeqCst);
        let guard = RegionUse(self.clone());
        // SeqCst on both: either the owner sees this use, or this use sees the revocation.
        if self.revoked.load(Ordering::SeqCst) {
            return None;
        }
        Some(guard)
    }

    /// Sleeps until no use is left, at most `limit`.
    pub fn wait_idle(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut guard = self.idle.0.lock();
        while self.uses.load(Ordering::SeqCst) != 0 {
            if self.idle.1.wait_until(&mut guard, deadline).timed_out() {
                return self.uses.load(Ordering::SeqCst) == 0;
            }
        }
        true
    }
}

/// Keeps a region from being released; one per submit call with slices there, or per inbound request.
pub struct RegionUse(Arc<Region>);

impl RegionUse {
    /// The region in use.
    pub fn region(&self) -> &Arc<Region> {
        &self.0
    }
}

impl Drop for RegionUse {
    fn drop(&mut self) {
        if self.0.uses.fetch_sub(1, Ordering::SeqCst) == 1 && self.0.revoked.load(Ordering::SeqCst) {
            let _guard = self.0.idle.0.lock();
            self.0.idle.1.notify_all();
        }
    }
}

/// All regions of one engine. Any thread.
#[derive(Default)]
pub struct Registry {
    /// Guards the map from first byte to region; regions never overlap.
    regions: RwLock<Map>,
    /// A region may be registered again, exactly.
    counts: bool,
}

/// What one call registered.
#[derive(Default)]
pub struct Reserved {
    /// Regions that were not there before.
    pub added: Vec<Arc<Region>>,
    /// One entry for each range that is counted only, because its region was there.
    pub again: Vec<Arc<Region>>,
}

#[derive(Default)]
struct Map {
    by_addr: BTreeMap<u64, Arc<Region>>,
    next_order: u64,
}

impl Map {
    #[inline]
    fn containing(&self, addr: u64) -> Option<&Arc<Region>> {
        self.by_addr.range(..=addr).next_back().map(|(_, r)| r).filter(|r| addr < r.end())
    }

    fn overlapping(&self, range: &Range) -> Option<&Arc<Region>> {
        self.by_addr
            .range(..range.addr + range.len)
            .next_back()
            .map(|(_, r)| r)
            .filter(|r| r.end() > range.addr)
    }
}

impl Registry {
    /// Nothing is registered. `counts`: a region may be registered again, exactly, and each registration is to be undone.
    pub fn new(counts: bool) -> Self {
        Registry { counts, ..Registry::default() }
    }

    /// [`Registry::reserve`] and [`Registry::open`] in one.
    #[cfg(any(test, feature = "internals"))]
    pub fn insert(
        &self,
        ranges: &[Range],
        location: &str,
        remote: impl Into<PeerAccess>,
    ) -> Result<Vec<Arc<Region>>> {
        let regions = self.reserve(ranges, location, remote)?.added;
        self.open(&regions);
        Ok(regions)
    }

    /// Takes all of `ranges` or none; they admit no use and are not published until they are opened. -1 for an
    /// empty, null or wrapping range, -7 when one overlaps another or a region that is in the map. Where registrations are
    /// counted, a range that is an open region exactly, in location and access too, is no overlap.
    pub fn reserve(
        &self,
        ranges: &[Range],
        location: &str,
        remote: impl Into<PeerAccess>,
    ) -> Result<Reserved> {
        self.reserve_as(ranges, location, remote.into(), |range, location| {
            Kind::of(range.addr, range.len, location)
        })
    }

    fn reserve_as(
        &self,
        ranges: &[Range],
        location: &str,
        remote: PeerAccess,
        kind: impl Fn(&Range, &str) -> Kind,
    ) -> Result<Reserved> {
        let mut sorted: Vec<&Range> = Vec::new();
        sorted.try_reserve(ranges.len()).map_err(|_| Error::out_of_memory("a list of regions"))?;
        sorted.extend(ranges);
        // A stable sort would allocate. Equal addresses overlap, whatever their order.
        sorted.sort_unstable_by_key(|r| r.addr);
        for range in &sorted {
            check_range(range)?;
        }
        let is_twice = |pair: &[&Range]| (pair[0].addr, pair[0].len) == (pair[1].addr, pair[1].len);
        for pair in sorted.windows(2) {
            if pair[0].addr + pair[0].len > pair[1].addr && !(self.counts && is_twice(pair)) {
                return Err(overlap(pair[1], pair[0].addr, pair[0].len, "another entry of the same call"));
            }
        }
        let mut kinds = Vec::new();
        kinds.try_reserve_exact(ranges.len()).map_err(|_| Error::out_of_memory("a list of regions"))?;
        kinds.extend(ranges.iter().map(|range| kind(range, location)));
        let mut map = self.regions.write();
        for range in &sorted {
            if let Some(other) = map.overlapping(range) {
                if self.counts && other.is_same(range, location, remote) && !other.revoked() {
                    continue;
                }
                if (other.addr, other.len) == (range.addr, range.len) {
                    let text = format!(
                        "[{:#x}, {:#x}) is registered already, exactly so; it stays usable, and one unregisterLocalMemory ends it (MC_ALLOW_REREGISTER)",
                        range.addr,
                        range.addr + range.len
                    );
                    return Err(Error::new(Code::AddressOverlapped, text));
                }
                return Err(overlap(
                    range,
                    other.addr,
                    other.len,
                    "a registered region, to be unregistered first:",
                ));
            }
        }
        let mut reserved = Reserved::default();
        let Reserved { added, again } = &mut reserved;
        let fits = added.try_reserve_exact(ranges.len()).is_ok()
            && (!self.counts || again.try_reserve_exact(ranges.len()).is_ok());
        if !fits {
            return Err(Error::out_of_memory("a list of regions"));
        }
        // One text for all of them.
        let location = Arc::new(location.to_string());
        for (range, kind) in ranges.iter().zip(kinds) {
            match map.by_addr.get(&range.addr) {
                Some(region) => {
                    region.registrations.fetch_add(1, Ordering::SeqCst);
                    again.push(region.clone());
                }
                None => added.push(map.add(range, &location, remote, kind)),
            }
        }
        Ok(reserved)
    }

    /// A region of a kind that [`Kind::of`] does not give.
    #[cfg(test)]
    pub(crate) fn insert_as(&self, range: Range, kind: Kind) -> Arc<Region> {
        let regions = self.reserve_as(&[range], "*", PeerAccess::BOTH, |_, _| kind.clone()).unwrap().added;
        self.open(&regions);
        regions[0].clone()
    }

    /// Admits uses of reserved regions: every transport has prepared them.
    pub fn open(&self, regions: &[Arc<Region>]) {
        // Under the lock, so that whoever reads the map sees all of them or none.
        let _map = self.regions.write();
        regions.iter().for_each(|region| region.revoked.store(false, Ordering::SeqCst));
    }

    /// Undoes one registration of the region that starts exactly at `addr`; -3 if there is none that is open. With the last
    /// one the region is closed to new uses and returned: the caller waits for its uses, then calls [`Registry::remove`].
    pub fn revoke(&self, addr: u64) -> Result<Option<Arc<Region>>> {
        let map = self.regions.write();
        let region = map.by_addr.get(&addr).filter(|r| !r.revoked()).cloned();
        let region = region.ok_or_else(|| {
            let hint = match map.containing(addr) {
                Some(r) if r.addr != addr => {
                    format!("; it lies inside the region that starts at {:#x}", r.addr)
                }
                _ => String::new(),
            };
            Error::new(Code::AddressNotRegistered, format!("no region is registered at {addr:#x}{hint}"))
        })?;
        Ok(region.undo_registration().then_some(region))
    }

    /// Undoes one registration; `true` if it was the last one, and then the caller goes on as after [`Registry::revoke`].
    pub fn withdraw(&self, region: &Region) -> bool {
        let _map = self.regions.write();
        !region.revoked() && region.undo_registration()
    }

    /// Takes a revoked or never opened region out of the map; its range may be registered again.
    pub fn remove(&self, region: &Region) {
        self.regions.write().by_addr.remove(&region.addr);
    }

    /// A use of the one region that holds `[addr, addr+len)` for a peer; `None` when the
    /// range is empty, wraps, leaves the region, or the region is not open to peers for what is `wanted`.
    pub fn use_for_peer(&self, addr: u64, len: u64, wanted: PeerAccess) -> Option<RegionUse> {
        if len == 0 {
            return None;
        }
        let map = self.regions.read();
        map.containing(addr).filter(|r| r.remote.allows(wanted) && r.holds(addr, len))?.begin_use()
    }

    /// Read access for one submit call.
    pub fn view(&self) -> View<'_> {
        View { map: self.regions.read(), last: None }
    }

    /// How many regions are registered.
    pub fn count(&self) -> usize {
        self.regions.read().by_addr.len()
    }

    /// The regions open to peers, in order of registration. `ERR_MEMORY` if the list does not fit.
    pub fn published(&self) -> Result<Vec<Arc<Region>>> {
        self.open_regions(|region| region.remote.is_some())
    }

    /// Every open region, in order of registration. `ERR_MEMORY` if the list does not fit.
    pub fn all(&self) -> Result<Vec<Arc<Region>>> {
        self.open_regions(|_| true)
    }

    fn open_regions(&self, wanted: impl Fn(&Region) -> bool) -> Result<Vec<Arc<Region>>> {
        let map = self.regions.read();
        let mut open = Vec::new();
        open.try_reserve_exact(map.by_addr.len()).map_err(|_| Error::out_of_memory("a list of regions"))?;
        let chosen = map.by_addr.values().filter(|region| !region.revoked() && wanted(region));
        open.extend(chosen.cloned());
        // No two have the same; a stable sort would allocate.
        open.sort_unstable_by_key(|region| region.order);
        Ok(open)
    }

    /// Whether a byte of `[addr, addr+len)` lies in a region.
    pub fn overlaps(&self, addr: u64, len: u64) -> bool {
        let map = self.regions.read();
        let last = addr.saturating_add(len.saturating_sub(1));
        len > 0 && map.by_addr.range(..=last).next_back().is_some_and(|(_, region)| region.end() > addr)
    }

    /// Whether `addr` lies in a region open to peers.
    pub fn is_published(&self, addr: u64) -> bool {
        self.regions
            .read()
            .containing(addr)
            .is_some_and(|region| region.remote.is_some() && !region.revoked())
    }
}

impl Map {
    fn add(&mut self, range: &Range, location: &Arc<String>, remote: PeerAccess, kind: Kind) -> Arc<Region> {
        let region = Arc::new(Region {
            addr: range.addr,
            len: range.len,
            location: location.clone(),
            kind,
            remote,
            order: self.next_order,
            registrations: AtomicUsize::new(1),
            uses: AtomicUsize::new(0),
            revoked: AtomicBool::new(true),
            idle: Default::default(),
        });
        self.next_order += 1;
        self.by_addr.insert(range.addr, region.clone());
        region
    }
}

/// The registry as one submit call sees it; remembers the last hit, since the requests
/// of a call mostly lie in one region.
pub struct View<'a> {
    map: RwLockReadGuard<'a, Map>,
    last: Option<Arc<Region>>,
}

impl View<'_> {
    /// A use of the region that holds the start of the range, and how many bytes of the
    /// range it covers; `None` when `addr` is in no region.
    pub fn use_at(&mut self, addr: u64, len: u64) -> Option<(RegionUse, u64)> {
        let region = self.at(addr)?;
        let covered = len.min(region.end() - addr);
        Some((region.begin_use()?, covered))
    }

    /// The region that holds the byte at `addr`.
    #[inline]
    pub fn at(&mut self, addr: u64) -> Option<&Arc<Region>> {
        let hit = self.last.as_ref().is_some_and(|r| addr >= r.addr && addr < r.end());
        if !hit {
            self.last = self.map.containing(addr).cloned();
        }
        self.last.as_ref()
    }
}

fn check_range(range: &Range) -> Result<()> {
    let Range { addr, len } = *range;
    if addr == 0 || len == 0 {
        return Err(Error::invalid(format!(
            "cannot register {len} bytes at {addr:#x}: address and length must not be 0"
        )));
    }
    if addr.checked_add(len).is_none() {
        return Err(Error::invalid(format!(
            "cannot register {len} bytes at {addr:#x}: the range wraps around"
        )));
    }
    Ok(())
}

fn overlap(range: &Range, addr: u64, len: u64, what: &str) -> Error {
    let text = format!(
        "[{:#x}, {:#x}) overlaps {what} [{addr:#x}, {:#x})",
        range.addr,
        range.addr + range.len,
        addr + len
    );
    Error::new(Code::AddressOverlapped, text)
}

#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;
