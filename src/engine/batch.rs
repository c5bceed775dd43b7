//! Batches: the tasks of one or more submit calls, and whoever waits for them.

use std::sync::Arc;

use smallvec::SmallVec;

use super::deliveries::Delivery;
use super::segment::Segment;
use crate::error::{Class, Code, Error, Result};
use crate::handshake::Notification;
use crate::runtime::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::runtime::sync::{yield_now, Condvar, Mutex};
use crate::runtime::wakeup::Wakeup;
pub use crate::transport::slice::Drained;
use crate::transport::slice::{Phases, Status, Task, Work};
use crate::transport::Link;

pub use self::reservation::Reservation;

mod reservation;
mod waiters;

/// A batch of more tasks is believed only if memory for them could be had. Chosen: their tasks take 3 MiB.
const PLAUSIBLE: usize = 1 << 16;

/// A notification that the poll which sees every task COMPLETED sends.
pub struct Pending {
    /// Segment to notify.
    pub target: i32,
    /// What to send.
    pub notification: Notification,
}

/// How the tasks of a batch stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Submitted so far.
    pub tasks: usize,
    /// COMPLETED.
    pub completed: usize,
    /// FAILED.
    pub failed: usize,
    /// Bytes at their destination.
    pub bytes: u64,
}

/// A task, as diagnostics show it.
pub struct Report {
    /// Where it stands.
    pub status: Status,
    /// Bytes at their destination.
    pub bytes: u64,
    /// Why it failed.
    pub error: Option<Error>,
    /// When it came how far.
    pub phases: Phases,
}

/// One batch. Any thread; the engine's table owns it until it is freed.
pub struct Batch {
    capacity: usize,
    /// Tasks that are not terminal. SeqCst with `watched`, see `task_ended`.
    pending: AtomicUsize,
    /// Tasks were submitted to it.
    used: AtomicBool,
    /// Tasks that are FAILED.
    failed: AtomicUsize,
    /// Somebody waits or has the descriptor, so the end of the last task has to be told.
    watched: AtomicBool,
    /// A notification waits to be sent.
    has_notification: AtomicBool,
    /// `Inner::gone` is set. Read without the lock.
    is_gone: AtomicBool,
    inner: Mutex<Inner>,
    /// Guards the descriptor, and the moment `pending` becomes 0 or more while watched.
    waiters: Mutex<Option<Wakeup>>,
    all_ended: Condvar,
}

/// Guards what submit calls add. Most batches have one call to one segment, which takes no allocation.
struct Inner {
    /// The submit calls, each with the number of its first task.
    works: SmallVec<[(usize, Arc<Work>); 1]>,
    /// How many tasks they have.
    tasks: usize,
    links: SmallVec<[Arc<dyn Link>; 1]>,
    /// Those of them that a poll calls: one of each [`Link::poller`].
    polled: SmallVec<[Arc<dyn Link>; 1]>,
    /// The segments of those links: one that is removed or closed lives on while a batch has work there.
    segments: SmallVec<[Arc<Segment>; 1]>,
    /// Places taken by submit calls that are still being validated.
    reserved: usize,
    /// Why nothing of it is left, once that is so.
    gone: Option<Gone>,
    /// Until it is sent.
    notification: Option<Pending>,
    delivery: Delivery,
}

/// What has ended a batch.
#[derive(Clone, Copy)]
enum Gone {
    Freed,
    EngineEnded,
}

impl Inner {
    /// Notes a link with work, for which there is room.
    fn add_link(&mut self, link: &Arc<dyn Link>) {
        if self.links.iter().any(|known| Arc::ptr_eq(known, link)) {
            return;
        }
        self.links.push(link.clone());
        if !self.polled.iter().any(|known| known.poller() == link.poller()) {
            self.polled.push(link.clone());
        }
    }

    /// The submit call that a task came with, and the number of its first task.
    #[inline]
    fn work(&self, index: usize) -> Option<&(usize, Arc<Work>)> {
        if index >= self.tasks {
            return None;
        }
        // Nearly always there is one.
        let after =
            if self.works.len() == 1 { 1 } else { self.works.partition_point(|(first, _)| *first <= index) };
        self.works.get(after.checked_sub(1)?)
    }
}

