//! Ends of many slices at once.

use std::sync::Arc;

use super::{Hold, Slice};

/// Completes slices one after the other, and tells each batch only once how many of its tasks ended, as long as they come one
/// behind the other: that is a counter which threads share. Told at the latest when this is dropped.
#[derive(Default)]
pub struct Ends {
    /// Of a slice whose batch is to be told.
    hold: Option<Arc<Hold>>,
    completed: usize,
}

impl Ends {
    /// As [`Slice::complete`].
    #[inline]
    pub fn complete(&mut self, mut slice: Slice, now_ns: u64) {
        match slice.end(None, || now_ns) {
            None => {}
            Some(true) => slice.work().sink.task_ended(true),
            Some(false) => {
                if !self.hold.as_ref().is_some_and(|hold| Arc::ptr_eq(&hold.work, &slice.hold.work)) {
                    self.tell();
                    self.hold = Some(slice.hold.clone());
                }
                self.completed += 1;
            }
        }
    }

    fn tell(&mut self) {
        let count = std::mem::take(&mut self.completed);
        if let Some(hold) = self.hold.take() {
            hold.work.sink.tasks_completed(count);
        }
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.tell();
    }
}
