use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::error::{Class, Code, Error};
use crate::observe::histogram::Histogram;
use crate::transport::slice::{End, Op, Sink, Slice, Status, Task};

struct Nobody;

impl Sink for Nobody {
    fn task_ended(&self, _failed: bool) {}
}

fn tally_of(work: &Work) -> Tally {
    let mut tally = Tally::NONE;
    Counter::new(&mut tally).add(work.ended());
    tally
}

/// Three WRITEs, of which one is done, one late and one under way; and a READ of two slices, of which one was sent twice.
#[test]
fn p18_tasks_are_counted_by_direction_size_latency_and_failure() {
    let tasks = (0..4).map(|_| Task::default()).collect();
    let work = Work::new(tasks, Some(Instant::now() + Duration::from_secs(9)), Arc::new(Nobody));
    let done = Slice::new(&work, 0, Op::Write, 0, 0, 5000, None);
    let late = Slice::new(&work, 1, Op::Write, 0, 0, 7, None);
    let running = Slice::new(&work, 2, Op::Write, 0, 0, 9, None);
    let halves = [0, 1].map(|at| Slice::new(&work, 3, Op::Read, at, at, 1 << 20, None));
    assert_eq!(tally_of(&work), Tally::NONE, "nothing has ended");

    let submitted = work.phases(0).unwrap().submitted_ns;
    done.complete(submitted + 700_000);
    late.fail(Error::new(Code::Socket, "late").transient(Class::Timeout));
    let [first, second] = halves;
    first.note_posted(submitted);
    first.note_resent();
    first.complete(submitted + 1000);
    assert_eq!(tally_of(&work).read.requests, 0, "half a task");
    second.complete(submitted + 60_000_000);

    let tally = tally_of(&work);
    let (read, write) = (&tally.read, &tally.write);
    assert_eq!((write.requests, write.bytes, write.timeouts(), write.other_failures()), (2, 5000, 1, 0));
    assert_eq!((read.requests, read.bytes, read.timeouts(), read.resent), (1, 2 << 20, 0, 1));
    let filled =
        |histogram: &Histogram| histogram.buckets().filter(|(_, count)| *count > 0).collect::<Vec<_>>();
    assert_eq!(filled(&write.latency_of_all()), [(1000, 1)]);
    assert_eq!(filled(&write.latency[1]), [(1000, 1)], "up to 64 KiB");
    assert_eq!(filled(&write.size), [(16384, 1)]);
    assert_eq!(filled(&read.latency_of_all()), [(100_000, 1)]);
    assert_eq!(filled(&read.latency[3]), [(100_000, 1)], "up to 16 MiB");
    assert_eq!(filled(&read.size), [(4 << 20, 1)]);
    running.discard();
}

#[test]
fn p18_freed_batches_stay_counted_and_no_counter_falls() {
    let before = so_far(|_| {}).write;
    freed(|last| {
        let work = Work::new(Box::from([Task::default()]), None, Arc::new(Nobody));
        Slice::new(&work, 0, Op::Write, 0, 0, 64, None).complete(0);
        last(&work, &[]);
    });
    let after = so_far(|_| {}).write;
    // Other tests of this process free batches meanwhile.
    assert!(after.requests > before.requests && after.bytes >= before.bytes + 64);
    let told = so_far(|_| {});
    assert!(told.write.requests >= after.requests);
    // A batch that is freed between two looks at it may be missing in what was added up: what was told stays.
    let mut short = Tally::NONE;
    short.raise(&told);
    assert_eq!(short, told);
}

/// Nobody is told any more what becomes of them, so they end as far as counts go.
#[test]
fn p18_tasks_that_wait_when_their_engine_ends_are_counted_as_canceled() {
    let batch = Arc::new(Batch::new(2).unwrap());
    let work = Work::new((0..2).map(|_| Task::default()).collect(), None, batch.clone());
    let done = Slice::new(&work, 0, Op::Read, 0, 0, 64, None);
    let waits = Slice::new(&work, 1, Op::Read, 0, 0, 64, None);
    batch.reserve(2).unwrap().commit(&work, 2, &[], None).unwrap();
    done.complete(0);
    let mut tally = Tally::NONE;
    let error = canceled();
    batch.abandon(|work, _| Counter::new(&mut tally).add(work.all(&error)));
    assert_eq!((tally.read.requests, tally.read.bytes), (2, 64));
    assert_eq!(tally.read.failures[Class::Canceled as usize], 1);

    let before = so_far(|_| {}).write.failures[Class::Canceled as usize];
    abandoned(|last| {
        let work = Work::new(Box::from([Task::default()]), None, Arc::new(Nobody));
        let waits = Slice::new(&work, 0, Op::Write, 0, 0, 64, None);
        last(&work, &[]);
        waits.discard();
    });
    assert!(so_far(|_| {}).write.failures[Class::Canceled as usize] > before);
    waits.discard();
    // The other way round, nothing of what was abandoned is there to be counted again.
    batch.works(|_, _| panic!("a batch that was abandoned has work"));
}

