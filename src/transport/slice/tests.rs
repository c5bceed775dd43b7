//! Ends of slices and tasks.

use super::*;
use std::sync::atomic::AtomicUsize;

#[derive(Default)]
struct Count(AtomicUsize, AtomicUsize);

impl Sink for Count {
    fn task_ended(&self, failed: bool) {
        let counter = if failed { &self.1 } else { &self.0 };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn work() -> (Arc<Work>, Arc<Count>) {
    let count = Arc::new(Count::default());
    let tasks = vec![Task::default()].into_boxed_slice();
    (Work::new(tasks, None, count.clone()), count)
}

#[test]
fn a_task_ends_with_its_last_slice_and_keeps_the_first_error() {
    let (work, count) = work();
    let slices: [_; 3] = std::array::from_fn(|_| Slice::new(&work, 0, Op::Read, 1, 2, 10, None));
    let [one, two, three] = slices;
    one.note_posted(work.submitted_ns + 5 * 1024);
    one.note_posted(work.submitted_ns + 6 * 1024);
    two.note_resent();
    one.complete(work.submitted_ns + 7_000);
    two.fail(Error::invalid("first"));
    let phases = work.phases(0).unwrap();
    assert_eq!((phases.connected_us, phases.posted_us, phases.ended_us), (Some(0), Some(5), None));
    assert_eq!(phases.attempts, 2);
    assert_eq!(work.tasks[0].status(), Status::Waiting);
    assert!(work.tasks[0].error().is_none());
    three.fail(Error::invalid("second"));
    assert_eq!(work.tasks[0].status(), Status::Failed);
    assert_eq!(work.tasks[0].error().unwrap().text(), "first");
    assert_eq!(work.tasks[0].done_bytes(), 10);
    assert!(work.phases(0).unwrap().ended_us.is_some() && work.phases(1).is_none());
    assert_eq!((count.0.load(Ordering::Relaxed), count.1.load(Ordering::Relaxed)), (0, 1));
}

#[test]
fn a_task_that_was_posted_before_a_connection_came_had_one() {
    let tasks = vec![Task::default(), Task::default(), Task::default()].into_boxed_slice();
    let work = Work::new(tasks, None, Arc::new(Count::default()));
    let [early, late, _waiting] =
        std::array::from_fn(|task| Slice::new(&work, task as u32, Op::Read, 1, 2, 10, None));
    let at = |units: u64| work.submitted_ns + units * 1024;
    early.note_posted(at(1));
    // Of another connection of the same peer.
    late.note_connected(at(5));
    late.note_posted(at(6));
    let phases = [0, 1, 2].map(|task| work.phases(task).unwrap());
    let seen = phases.map(|phases| (phases.connected_us, phases.posted_us));
    assert_eq!(seen, [(Some(0), Some(1)), (Some(5), Some(6)), (Some(5), None)]);
}

#[test]
fn p02_a_task_is_drained_when_its_last_trail_has_ended() {
    let (work, _) = work();
    let [one, two] = std::array::from_fn(|_| Slice::new(&work, 0, Op::Write, 1, 2, 10, None));
    assert_eq!(work.drained(0), Some(Drained::No));
    let trails = [one.leave_trail(), two.leave_trail()];
    one.fail(Error::invalid("gone"));
    assert!(two.has_failed_task() && two.is_given_up() && !two.has_siblings());
    two.fail(canceled());
    assert_eq!(work.tasks[0].error().unwrap().text(), "gone");
    let [one, two] = trails;
    one.end();
    assert_eq!(work.drained(0), Some(Drained::No));
    two.end();
    assert_eq!((work.drained(0), work.drained(1)), (Some(Drained::Yes), None));
}

#[test]
fn p02_a_trail_that_nobody_followed_to_its_end_is_never_called_drained() {
    let (work, _) = work();
    let [one, two] = std::array::from_fn(|_| Slice::new(&work, 0, Op::Write, 1, 2, 10, None));
    let (lost, ended) = (one.leave_trail(), two.leave_trail());
    work.cancel();
    assert!(one.is_given_up() && !one.has_failed_task());
    one.fail(canceled());
    two.fail(canceled());
    drop(lost);
    ended.end();
    assert_eq!(work.drained(0), Some(Drained::Unknown));
    assert_eq!(work.tasks[0].error().unwrap().kind(), Class::Canceled);
}

#[test]
fn p17_a_dropped_slice_fails_its_task() {
    let (work, count) = work();
    drop(Slice::new(&work, 0, Op::Write, 1, 2, 30, None));
    assert_eq!(work.tasks[0].status(), Status::Failed);
    assert_eq!(work.tasks[0].error().unwrap().kind(), Class::Internal);
    assert_eq!(count.1.load(Ordering::Relaxed), 1);
}

#[test]
fn a_deadline_is_set_once() {
    let (work, _) = work();
    work.set_deadline(None);
    assert_eq!(work.deadline(), None);
    let deadline = Instant::now();
    work.set_deadline(Some(deadline));
    work.set_deadline(deadline.checked_add(std::time::Duration::from_secs(1)));
    assert_eq!(work.deadline(), Some(deadline));
}
