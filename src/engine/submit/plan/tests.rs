//! Plans while the peer's memory changes, and what they keep in use.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::memory::{Range, Region};
use crate::transport::Link;

const LEN: u64 = 4096;

fn engine() -> Arc<Engine> {
    let engine = Engine::create("P2PHANDSHAKE", "127.0.0.1", false).unwrap();
    engine.install_transport("tcp", None).unwrap();
    engine
}

fn range(bytes: &[u8], part: u64) -> Range {
    Range { addr: bytes.as_ptr() as u64 + part * LEN, len: LEN }
}

#[test]
fn there_is_room_from_each_byte_of_a_range_to_its_end() {
    let rooms = [99, 100, 149, 150, u64::MAX].map(|addr| room((100, 50), addr));
    assert_eq!(rooms, [None, Some(50), Some(1), None, None]);
}

#[test]
fn p06_a_peer_that_has_one_range_or_the_other_is_not_asked_for_ever() {
    let (here, there) = (engine(), engine());
    let (ours, theirs) = (vec![7u8; LEN as usize], vec![0u8; 2 * LEN as usize]);
    here.register(&[range(&ours, 0)], "cpu:0", true).unwrap();
    let published = Cell::new(0);
    let publish = |part: usize| {
        if published.replace(part) != part {
            there.unregister([range(&theirs, 1 - part as u64).addr].into_iter()).unwrap();
            there.register(&[range(&theirs, part as u64)], "cpu:0", true).unwrap();
        }
    };
    there.register(&[range(&theirs, 0)], "cpu:0", true).unwrap();
    let target = here.open_segment(&there.local.name).unwrap();
    let batch = here.batch(here.allocate_batch(2).unwrap()).unwrap();
    let mut plan = Plan::new(&here, &batch, 2).unwrap();
    let asked = Cell::new(0);
    // Whatever request is looked at, the peer has its range by then, and not the other's.
    let entry = |index: usize| {
        asked.set(asked.get() + 1);
        assert!(asked.get() < 100, "it goes on for ever");
        publish(index);
        let (source, offset) = (ours.as_ptr() as u64, range(&theirs, index as u64).addr);
        Request { opcode: 1, source, target, offset, len: LEN }
    };
    let error = plan.fill(2, &entry).unwrap_err();
    assert_eq!(error.code(), Code::AddressNotRegistered, "{error}");
    plan.discard();
    drop(plan);
    here.unregister([ours.as_ptr() as u64].into_iter()).unwrap();
    here.destroy();
    there.destroy();
}

/// Completes what is submitted, and looks whether the region is idle then.
struct Ended(Arc<Region>, AtomicBool);

impl Link for Ended {
    fn submit(&self, slices: Vec<Slice>, _: u64) {
        slices.into_iter().for_each(|slice| slice.complete(0));
        self.1.store(self.0.wait_idle(Duration::ZERO), Ordering::SeqCst);
    }

    fn poll(&self) -> bool {
        false
    }

    fn rely_on_threads(&self) {}

    fn give_up(&self) {}

    fn close(&self, _: &Error) {}
}

#[test]
fn p03_a_region_whose_tasks_have_ended_is_idle_although_others_are_not_posted_yet() {
    let (here, there) = (engine(), engine());
    let (ours, theirs) = (vec![7u8; LEN as usize], vec![0u8; LEN as usize]);
    let region = here.local.registry.insert(&[range(&ours, 0)], "cpu:0", true).unwrap().remove(0);
    there.register(&[range(&theirs, 0)], "cpu:0", true).unwrap();
    let target = here.open_segment(&there.local.name).unwrap();
    let batch = here.batch(here.allocate_batch(3).unwrap()).unwrap();
    let reservation = batch.reserve(3).unwrap();
    let mut plan = Plan::new(&here, &batch, 3).unwrap();
    let (source, offset) = (ours.as_ptr() as u64, theirs.as_ptr() as u64);
    plan.fill(3, &|_| Request { opcode: 1, source, target, offset, len: LEN }).unwrap();
    let link = Arc::new(Ended(region.clone(), AtomicBool::new(false)));
    plan.targets[0].remote.as_mut().unwrap().way.link = link.clone();
    reservation.commit(&plan.work, plan.running, &[], None).unwrap();
    assert!(!region.wait_idle(Duration::ZERO));
    plan.start(None);
    assert!(link.1.load(Ordering::SeqCst));
    assert!(batch.is_done());
    here.destroy();
    there.destroy();
}
