//! Tasks and slices. A task is one request of a submit call; a transport moves it as one
//! or more slices. A slice is an owned token: it is finished exactly once, and one that is
//! dropped unfinished fails its task, so no task can stay pending for ever.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use self::trail::Trails;
pub use self::trail::{Drained, Trail};
use crate::error::{Class, Code, Error};
use crate::memory::RegionUse;
use crate::runtime::clock;

mod trail;

/// Direction of a request, seen from this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Remote memory to local memory.
    Read,
    /// Local memory to remote memory.
    Write,
}

/// Where a task stands. The numbers are those of `STATUS_*` in C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Not terminal.
    Waiting = 0,
    /// Every byte is at its destination.
    Completed = 4,
    /// Ended without success; the task's error says why.
    Failed = 6,
}

/// One request. All state is atomics; any thread may look.
pub struct Task {
    /// Sum of finished slices.
    done: AtomicU64,
    slices_left: AtomicU32,
    /// Release when terminal: publishes the bytes of a READ and `error` to whoever polls.
    status: AtomicU8,
    /// When a byte first left for the peer, and when it became terminal: 1024 ns each after the submit call, and one more;
    /// 0: not yet.
    posted: AtomicU32,
    ended: AtomicU32,
    /// How often a slice was sent again.
    resent: AtomicU32,
    /// The first failure.
    error: OnceLock<Error>,
}

impl Default for Task {
    /// A task without slices: COMPLETED until one is added.
    fn default() -> Self {
        Task {
            done: AtomicU64::new(0),
            slices_left: AtomicU32::new(0),
            status: AtomicU8::new(Status::Completed as u8),
            posted: AtomicU32::new(0),
            ended: AtomicU32::new(0),
            resent: AtomicU32::new(0),
            error: OnceLock::new(),
        }
    }
}

impl Task {
    /// One more slice will have to finish. Only before the first slice is posted.
    pub fn add_slice(&self) {
        self.slices_left.fetch_add(1, Ordering::Relaxed);
        self.status.store(Status::Waiting as u8, Ordering::Relaxed);
    }

    /// Current status. Once terminal it never changes, and the local buffer is not
    /// touched any more.
    pub fn status(&self) -> Status {
        match self.status.load(Ordering::Acquire) {
            4 => Status::Completed,
            6 => Status::Failed,
            _ => Status::Waiting,
        }
    }

    /// Bytes of finished slices.
    pub fn done_bytes(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Why the task failed; `None` unless it is FAILED.
    pub fn error(&self) -> Option<&Error> {
        (self.status() == Status::Failed).then(|| self.error.get()).flatten()
    }
}

/// When something came about, in microseconds after the submit call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// The submit call, by the monotonic clock, in nanoseconds.
    pub submitted_ns: u64,
    /// The connection was ready; 0: before.
    pub connected_us: Option<u32>,
    /// A first byte left, or was asked for.
    pub posted_us: Option<u32>,
    /// The task became terminal.
    pub ended_us: Option<u32>,
    /// How often the task was sent, in the part that was sent most often.
    pub attempts: u32,
}

/// Hears when tasks become terminal: the batch.
pub trait Sink: Send + Sync {
    /// One more task is terminal. Called once per task, on any thread; must not block.
    fn task_ended(&self, failed: bool);
}

/// The tasks of one submit call; shared by its slices.
pub struct Work {
    /// In the order of the request entries.
    pub tasks: Box<[Task]>,
    /// When tasks that are not done become FAILED, if the caller asked for that.
    pub deadline: Option<Instant>,
    /// Hears when the tasks end.
    sink: Arc<dyn Sink>,
    /// The caller wants no more of it.
    canceled: AtomicBool,
    /// Of the monotonic clock.
    submitted_ns: u64,
    /// When what waited for a connection got one, as in [`Task`]; 0: nothing waited.
    connected: AtomicU32,
    trails: Trails,
}

