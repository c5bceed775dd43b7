//! The rails of one NIC by peer NIC path, and which connection goes when there are too many (SIEVE or FIFO).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use super::attention::Attention;
use super::rail::Rail;

/// All rails of a NIC.
pub(super) struct Rails {
    /// Guards the rails and the order of eviction; never held while a rail is fed an event.
    table: Mutex<Table>,
    most: usize,
    fifo: bool,
    /// Rails that time changes: they wait, connect or pause.
    pub restless: Attention<Rail>,
    /// Rails that found no credit, in the order in which they are served.
    pub starving: Attention<Rail>,
}

#[derive(Default)]
struct Table {
    by_peer: HashMap<String, Arc<Rail>>,
    /// Those with a connection, by when they got it: the oldest has the lowest number.
    connected: BTreeMap<u64, Arc<Rail>>,
    /// Their numbers, by the address of the rail.
    numbers: HashMap<usize, u64>,
    /// Of those, the ones that were not up when they were last looked at.
    young: BTreeMap<u64, Arc<Rail>>,
    /// Numbers given so far.
    last: u64,
    /// Where the search for the next victim goes on.
    hand: u64,
}

impl Rails {
    /// At most `most` connections.
    pub(super) fn new(most: usize, fifo: bool) -> Self {
        Rails {
            table: Mutex::default(),
            most,
            fifo,
            restless: Attention::new(|rail: &Rail| &rail.is_restless),
            starving: Attention::new(|rail: &Rail| &rail.starves),
        }
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
        if let Some(number) = table.numbers.get(&key(rail)).copied() {
            // It has another connection, which is not up yet.
            table.young.insert(number, rail.clone());
            return None;
        }
        let victim = if table.connected.len() >= self.most { table.evict(self.fifo) } else { None };
        table.last += 1;
        let number = table.last;
        table.numbers.insert(key(rail), number);
        table.connected.insert(number, rail.clone());
        table.young.insert(number, rail.clone());
        victim
    }

    /// Chooses the rail whose connection can be spared best; it counts as connected no more.
    pub(super) fn spare(&self) -> Option<Arc<Rail>> {
        self.table.lock().evict(self.fifo)
    }

    /// The rail has no connection any more.
    pub(super) fn disconnected(&self, rail: &Rail) {
        let mut table = self.table.lock();
        let number = table.numbers.get(&key(rail)).copied();
        // Dropped when the lock is released.
        let _rail = number.and_then(|number| table.forget(number));
    }
}

/// A rail that is listed is held, so no other has its address.
fn key(rail: &Rail) -> usize {
    std::ptr::from_ref(rail) as usize
}

impl Table {
    fn forget(&mut self, number: u64) -> Option<Arc<Rail>> {
        self.young.remove(&number);
        let rail = self.connected.remove(&number)?;
        self.numbers.remove(&key(&rail));
        Some(rail)
    }

    /// SIEVE: from the oldest to the newest the hand clears marks and takes the first rail without one. Rails with
    /// work under way are passed over; if all have some, there is no victim and the limit is exceeded for a while.
    fn evict(&mut self, fifo: bool) -> Option<Arc<Rail>> {
        // Those whose peer never said that it is ready go first: else strangers could drive everybody else out.
        self.young.retain(|_, rail| !rail.is_up());
        let stranger = self.young.iter().find(|(_, rail)| rail.is_idle()).map(|(number, _)| *number);
        if let Some(number) = stranger {
            return self.forget(number);
        }
        for _ in 0..2 * self.connected.len() {
            let next = self.connected.range(self.hand..).next().or_else(|| self.connected.iter().next());
            let (number, rail) = next.map(|(number, rail)| (*number, rail))?;
            self.hand = number + 1;
            let marked = rail.take_visited() && !fifo;
            if !marked && rail.is_idle() {
                return self.forget(number);
            }
        }
        None
    }
}
