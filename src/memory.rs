//! The memory registry: an interval map of registered regions with a count of the uses in
//! flight per region. A region that is being registered takes no uses yet; one that is being
//! unregistered takes no new ones, and its owner waits for the running ones.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::error::{Code, Error, Result};

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
    pub location: String,
    /// Peers may read and write it.
    pub remote: bool,
    /// Position in the order of registration, which is the order of publication.
    pub order: u64,
    /// Uses in flight: slices of own tasks, and inbound requests.
    uses: AtomicUsize,
    /// Set until the transports have prepared the region, and again, for good, before the owner waits for `uses`
    /// to reach 0.
    revoked: AtomicBool,
    /// The owner of the region sleeps here while it is being unregistered.
    idle: (Mutex<()>, Condvar),
}

impl Region {
    fn end(&self) -> u64 {
        self.addr + self.len
    }

    fn holds(&self, addr: u64, len: u64) -> bool {
        addr >= self.addr && addr.checked_add(len).is_some_and(|end| end <= self.end())
    }

    /// No new uses are admitted: the region is not ready yet, or running uses should end.
    pub fn revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    fn begin_use(self: &Arc<Self>) -> Option<RegionUse> {
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

/// Keeps a region from being released; one per slice or inbound request.
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
}

#[derive(Default)]
struct Map {
    by_addr: BTreeMap<u64, Arc<Region>>,
    next_order: u64,
}

impl Map {
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
    /// [`Registry::reserve`] and [`Registry::open`] in one.
    pub fn insert(&self, ranges: &[Range], location: &str, remote: bool) -> Result<Vec<Arc<Region>>> {
        let regions = self.reserve(ranges, location, remote)?;
        self.open(&regions);
        Ok(regions)
    }

    /// Takes all of `ranges` or none; they admit no use and are not published until they are opened. -1 for an
    /// empty, null or wrapping range, -7 when one overlaps another or a region that is in the map.
    pub fn reserve(&self, ranges: &[Range], location: &str, remote: bool) -> Result<Vec<Arc<Region>>> {
        let mut sorted: Vec<&Range> = Vec::new();
        sorted.try_reserve(ranges.len()).map_err(|_| Error::out_of_memory("a list of regions"))?;
        sorted.extend(ranges);
        sorted.sort_by_key(|r| r.addr);
        for range in &sorted {
            check_range(range)?;
        }
        for pair in sorted.windows(2) {
            if pair[0].addr + pair[0].len > pair[1].addr {
                return Err(overlap(pair[1], pair[0].addr, pair[0].len, "another entry of the same call"));
            }
        }
        let mut map = self.regions.write();
        for range in &sorted {
            if let Some(other) = map.overlapping(range) {
                return Err(overlap(
                    range,
                    other.addr,
                    other.len,
                    "a registered region, to be unregistered first:",
                ));
            }
        }
        let mut added = Vec::new();
        added.try_reserve_exact(ranges.len()).map_err(|_| Error::out_of_memory("a list of regions"))?;
        added.extend(ranges.iter().map(|range| map.add(range, location, remote)));
        Ok(added)
    }

    /// Admits uses of reserved regions: every transport has prepared them.
    pub fn open(&self, regions: &[Arc<Region>]) {
        // Under the lock, so that whoever reads the map sees all of them or none.
        let _map = self.regions.write();
        regions.iter().for_each(|region| region.revoked.store(false, Ordering::SeqCst));
    }

    /// The region that starts exactly at `addr`, now closed to new uses; -3 if there is
    /// none that is open. The caller waits for its uses, then calls [`Registry::remove`].
    pub fn revoke(&self, addr: u64) -> Result<Arc<Region>> {
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
        region.revoked.store(true, Ordering::SeqCst);
        Ok(region)
    }

    /// Closes a region to new uses; `false` if that was done before. Then as with [`Registry::revoke`].
    pub fn withdraw(&self, region: &Region) -> bool {
        let _map = self.regions.write();
        !region.revoked.swap(true, Ordering::SeqCst)
    }

    /// Takes a revoked or never opened region out of the map; its range may be registered again.
    pub fn remove(&self, region: &Region) {
        self.regions.write().by_addr.remove(&region.addr);
    }

    /// A use of the one region that holds `[addr, addr+len)` for a peer; `None` when the
    /// range is empty, wraps, leaves the region, or the region is not open to peers.
    pub fn use_for_peer(&self, addr: u64, len: u64) -> Option<RegionUse> {
        if len == 0 {
            return None;
        }
        let map = self.regions.read();
        map.containing(addr).filter(|r| r.remote && r.holds(addr, len))?.begin_use()
    }

    /// Read access for one submit call.
    pub fn view(&self) -> View<'_> {
        View { map: self.regions.read(), last: None }
    }

    /// Registered regions.
    pub fn len(&self) -> usize {
        self.regions.read().by_addr.len()
    }

    /// No region is registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The regions open to peers, in order of registration.
    pub fn published(&self) -> Vec<Arc<Region>> {
        self.open_regions(|region| region.remote)
    }

    /// Every open region, in order of registration.
    pub fn all(&self) -> Vec<Arc<Region>> {
        self.open_regions(|_| true)
    }