impl Work {
    /// The work of one submit call. The caller adds the slices.
    pub fn new(tasks: Box<[Task]>, deadline: Option<Instant>, sink: Arc<dyn Sink>) -> Arc<Self> {
        Arc::new(Work {
            tasks,
            deadline,
            sink,
            canceled: AtomicBool::new(false),
            submitted_ns: clock::now_ns(),
            connected: AtomicU32::new(0),
            trails: Trails::default(),
        })
    }

    /// When a task came how far; `None` if there is no such task.
    pub fn phases(&self, task: u32) -> Option<Phases> {
        let task = self.tasks.get(task as usize)?;
        let micros = |units: u32| (u64::from(units) * 1024 / 1000).min(u64::from(u32::MAX)) as u32;
        let after = |mark: &AtomicU32| mark.load(Ordering::Relaxed).checked_sub(1).map(micros);
        let posted_us = after(&task.posted);
        // What left before the first of the awaited connections came left on one that was there.
        let awaited = after(&self.connected).filter(|at| posted_us.is_none_or(|posted| *at <= posted));
        Some(Phases {
            submitted_ns: self.submitted_ns,
            connected_us: awaited.or(posted_us.map(|_| 0)),
            posted_us,
            // A request of no bytes has no slice that could end.
            ended_us: after(&task.ended).or((task.status() == Status::Completed).then_some(0)),
            attempts: posted_us.map_or(0, |_| 1 + task.resent.load(Ordering::Relaxed)),
        })
    }

    /// Notes in `mark` that something came about at `now_ns`, if it has not before. Threads that meet here differ by nothing
    /// that matters.
    fn note(&self, mark: &AtomicU32, now_ns: u64) {
        if mark.load(Ordering::Relaxed) == 0 {
            // A shift, not a division: this runs twice per slice.
            let units = (now_ns.saturating_sub(self.submitted_ns) >> 10) + 1;
            mark.store(units.min(u64::from(u32::MAX)) as u32, Ordering::Relaxed);
        }
    }

    /// From now on its slices are given up ([`Slice::is_given_up`]); the caller goes on to tell the links.
    pub fn cancel(&self) {
        // SeqCst, as the links' locks: whoever queues a slice afterwards sees it.
        self.canceled.store(true, Ordering::SeqCst);
    }

    /// Whether the ranges of a task are touched any more; `None` if there is no such task.
    pub fn drained(&self, task: u32) -> Option<Drained> {
        let status = self.tasks.get(task as usize)?.status();
        Some(if status == Status::Waiting { Drained::No } else { self.trails.of(task) })
    }
}

/// A piece of a task on its way. Owned by one lane or queue at a time.
pub struct Slice {
    work: Arc<Work>,
    task: u32,
    /// Direction.
    pub op: Op,
    /// Local address.
    pub local: u64,
    /// Remote address.
    pub remote: u64,
    /// Bytes, at least 1.
    pub len: u64,
    /// Keeps the local region registered; `None` when the caller may use unregistered memory.
    region: Option<RegionUse>,
    finished: bool,
}

