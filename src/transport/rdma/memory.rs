//! Memory regions on the NICs: for each registered region one MR per NIC and piece. Looked up by address once per
//! slice, under a read lock that is taken once per submit call.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};

use super::nic::Nic;
use super::report::PublishedBuffer;
use super::verbs::{Access, Mr};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::memory::Region;
use crate::runtime::thread;
use crate::topology::location::{self, Location};
use crate::topology::select::{Placement, RowId, Selector};

/// Smallest region for which NICs are worth a thread each, where the configuration leaves it open. Chosen: pinning its
/// 16384 pages takes milliseconds, and starting a thread does not.
const PARALLEL_BYTES: u64 = 64 << 20;

/// The MRs of one region.
pub(super) struct Keys {
    /// First byte.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// Bytes per piece; the last may be shorter.
    piece_bytes: u64,
    /// Local keys: piece by piece, one per NIC; 0 where the NIC has none.
    lkeys: Vec<u32>,
    rkeys: Vec<u32>,
    nics: usize,
    placement: Placement,
    name: String,
    remote: bool,
    order: u64,
    /// Deregistered when the last user of these keys is gone.
    _mrs: Vec<Mr>,
}

impl Keys {
    /// Row of the local topology for the byte at `addr`.
    #[inline]
    pub(super) fn row(&self, addr: u64) -> RowId {
        self.placement.at(addr - self.addr, self.len)
    }

    /// Local key for NIC `nic` and the byte at `addr`; 0 if that NIC does not have the region.
    #[inline]
    pub(super) fn lkey(&self, nic: usize, addr: u64) -> u32 {
        // Nearly always there is one, and dividing takes long.
        let piece =
            if self.len <= self.piece_bytes { 0 } else { (addr - self.addr) / self.piece_bytes } as usize;
        self.lkeys.get(piece * self.nics + nic).copied().unwrap_or(0)
    }

    #[inline]
    fn holds(&self, addr: u64) -> bool {
        addr >= self.addr && addr - self.addr < self.len
    }

    fn pieces(&self) -> usize {
        self.lkeys.len() / self.nics.max(1)
    }
}

/// All regions of the transport.
pub(super) struct Memory {
    /// By first byte.
    regions: RwLock<BTreeMap<u64, Arc<Keys>>>,
    piece_bytes: u64,
    relaxed_ordering: bool,
    parallel: Option<bool>,
}

impl Memory {
    /// `device_limit` is the smallest `max_mr_size` of the NICs.
    pub(super) fn new(config: &Config, device_limit: u64) -> Self {
        let limit = if device_limit == 0 { u64::MAX } else { device_limit };
        Memory {
            regions: RwLock::default(),
            // Whole pages, so that no piece begins inside one.
            piece_bytes: (config.max_mr_bytes.min(limit) & !4095).max(4096),
            relaxed_ordering: config.relaxed_ordering,
            parallel: config.parallel_reg_mr,
        }
    }

    /// First byte and bytes of the piece of `region` that holds the byte at `addr`; the last one may end earlier.
    pub(super) fn piece(&self, region: &Region, addr: u64) -> (u64, u64) {
        let number = (addr - region.addr) / self.piece_bytes;
        (region.addr + number * self.piece_bytes, self.piece_bytes)
    }

    /// Registers all regions on every NIC that works, or none. `ERR_CONTEXT` where one refuses.
    pub(super) fn register(
        &self,
        nics: &[Arc<Nic>],
        selector: &Selector,
        regions: &[Arc<Region>],
    ) -> Result<()> {
        let mut made = Vec::new();
        made.try_reserve_exact(regions.len()).map_err(|_| Error::out_of_memory("memory regions"))?;
        for region in regions {
            made.push(self.keys(nics, selector, region)?);
        }
        let mut map = self.regions.write();
        map.extend(made.into_iter().map(|keys| (keys.addr, Arc::new(keys))));
        Ok(())
    }

    /// Gives the MRs up; peers that still use their keys get remote access errors.
    pub(super) fn unregister(&self, region: &Region) {
        let taken = self.regions.write().remove(&region.addr);
        // Deregistering may take long: not under the lock.
        drop(taken);
    }