    fn open_regions(&self, wanted: impl Fn(&Region) -> bool) -> Vec<Arc<Region>> {
        let map = self.regions.read();
        let open = map.by_addr.values().filter(|region| !region.revoked() && wanted(region));
        let mut open: Vec<_> = open.cloned().collect();
        open.sort_by_key(|region| region.order);
        open
    }

    /// Whether `addr` lies in a region open to peers.
    pub fn is_published(&self, addr: u64) -> bool {
        self.regions.read().containing(addr).is_some_and(|region| region.remote && !region.revoked())
    }
}

impl Map {
    fn add(&mut self, range: &Range, location: &str, remote: bool) -> Arc<Region> {
        let region = Arc::new(Region {
            addr: range.addr,
            len: range.len,
            location: location.to_string(),
            remote,
            order: self.next_order,
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
    map: parking_lot::RwLockReadGuard<'a, Map>,
    last: Option<Arc<Region>>,
}

impl View<'_> {
    /// A use of the region that holds the start of the range, and how many bytes of the
    /// range it covers; `None` when `addr` is in no region.
    pub fn use_at(&mut self, addr: u64, len: u64) -> Option<(RegionUse, u64)> {
        let hit = self.last.as_ref().is_some_and(|r| addr >= r.addr && addr < r.end());
        if !hit {
            self.last = self.map.containing(addr).cloned();
        }
        let region = self.last.as_ref()?;
        let covered = len.min(region.end() - addr);
        Some((region.begin_use()?, covered))
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
mod tests {
    use super::*;

    fn insert(registry: &Registry, addr: u64, len: u64) -> Result<Vec<Arc<Region>>> {
        registry.insert(&[Range { addr, len }], "*", true)
    }

    #[test]
    fn overlaps_are_refused_and_neighbours_are_not() {
        let registry = Registry::default();
        insert(&registry, 4096, 4096).unwrap();
        for (addr, len) in [(4096, 4096), (4096, 1), (8191, 10), (1, 4096), (1, 1 << 20), (5000, 10)] {
            assert_eq!(insert(&registry, addr, len).err().unwrap().code(), Code::AddressOverlapped, "{addr}");
        }
        insert(&registry, 8192, 10).unwrap();
        insert(&registry, 1, 4095).unwrap();
        for (addr, len) in [(0, 1), (1, 0), (u64::MAX, 2)] {
            assert_eq!(insert(&registry, addr, len).err().unwrap().code(), Code::InvalidArgument);
        }
    }

    #[test]
    fn p11_a_batch_is_all_or_nothing() {
        let registry = Registry::default();
        let range = |addr, len| Range { addr, len };
        assert!(registry.insert(&[range(100, 10), range(105, 10)], "*", true).is_err());
        assert!(registry.insert(&[range(100, 10), range(200, 0)], "*", true).is_err());
        assert!(registry.published().is_empty());
        registry.insert(&[range(200, 10), range(100, 10)], "*", true).unwrap();
        let published: Vec<u64> = registry.published().iter().map(|r| r.addr).collect();
        assert_eq!(published, [200, 100]);
    }

    #[test]
    fn p37_peers_reach_only_what_is_inside_one_open_region() {
        let registry = Registry::default();
        insert(&registry, 1000, 100).unwrap();
        insert(&registry, 1100, 100).unwrap();
        registry.insert(&[Range { addr: 5000, len: 10 }], "*", false).unwrap();
        assert!(registry.use_for_peer(1000, 100).is_some());
        for (addr, len) in
            [(1000, 101), (999, 2), (1050, 100), (1000, 0), (1000, u64::MAX), (5000, 1), (u64::MAX, 1)]
        {
            assert!(registry.use_for_peer(addr, len).is_none(), "{addr}+{len}");
        }
    }

    #[test]
    fn a_reserved_range_is_taken_but_neither_used_nor_published() {
        let registry = Registry::default();
        let reserved = registry.reserve(&[Range { addr: 1000, len: 100 }], "*", true).unwrap();
        assert_eq!(insert(&registry, 1050, 1).err().unwrap().code(), Code::AddressOverlapped);
        assert_eq!(registry.revoke(1000).err().unwrap().code(), Code::AddressNotRegistered);
        assert!(registry.use_for_peer(1000, 1).is_none() && registry.view().use_at(1000, 1).is_none());
        assert!(registry.all().is_empty() && !registry.is_published(1000));
        registry.open(&reserved);
        assert!(registry.use_for_peer(1000, 1).is_some() && registry.view().use_at(1000, 1).is_some());
        assert!(registry.is_published(1099) && !registry.is_published(1100));
        registry.remove(&reserved[0]);
        insert(&registry, 1050, 1).unwrap();
    }

    #[test]
    fn a_revoked_region_takes_no_new_use_and_waits_for_the_old_ones() {
        let registry = Registry::default();
        insert(&registry, 1000, 100).unwrap();
        let held = registry.use_for_peer(1000, 1).unwrap();
        assert_eq!(registry.revoke(1001).err().unwrap().code(), Code::AddressNotRegistered);
        let region = registry.revoke(1000).unwrap();
        assert!(registry.use_for_peer(1000, 1).is_none());
        assert!(registry.view().use_at(1000, 1).is_none());
        assert!(registry.revoke(1000).is_err());
        assert!(!region.wait_idle(Duration::from_millis(1)));
        let waiter = std::thread::spawn(move || region.wait_idle(Duration::from_secs(10)));
        drop(held);
        assert!(waiter.join().unwrap());
    }
}
