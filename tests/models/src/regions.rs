//! Models of registered memory: uses of a region, and the end of its registration.

use std::sync::Arc;
use std::time::Duration;

use loom::thread;

use crate::check::{each_execution, Bytes};
use crate::memory::{PeerAccess, Range, Registry};

fn registered(counts: bool, times: usize) -> Arc<Registry> {
    let registry = Arc::new(Registry::new(counts));
    for _ in 0..times {
        let reserved = registry.reserve(&[Range { addr: 64, len: 64 }], "*", true).unwrap();
        registry.open(&reserved.added);
    }
    registry
}

/// Once unregistering has ended, the memory is the caller's alone; and it does end.
pub fn p02_unregistered_memory_is_not_touched() {
    each_execution(2, || {
        let registry = registered(false, 1);
        let bytes = Arc::new(Bytes::default());
        let peers: Vec<_> = (0..2)
            .map(|_| {
                let (registry, bytes) = (registry.clone(), bytes.clone());
                thread::spawn(move || {
                    let used = registry.use_for_peer(64, 8, PeerAccess::BOTH);
                    if used.is_some() {
                        bytes.read();
                    }
                })
            })
            .collect();
        let region = registry.revoke(64).unwrap().unwrap();
        assert!(region.wait_idle(Duration::MAX / 4));
        bytes.write();
        registry.remove(&region);
        assert!(registry.use_for_peer(64, 8, PeerAccess::BOTH).is_none());
        peers.into_iter().for_each(|peer| peer.join().unwrap());
    });
}

/// The same for whoever knows the region and does not ask the registry.
pub fn p02_a_region_that_is_revoked_admits_no_use() {
    each_execution(3, || {
        let registry = registered(false, 1);
        let region = registry.all().unwrap().remove(0);
        let bytes = Arc::new(Bytes::default());
        let (theirs, their_bytes) = (region.clone(), bytes.clone());
        let peer = thread::spawn(move || {
            let used = theirs.begin_use();
            if used.is_some() {
                their_bytes.read();
            }
        });
        registry.revoke(64).unwrap().unwrap();
        assert!(region.wait_idle(Duration::MAX / 4));
        bytes.write();
        peer.join().unwrap();
    });
}

/// Of those who undo the registrations of one region, the last one ends it.
pub fn the_last_registration_ends_a_region_once() {
    each_execution(3, || {
        let registry = registered(true, 2);
        let theirs = registry.clone();
        let other = thread::spawn(move || theirs.revoke(64).unwrap().is_some());
        let ours = registry.revoke(64).unwrap().is_some();
        assert_eq!([ours, other.join().unwrap()].iter().filter(|ended| **ended).count(), 1);
        assert!(registry.revoke(64).is_err());
    });
}