    /// Gives all MRs up.
    pub(super) fn clear(&self) {
        let taken = std::mem::take(&mut *self.regions.write());
        drop(taken);
    }

    /// For the look-ups of one submit call.
    pub(super) fn view(&self) -> View<'_> {
        View { map: self.regions.read(), last: None }
    }

    /// Entries for the descriptor; `nics` are the indices of the NICs to list, in order.
    pub(super) fn published(&self, nics: &[usize]) -> Vec<PublishedBuffer> {
        let map = self.regions.read();
        let mut open: Vec<&Arc<Keys>> = map.values().filter(|keys| keys.remote).collect();
        open.sort_by_key(|keys| keys.order);
        let entries = open.into_iter().flat_map(|keys| {
            (0..keys.pieces()).map(move |piece| {
                let start = piece as u64 * keys.piece_bytes;
                let of = |list: &[u32]| -> Vec<u32> {
                    nics.iter().map(|nic| list.get(piece * keys.nics + nic).copied().unwrap_or(0)).collect()
                };
                PublishedBuffer {
                    location: keys.name.clone(),
                    addr: keys.addr + start,
                    len: keys.piece_bytes.min(keys.len - start),
                    rkey: of(&keys.rkeys),
                    lkey: of(&keys.lkeys),
                }
            })
        });
        entries.collect()
    }

    fn keys(&self, nics: &[Arc<Nic>], selector: &Selector, region: &Region) -> Result<Keys> {
        let per_nic = self.register_everywhere(nics, region)?;
        let pieces = region.len.div_ceil(self.piece_bytes) as usize;
        let key = |nic: usize, piece: usize, of: fn(&Mr) -> u32| per_nic[nic].get(piece).map_or(0, of);
        let table = |of: fn(&Mr) -> u32| {
            (0..pieces)
                .flat_map(|piece| (0..nics.len()).map(move |nic| (nic, piece)))
                .map(|(nic, piece)| key(nic, piece, of))
                .collect::<Vec<u32>>()
        };
        let (lkeys, rkeys) = (table(Mr::lkey), table(Mr::rkey));
        // Only now: registering has touched the pages, so the kernel knows where they are.
        let name = match region.location.as_str() {
            "*" => location::of_memory(region.addr),
            name => name.to_string(),
        };
        let placement = selector.place(&Location::parse(&name));
        Ok(Keys {
            addr: region.addr,
            len: region.len,
            piece_bytes: self.piece_bytes,
            lkeys,
            rkeys,
            nics: nics.len(),
            placement,
            name,
            remote: region.remote.is_some(),
            order: region.order,
            _mrs: per_nic.into_iter().flatten().collect(),
        })
    }

    /// One list of MRs per NIC; an empty one for a NIC that is gone for good.
    fn register_everywhere(&self, nics: &[Arc<Nic>], region: &Region) -> Result<Vec<Vec<Mr>>> {
        let parallel = nics.len() > 1 && self.parallel.unwrap_or(region.len >= PARALLEL_BYTES);
        if !parallel {
            return nics.iter().map(|nic| self.register_on(nic, region)).collect();
        }
        thread::scope(nics.iter().map(|nic| move || self.register_on(nic, region)).collect())
            .into_iter()
            .collect()
    }

    fn register_on(&self, nic: &Nic, region: &Region) -> Result<Vec<Mr>> {
        if nic.is_gone() {
            return Ok(Vec::new());
        }
        let access = Access { remote: region.remote, relaxed_ordering: self.relaxed_ordering };
        let starts = (0..region.len).step_by(self.piece_bytes as usize);
        starts
            .map(|start| {
                let len = self.piece_bytes.min(region.len - start);
                // SAFETY: the caller of registerLocalMemory keeps the range mapped until it unregisters it, which
                // drops the MR.
                unsafe { Mr::register(&nic.pd, region.addr + start, len, access) }
            })
            .collect()
    }
}