#[test]
fn names_of_classes_are_complete_and_differ() {
    let numbers: std::collections::BTreeSet<usize> =
        Class::NAMES.iter().map(|(class, _)| *class as usize).collect();
    assert_eq!(numbers, (1..Class::COUNT).collect());
}

/// Whatever follows whatever: counting in runs is counting each by itself.
#[test]
fn runs_of_tasks_are_counted_like_single_ones() {
    let late = Error::new(Code::Socket, "late").transient(Class::Timeout);
    let mut random = 7_u64;
    let mut next = |most: u64| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) % most
    };
    let (mut together, mut apart) = (Tally::NONE, Tally::NONE);
    let mut counter = Counter::new(&mut together);
    for _ in 0..20_000 {
        let failed = next(20) == 0;
        let end = End {
            op: if next(4) == 0 { Op::Write } else { Op::Read },
            status: if failed { Status::Failed } else { Status::Completed },
            bytes: 4096 << (6 * next(2)),
            error: failed.then_some(&late),
            // Around 100 and 500 us, and far beyond the last bound.
            took: [96, 97, 98, 99, 487, 488, 489, 490, u32::MAX][next(9) as usize],
            resent: u32::from(next(30) == 0),
        };
        counter.add([end].into_iter());
        Counter::new(&mut apart).add([end].into_iter());
    }
    drop(counter);
    for (run, single) in [(&together.read, &apart.read), (&together.write, &apart.write)] {
        assert!(single.requests > 1000 && single.timeouts() > 10 && single.resent > 10);
        assert_eq!((run.requests, run.bytes, run.resent), (single.requests, single.bytes, single.resent));
        assert_eq!((run.failures, &run.size), (single.failures, &single.size));
        let buckets =
            |direction: &Direction| direction.latency.iter().flat_map(Histogram::buckets).collect::<Vec<_>>();
        assert_eq!(buckets(run), buckets(single));
        // Of a run the sum is rounded once.
        let sum = |direction: &Direction| direction.latency_of_all().sum();
        assert!(sum(run).abs_diff(sum(single)) <= single.requests);
    }
}

/// What is counted at the end of a batch is what is added up while it is there.
#[test]
fn tasks_are_counted_by_the_peer_they_go_to_and_by_their_end() {
    let segments = crate::engine::segment::tests::numbered(&[7, 9]);
    let work = Work::new((0..5).map(|_| Task::default()).collect(), Some(Instant::now()), Arc::new(Nobody));
    work.targets.set_several([7, 9, 0].into());
    for (task, place) in [(0, 0), (1, 1), (2, 1), (3, 2), (4, 1)] {
        work.tasks[task].set_place(place);
    }
    let slice = |task, op, bytes| Slice::new(&work, task, op, 0, 0, bytes, None);
    let slices = [
        slice(0, Op::Write, 100),
        slice(1, Op::Read, 20),
        slice(2, Op::Read, 3),
        slice(3, Op::Read, 4000),
        slice(4, Op::Write, 5),
    ];
    let [first, second, late, own, waits] = slices;
    first.complete(0);
    second.note_resent();
    second.complete(0);
    late.fail(Error::new(Code::Socket, "late").transient(Class::Timeout));
    own.complete(0);
    let numbers = |at: usize| segments[at].peer.as_ref().unwrap().load();
    freed(|last| last(&work, &segments));
    assert_eq!((numbers(0).bytes, numbers(0).ends[1]), ([0, 100], [1, 0, 0, 0]));
    assert_eq!((numbers(1).bytes, numbers(1).ends), ([20, 0], [[1, 0, 1, 0], [0; 4]]));
    assert_eq!(numbers(1).resent, [1, 0]);
    let peers = Peers::new(1);
    let named = peers.enter("as the second").unwrap();
    let mut look = peers.look();
    work.ended_by_target().filter(|(place, _)| *place == 1).for_each(|(_, end)| look.add(&named, &end));
    assert_eq!(look.told()[0].1, numbers(1), "whoever looks sees what will be counted");
    abandoned(|last| last(&work, &segments));
    assert_eq!(numbers(1).ends[1], [0, 0, 0, 1], "what waits when the engine ends is canceled");
    waits.discard();

    let single = Work::new(Box::from([Task::default()]), None, Arc::new(Nobody));
    single.targets.set(9);
    Slice::new(&single, 0, Op::Write, 0, 0, 64, None).complete(0);
    let before = numbers(1);
    freed(|last| last(&single, &segments));
    assert_eq!((numbers(1).bytes[1], numbers(1).ends[1][0]), (before.bytes[1] + 64, before.ends[1][0] + 1));
}
