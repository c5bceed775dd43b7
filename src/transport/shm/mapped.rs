//! Shared memory of a peer that is mapped here, by the ids that the peer gave it.

use std::os::fd::AsRawFd;
use std::sync::atomic::{fence, Ordering::Acquire};
use std::sync::Arc;

use super::kernel::Mapping;
use crate::memory::shared::SharedMemory;
use crate::memory::Region;

/// Allocations of one peer that are mapped at most; what is in others is read by the kernel. Chosen: engines have a few large ones.
const MOST: usize = 256;

/// Those of one connection. They stay until the peer has freed them, or it ends.
#[derive(Default)]
pub(super) struct Mappings(Vec<(u64, u64, Arc<Mapping>)>);

impl Mappings {
    /// Maps the peer's allocation `id`, which begins at `base` there. Without room it is not mapped.
    pub(super) fn add(&mut self, id: u64, base: u64, len: u64, fd: &impl AsRawFd) {
        let is_new = id != 0 && !self.0.iter().any(|(known, ..)| *known == id);
        if is_new && self.0.len() < MOST && self.0.try_reserve(1).is_ok() {
            let mapping = Mapping::new(fd.as_raw_fd(), len).ok();
            // A file that is shared twice is mapped once.
            let mapping = mapping.filter(|new| !self.0.iter().any(|(.., known)| known.is_same(new)));
            self.0.extend(mapping.map(|mapping| (id, base, Arc::new(mapping))));
        }
    }

    /// Unmaps what the peer has freed.
    pub(super) fn remove(&mut self, id: u64) {
        self.0.retain(|(known, ..)| *known != id);
    }

    /// How bytes at the peer's address `from`, in its allocation `id`, can be copied to `ours`, a region that they go to.
    pub(super) fn way(&self, id: u64, from: u64, ours: Option<&Region>) -> Option<Direct> {
        let (_, base, mapping) = self.0.iter().find(|(known, ..)| *known == id)?;
        let ours = ours?.kind.shared()?.clone();
        Some(Direct { mapping: mapping.clone(), offset: from.checked_sub(*base)?, ours })
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// A copy between two mappings.
pub(super) struct Direct {
    mapping: Arc<Mapping>,
    offset: u64,
    ours: Arc<SharedMemory>,
}

impl Direct {
    /// Copies. `false`: the range is not inside one of them, and nothing was.
    pub(super) fn copy(&self, to: u64, len: u64) -> bool {
        let copied = self.mapping.copy(self.offset, &self.ours, to, len);
        // The words that say whether the bytes count are looked at after them.
        fence(Acquire);
        copied
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::shared;

    #[test]
    fn a_file_is_mapped_once() {
        let memory = shared::allocate(4096, false, None).unwrap();
        let fd = memory.fd();
        let mut mappings = Mappings::default();
        (1..4).for_each(|id| mappings.add(id, memory.addr, 4096, &fd));
        assert_eq!(mappings.0.len(), 1);
        mappings.remove(1);
        mappings.add(2, memory.addr, 4096, &fd);
        assert_eq!(mappings.0.len(), 1);
        assert!(shared::free(memory.addr));
    }

    #[test]
    fn a_copy_stays_inside_of_both() {
        let (theirs, ours) =
            (shared::allocate(4096, false, None).unwrap(), shared::allocate(4096, false, None).unwrap());
        let mapping = Arc::new(Mapping::new(theirs.fd(), 4096).unwrap());
        let direct = |offset| Direct { mapping: mapping.clone(), offset, ours: ours.clone() };
        for (offset, to, len, fits) in [
            (0, 0, 4096, true),
            (4095, 4095, 1, true),
            (0, 1, 4096, false),
            (1, 0, 4096, false),
            (u64::MAX, 0, 1, false),
            (0, u64::MAX - ours.addr, 1, false),
            (0, 0, u64::MAX, false),
        ] {
            assert_eq!(direct(offset).copy(ours.addr.wrapping_add(to), len), fits, "{offset} {to} {len}");
        }
        assert!(!direct(0).copy(ours.addr - 1, 1));
        assert!(Mapping::new(theirs.fd(), 4097).is_err() && Mapping::new(theirs.fd(), 0).is_err());
        assert!(Mapping::new(theirs.fd(), 4095).is_err(), "another length than the file's");
        assert!(Mapping::new(0, 1).is_err(), "that is no such file");
        [theirs.addr, ours.addr].into_iter().for_each(|addr| assert!(shared::free(addr)));
    }
}
