//! The rails of one NIC by peer NIC path, and which connection goes when there are too many (SIEVE or FIFO).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::rail::Rail;

/// All rails of a NIC.
pub(super) struct Rails {
    /// Guards the rails and the order of eviction; never held while a rail is fed an event.
    table: Mutex<Table>,
    most: usize,
    fifo: bool,
}

#[derive(Default)]
struct Table {
    by_peer: HashMap<String, Arc<Rail>>,
    /// Those with a connection, newest first.
    connected: VecDeque<Arc<Rail>>,
    /// Where the search for the next victim goes on, counted from the oldest.
    hand: usize,
}

impl Rails {
    /// At most `most` connections.
    pub(super) fn new(most: usize, fifo: bool) -> Self {
        Rails { table: Mutex::default(), most, fifo }
    }

    /// The rail to `peer`, made by `make` if there is none.
    pub(super) fn get(&self, peer: &str, make: impl FnOnce() -> Arc<Rail>) -> Arc<Rail> {
        let mut table = self.table.lock();
        if let Some(rail) = table.by_peer.get(peer) {
            return rail.clone();
        }
        let rail = make();
        table.by_peer.insert(peer.to_string(), rail.clone());
        rail
    }

    /// The rail to `peer`, if there is one.
    pub(super) fn find(&self, peer: &str) -> Option<Arc<Rail>> {
        self.table.lock().by_peer.get(peer).cloned()
    }

    /// Every rail.
    pub(super) fn all(&self) -> Vec<Arc<Rail>> {
        self.table.lock().by_peer.values().cloned().collect()
    }

    /// Forgets all of them, and gives them back.
    pub(super) fn take_all(&self) -> Vec<Arc<Rail>> {
        let table = std::mem::take(&mut *self.table.lock());
        table.by_peer.into_values().collect()
    }

    /// Forgets rails that nobody uses and that have no connection.
    pub(super) fn sweep(&self) {
        self.table.lock().by_peer.retain(|_, rail| Arc::strong_count(rail) > 1 || !rail.is_forgettable());
    }

    /// Counts a rail as connected. Returns the rail whose connection has to go, if there are too many.
    pub(super) fn connected(&self, rail: &Arc<Rail>) -> Option<Arc<Rail>> {
        let mut table = self.table.lock();
        if table.connected.iter().any(|known| Arc::ptr_eq(known, rail)) {
            return None;
        }
        let victim = if table.connected.len() >= self.most { table.evict(self.fifo) } else { None };
        table.connected.push_front(rail.clone());
        victim
    }

    /// Chooses the rail whose connection can be spared best; it counts as connected no more.
    pub(super) fn spare(&self) -> Option<Arc<Rail>> {
        self.table.lock().evict(self.fifo)
    }

    /// The rail has no connection any more.
    pub(super) fn disconnected(&self, rail: &Rail) {
        let mut table = self.table.lock();
        if let Some(place) = table.connected.iter().position(|known| std::ptr::eq(&**known, rail)) {
            table.connected.remove(place);
        }
    }
}

impl Table {
    /// SIEVE: from the oldest to the newest the hand clears marks and takes the first rail without one. Rails with
    /// work under way are passed over; if all have some, there is no victim and the limit is exceeded for a while.
    fn evict(&mut self, fifo: bool) -> Option<Arc<Rail>> {
        // Those whose peer never said that it is ready go first: else strangers could drive everybody else out.
        if let Some(place) = self.connected.iter().rposition(|rail| !rail.is_up() && rail.is_idle()) {
            return self.connected.remove(place);
        }
        let len = self.connected.len();
        for _ in 0..2 * len {
            self.hand = if self.hand >= len { 0 } else { self.hand };
            let place = len - 1 - self.hand;
            let rail = &self.connected[place];
            let marked = rail.take_visited() && !fifo;
            if marked || !rail.is_idle() {
                self.hand += 1;
                continue;
            }
            return self.connected.remove(place);
        }
        None
    }
}
