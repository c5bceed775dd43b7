//! Batches that are given up, and what is told of tasks.

use std::time::Instant;

use transfer_engine::engine::batch::Drained;
use transfer_engine::error::Class;

use crate::node::{Kind, FOREVER, READ, WRITE};
use crate::pair::{Pair, HALF};

/// Requests of a batch, and bytes of each: all of them fill a quarter of a node's memory.
const REQUESTS: usize = 16;
const SIZE: usize = HALF / 2 / REQUESTS;

pub fn p02_a_canceled_batch_ends_and_leaves_its_neighbours_alone(kind: Kind) {
    let pair = Pair::new(kind);
    let requests = |opcode, from: usize| -> Vec<_> {
        (0..REQUESTS).map(|index| pair.request(opcode, from + index * SIZE, SIZE)).collect()
    };
    for (round, opcode) in (0..20).zip([WRITE, READ].into_iter().cycle()) {
        // By turns the neighbour comes before and after it.
        let early = (round / 2 % 2 == 0).then(|| pair.here.submit(&requests(opcode, 0)).unwrap());
        let canceled = pair.here.submit(&requests(opcode, HALF / 2)).unwrap();
        let kept = early.unwrap_or_else(|| pair.here.submit(&requests(opcode, 0)).unwrap());
        canceled.cancel();
        let ends = kept.wait().unwrap();
        assert!(ends.iter().all(Option::is_none), "round {round}: the neighbour failed: {ends:?}");
        pair.check(0, HALF / 2);
        canceled.rest();
        let began = Instant::now();
        while !(0..REQUESTS).all(|task| canceled.drained(task) == Drained::Yes) {
            assert!(began.elapsed() < FOREVER, "round {round}: the peer never says that it takes no more");
            std::thread::yield_now();
        }
        let summary = canceled.summary();
        let ends = canceled.wait().unwrap();
        let failed: Vec<_> = ends.iter().flatten().collect();
        assert_eq!((summary.tasks, summary.failed), (REQUESTS, failed.len()), "round {round}");
        assert_eq!(summary.completed, REQUESTS - failed.len(), "round {round}");
        assert!(failed.iter().all(|error| error.kind() == Class::Canceled), "round {round}: {failed:?}");
        pair.here.overwrite();
    }
    pair.here.move_all(&[pair.request(WRITE, 0, HALF)]);
    pair.check(0, HALF);
}

pub fn p16_a_task_tells_when_it_came_how_far(kind: Kind) {
    let pair = Pair::new(kind);
    for _ in 0..2 {
        let batch = pair.here.submit(&[pair.request(WRITE, 0, HALF)]).unwrap();
        batch.rest();
        let report = batch.report(0);
        let phases = report.phases;
        assert!(report.error.is_none() && report.bytes == HALF as u64, "{:?}", report.error);
        assert!(phases.connected_us <= phases.posted_us && phases.posted_us <= phases.ended_us, "{phases:?}");
        assert!(phases.connected_us.is_some() && phases.attempts == 1, "{phases:?}");
        batch.wait().unwrap();
    }
}
