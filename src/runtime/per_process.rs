//! Values of a process that a forked child must not share.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicPtr, Ordering::SeqCst};

use super::fork::epoch;

/// A value that each process makes for itself when it needs it: a child does not get one that a thread of its parent may
/// have been using. The parent's is never dropped there.
pub struct PerProcess<T: 'static> {
    make: fn() -> T,
    /// Null, or leaked; a value of an earlier epoch is a parent's.
    made: AtomicPtr<Made<T>>,
}

struct Made<T> {
    epoch: u32,
    value: T,
}

impl<T: Send + Sync> PerProcess<T> {
    /// To be made by `make`; of several threads that need it at first, each may make one, of which one is kept.
    pub const fn new(make: fn() -> T) -> Self {
        PerProcess { make, made: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// The value of this process.
    pub fn get(&'static self) -> &'static T {
        let epoch = epoch();
        loop {
            let current = self.made.load(SeqCst);
            // SAFETY: null, or a box that was leaked below and is never freed once it was stored.
            if let Some(made) = unsafe { current.as_ref() }.filter(|made| made.epoch == epoch) {
                return &made.value;
            }
            let fresh = Box::into_raw(Box::new(Made { epoch, value: (self.make)() }));
            if self.made.compare_exchange(current, fresh, SeqCst, SeqCst).is_err() {
                // SAFETY: made above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(fresh) });
            }
        }
    }
}
