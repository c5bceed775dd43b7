//! Which segments the tasks of a submit call go to, for whoever counts them.

use crate::runtime::sync::atomic::{AtomicI32, Ordering};
use crate::runtime::sync::OnceLock;

/// The segments of a call. Said by the thread that submits, before the call is committed; the batch's lock publishes it.
pub struct Targets {
    /// Id of the segment that all tasks go to, if it is one; 0: the own one, or nobody has said.
    only: AtomicI32,
    /// Ids by [`Task::set_place`](super::Task::set_place), if there are several.
    several: OnceLock<Box<[i32]>>,
}

impl Default for Targets {
    fn default() -> Self {
        Targets { only: AtomicI32::new(0), several: OnceLock::new() }
    }
}

impl Targets {
    /// All tasks go to the segment with this id.
    #[inline]
    pub fn set(&self, id: i32) {
        self.only.store(id, Ordering::Relaxed);
    }

    /// They go to several, in the order of their places.
    pub fn set_several(&self, ids: Box<[i32]>) {
        let _ = self.several.set(ids);
    }

    /// They go to several.
    #[inline]
    pub fn are_several(&self) -> bool {
        self.several.get().is_some()
    }

    /// The segment that tasks of this place go to.
    #[inline]
    pub fn at(&self, place: u16) -> Option<i32> {
        match self.several.get() {
            Some(ids) => ids.get(usize::from(place)).copied(),
            None => Some(self.only.load(Ordering::Relaxed)),
        }
    }
}
