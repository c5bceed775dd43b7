//! Connections that were given up.

use super::*;
use crate::memory::shared::{allocate, free};
use crate::memory::Range;
use crate::transport::shm::connect::pair::{link, pair, received, shared};
use crate::transport::shm::wire::Kind;
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
