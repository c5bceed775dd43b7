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
    requests: u64,
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
    let did = ours.map(|words| {
        let [requests, bytes, posts] = [2, 3, 4].map(|at| words[at].parse().unwrap());
        Did { requests, bytes, posts }
    });
    did.filter(|did| did.bytes > 0).collect()
}

/// Two engines with one NIC each, and `len` bytes; `calls` submit calls of `count` requests of `each` bytes, all of them
/// at once.
fn run(len: u64, calls: u64, count: u64, each: u64) {
    run_between(&Node::new("sim0"), &Node::new("sim1"), len, calls, count, each, None);
}

/// `nics`: the local ones to be used.
fn run_between(from: &Node, to: &Node, len: u64, calls: u64, count: u64, each: u64, nics: Option<&str>) {
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
        from.engine.submit_over(batch, count as usize, request, None, nics).unwrap();
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

/// Two engines with four NICs each.
fn four_nics() -> (Node, Node) {
    let matrix = |nics: &str| format!(r#"{{"cpu:0":[[{nics}],[]]}}"#);
    let from = Node::over(&matrix(r#""sim0","sim1","sim2","sim3""#));
    let to = Node::over(&matrix(r#""sim4","sim5","sim6","sim7""#));
    (from, to)
}

/// Work requests and bytes of four NICs in a call of `count` requests of `each` bytes.
fn cut(log: &str, count: u64, each: u64) -> Vec<(u64, u64)> {
    let (from, to) = four_nics();
    let len = count * each;
    run_between(&from, &to, len, 1, count, each, None);
    drop((from, to));
    let sum =
        |nic: &str| busy(log, nic).iter().fold((0, 0), |sum, did| (sum.0 + did.requests, sum.1 + did.bytes));
    ["sim0", "sim1", "sim2", "sim3"].map(sum).to_vec()
}

const EIGHT: (&str, &str) = ("SIMVERBS_DEVICES", "sim0,sim1,sim2,sim3,sim4,sim5,sim6,sim7");
/// Fast, but nothing has completed before all is posted.
const FAST: [(&str, &str); 3] = [EIGHT, ("SIMVERBS_GBPS", "400"), ("SIMVERBS_LAT_US", "100000")];

/// What connecting takes: the first byte, and an empty write on each queue pair.
const APART: u64 = 8;

#[test]
fn one_request_is_cut_for_all_nics() {
    let Some(log) = log("one_request_is_cut_for_all_nics", &FAST) else { return };
    let nics = cut(&log, 1, MIB);
    assert!(nics.iter().all(|(_, bytes)| (MIB / 4..=MIB / 4 + 1).contains(bytes)), "{nics:?}");
    assert!(nics.iter().all(|(requests, _)| *requests <= APART), "{nics:?}");
}

#[test]
fn large_requests_that_are_enough_for_all_nics_are_not_cut() {
    let Some(log) = log("large_requests_that_are_enough_for_all_nics_are_not_cut", &FAST) else { return };
    let nics = cut(&log, 64, MIB);
    assert!(nics.iter().all(|(_, bytes)| (16 * MIB..=16 * MIB + 1).contains(bytes)), "{nics:?}");
    assert!(nics.iter().all(|(requests, _)| (16..=16 + APART).contains(requests)), "{nics:?}");
}

#[test]
fn no_slice_is_longer_than_what_is_set() {
    let settings = [FAST[0], FAST[1], FAST[2], ("MC_SLICE_SIZE", "65536")];
    let Some(log) = log("no_slice_is_longer_than_what_is_set", &settings) else { return };
    let nics = cut(&log, 64, MIB);
    assert!(nics.iter().all(|(requests, _)| (256..=256 + APART).contains(requests)), "{nics:?}");
}

/// Runs the test in a process of its own, in which one of the NICs that move 128 MB/s moves a tenth of that. `None` in the
/// parent.
fn log_with_a_slow_nic(name: &str) -> Option<String> {
    let control = std::env::temp_dir().join(format!("te-{name}-{}.nics", std::process::id()));
    let settings = [EIGHT, ("SIMVERBS_GBPS", "1"), ("SIMVERBS_CTL", control.to_str().unwrap())];
    let is_parent = std::env::var("SIMVERBS_CTL").is_err();
    if is_parent {
        std::fs::write(&control, "slow sim0 10\n").unwrap();
    }
    let log = log(name, &settings);
    if is_parent {
        std::fs::remove_file(&control).unwrap();
    }
    log
}

fn bytes(log: &str, nic: &str) -> u64 {
    busy(log, nic).iter().map(|did| did.bytes).sum()
}

#[test]
fn p28_what_waits_for_a_nic_that_has_become_slow_goes_over_the_others() {
    let name = "p28_what_waits_for_a_nic_that_has_become_slow_goes_over_the_others";
    let Some(log) = log_with_a_slow_nic(name) else { return };
    let (from, to) = four_nics();
    // Nothing is known of the NICs yet, so each is given a quarter at first.
    run_between(&from, &to, 64 * MIB, 1, 64, MIB, None);
    drop((from, to));
    let slow = bytes(&log, "sim0");
    // A quarter is 16 MiB, and it had 4 MiB posted when it was seen to be slow.
    assert!((MIB..=13 * MIB).contains(&slow), "{slow}");
}

#[test]
fn what_waits_for_a_slow_nic_that_the_caller_has_named_stays_there() {
    let name = "what_waits_for_a_slow_nic_that_the_caller_has_named_stays_there";
    let Some(log) = log_with_a_slow_nic(name) else { return };
    let (from, to) = four_nics();
    run_between(&from, &to, 12 * MIB, 1, 12, MIB, Some("sim0"));
    drop((from, to));
    let slow = bytes(&log, "sim0");
    assert!((12 * MIB..=12 * MIB + 1).contains(&slow), "{slow}");
}
