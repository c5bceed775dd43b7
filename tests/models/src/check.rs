//! How models are run, and memory that they watch.

use loom::cell::UnsafeCell;

/// Runs a model in every order in which its threads can take turns, as long as no more than `switches` of them are forced upon a
/// thread that could go on.
pub fn each_execution(switches: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(model);
}

/// Bytes that one thread moves and another one reads.
#[derive(Default)]
pub struct Bytes(UnsafeCell<u32>);

impl Bytes {
    pub fn write(&self) {
        self.0.with_mut(|bytes| {
            // SAFETY: the checker reports every access that could meet another one.
            unsafe { *bytes = 1 }
        });
    }

    pub fn read(&self) -> u32 {
        // SAFETY: as above.
        self.0.with(|bytes| unsafe { *bytes })
    }
}

// SAFETY: the checker reports every access that could meet another one.
unsafe impl Sync for Bytes {}
