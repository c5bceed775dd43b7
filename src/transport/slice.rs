//! Tasks and slices. A task is one request of a submit call; a transport moves it as one
//! or more slices. A slice is an owned token: it is finished exactly once, and one that is
//! dropped unfinished fails its task, so no task can stay pending for ever.

use std::sync::Arc;
use std::time::Instant;

pub use self::ended::End;
pub use self::ends::Ends;
use self::targets::Targets;
use self::trail::Trails;
pub use self::trail::{Drained, Trail};
use crate::error::{Class, Code, Error};
use crate::memory::{Region, RegionUse};
use crate::runtime::clock;
use crate::runtime::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicU8, Ordering};
use crate::runtime::sync::OnceLock;

#[cfg(test)]
pub mod deaf;
mod ended;
mod ends;
mod targets;
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
    /// It moves local bytes to the peer. Said before the first slice is posted.
    writes: AtomicBool,
    /// Which of the call's targets it goes to.
    place: AtomicU16,
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
            writes: AtomicBool::new(false),
            place: AtomicU16::new(0),
            posted: AtomicU32::new(0),
            ended: AtomicU32::new(0),
            resent: AtomicU32::new(0),
            error: OnceLock::new(),
        }
    }
}

impl Task {
    /// One more slice will have to finish. Only on the thread that submits, before it posts the first slice: so nobody else
    /// counts meanwhile.
    #[inline]
    fn add_slice(&self, op: Op) {
        self.writes.store(op == Op::Write, Ordering::Relaxed);
        self.slices_left.store(self.slices_left.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.status.store(Status::Waiting as u8, Ordering::Relaxed);
    }

    /// It goes to target number `place` of its call; 0 if nobody says so. Before the call is committed.
    pub fn set_place(&self, place: usize) {
        self.place.store(u16::try_from(place).unwrap_or(u16::MAX), Ordering::Relaxed);
    }

    /// `len` bytes of one slice are done. `true`: it was the last one.
    #[inline]
    fn take_slice(&self, len: u64) -> bool {
        // Acquire and Release: the last slice sees what the others wrote, `error` included. Who finds one left has that one,
        // so nobody else counts any more; most tasks are one slice.
        if self.slices_left.load(Ordering::Acquire) == 1 {
            self.done.store(self.done.load(Ordering::Relaxed) + len, Ordering::Relaxed);
            self.slices_left.store(0, Ordering::Relaxed);
            return true;
        }
        self.done.fetch_add(len, Ordering::Relaxed);
        self.slices_left.fetch_sub(1, Ordering::AcqRel) == 1
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

    /// As many calls for tasks that are COMPLETED.
    fn tasks_completed(&self, count: usize) {
        (0..count).for_each(|_| self.task_ended(false));
    }
}

/// The tasks of one submit call; shared by its slices.
pub struct Work {
    /// In the order of the request entries.
    pub tasks: Box<[Task]>,
    deadline: OnceLock<Instant>,
    /// Hears when the tasks end.
    sink: Arc<dyn Sink>,
    /// The caller wants no more of it.
    canceled: AtomicBool,
    /// Of the monotonic clock.
    submitted_ns: u64,
    /// When what waited for a connection got one, as in [`Task`]; 0: nothing waited.
    connected: AtomicU32,
    /// Which segments they go to.
    pub targets: Targets,
    trails: Trails,
}

impl Work {
    /// The work of one submit call. The caller adds the slices.
    pub fn new(tasks: Box<[Task]>, deadline: Option<Instant>, sink: Arc<dyn Sink>) -> Arc<Self> {
        Arc::new(Work {
            tasks,
            deadline: deadline.map_or_else(OnceLock::new, OnceLock::from),
            sink,
            canceled: AtomicBool::new(false),
            submitted_ns: clock::now_ns(),
            connected: AtomicU32::new(0),
            targets: Targets::default(),
            trails: Trails::default(),
        })
    }

    /// When tasks that are not done become FAILED, if the caller asked for that.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline.get().copied()
    }

    /// Sets the deadline, before the first slice is posted.
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        if let Some(deadline) = deadline {
            let _ = self.deadline.set(deadline);
        }
    }

