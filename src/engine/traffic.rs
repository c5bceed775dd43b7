//! What was moved to and from each peer, for as many peers as metrics tell apart.
//!
//! As all tasks, those of a peer are counted where their batch is freed: a few additions per submit call, without a lock. A place belongs to a
//! name while a segment of it is open or a batch has work there; then another peer may get it, once all places are taken.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::error::Class;
use crate::observe::log::cut;
use crate::transport::slice::{End, Op, Status};

/// Longest name of a peer in metrics, bytes; peers whose names begin with the same so many share a place. Chosen: each name
/// stands in a dozen lines.
const LONGEST_NAME: usize = 200;
/// What peers without a place are called.
const OTHER: &str = "other";

/// Ways in which a task ends, in the order of [`Traffic::ends`].
pub const ENDS: [&str; 4] = ["completed", "failed", "timeout", "canceled"];

/// What a peer's tasks came to; of each pair the first is for READs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Of COMPLETED tasks.
    pub bytes: [u64; 2],
    /// Tasks by their end.
    pub ends: [[u64; ENDS.len()]; 2],
    /// How often a part of a task was sent again.
    pub resent: [u64; 2],
}

impl Traffic {
    fn add(&mut self, end: &End<'_>) {
        let op = place_of(end.op);
        self.resent[op] += u64::from(end.resent);
        let class = (end.status != Status::Completed).then(|| end.class());
        self.ends[op][end_of(class)] += 1;
        if class.is_none() {
            self.bytes[op] += end.bytes;
        }
    }

    /// Takes from `other` whatever is higher there.
    fn raise(&mut self, other: &Traffic) {
        let pairs =
            self.numbers_mut().zip(other.clone().numbers_mut().map(|number| *number).collect::<Vec<_>>());
        pairs.for_each(|(own, old)| *own = old.max(*own));
    }

    fn numbers_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        self.bytes.iter_mut().chain(&mut self.resent).chain(self.ends.iter_mut().flatten())
    }
}

fn place_of(op: Op) -> usize {
    usize::from(op == Op::Write)
}

fn end_of(class: Option<Class>) -> usize {
    match class {
        None => 0,
        Some(Class::Timeout) => 2,
        Some(Class::Canceled) => 3,
        Some(_) => 1,
    }
}

/// The tasks of one peer whose batches were freed. The counters publish nothing but themselves.
#[derive(Default)]
pub struct Peer {
    bytes: [AtomicU64; 2],
    ends: [[AtomicU64; ENDS.len()]; 2],
    resent: [AtomicU64; 2],
    /// Guards what was told last: no counter falls, although a batch may be freed while all are added up.
    told: Mutex<Traffic>,
}

impl Peer {
    /// Counts `count` tasks that are COMPLETED, of so many bytes in all.
    #[inline]
    pub fn note_completed(&self, op: Op, count: u64, bytes: u64) {
        let op = place_of(op);
        self.ends[op][0].fetch_add(count, Relaxed);
        self.bytes[op].fetch_add(bytes, Relaxed);
    }

    /// Counts a task that FAILED.
    pub fn note_failed(&self, op: Op, class: Class) {
        self.ends[place_of(op)][end_of(Some(class))].fetch_add(1, Relaxed);
    }

    /// Counts that parts of a task were sent again.
    pub fn note_resent(&self, op: Op, count: u32) {
        self.resent[place_of(op)].fetch_add(count.into(), Relaxed);
    }

    /// What was counted so far.
    pub fn load(&self) -> Traffic {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        Traffic {
            bytes: self.bytes.each_ref().map(load),
            ends: self.ends.each_ref().map(|ends| ends.each_ref().map(load)),
            resent: self.resent.each_ref().map(load),
        }
    }
}

/// The peers of an engine.
#[derive(Default)]
pub struct Peers {
    most: usize,
    /// Guards who has a place, in the order in which the places were given.
    named: Mutex<Vec<(String, Arc<Peer>)>>,
    other: Arc<Peer>,
}

impl Peers {
    /// At most `most` of them have places of their own; 0: nothing is counted by peer.
    pub fn new(most: usize) -> Self {
        Peers { most, ..Peers::default() }
    }

    /// Where tasks of a segment of this name are counted, as long as what is returned is held; `None`: they are not.
    pub fn enter(&self, name: &str) -> Option<Arc<Peer>> {
        if self.most == 0 {
            return None;
        }
        let name = cut(name, LONGEST_NAME);
        if name == OTHER {
            // Two series must not have one name.
            return Some(self.other.clone());
        }
        let mut named = self.named.lock();
        if let Some((_, peer)) = named.iter().find(|(known, _)| known == name) {
            return Some(peer.clone());
        }
        if named.len() >= self.most {
            // Others get it from here only, under this lock.
            let Some(idle) = named.iter().position(|(_, peer)| Arc::strong_count(peer) == 1) else {
                return Some(self.other.clone());
            };
            named.remove(idle);
        }
        if named.try_reserve(1).is_err() {
            return Some(self.other.clone());
        }
        let peer = Arc::new(Peer::default());
        named.push((name.to_string(), peer.clone()));
        Some(peer)
    }

    /// What peers are called that have a place of their own. A name that is not among them is told as [`Peers::label`] says.
    pub fn names(&self) -> Vec<String> {
        self.named.lock().iter().map(|(name, _)| name.clone()).collect()
    }

    /// What a peer of this name is called where `names` have places.
    pub fn label<'a>(names: &'a [String], name: &str) -> &'a str {
        let name = cut(name, LONGEST_NAME);
        names.iter().find(|known| *known == name).map_or(OTHER, |known| known)
    }

    /// Begins a look at all of them.
    pub fn look(&self) -> Look {
        // Weak: who is looked at is in no use, and may lose its place meanwhile.
        let named = |(name, peer): &(String, Arc<Peer>)| (name.clone(), Arc::downgrade(peer));
        let mut peers: Vec<_> = self.named.lock().iter().map(named).collect();
        peers.push((OTHER.to_string(), Arc::downgrade(&self.other)));
        // As for all tasks: what was freed first, so that nothing is counted twice.
        let freed =
            |(_, peer): &(String, Weak<Peer>)| peer.upgrade().map(|peer| peer.load()).unwrap_or_default();
        let found = peers.iter().map(freed).collect();
        Look { peers, found }
    }
}

/// A look at the peers of an engine.
pub struct Look {
    peers: Vec<(String, Weak<Peer>)>,
    /// Of each.
    found: Vec<Traffic>,
}

impl Look {
    /// Adds a task whose batch was not freed.
    pub fn add(&mut self, to: &Arc<Peer>, end: &End<'_>) {
        let place = self.peers.iter().position(|(_, peer)| peer.as_ptr() == Arc::as_ptr(to));
        place.into_iter().for_each(|place| self.found[place].add(end));
    }

    /// What was moved to and from each, and to and from all others if there were some.
    pub fn told(self) -> Vec<(String, Traffic)> {
        let told = self.peers.into_iter().zip(self.found).filter_map(|((name, peer), mut traffic)| {
            let peer = peer.upgrade()?;
            let mut last = peer.told.lock();
            traffic.raise(&last);
            last.clone_from(&traffic);
            (name != OTHER || traffic != Traffic::default()).then_some((name, traffic))
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests;
