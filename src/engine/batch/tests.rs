//! Room, ends and waiting.

use super::*;
use crate::runtime::poll::readable;
use crate::transport::slice::{Op, Slice};
use std::time::{Duration, Instant};

fn submit(batch: &Arc<Batch>, count: usize) -> Result<Vec<Slice>> {
    let reservation = batch.reserve(count)?;
    let tasks = (0..count).map(|_| Task::default()).collect();
    let work = Work::new(tasks, None, batch.clone());
    let slices = (0..count as u32).map(|task| Slice::new(&work, task, Op::Read, 1, 2, 8, None)).collect();
    reservation.commit(&work, count, &[], None)?;
    Ok(slices)
}

#[test]
fn capacity_is_checked_and_a_refused_call_leaves_nothing() {
    let batch = Arc::new(Batch::new(3).unwrap());
    let slices = submit(&batch, 2).unwrap();
    assert_eq!(submit(&batch, 2).err().unwrap().code(), Code::TooManyRequests);
    drop(batch.reserve(1).unwrap());
    let more = submit(&batch, 1).unwrap();
    assert_eq!(batch.free(|_, _| {}).err().unwrap().code(), Code::BatchBusy);
    slices.into_iter().chain(more).for_each(|slice| slice.complete(0));
    assert_eq!(batch.with_task(2, |task| task.done_bytes()).unwrap(), 8);
    assert_eq!(batch.with_task(3, |_| ()).err().unwrap().code(), Code::InvalidArgument);
    batch.free(|_, _| {}).unwrap();
    assert_eq!(batch.free(|_, _| {}).err().unwrap().code(), Code::InvalidArgument);
}

#[test]
fn places_that_a_call_has_reserved_count_as_used() {
    let batch = Arc::new(Batch::new(3).unwrap());
    let slices = submit(&batch, 1).unwrap();
    let under_way = batch.reserve(1).unwrap();
    assert_eq!(batch.reserve(2).err().unwrap().code(), Code::TooManyRequests);
    drop(batch.reserve(1).unwrap());
    drop(under_way);
    assert_eq!(batch.reserve(3).err().unwrap().code(), Code::TooManyRequests);
    drop(batch.reserve(2).unwrap());
    slices.into_iter().for_each(|slice| slice.complete(0));
    assert!(!batch.is_single() && Batch::new(1).unwrap().is_single());
}

#[test]
fn the_descriptor_is_readable_while_every_task_has_ended() {
    let batch = Arc::new(Batch::new(2).unwrap());
    let fd = batch.descriptor().unwrap();
    let is_readable = || readable([fd], 0) == [true];
    assert!(!is_readable(), "nothing was submitted");
    for _ in 0..2 {
        let slices = submit(&batch, 1).unwrap();
        assert!(!is_readable());
        slices.into_iter().for_each(|slice| slice.complete(0));
        assert!(is_readable());
    }
}

#[test]
fn p14_a_call_that_its_engines_end_overtakes_leaves_nothing() {
    let batch = Arc::new(Batch::new(1).unwrap());
    let reservation = batch.reserve(1).unwrap();
    let work = Work::new([Task::default()].into(), None, batch.clone());
    batch.abandon(|_, _| {});
    assert_eq!(reservation.commit(&work, 0, &[], None).unwrap_err().code(), Code::Socket);
    assert!(batch.reserve(1).is_err());
    let weak = Arc::downgrade(&batch);
    drop((batch, work));
    assert_eq!(weak.strong_count(), 0);
}

#[test]
fn p13_a_batch_that_cannot_be_held_is_out_of_memory() {
    for size in [usize::MAX, 1 << 60] {
        assert_eq!(Batch::new(size).err().unwrap().code(), Code::Memory);
    }
}

#[test]
fn a_waiter_sleeps_until_the_last_task_ends() {
    let batch = Arc::new(Batch::new(8).unwrap());
    assert!(batch.wait(None));
    let slices = submit(&batch, 4).unwrap();
    assert!(!batch.wait(Some(Instant::now() + Duration::from_millis(1))));
    let waiter = {
        let batch = batch.clone();
        std::thread::spawn(move || batch.wait(None))
    };
    slices.into_iter().for_each(|slice| slice.complete(0));
    assert!(waiter.join().unwrap());
}

/// A link that counts its polls.
struct Counted(AtomicUsize, Option<usize>);

impl Link for Counted {
    fn submit(&self, _: Vec<Slice>, _: u64) {}

    fn poll(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed);
        false
    }

    fn poller(&self) -> usize {
        self.1.unwrap_or(std::ptr::from_ref(self).addr())
    }

    fn rely_on_threads(&self) {}

    fn give_up(&self) {}

    fn close(&self, _: &Error) {}
}

#[test]
fn what_one_poll_moves_is_polled_once_however_many_links_there_are() {
    let batch = Batch::new(1).unwrap();
    let links =
        [None, Some(1), Some(1), None, Some(1)].map(|poller| Arc::new(Counted(AtomicUsize::new(0), poller)));
    for link in links.iter().chain(&links) {
        batch.inner.lock().add_link(&(link.clone() as Arc<dyn Link>));
    }
    batch.poll();
    let polls = links.map(|link| link.0.load(Ordering::Relaxed));
    assert_eq!(polls, [1, 1, 0, 1, 0]);
    assert_eq!(batch.links().count(), 5);
}
