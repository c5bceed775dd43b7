//! Models of batches: whoever waits, and whoever ends their tasks.

use std::sync::Arc;

use loom::thread;

use super::batch::{Batch, Pending};
use crate::check::each_execution;
use crate::error::{Class, Code, Error};
use crate::handshake::Notification;
use crate::sync::yield_now;
use crate::transport::slice::{Hold, Op, Slice, Status, Task, Work};

/// One more submit call of one task, with a notification if `notifies`; `None` if the batch is gone.
fn submit(batch: &Arc<Batch>, notifies: bool) -> Option<Slice> {
    let reservation = batch.reserve(1).ok()?;
    let work = Work::new(Box::new([Task::default()]), None, batch.clone());
    let slice = Hold::new(&work, None).slice(0, Op::Write, 1, 1, 1);
    let pending = notifies.then_some(Pending { target: 0, notification: Notification });
    match reservation.commit(&work, 1, &[], pending) {
        Ok(()) => Some(slice),
        Err(_) => {
            slice.discard();
            None
        }
    }
}

fn status(batch: &Batch, task: usize) -> Status {
    batch.with_task(task, Task::status).unwrap()
}

fn is_readable(fd: i32) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one live entry.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 }
}

fn ended(slice: Slice) -> thread::JoinHandle<()> {
    thread::spawn(move || slice.complete(1))
}

/// A wait ends with the last task.
pub fn p03_a_wait_ends() {
    each_execution(3, || {
        let batch = Arc::new(Batch::new(2).unwrap());
        let enders: Vec<_> = (0..2).map(|_| ended(submit(&batch, false).unwrap())).collect();
        assert!(batch.wait(None));
        assert_eq!([0, 1].map(|task| status(&batch, task)), [Status::Completed; 2]);
        enders.into_iter().for_each(|ender| ender.join().unwrap());
        batch.free(|_, _| {}).unwrap();
    });
}

/// The descriptor is readable once every task has ended, whenever it was made.
pub fn a_descriptor_tells_of_the_end() {
    each_execution(3, || {
        let batch = Arc::new(Batch::new(1).unwrap());
        let ender = ended(submit(&batch, false).unwrap());
        let fd = batch.descriptor().unwrap();
        if is_readable(fd) {
            assert_eq!(status(&batch, 0), Status::Completed);
        }
        ender.join().unwrap();
        assert!(is_readable(fd));
        batch.free(|_, _| {}).unwrap();
    });
}

/// It is not readable while a task runs that was submitted as the ones before ended.
pub fn a_descriptor_hears_of_new_tasks() {
    each_execution(3, || {
        let batch = Arc::new(Batch::new(2).unwrap());
        let fd = batch.descriptor().unwrap();
        let ender = ended(submit(&batch, false).unwrap());
        let next = submit(&batch, false).unwrap();
        assert!(!is_readable(fd));
        ender.join().unwrap();
        assert!(!is_readable(fd), "a task runs");
        next.complete(1);
        assert!(is_readable(fd));
        batch.free(|_, _| {}).unwrap();
    });
}

/// Whoever saw the last task end can free the batch.
pub fn a_batch_whose_end_was_seen_can_be_freed() {
    each_execution(3, || {
        let batch = Arc::new(Batch::new(1).unwrap());
        let ender = ended(submit(&batch, false).unwrap());
        while status(&batch, 0) == Status::Waiting {
            yield_now();
        }
        batch.free(|_, _| {}).unwrap();
        assert!(batch.is_gone());
        ender.join().unwrap();
    });
}

/// A notification is taken once, after the last task has ended, by whichever poll sees that; if one fails, never.
pub fn a_notification_is_due_once() {
    for fails in [false, true] {
        each_execution(2, move || {
            let batch = Arc::new(Batch::new(2).unwrap());
            let slices = [submit(&batch, false), submit(&batch, true)];
            let pollers: Vec<_> = slices
                .into_iter()
                .flatten()
                .enumerate()
                .map(|(at, slice)| {
                    let batch = batch.clone();
                    thread::spawn(move || {
                        if fails && at == 0 {
                            slice.fail(Error::new(Code::Socket, "broken").transient(Class::Network));
                        } else {
                            slice.complete(1);
                        }
                        batch.take_due_notification().is_some()
                    })
                })
                .collect();
            let taken = pollers.into_iter().map(|poller| poller.join().unwrap());
            let taken =
                taken.filter(|taken| *taken).count() + usize::from(batch.take_due_notification().is_some());
            assert_eq!(taken, usize::from(!fails));
            batch.free(|_, _| {}).unwrap();
        });
    }
}

/// Of a submit call that meets the end of its engine nothing is left.
pub fn p14_nothing_is_left_of_a_submit_call_when_the_engine_ends() {
    each_execution(3, || {
        let batch = Arc::new(Batch::new(1).unwrap());
        let theirs = batch.clone();
        let ending = thread::spawn(move || theirs.abandon(|_, _| {}));
        let slice = submit(&batch, false);
        ending.join().unwrap();
        drop(slice);
        assert_eq!(Arc::strong_count(&batch), 1, "its work refers to it");
    });
}
