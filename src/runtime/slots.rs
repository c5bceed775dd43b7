//! A table whose keys are checked: index plus generation. A key that was removed,
//! never issued, or made up finds nothing; no key is ever issued twice.
//!
//! Look-ups lock one slot only, so threads that use different keys do not meet.

use std::sync::{Arc, OnceLock};

use super::sync::Mutex;
use crate::error::{Code, Error, Result};

/// Bits of a key that say the slot. Chosen: 16 million live values, far more than the batches of a process.
const INDEX_BITS: u32 = 24;
/// Bits of a key that say how often the slot was used before. Chosen: with the index they are 48, which leaves 16 for
/// the owner's tag; a slot serves 16 million values before it is given up.
const GENERATION_BITS: u32 = 24;
/// The first chunk has two to this power of slots. Chosen: a table of few values is one small allocation.
const FIRST_CHUNK_BITS: u32 = 6;
/// Most chunks. Each has twice the slots of the one before, so together they have 2^24 - 64.
const CHUNKS: usize = (INDEX_BITS - FIRST_CHUNK_BITS) as usize;
/// The last generation that is issued. The one after it marks a slot that is used up, so no key is all ones.
const LAST_GENERATION: u32 = (1 << GENERATION_BITS) - 2;

/// Bits of a key; the rest of a `u64` is free for the owner's own tag.
pub const KEY_BITS: u32 = INDEX_BITS + GENERATION_BITS;

/// Concurrent table of `Arc<T>`.
pub struct Slots<T> {
    /// Chunk `k` holds `64 << k` slots; chunks are made when first needed and never move.
    chunks: [OnceLock<Box<[Slot<T>]>>; CHUNKS],
    free: Mutex<Free>,
}

/// Guards the generation and the value of one slot.
struct Slot<T>(Mutex<Entry<T>>);

struct Entry<T> {
    generation: u32,
    value: Option<Arc<T>>,
}

struct Free {
    next_unused: u32,
    reusable: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots {
            chunks: [const { OnceLock::new() }; CHUNKS],
            free: Mutex::new(Free { next_unused: 0, reusable: Vec::new() }),
        }
    }
}

impl<T> Slots<T> {
    /// Stores `value`; the key is never 0. `ERR_MEMORY` when the table is full.
    pub fn insert(&self, value: Arc<T>) -> Result<u64> {
        let index = self.take_index()?;
        let slot = self.slot(index).ok_or_else(|| Error::out_of_memory("a table slot"))?;
        let mut entry = slot.0.lock();
        entry.value = Some(value);
        Ok(u64::from(entry.generation) << INDEX_BITS | u64::from(index))
    }

    /// The value of a live key.
    pub fn get(&self, key: u64) -> Option<Arc<T>> {
        let (index, generation) = split(key)?;
        let entry = self.slot(index)?.0.lock();
        if entry.generation != generation {
            return None;
        }
        entry.value.clone()
    }

    /// Takes the value out; of several callers with one key exactly one gets it.
    pub fn remove(&self, key: u64) -> Option<Arc<T>> {
        let (index, generation) = split(key)?;
        let mut entry = self.slot(index)?.0.lock();
        if entry.generation != generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation += 1;
        let exhausted = entry.generation > LAST_GENERATION;
        drop(entry);
        if !exhausted {
            let mut free = self.free.lock();
            // Without memory to note it, the slot is never used again.
            if free.reusable.try_reserve(1).is_ok() {
                free.reusable.push(index);
            }
        }
        Some(value)
    }

    /// Calls `f` with every live value, in no particular order; with none of the table's locks held.
    pub fn for_each(&self, f: impl Fn(&Arc<T>)) {
        let slots = self.chunks.iter().filter_map(OnceLock::get).flat_map(|chunk| chunk.iter());
        for slot in slots {
            let value = slot.0.lock().value.clone();
            value.iter().for_each(&f);
        }
    }

    fn take_index(&self) -> Result<u32> {
        let mut free = self.free.lock();
        if let Some(index) = free.reusable.pop() {
            return Ok(index);
        }
        let index = free.next_unused;
        let (chunk, _) = locate(index);
        let cell = self.chunks.get(chunk).ok_or_else(|| {
            Error::new(Code::Memory, "the table of live batches or engines is full; free some first")
        })?;
        if cell.get().is_none() {
            let count = 1usize << (FIRST_CHUNK_BITS as usize + chunk);
            let mut slots = Vec::new();
            slots.try_reserve_exact(count).map_err(|_| Error::out_of_memory("a handle table"))?;
            slots.resize_with(count, || Slot(Mutex::new(Entry { generation: 1, value: None })));
            let _ = cell.set(slots.into_boxed_slice());
        }
        free.next_unused += 1;
        Ok(index)
    }

    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        let (chunk, offset) = locate(index);
        self.chunks.get(chunk)?.get()?.get(offset)
    }
}

/// Chunk and offset of an index: chunk `k` starts at `64 * (2^k - 1)`.
fn locate(index: u32) -> (usize, usize) {
    let shifted = u64::from(index) + (1 << FIRST_CHUNK_BITS);
    let chunk = 63 - shifted.leading_zeros() - FIRST_CHUNK_BITS;
    let offset = shifted - (1 << (chunk + FIRST_CHUNK_BITS));
    (chunk as usize, offset as usize)
}

fn split(key: u64) -> Option<(u32, u32)> {
    if key >> KEY_BITS != 0 {
        return None;
    }
    let index = (key & ((1 << INDEX_BITS) - 1)) as u32;
    Some((index, (key >> INDEX_BITS) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p08_removed_and_invented_keys_find_nothing() {
        let slots = Slots::default();
        let keys: Vec<u64> = (0..1000).map(|n| slots.insert(Arc::new(n)).unwrap()).collect();
        for (n, key) in keys.iter().enumerate() {
            assert_eq!(*slots.get(*key).unwrap(), n);
        }
        assert_eq!(*slots.remove(keys[7]).unwrap(), 7);
        assert!(slots.remove(keys[7]).is_none() && slots.get(keys[7]).is_none());
        let again = slots.insert(Arc::new(7)).unwrap();
        assert_ne!(again, keys[7]);
        assert!(slots.get(keys[7]).is_none());
        for key in [0, 1, u64::MAX, 1 << KEY_BITS, keys[3] ^ 1 << 40, keys[3] | 1 << 63] {
            assert!(slots.get(key).is_none(), "{key:#x}");
        }
        let count = std::cell::Cell::new(0);
        slots.for_each(|_| count.set(count.get() + 1));
        assert_eq!(count.get(), 1000);
    }

    #[test]
    fn of_many_removers_exactly_one_wins() {
        let slots = Arc::new(Slots::default());
        for _ in 0..200 {
            let key = slots.insert(Arc::new(())).unwrap();
            let removers: Vec<_> = (0..4)
                .map(|_| {
                    let slots = slots.clone();
                    std::thread::spawn(move || slots.remove(key).is_some() as u32)
                })
                .collect();
            let wins: u32 = removers.into_iter().map(|t| t.join().unwrap()).sum();
            assert_eq!(wins, 1);
        }
    }
}
