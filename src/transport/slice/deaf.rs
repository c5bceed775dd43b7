//! For tests of what moves slices: work whose end nobody is told of.

use std::sync::Arc;

use super::{Sink, Task, Work};

/// Hears of no end. It has a size, so each has an address of its own.
#[derive(Default)]
pub struct Deaf(#[allow(dead_code)] u8);

impl Sink for Deaf {
    fn task_ended(&self, _failed: bool) {}
}

/// A submit call of so many tasks.
pub fn work(tasks: usize) -> Arc<Work> {
    Work::new((0..tasks).map(|_| Task::default()).collect(), None, Arc::new(Deaf::default()))
}
