//! How the queue pairs of a connection share the work of one thread, on the simulated libibverbs.

#![cfg(feature = "rdma")]

mod common;
mod rdma_node;

use rdma_node::{apart, Node, FOREVER};
use transfer_engine::engine::submit::Request;
use transfer_engine::memory::Range;

const MIB: u64 = 1 << 20;
const WRITE: i32 = 1;
const STATUS_COMPLETED: i32 = 4;

/// What a queue pair of a device did until it was destroyed.
#[derive(Debug)]
struct Did {
    bytes: u64,
    posts: u64,
}

/// Runs the test in a process of its own, where queue pairs are logged; `None` in the parent.
fn log(name: &str, more: &[(&str, &str)]) -> Option<String> {
    let file = std::env::temp_dir().join(format!("te-{name}-{}", std::process::id()));
    let mut environment = vec![("SIMVERBS_NOCOPY", "1"), ("SIMVERBS_QP_LOG", file.to_str().unwrap())];
    environment.extend_from_slice(more);
    if apart(name, &environment) {
        let _ = std::fs::remove_file(file);
        return None;
    }
    Some(std::env::var("SIMVERBS_QP_LOG").unwrap())
}

/// The queue pairs of a device that carried something.
fn busy(log: &str, device: &str) -> Vec<Did> {
    let text = std::fs::read_to_string(log).unwrap();
    let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let ours = lines.filter(|words| words[0] == device);
    let did = ours.map(|words| Did { bytes: words[3].parse().unwrap(), posts: words[4].parse().unwrap() });
    did.filter(|did| did.bytes > 0).collect()
}

/// Both engines with `len` bytes; `calls` submit calls of `count` requests of `each` bytes, all of them at once.
fn run(len: u64, calls: u64, count: u64, each: u64) {
    let (from, to) = (Node::new("sim0"), Node::new("sim1"));
    let (source, destination) = (vec![0u8; len as usize], vec![0u8; len as usize]);
    let (source_addr, destination_addr) = (source.as_ptr() as u64, destination.as_ptr() as u64);
    from.engine.register(&[Range { addr: source_addr, len }], "cpu:0", true).unwrap();
    to.engine.register(&[Range { addr: destination_addr, len }], "cpu:0", true).unwrap();
    // The first request waits for the connection, and is posted by another thread.
    assert!(from.write(to.name(), destination_addr, 1).unwrap().is_none());
    let target = from.engine.open_segment(to.name()).unwrap();
    let request = |index: usize| {
        let at = index as u64 * each;
        Request { opcode: WRITE, source: source_addr + at, target, offset: destination_addr + at, len: each }
    };
    let batch = from.engine.allocate_batch((calls * count) as usize).unwrap();
    for _ in 0..calls {
        from.engine.submit(batch, count as usize, request, None).unwrap();
    }
    from.engine.wait_batch(batch, Some(FOREVER)).unwrap();
    for task in 0..(calls * count) as usize {
        assert_eq!(from.engine.task_status(batch, task).unwrap().0, STATUS_COMPLETED);
    }
    from.engine.free_batch(batch).unwrap();
}

fn shared_by_bytes(log: &str, total: u64) {
    let did = busy(log, "sim0");
    assert_eq!(did.len(), 2, "{did:?}");
    assert!(did.iter().all(|did| did.bytes >= total * 9 / 20), "{did:?}");
}

#[test]
fn large_slices_of_several_calls_are_shared_by_bytes() {
    let settings = [("MC_SLICE_SIZE", "1048576"), ("SIMVERBS_GBPS", "10")];
    let Some(log) = log("large_slices_of_several_calls_are_shared_by_bytes", &settings) else { return };
    // None of them has enough for two queue pairs.
    run(64 * MIB, 64, 1, MIB);
    shared_by_bytes(&log, 64 * MIB);
}

#[test]
fn large_slices_of_one_call_are_shared_by_bytes() {
    let settings = [("MC_SLICE_SIZE", "1048576"), ("SIMVERBS_GBPS", "10")];
    let Some(log) = log("large_slices_of_one_call_are_shared_by_bytes", &settings) else { return };
    run(64 * MIB, 1, 1, 64 * MIB);
    shared_by_bytes(&log, 64 * MIB);
}

/// Spreading them was slower on soft-RoCE.
#[test]
fn small_calls_of_one_thread_stay_on_one_queue_pair_with_one_doorbell_each() {
    let name = "small_calls_of_one_thread_stay_on_one_queue_pair_with_one_doorbell_each";
    let Some(log) = log(name, &[("SIMVERBS_GBPS", "1")]) else { return };
    run(64 * 1024, 10, 16, 4096);
    let did = busy(&log, "sim0");
    let most = did.iter().max_by_key(|did| did.bytes).unwrap();
    assert!(most.bytes >= 10 * 16 * 4096, "{did:?}");
    // The first request may have gone over it.
    assert!((10..=11).contains(&most.posts), "{did:?}");
}
