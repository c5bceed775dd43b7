//! What a WRITE leaves behind that ended without success: bytes of it may still reach the peer's memory, until the peer has
//! confirmed that it takes no more of them.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

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

type Table = Arc<Mutex<HashMap<u32, Open>>>;

#[derive(Default)]
struct Open {
    count: u32,
    lost: bool,
}

impl Trails {
    /// What is known of a task that has ended.
    pub(super) fn of(&self, task: u32) -> Drained {
        let Some(table) = self.0.get() else { return Drained::Yes };
        match table.lock().get(&task) {
            None | Some(Open { count: 0, lost: false }) => Drained::Yes,
            Some(Open { count: 0, .. }) => Drained::Unknown,
            Some(_) => Drained::No,
        }
    }

    /// One more trail of a task.
    pub(super) fn begin(&self, task: u32) -> Trail {
        let table = self.0.get_or_init(Table::default).clone();
        table.lock().entry(task).or_default().count += 1;
        Trail { table, task, ended: false }
    }
}

/// Bytes of one slice that may still arrive. Dropped without [`Trail::end`], nobody will ever know.
pub struct Trail {
    table: Table,
    task: u32,
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
        let mut table = self.table.lock();
        let open = table.entry(self.task).or_default();
        open.count -= 1;
        open.lost |= !self.ended;
    }
}
