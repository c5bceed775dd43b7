//! The registry without transports.

use super::*;

fn insert(registry: &Registry, addr: u64, len: u64) -> Result<Vec<Arc<Region>>> {
    registry.insert(&[Range { addr, len }], "*", true)
}

#[test]
fn overlaps_are_refused_and_neighbours_are_not() {
    let registry = Registry::default();
    insert(&registry, 4096, 4096).unwrap();
    for (addr, len) in [(4096, 4096), (4096, 1), (8191, 10), (1, 4096), (1, 1 << 20), (5000, 10)] {
        let error = insert(&registry, addr, len).err().unwrap();
        assert_eq!(error.code(), Code::AddressOverlapped, "{addr}");
        let is_same = (addr, len) == (4096, 4096);
        assert_eq!(error.text().contains("registered already"), is_same, "{error}");
    }
    insert(&registry, 8192, 10).unwrap();
    insert(&registry, 1, 4095).unwrap();
    for (addr, len) in [(0, 1), (1, 0), (u64::MAX, 2)] {
        assert_eq!(insert(&registry, addr, len).err().unwrap().code(), Code::InvalidArgument);
    }
}

#[test]
fn p11_a_batch_is_all_or_nothing() {
    let registry = Registry::default();
    let range = |addr, len| Range { addr, len };
    assert!(registry.insert(&[range(100, 10), range(105, 10)], "*", true).is_err());
    assert!(registry.insert(&[range(100, 10), range(200, 0)], "*", true).is_err());
    assert!(registry.published().unwrap().is_empty());
    registry.insert(&[range(200, 10), range(100, 10)], "*", true).unwrap();
    let published: Vec<u64> = registry.published().unwrap().iter().map(|r| r.addr).collect();
    assert_eq!(published, [200, 100]);
}

#[test]
fn p37_peers_reach_only_what_is_inside_one_open_region() {
    let registry = Registry::default();
    insert(&registry, 1000, 100).unwrap();
    insert(&registry, 1100, 100).unwrap();
    registry.insert(&[Range { addr: 5000, len: 10 }], "*", false).unwrap();
    assert!(registry.use_for_peer(1000, 100, PeerAccess::BOTH).is_some());
    for (addr, len) in
        [(1000, 101), (999, 2), (1050, 100), (1000, 0), (1000, u64::MAX), (5000, 1), (u64::MAX, 1)]
    {
        assert!(registry.use_for_peer(addr, len, PeerAccess::BOTH).is_none(), "{addr}+{len}");
    }
}

#[test]
fn a_reserved_range_is_taken_but_neither_used_nor_published() {
    let registry = Registry::default();
    let reserved = registry.reserve(&[Range { addr: 1000, len: 100 }], "*", true).unwrap();
    assert_eq!(insert(&registry, 1050, 1).err().unwrap().code(), Code::AddressOverlapped);
    assert_eq!(registry.revoke(1000).err().unwrap().code(), Code::AddressNotRegistered);
    assert!(
        registry.use_for_peer(1000, 1, PeerAccess::BOTH).is_none()
            && registry.view().use_at(1000, 1).is_none()
    );
    assert!(registry.all().unwrap().is_empty() && !registry.is_published(1000));
    registry.open(&reserved.added);
    assert!(
        registry.use_for_peer(1000, 1, PeerAccess::BOTH).is_some()
            && registry.view().use_at(1000, 1).is_some()
    );
    assert!(registry.is_published(1099) && !registry.is_published(1100));
    registry.remove(&reserved.added[0]);
    insert(&registry, 1050, 1).unwrap();
}

#[test]
fn a_revoked_region_takes_no_new_use_and_waits_for_the_old_ones() {
    let registry = Registry::default();
    insert(&registry, 1000, 100).unwrap();
    let held = registry.use_for_peer(1000, 1, PeerAccess::BOTH).unwrap();
    assert_eq!(registry.revoke(1001).err().unwrap().code(), Code::AddressNotRegistered);
    let region = registry.revoke(1000).unwrap().unwrap();
    assert!(registry.use_for_peer(1000, 1, PeerAccess::BOTH).is_none());
    assert!(registry.view().use_at(1000, 1).is_none());
    assert!(registry.revoke(1000).is_err());
    assert!(!region.wait_idle(Duration::from_millis(1)));
    let waiter = std::thread::spawn(move || region.wait_idle(Duration::from_secs(10)));
    drop(held);
    assert!(waiter.join().unwrap());
}

#[test]
fn where_registrations_are_counted_the_last_unregistration_ends_a_region() {
    let registry = Registry::new(true);
    let (one, two) = (Range { addr: 1000, len: 100 }, Range { addr: 2000, len: 100 });
    registry.insert(std::slice::from_ref(&one), "cpu:0", true).unwrap();
    for (other, location, remote) in [
        (Range { len: 99, ..one.clone() }, "cpu:0", true),
        (Range { addr: 1001, len: 99 }, "cpu:0", true),
        (one.clone(), "cpu:1", true),
        (one.clone(), "cpu:0", false),
    ] {
        let error = registry.reserve(&[one.clone(), two.clone(), other], location, remote).err().unwrap();
        assert_eq!(error.code(), Code::AddressOverlapped, "{error}");
    }
    let reserved = registry.reserve(&[two.clone(), one.clone(), two.clone()], "cpu:0", true).unwrap();
    assert_eq!((reserved.added.len(), reserved.again.len()), (1, 2));
    let during = registry.reserve(&[two], "cpu:0", true).err().unwrap();
    assert_eq!(during.code(), Code::AddressOverlapped, "it is not open yet, and may never be");
    registry.open(&reserved.added);
    for addr in [1000, 2000] {
        assert!(registry.revoke(addr).unwrap().is_none(), "registered twice");
        assert!(registry.use_for_peer(addr, 100, PeerAccess::BOTH).is_some());
        let region = registry.revoke(addr).unwrap().unwrap();
        assert!(registry.use_for_peer(addr, 100, PeerAccess::BOTH).is_none());
        assert_eq!(registry.revoke(addr).err().unwrap().code(), Code::AddressNotRegistered);
        registry.remove(&region);
    }
    // As a call that fails later undoes it.
    let added = registry.insert(std::slice::from_ref(&one), "cpu:0", true).unwrap();
    let again = registry.reserve(&[one], "cpu:0", true).unwrap().again;
    assert!(!registry.withdraw(&again[0]) && registry.withdraw(&added[0]) && !registry.withdraw(&added[0]));
}