impl Batch {
    /// A batch for `capacity` tasks. `ERR_MEMORY` when there is no room for that many.
    pub fn new(capacity: usize) -> Result<Self> {
        // The tasks come with the submit calls; a batch that could never be filled is refused now.
        if capacity > PLAUSIBLE && Vec::<Task>::new().try_reserve_exact(capacity).is_err() {
            return Err(Error::out_of_memory(&format!("a batch of {capacity} tasks")));
        }
        Ok(Batch {
            capacity,
            pending: AtomicUsize::new(0),
            used: AtomicBool::new(false),
            failed: AtomicUsize::new(0),
            watched: AtomicBool::new(false),
            has_notification: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                works: SmallVec::new(),
                tasks: 0,
                links: SmallVec::new(),
                polled: SmallVec::new(),
                segments: SmallVec::new(),
                reserved: 0,
                gone: None,
                notification: None,
                delivery: Delivery::None,
            }),
            waiters: Mutex::new(None),
            all_ended: Condvar::new(),
        })
    }

    /// It has room for one task only.
    #[inline]
    pub fn is_single(&self) -> bool {
        self.capacity == 1
    }

    /// Takes `count` places for a submit call; -2 if there are not that many left.
    #[inline]
    pub fn reserve(&self, count: usize) -> Result<Reservation<'_>> {
        let mut inner = self.inner.lock();
        check_live(&inner)?;
        let used = inner.tasks + inner.reserved;
        if count > self.capacity - used {
            let text = format!(
                "{count} requests do not fit: the batch was allocated for {}, {used} are used; allocate a larger one",
                self.capacity
            );
            return Err(Error::new(Code::TooManyRequests, text));
        }
        inner.reserved += count;
        Ok(Reservation { batch: self, count })
    }

    /// Calls `f` with a task; -1 if there is no such task.
    pub fn with_task<T>(&self, index: usize, f: impl FnOnce(&Task) -> T) -> Result<T> {
        self.with_work(index, |_, work, position| f(&work.tasks[position]))
    }

    /// Calls `f` with the submit call of a task, the number of its first task, and the task's place in it.
    #[inline]
    pub fn with_work<T>(&self, index: usize, f: impl FnOnce(usize, &Arc<Work>, usize) -> T) -> Result<T> {
        let inner = self.inner.lock();
        check_live(&inner)?;
        let (first, work) = inner.work(index).ok_or_else(|| no_such_task(index, inner.tasks))?;
        Ok(f(*first, work, index - first))
    }

    /// Counts of all tasks submitted so far; `each` sees every one in order, with its status and bytes done.
    pub fn summary(&self, mut each: impl FnMut(usize, Status, &Task)) -> Result<Summary> {
        let inner = self.inner.lock();
        check_live(&inner)?;
        let mut summary = Summary { tasks: inner.tasks, ..Summary::default() };
        for (index, task) in inner.works.iter().flat_map(|(_, work)| &work.tasks).enumerate() {
            let status = task.status();
            match status {
                Status::Waiting => {}
                Status::Completed => summary.completed += 1,
                Status::Failed => summary.failed += 1,
            }
            summary.bytes += task.done_bytes();
            each(index, status, task);
        }
        Ok(summary)
    }

    /// Whether the ranges of a task are touched any more.
    pub fn drained(&self, index: usize) -> Result<Drained> {
        let drained = self.with_work(index, |_, work, position| work.drained(position as u32))?;
        drained.ok_or_else(|| no_such_task(index, index))
    }

    /// How far a task has come, and when.
    pub fn report(&self, index: usize) -> Result<Report> {
        let report = self.with_work(index, |_, work, position| {
            let (task, phases) = work.tasks.get(position).zip(work.phases(position as u32))?;
            Some(Report {
                status: task.status(),
                bytes: task.done_bytes(),
                error: task.error().cloned(),
                phases,
            })
        })?;
        report.ok_or_else(|| no_such_task(index, index))
    }

    /// Gives up every task that is not terminal. They become FAILED, or COMPLETED if they were just ending.
    pub fn cancel(&self) -> Result<()> {
        {
            let inner = self.inner.lock();
            check_live(&inner)?;
            inner.works.iter().for_each(|(_, work)| work.cancel());
        }
        self.links().for_each(|link| link.give_up());
        Ok(())
    }

    /// The links with work of this batch. Each is taken by itself, without the lock meanwhile: there may be no memory for a copy
    /// of the list.
    fn links(&self) -> impl Iterator<Item = Arc<dyn Link>> + '_ {
        (0..).map_while(|index| self.inner.lock().links.get(index).cloned())
    }

    /// Polls the links once, on the calling thread. `false` when nothing moved.
    pub fn poll(&self) -> bool {
        let (first, count) = {
            let inner = self.inner.lock();
            (inner.polled.first().cloned(), inner.polled.len())
        };
        // Each by itself, as in `links`.
        let rest = (1..count).map_while(|index| self.inner.lock().polled.get(index).cloned());
        first.into_iter().chain(rest).fold(false, |moved, link| link.poll() | moved)
    }

    /// Tasks that a caller can still see WAITING. A task's status is published just before
    /// `pending` counts it out, so a thread that saw the last task end may call this before `pending` is 0.
    fn running(&self, inner: &Inner) -> usize {
        while !self.is_done() {
            let tasks = inner.works.iter().flat_map(|(_, work)| work.tasks.iter());
            let waiting = tasks.filter(|task| task.status() == Status::Waiting).count();
            if waiting > 0 {
                return waiting;
            }
            yield_now();
        }
        0
    }

    /// It was freed, or its engine is being destroyed.
    #[inline]
    pub fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    /// A poll may have to send a notification.
    #[inline]
    pub fn has_notification(&self) -> bool {
        self.has_notification.load(Ordering::Acquire)
    }

    /// Every submitted task is terminal.
    pub fn is_done(&self) -> bool {
        self.pending.load(Ordering::SeqCst) == 0
    }

    /// Takes the notification if it is due: every task submitted so far is COMPLETED.
    pub fn take_due_notification(&self) -> Option<Pending> {
        if !self.has_notification.load(Ordering::Acquire) {
            return None;
        }
        let mut inner = self.inner.lock();
        if self.running(&inner) > 0 || self.failed.load(Ordering::SeqCst) != 0 {
            return None;
        }
        self.has_notification.store(false, Ordering::Release);
        inner.delivery = Delivery::Sending;
        inner.notification.take()
    }

    /// What became of the notification that was taken.
    pub fn note_delivery(&self, outcome: Result<()>) {
        self.inner.lock().delivery = outcome.map_or_else(Delivery::Lost, |()| Delivery::Delivered);
    }

    /// What became of the batch's last notification.
    pub fn delivery(&self) -> Result<Delivery> {
        let inner = self.inner.lock();
        check_live(&inner)?;
        Ok(inner.delivery.clone())
    }

    /// Tasks that have not ended.
    pub fn waiting(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// Calls `each` with the submit calls so far, and with the segments that the batch has work for.
    pub(in crate::engine) fn works(&self, mut each: impl FnMut(&Work, &[Arc<Segment>])) {
        let inner = self.inner.lock();
        inner.works.iter().for_each(|(_, work)| each(work, &inner.segments));
    }

    /// Ends the batch: its id is about to be taken out of the table. `last` sees its submit calls, as in [`Batch::works`]. -4 while tasks run.
    pub(in crate::engine) fn free(&self, last: impl FnMut(&Work, &[Arc<Segment>])) -> Result<()> {
        let mut inner = self.inner.lock();
        check_live(&inner)?;
        let running = self.running(&inner) + inner.reserved;
        if running > 0 {
            let text = format!("{running} tasks of the batch are not terminal; poll or wait for them first");
            return Err(Error::new(Code::BatchBusy, text));
        }
        self.discard(&mut inner, Gone::Freed, last);
        Ok(())
    }

    /// Ends the batch whatever it does: its engine is gone. `last` sees its submit calls, as in [`Batch::works`].
    pub(in crate::engine) fn abandon(&self, last: impl FnMut(&Work, &[Arc<Segment>])) {
        self.discard(&mut self.inner.lock(), Gone::EngineEnded, last);
    }

    /// Lets go of tasks, links and descriptor. The tasks refer to this batch, so without this
    /// nothing of it would ever be released.
    fn discard(&self, inner: &mut Inner, why: Gone, mut last: impl FnMut(&Work, &[Arc<Segment>])) {
        inner.works.iter().for_each(|(_, work)| last(work, &inner.segments));
        inner.gone.get_or_insert(why);
        self.is_gone.store(true, Ordering::Release);
        inner.works = SmallVec::new();
        inner.tasks = 0;
        inner.links = SmallVec::new();
        inner.polled = SmallVec::new();
        inner.segments = SmallVec::new();
        inner.notification = None;
        *self.waiters.lock() = None;
    }
}

fn no_such_task(index: usize, count: usize) -> Error {
    Error::invalid(format!("task {index} does not exist: {count} were submitted to this batch"))
}

fn check_live(inner: &Inner) -> Result<()> {
    match inner.gone {
        None => Ok(()),
        Some(Gone::Freed) => Err(Error::invalid("the batch was freed")),
        Some(Gone::EngineEnded) => {
            let text = "the engine is being destroyed";
            Err(Error::new(Code::Socket, text).permanent(Class::Canceled))
        }
    }
}

#[cfg(test)]
mod tests;