impl Slice {
    /// A slice of task number `task` of `work`, which from now on waits for it.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        work: &Arc<Work>,
        task: u32,
        op: Op,
        local: u64,
        remote: u64,
        len: u64,
        region: Option<RegionUse>,
    ) -> Self {
        work.tasks[task as usize].add_slice();
        Slice { work: work.clone(), task, op, local, remote, len, region, finished: false }
    }

    /// The submit call this slice belongs to.
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// The region that its local bytes lie in; `None` if the caller may use unregistered memory.
    pub fn region(&self) -> Option<&crate::memory::Region> {
        self.region.as_ref().map(|held| &**held.region())
    }

    /// The slice's local bytes lie in `region`.
    pub fn is_in(&self, region: &crate::memory::Region) -> bool {
        self.region.as_ref().is_some_and(|held| std::ptr::eq(&**held.region(), region))
    }

    /// The local region is being unregistered: the slice must not be started.
    pub fn is_revoked(&self) -> bool {
        self.region.as_ref().is_some_and(|held| held.region().revoked())
    }

    /// Nobody wants it moved any more: its work was canceled, or another slice has failed its task.
    pub fn is_given_up(&self) -> bool {
        self.work.canceled.load(Ordering::Relaxed) || self.has_failed_task()
    }

    /// Another slice has failed the task, so this one cannot save it.
    pub fn has_failed_task(&self) -> bool {
        self.work.tasks[self.task as usize].error.get().is_some()
    }

    /// Other slices of the task are waiting or under way.
    pub fn has_siblings(&self) -> bool {
        self.work.tasks[self.task as usize].slices_left.load(Ordering::Relaxed) > 1
    }

    /// Notes, before the slice ends, that bytes of its WRITE may still reach the peer.
    pub fn leave_trail(&self) -> Trail {
        self.work.trails.begin(self.task)
    }

    /// Fails the slice because its region was unregistered meanwhile.
    pub fn fail_revoked(self) {
        let addr = self.local;
        let text = format!("the region that holds {addr:#x} was unregistered while the request was running");
        self.fail(Error::new(Code::AddressNotRegistered, text).permanent(Class::Canceled));
    }

    /// The connection that it waited for is ready.
    pub fn note_connected(&self, now_ns: u64) {
        self.work.note(&self.work.connected, now_ns);
    }

    /// A first byte of it leaves, or is asked for.
    #[inline]
    pub fn note_posted(&self, now_ns: u64) {
        self.work.note(&self.work.tasks[self.task as usize].posted, now_ns);
    }

    /// It is going to be sent once more.
    pub fn note_resent(&self) {
        self.work.tasks[self.task as usize].resent.fetch_add(1, Ordering::Relaxed);
    }

    /// Every byte is at its destination. `now_ns`: the monotonic clock's time, which whoever completes several slices has read
    /// once.
    #[inline]
    pub fn complete(mut self, now_ns: u64) {
        self.end(None, || now_ns);
    }

    /// The slice could not be moved; nothing touches its local bytes any more.
    pub fn fail(mut self, error: Error) {
        self.end(Some(error), clock::now_ns);
    }

    /// The slice was never posted: its submit call is refused as a whole.
    pub fn discard(mut self) {
        self.finished = true;
    }

    fn end(&mut self, error: Option<Error>, now_ns: impl FnOnce() -> u64) {
        self.finished = true;
        // Before the status: whoever sees the end may unregister the region at once.
        self.region = None;
        let task = &self.work.tasks[self.task as usize];
        match error {
            None => {
                task.done.fetch_add(self.len, Ordering::Relaxed);
            }
            Some(error) => {
                let _ = task.error.set(error);
            }
        }
        // AcqRel: the last slice sees what the others wrote, `error` included.
        if task.slices_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.work.note(&task.ended, now_ns());
            let failed = task.error.get().is_some();
            let status = if failed { Status::Failed } else { Status::Completed };
            task.status.store(status as u8, Ordering::Release);
            self.work.sink.task_ended(failed);
        }
    }
}

/// What slices fail with that [are given up](Slice::is_given_up). If another slice has failed the task, its error stays.
pub fn canceled() -> Error {
    let text = "the batch was canceled (mte_cancel_batch) before the request ended";
    Error::new(Code::Socket, text).permanent(Class::Canceled)
}

impl Drop for Slice {
    fn drop(&mut self) {
        if !self.finished {
            let text =
                "the thread that moved this request ended unexpectedly; destroy the engine and report this";
            self.end(Some(Error::new(Code::InvalidArgument, text).permanent(Class::Internal)), clock::now_ns);
        }
    }
}

#[cfg(test)]
mod tests {
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
}