/// Look-ups of one submit call; remembers the last region found.
pub(super) struct View<'a> {
    // Dropped before the lock. So whoever takes a region out then holds the last reference to its MRs, and gives them
    // up before it returns.
    last: Option<Arc<Keys>>,
    map: RwLockReadGuard<'a, BTreeMap<u64, Arc<Keys>>>,
}

impl View<'_> {
    /// The keys of the region that holds the byte at `addr`.
    #[inline]
    pub(super) fn at(&mut self, addr: u64) -> Option<&Arc<Keys>> {
        if !self.last.as_ref().is_some_and(|keys| keys.holds(addr)) {
            let found = self.map.range(..=addr).next_back().map(|(_, keys)| keys);
            self.last = found.filter(|keys| keys.holds(addr)).cloned();
        }
        self.last.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Matrix;

    /// Three pieces of 4096 bytes, the last one of 100, on two NICs, of which the second lacks the middle one.
    fn keys() -> Keys {
        let placement = Selector::new(&Matrix::default(), &[]).place(&Location::parse("*"));
        Keys {
            addr: 1 << 20,
            len: 2 * 4096 + 100,
            piece_bytes: 4096,
            lkeys: vec![11, 12, 21, 0, 31, 32],
            rkeys: vec![],
            nics: 2,
            placement,
            name: String::new(),
            remote: true,
            order: 0,
            _mrs: vec![],
        }
    }

    #[test]
    fn each_byte_has_the_key_of_its_piece_and_nic() {
        let (keys, start) = (keys(), 1 << 20);
        for (at, nic, key) in
            [(0, 0, 11), (0, 1, 12), (4095, 1, 12), (4096, 0, 21), (4096, 1, 0), (8192, 0, 31), (8291, 1, 32)]
        {
            assert_eq!(keys.lkey(nic, start + at), key, "byte {at}, NIC {nic}");
        }
        assert_eq!(keys.pieces(), 3);
        let held = [start - 1, start, start + 8291, start + 8292].map(|addr| keys.holds(addr));
        assert_eq!(held, [false, true, true, false]);
    }

    #[test]
    fn each_piece_of_a_region_that_peers_may_use_is_published_with_the_keys_of_the_nics_asked_for() {
        let memory = Memory::new(&Config::default(), 0);
        let other = |addr, order, remote| Keys {
            addr,
            order,
            remote,
            len: 4096,
            lkeys: vec![1, 2],
            rkeys: vec![3, 4],
            ..keys()
        };
        let rkeys = vec![13, 14, 23, 0, 33, 34];
        let all = [other(4096, 2, true), other(8192, 1, false), Keys { order: 1, rkeys, ..keys() }];
        memory.regions.write().extend(all.map(|keys| (keys.addr, Arc::new(keys))));
        let start = 1 << 20;
        let shown = |nics: &[usize]| {
            let all = memory.published(nics).into_iter();
            all.map(|buffer| (buffer.addr, buffer.len, buffer.rkey, buffer.lkey)).collect::<Vec<_>>()
        };
        let expected = [
            (start, 4096, vec![14, 13], vec![12, 11]),
            (start + 4096, 4096, vec![0, 23], vec![0, 21]),
            (start + 8192, 100, vec![34, 33], vec![32, 31]),
            (4096, 4096, vec![4, 3], vec![2, 1]),
        ];
        assert_eq!(shown(&[1, 0]), expected);
        assert_eq!(shown(&[1])[1], (start + 4096, 4096, vec![0], vec![0]));
        memory.clear();
        assert!(shown(&[0]).is_empty());
    }

    #[test]
    fn pieces_are_whole_pages_and_no_longer_than_a_nic_takes() {
        let config = |max_mr_bytes| Config { max_mr_bytes, ..Config::default() };
        for (asked, device, bytes) in
            [(1 << 30, 0, 1 << 30), (1 << 30, 10_000, 8192), (10_000, 1 << 30, 8192), (4096, 1, 4096)]
        {
            assert_eq!(Memory::new(&config(asked), device).piece_bytes, bytes, "{asked} {device}");
        }
    }
}
