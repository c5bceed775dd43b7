//! What waits for room on a NIC is posted in turn, batch by batch, on the simulated libibverbs. The order of postings is
//! counted, never how long anything took.

#![cfg(feature = "rdma")]

mod common;
mod rdma_node;

use rdma_node::{apart, Node, FOREVER};
use transfer_engine::engine::submit::Request;

const WRITE: i32 = 1;
const KIB: u64 = 1 << 10;
/// Slow enough that a batch of as much as the next line says does not end while the test's thread is not scheduled.
const SETTINGS: [(&str, &str); 3] =
    [("SIMVERBS_NOCOPY", "1"), ("SIMVERBS_GBPS", "1"), ("MC_SLICE_SIZE", "65536")];
/// 256 MiB, two seconds.
const HUGE: usize = 4096;
/// Requests of 64 KiB that make one turn of a batch.
const TURN: usize = 16;

/// Two engines that are connected.
struct Pair {
    from: Node,
    to: Node,
    target: i32,
}

impl Pair {
    fn new() -> Self {
        let (from, to) = (Node::new("sim0"), Node::new("sim1"));
        // The first request waits for the connection, and is posted by another thread.
        assert!(from.write(to.name(), to.addr(), 1).unwrap().is_none());
        let target = from.engine.open_segment(to.name()).unwrap();
        Pair { from, to, target }
    }

    /// `calls` submit calls of `count` requests each, all of the same memory.
    fn submit(&self, calls: usize, count: usize, len: u64) -> u64 {
        let request = Request {
            opcode: WRITE,
            source: self.from.addr(),
            target: self.target,
            offset: self.to.addr(),
            len,
        };
        let batch = self.from.engine.allocate_batch(calls * count).unwrap();
        for _ in 0..calls {
            self.from.engine.submit(batch, count, |_| request, None).unwrap();
        }
        batch
    }

    /// Times of the submit call and of the posting of each task that was posted, ns, earliest posting first.
    fn posted(&self, batch: u64, count: usize) -> Vec<(u64, u64)> {
        let phases = (0..count).map(|task| self.from.engine.task_report(batch, task).unwrap().phases);
        let mut posted: Vec<(u64, u64)> = phases
            .filter_map(|phases| {
                Some((phases.submitted_ns, phases.submitted_ns + u64::from(phases.posted_us?) * 1000))
            })
            .collect();
        posted.sort_by_key(|(_, posted)| *posted);
        posted
    }

    fn end(&self, batches: &[u64]) {
        for batch in batches {
            self.from.engine.cancel_batch(*batch).unwrap();
        }
        for batch in batches {
            self.from.engine.wait_batch(*batch, Some(FOREVER)).unwrap();
            self.from.engine.free_batch(*batch).unwrap();
        }
    }

    /// A small request is submitted behind a huge batch of `calls` calls: so much of the batch is posted in between.
    fn overtaken(&self, calls: usize) -> usize {
        let huge = self.submit(calls, HUGE / calls, 64 * KIB);
        let small = self.submit(1, 1, 4 * KIB);
        self.from.engine.wait_batch(small, Some(FOREVER)).unwrap();
        let (submitted, posted) = self.posted(small, 1)[0];
        let others = self.posted(huge, HUGE);
        assert!(others.len() < HUGE, "the huge batch was posted as a whole before the small one had ended");
        let between = others.iter().filter(|(_, at)| (submitted..=posted).contains(at)).count();
        self.end(&[huge, small]);
        between
    }
}

#[test]
fn a_small_request_behind_a_huge_batch_waits_for_one_turn_of_it() {
    if apart("a_small_request_behind_a_huge_batch_waits_for_one_turn_of_it", &SETTINGS) {
        return;
    }
    let pair = Pair::new();
    let between = pair.overtaken(1);
    assert!(between <= 2 * TURN, "{between}");
}

#[test]
fn a_batch_of_many_calls_has_no_more_turns_than_one_of_one_call() {
    if apart("a_batch_of_many_calls_has_no_more_turns_than_one_of_one_call", &SETTINGS) {
        return;
    }
    let pair = Pair::new();
    let between = pair.overtaken(1024);
    assert!(between <= 2 * TURN, "{between}");
}

#[test]
fn batches_that_wait_are_posted_alike() {
    if apart("batches_that_wait_are_posted_alike", &SETTINGS) {
        return;
    }
    const FEW: usize = 10 * TURN;
    let pair = Pair::new();
    let huge = pair.submit(1, HUGE, 64 * KIB);
    let few = [pair.submit(1, FEW, 64 * KIB), pair.submit(4, FEW / 4, 64 * KIB)];
    for batch in few {
        pair.from.engine.wait_batch(batch, Some(FOREVER)).unwrap();
    }
    let times = few.map(|batch| pair.posted(batch, FEW));
    let start = times.iter().map(|posted| posted[0].1).max().unwrap();
    let end = times.iter().map(|posted| posted[FEW - 1].1).min().unwrap();
    let within = |posted: &[(u64, u64)]| posted.iter().filter(|(_, at)| (start..=end).contains(at)).count();
    let counts = [within(&times[0]), within(&times[1]), within(&pair.posted(huge, HUGE))];
    assert!(counts.iter().all(|count| (8 * TURN..=12 * TURN).contains(count)), "{counts:?}");
    pair.end(&[huge, few[0], few[1]]);
}
