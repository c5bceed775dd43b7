//! What a WRITE leaves behind that ended without success: bytes of it may still reach the peer's memory, until the peer has
//! confirmed that it takes no more of them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::runtime::sync::{Mutex, OnceLock};

/// Whether the ranges of a task may be used for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Not yet: it runs, or the peer is still being asked.
    No,
    /// On both sides.
    Yes,
    /// The local range. Nobody has confirmed it of the remote one, and nobody is being asked any more.
    Unknown,
}

/// The trails of a submit call, by task. Only tasks that failed have any, so this costs the others nothing.
#[derive(Default)]
pub(super) struct Trails(OnceLock<Table>);

type Table = Arc<Mutex<Tasks>>;

#[derive(Default)]
struct Tasks {
    open: HashMap<u32, Open>,
    /// There was no memory for one more task, so nothing is known of those that are missing.
    forgetful: bool,
}

impl Tasks {
    /// `false`: there is no memory to count it.
    fn begin(&mut self, task: u32) -> bool {
        let counts = self.open.try_reserve(1).is_ok();
        self.forgetful |= !counts;
        if counts {
            self.open.entry(task).or_default().count += 1;
        }
        counts
    }

    fn end(&mut self, task: u32, is_known: bool) {
        let Some(open) = self.open.get_mut(&task) else { return };
        open.count -= 1;
        open.lost |= !is_known;
    }
}

#[derive(Default)]
struct Open {
    count: u32,
    lost: bool,
}

impl Trails {
    /// What is known of a task that has ended.
    pub(super) fn of(&self, task: u32) -> Drained {
        let Some(table) = self.0.get() else { return Drained::Yes };
        let table = table.lock();
        match table.open.get(&task) {
            Some(Open { count: 1.., .. }) => Drained::No,
            Some(Open { lost: true, .. }) => Drained::Unknown,
            _ if table.forgetful => Drained::Unknown,
            _ => Drained::Yes,
        }
    }

    /// One more trail of a task.
    pub(super) fn begin(&self, task: u32) -> Trail {
        let table = self.0.get_or_init(Table::default).clone();
        let counts = table.lock().begin(task);
        Trail { table, task, counts, ended: false }
    }
}

/// Bytes of one slice that may still arrive. Dropped without [`Trail::end`], nobody will ever know.
pub struct Trail {
    table: Table,
    task: u32,
    counts: bool,
    ended: bool,
}

impl Trail {
    /// No byte of it arrives any more.
    pub fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if self.counts {
            self.table.lock().end(self.task, self.ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_memory_for_a_trail_nothing_is_called_drained_that_may_not_be() {
        let trails = Trails::default();
        let known = trails.begin(1);
        trails.0.get().unwrap().lock().forgetful = true;
        let uncounted =
            Trail { table: trails.0.get().unwrap().clone(), task: 1, counts: false, ended: false };
        drop(uncounted);
        assert_eq!([0, 1].map(|task| trails.of(task)), [Drained::Unknown, Drained::No]);
        known.end();
        assert_eq!(trails.of(1), Drained::Unknown, "one of its trails may have been the one without memory");
    }
}