    /// A number that the work of one batch has in common, and no other that is under way.
    #[inline]
    pub fn batch(&self) -> usize {
        Arc::as_ptr(&self.sink).cast::<()>() as usize
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

/// What the slices of one submit call in one region have in common. Keeps the region registered while one of them is left, so
/// that nothing has to be counted but the references to this.
pub struct Hold {
    work: Arc<Work>,
    /// `None` when the caller may use unregistered memory.
    region: Option<RegionUse>,
}

impl Hold {
    /// For slices of `work` whose local bytes lie in `region`.
    pub fn new(work: &Arc<Work>, region: Option<RegionUse>) -> Arc<Self> {
        Arc::new(Hold { work: work.clone(), region })
    }

    /// The region in use.
    pub fn region(&self) -> Option<&Arc<Region>> {
        self.region.as_ref().map(RegionUse::region)
    }

    /// A slice of task number `task`, which from now on waits for it.
    #[inline]
    pub fn slice(self: &Arc<Self>, task: u32, op: Op, local: u64, remote: u64, len: u64) -> Slice {
        self.work.tasks[task as usize].add_slice(op);
        Slice { hold: self.clone(), task, op, local, remote, len, finished: false }
    }
}

/// A piece of a task on its way. Owned by one lane or queue at a time.
pub struct Slice {
    hold: Arc<Hold>,
    /// Local address.
    pub local: u64,
    /// Remote address.
    pub remote: u64,
    /// Bytes, at least 1.
    pub len: u64,
    task: u32,
    /// Direction.
    pub op: Op,
    finished: bool,
}

impl Slice {
    /// A slice of task number `task` of `work`, which from now on waits for it.
    #[cfg(test)]
    pub fn new(
        work: &Arc<Work>,
        task: u32,
        op: Op,
        local: u64,
        remote: u64,
        len: u64,
        region: Option<RegionUse>,
    ) -> Self {
        Hold::new(work, region).slice(task, op, local, remote, len)
    }

    #[inline]
    fn task(&self) -> &Task {
        &self.work().tasks[self.task as usize]
    }

    /// The submit call this slice belongs to.
    pub fn work(&self) -> &Work {
        &self.hold.work
    }

    /// The region that its local bytes lie in; `None` if the caller may use unregistered memory.
    pub fn region(&self) -> Option<&Region> {
        self.hold.region().map(|region| &**region)
    }

    /// The slice's local bytes lie in `region`.
    pub fn is_in(&self, region: &Region) -> bool {
        self.hold.region().is_some_and(|held| std::ptr::eq(&**held, region))
    }

    /// The local region is being unregistered: the slice must not be started.
    pub fn is_revoked(&self) -> bool {
        self.hold.region().is_some_and(|held| held.revoked())
    }

    /// Nobody wants it moved any more: its work was canceled, or another slice has failed its task.
    pub fn is_given_up(&self) -> bool {
        self.work().canceled.load(Ordering::Relaxed) || self.has_failed_task()
    }

    /// Another slice has failed the task, so this one cannot save it.
    pub fn has_failed_task(&self) -> bool {
        self.task().error.get().is_some()
    }

    /// Other slices of the task are waiting or under way.
    pub fn has_siblings(&self) -> bool {
        self.task().slices_left.load(Ordering::Relaxed) > 1
    }

    /// Notes, before the slice ends, that bytes of its WRITE may still reach the peer.
    pub fn leave_trail(&self) -> Trail {
        self.work().trails.begin(self.task)
    }

    /// Fails the slice because its region was unregistered meanwhile.
    pub fn fail_revoked(self) {
        let addr = self.local;
        let text = format!("the region that holds {addr:#x} was unregistered while the request was running");
        self.fail(Error::new(Code::AddressNotRegistered, text).permanent(Class::Canceled));
    }

    /// The connection that it waited for is ready.
    pub fn note_connected(&self, now_ns: u64) {
        self.work().note(&self.work().connected, now_ns);
    }

    /// A first byte of it leaves, or is asked for.
    #[inline]
    pub fn note_posted(&self, now_ns: u64) {
        self.work().note(&self.task().posted, now_ns);
    }

    /// It is going to be sent once more.
    pub fn note_resent(&self) {
        self.task().resent.fetch_add(1, Ordering::Relaxed);
    }

    /// Every byte is at its destination. `now_ns`: the monotonic clock's time, which whoever completes several slices has read
    /// once. Several are best ended by [`Ends`].
    #[inline]
    pub fn complete(mut self, now_ns: u64) {
        if let Some(failed) = self.end(None, || now_ns) {
            self.work().sink.task_ended(failed);
        }
    }

    /// The slice could not be moved; nothing touches its local bytes any more.
    pub fn fail(mut self, error: Error) {
        self.end_and_tell(error);
    }

    /// The slice was never posted: its submit call is refused as a whole.
    pub fn discard(mut self) {
        self.finished = true;
    }

    fn end_and_tell(&mut self, error: Error) {
        if let Some(failed) = self.end(Some(error), clock::now_ns) {
            self.work().sink.task_ended(failed);
        }
    }

    /// Counts the slice out; where it was the last one of its task, says whether that FAILED. The region is released with the
    /// slice, just after the status is there to be seen: whoever unregisters it at once waits that long.
    #[inline]
    fn end(&mut self, error: Option<Error>, now_ns: impl FnOnce() -> u64) -> Option<bool> {
        self.finished = true;
        let work = &self.hold.work;
        let task = &work.tasks[self.task as usize];
        let moved = if let Some(error) = error {
            let _ = task.error.set(error);
            0
        } else {
            self.len
        };
        if !task.take_slice(moved) {
            return None;
        }
        work.note(&task.ended, now_ns());
        let failed = task.error.get().is_some();
        let status = if failed { Status::Failed } else { Status::Completed };
        task.status.store(status as u8, Ordering::Release);
        Some(failed)
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
            self.end_and_tell(Error::new(Code::InvalidArgument, text).permanent(Class::Internal));
        }
    }
}

#[cfg(test)]
mod tests;
