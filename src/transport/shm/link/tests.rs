//! Connections that were given up, and what their peers do not tell of.

use super::*;
use crate::memory::shared::{allocate, free};
use crate::memory::Range;
use crate::transport::shm::connect::pair::{link, pair, received, shared};
use crate::transport::shm::lane::tests::with_rings;
use crate::transport::shm::wire::{End, Kind};
use crate::transport::slice::deaf::work;
use crate::transport::slice::Op;

#[test]
fn a_peer_that_was_given_up_is_told_of_memory_that_is_freed() {
    let shared = shared();
    let link = link(&shared);
    let (connection, other) = pair(&shared);
    let memory = allocate(4096, false, None).unwrap();
    let (addr, len) = (memory.addr, memory.len);
    drop(memory);
    let region = shared.registry.insert(&[Range { addr, len }], "*", true).unwrap().remove(0);
    let write = Slice::new(&work(1), 0, Op::Write, addr, 1, len, region.begin_use());
    let mut lane = link.lane.lock();
    lane.stage = Stage::Up(Box::new(connection));
    lane.writes.push_back(write);
    lane.flush("peer").unwrap();
    assert!(lane.take_down(&errors::closed(), true, Stage::Idle).is_none(), "it lingers");
    assert_eq!(lane.lingering.len(), 1);
    drop(lane);
    assert!(received(&other).contains(&Kind::Share));
    let tick = || link.tick(Instant::now(), Duration::ZERO);
    tick();
    assert!(!received(&other).contains(&Kind::Unshare));
    shared.registry.revoke(addr).unwrap();
    shared.registry.remove(&region);
    drop(region);
    assert!(free(addr));
    tick();
    assert_eq!(received(&other), [Kind::Unshare]);
    tick();
    assert!(received(&other).is_empty(), "once is enough");
    assert_eq!(link.lane.lock().lingering.len(), 1, "the answer is still awaited");
}

#[test]
fn what_a_peer_left_in_the_ring_before_it_was_stopped_is_found() {
    let link = link(&shared());
    let (lane, _other, mut ring, _) = with_rings(&work(1));
    *link.lane.lock() = lane;
    assert!(ring.takes());
    ring.put(Kind::Ended, &[0, End::Applied as u64]);
    assert!(!ring.must_wake(), "a caller has polled");
    link.tick(Instant::now(), Duration::ZERO);
    assert_eq!(link.lane.lock().written, 1);
}
