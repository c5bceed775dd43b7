//! Open connections by where they come from: says which of them goes when there is one too many. Closes none itself.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

/// The part of all connections that one source has for certain: a half. Chosen: a node with many engines has one address,
/// and no single address keeps all others out.
const SOURCE_PART: usize = 2;

/// What counts as one source: an IPv4 address, or the 64 bits of an IPv6 address that name a network, because a host has
/// all addresses of its network.
pub fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

/// How gladly a connection is closed: the greatest goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Readiness {
    /// Decides before anything else.
    pub class: u8,
    /// Decides within the connections of the largest sources of a class: the one with the lowest goes. A time, or a
    /// number that grows.
    pub since: u64,
}

/// Where connections come from, as [`Crowd::first_to_go`] shows it.
pub struct Source {
    /// See [`source_of`].
    pub address: IpAddr,
    /// Connections from there.
    pub count: usize,
}

struct Member<T> {
    source: IpAddr,
    /// Connections of the source. Shared by them, so that looking through all looks nothing up.
    count: Arc<AtomicUsize>,
    item: T,
}

/// The open connections, by a key each.
pub struct Crowd<K, T> {
    open: HashMap<K, Member<T>>,
    counts: HashMap<IpAddr, Arc<AtomicUsize>>,
}

impl<K, T> Default for Crowd<K, T> {
    fn default() -> Self {
        Crowd { open: HashMap::new(), counts: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash, T> Crowd<K, T> {
    /// Of `most` connections, how many one source has for certain.
    pub fn share(most: usize) -> usize {
        (most / SOURCE_PART).max(1)
    }

    /// Connections that are open.
    pub fn size(&self) -> usize {
        self.open.len()
    }

    /// Connections of the source `source`.
    pub fn count(&self, source: IpAddr) -> usize {
        self.counts.get(&source).map_or(0, |count| count.load(Relaxed))
    }

    /// Whether there is memory for one more.
    pub fn has_memory(&mut self) -> bool {
        self.open.try_reserve(1).is_ok() && self.counts.try_reserve(1).is_ok()
    }

    /// Adds a connection from the source `source` under a fresh `key`.
    pub fn insert(&mut self, source: IpAddr, key: K, item: T) {
        let count = self.counts.entry(source).or_default().clone();
        count.fetch_add(1, Relaxed);
        self.open.insert(key, Member { source, count, item });
    }

    /// Takes a connection out; `None` if there is none under `key`.
    pub fn remove(&mut self, key: K) -> Option<T> {
        let Member { source, count, item } = self.open.remove(&key)?;
        if count.fetch_sub(1, Relaxed) == 1 {
            self.counts.remove(&source);
        }
        Some(item)
    }

    /// The connection to be closed for another: of the highest class, therein of the source with the most connections,
    /// therein the lowest `since`. `ready` says `None` of those that stay.
    pub fn first_to_go(&self, ready: impl Fn(&Source, &T) -> Option<Readiness>) -> Option<K> {
        let candidates = self.open.iter().filter_map(|(key, member)| {
            let source = Source { address: member.source, count: member.count.load(Relaxed) };
            let Readiness { class, since } = ready(&source, &member.item)?;
            Some(((class, source.count, u64::MAX - since), *key))
        });
        candidates.max_by_key(|(rank, _)| *rank).map(|(_, key)| key)
    }

    /// All connections with their keys.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &T)> {
        self.open.iter().map(|(key, member)| (key, &member.item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_host_are_one_source() {
        for (one, other, same) in [
            ("10.0.0.1", "10.0.0.2", false),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("2001:db8::1", "2001:db8::ffff:2", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            let source = |text: &str| source_of(text.parse().unwrap());
            assert_eq!(source(one) == source(other), same, "{one} {other}");
        }
    }

    #[test]
    fn class_comes_before_the_size_of_the_source_and_that_before_age() {
        let mut crowd = Crowd::default();
        for (key, host, class) in [(1, 1, 0), (2, 2, 0), (3, 2, 0), (4, 3, 1)] {
            crowd.insert(IpAddr::from([10, 0, 0, host]), key, (class, key));
        }
        for gone in [4, 2, 1, 3] {
            let first =
                crowd.first_to_go(|_, (class, since)| Some(Readiness { class: *class, since: *since }));
            assert_eq!(first, Some(gone));
            assert!(crowd.remove(gone).is_some() && crowd.remove(gone).is_none());
        }
        assert_eq!((crowd.size(), crowd.counts.len()), (0, 0));
    }
}
