//! Models of tasks and slices.

use std::sync::Arc;

use loom::thread;

use crate::check::{each_execution, Bytes};
use crate::error::{Class, Code, Error};
use crate::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use crate::sync::Mutex;
use crate::transport::slice::{canceled, Drained, Ends, Hold, Op, Sink, Slice, Status, Task, Work};

/// Counts what it hears.
#[derive(Default)]
struct Heard {
    completed: AtomicUsize,
    failed: AtomicUsize,
}

impl Sink for Heard {
    fn task_ended(&self, failed: bool) {
        if failed { &self.failed } else { &self.completed }.fetch_add(1, SeqCst);
    }

    fn tasks_completed(&self, count: usize) {
        self.completed.fetch_add(count, SeqCst);
    }
}

impl Heard {
    fn counts(&self) -> (usize, usize) {
        (self.completed.load(SeqCst), self.failed.load(SeqCst))
    }
}

/// Work of so many tasks, and so many slices of each, task by task.
fn work(tasks: u32, slices: usize) -> (Arc<Heard>, Arc<Work>, Vec<Slice>) {
    let heard = Arc::new(Heard::default());
    let work = Work::new((0..tasks).map(|_| Task::default()).collect(), None, heard.clone());
    let hold = Hold::new(&work, None);
    let each = |task| std::iter::repeat_n(task, slices);
    let slices = (0..tasks).flat_map(each).map(|task| hold.slice(task, Op::Write, 1, 1, 1)).collect();
    (heard, work, slices)
}

fn broken() -> Error {
    Error::new(Code::Socket, "broken").transient(Class::Network)
}

/// Whoever sees a task COMPLETED sees the bytes of all its slices, and nobody touches them any more; the batch hears of it once.
pub fn p01_a_completed_task_has_all_its_bytes() {
    each_execution(3, || {
        let (heard, work, slices) = work(1, 2);
        let bytes = Arc::new([(); 2].map(|()| Bytes::default()));
        let movers: Vec<_> = slices
            .into_iter()
            .enumerate()
            .map(|(at, slice)| {
                let bytes = bytes.clone();
                thread::spawn(move || {
                    bytes[at].write();
                    slice.complete(1);
                })
            })
            .collect();
        if work.tasks[0].status() == Status::Completed {
            assert_eq!((bytes[0].read(), bytes[1].read(), work.tasks[0].done_bytes()), (1, 1, 2));
        }
        movers.into_iter().for_each(|mover| mover.join().unwrap());
        assert_eq!((work.tasks[0].status(), heard.counts()), (Status::Completed, (1, 0)));
    });
}

/// The same where each thread ends several slices at once.
pub fn ends_of_several_slices_are_told_once() {
    each_execution(2, || {
        let (heard, work, mut slices) = work(2, 2);
        let others = [slices.remove(2), slices.remove(0)];
        let bytes = Arc::new([(); 2].map(|()| Bytes::default()));
        let (moved, theirs) = (bytes.clone(), slices);
        let mover = thread::spawn(move || {
            moved[0].write();
            let mut ends = Ends::default();
            theirs.into_iter().for_each(|slice| ends.complete(slice, 1));
        });
        bytes[1].write();
        let mut ends = Ends::default();
        others.into_iter().for_each(|slice| ends.complete(slice, 1));
        drop(ends);
        if work.tasks.iter().any(|task| task.status() == Status::Completed) {
            assert_eq!(bytes[0].read(), 1);
        }
        mover.join().unwrap();
        assert_eq!(heard.counts(), (2, 0));
    });
}

/// Where one of a task's slices failed, the one that ends it last tells of a failure.
pub fn an_end_after_a_failure_is_told_too() {
    each_execution(3, || {
        let (heard, _work, mut slices) = work(1, 2);
        let bad = slices.remove(0);
        let failing = thread::spawn(move || bad.fail(broken()));
        Ends::default().complete(slices.remove(0), 1);
        failing.join().unwrap();
        assert_eq!(heard.counts(), (0, 1));
    });
}

/// A task of which one slice fails is FAILED once all have ended, and whoever sees that sees why.
pub fn p16_a_failed_task_says_why() {
    each_execution(3, || {
        let (heard, work, mut slices) = work(1, 2);
        let bad = slices.remove(0);
        let good = slices.remove(0);
        let failing = thread::spawn(move || bad.fail(broken()));
        let moving = thread::spawn(move || good.complete(1));
        let status = work.tasks[0].status();
        assert_ne!(status, Status::Completed);
        if status == Status::Failed {
            assert_eq!(work.tasks[0].error().unwrap().code(), Code::Socket);
        }
        failing.join().unwrap();
        moving.join().unwrap();
        assert_eq!((work.tasks[0].status(), heard.counts()), (Status::Failed, (0, 1)));
    });
}

/// A slice that was canceled while it was queued ends, whichever of the two came first.
pub fn no_canceled_slice_stays_queued() {
    each_execution(3, || {
        let (heard, work, mut slices) = work(1, 1);
        let (queue, slice) = (Arc::new(Mutex::new(Vec::new())), slices.remove(0));
        let (theirs, theirs_work) = (queue.clone(), work.clone());
        let canceling = thread::spawn(move || {
            theirs_work.cancel();
            // As links do when they are told.
            let found: Vec<Slice> = theirs.lock().drain(..).collect();
            found.into_iter().for_each(|slice| slice.fail(canceled()));
        });
        {
            let mut queue = queue.lock();
            if slice.is_given_up() {
                slice.fail(canceled());
            } else {
                queue.push(slice);
            }
        }
        canceling.join().unwrap();
        assert!(queue.lock().is_empty());
        assert_eq!(heard.counts(), (0, 1));
    });
}

/// Nothing is called drained while a trail of the task is open.
pub fn p02_a_failed_task_is_not_drained_before_its_trails_end() {
    each_execution(3, || {
        let (_heard, work, mut slices) = work(1, 2);
        let (one, two) = (slices.remove(0), slices.remove(0));
        let open = Arc::new(AtomicUsize::new(1));
        let ours = two.leave_trail();
        let theirs = open.clone();
        let failing = thread::spawn(move || {
            theirs.fetch_add(1, SeqCst);
            let trail = one.leave_trail();
            one.fail(broken());
            theirs.fetch_sub(1, SeqCst);
            trail.end();
        });
        two.fail(broken());
        assert_eq!(work.drained(0), Some(Drained::No));
        open.fetch_sub(1, SeqCst);
        ours.end();
        let drained = work.drained(0).unwrap();
        if drained == Drained::Yes {
            assert_eq!(open.load(SeqCst), 0, "its bytes can still arrive");
            assert_eq!(work.tasks[0].status(), Status::Failed);
        }
        failing.join().unwrap();
        assert_eq!(work.drained(0), Some(Drained::Yes));
    });
}
