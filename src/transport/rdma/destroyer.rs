//! Destroys queue pairs on threads of its own: the driver takes milliseconds for each, there may be very many, and the
//! threads of the data plane and of callers have other things to do meanwhile. At the end of the engine, what waits for
//! rails fails on these threads too: there may be millions.

use std::collections::VecDeque;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::connection::Connection;
use super::errors::destroyed;
use super::flight::{fail_all, Flight};
use super::queue::Queue;
use crate::error::Error;
use crate::runtime::thread;

/// Most threads at a time. Chosen: 10 000 queue pairs of a millisecond each are gone in less than one second.
const THREADS: usize = 8;
/// Queue pairs that wait for each thread before another one is made. Chosen: those of a few connections do not need two.
const EACH: usize = 8;

/// So many flights fail at once, without another thread. Chosen: it takes a few milliseconds.
const FEW: usize = 50_000;

/// What becomes of the flights that were still posted when the queue pair is gone. Without it they fail.
pub(super) type Then = Box<dyn FnOnce(Vec<Flight>) + Send>;

/// Queue pairs that are to go, and the short-lived threads that see to it. Any thread.
#[derive(Default)]
pub(super) struct Destroyer {
    /// Held briefly, also while a thread is made.
    state: Mutex<State>,
    /// Whoever waits for the end sleeps here.
    idle: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Threads that have not found the list empty.
    threads: usize,
    handles: Vec<JoinHandle<()>>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Destroyer {
    /// Takes over a queue pair. It is destroyed soon, on another thread; on this one where no thread can be made. Those
    /// with something posted come first. Again is no harm.
    pub(super) fn take(
        self: &Arc<Self>,
        queue: &Arc<Queue>,
        connection: Option<Arc<Connection>>,
        then: Option<Then>,
    ) {
        if !queue.hand_over() {
            return;
        }
        let is_urgent = queue.outstanding() > 0;
        let queue = queue.clone();
        let job = move || {
            let flights = queue.destroy();
            match then {
                Some(then) => then(flights),
                // The queue was stopped or the engine is, so nothing is posted again.
                None => fail_all(flights, &destroyed()),
            }
            // Until now whoever looked for the connection found it, and could wait for its end.
            drop(connection);
        };
        self.start(Box::new(job), is_urgent, EACH);
    }

    /// Drops what the driver takes its time for: soon, on another thread.
    pub(super) fn discard(self: &Arc<Self>, what: impl Send + 'static) {
        self.start(Box::new(move || drop(what)), false, EACH);
    }

    /// Fails flights because the engine ends: on another thread if there are many, else before this returns.
    pub(super) fn fail<F>(self: &Arc<Self>, flights: F, error: &Error)
    where
        F: Iterator<Item = Flight> + Send + 'static,
    {
        if flights.size_hint().0 <= FEW {
            return fail_all(flights, error);
        }
        let error = error.clone();
        self.start(Box::new(move || fail_all(flights, &error)), true, 0);
    }

    /// Starts a job, on a new thread where more than `each` are still to be begun by every thread.
    fn start(self: &Arc<Self>, job: Job, is_urgent: bool, each: usize) {
        let mut state = self.state.lock();
        match is_urgent {
            true => state.jobs.push_front(job),
            false => state.jobs.push_back(job),
        }
        if state.threads == THREADS || state.jobs.len() <= state.threads * each {
            return;
        }
        let me = self.clone();
        match thread::spawn("mte-destroy", move || me.work(), || ()) {
            Ok(handle) => {
                state.threads += 1;
                state.handles.retain(|handle| !handle.is_finished());
                state.handles.push(handle);
            }
            Err(_) if state.threads > 0 => {}
            Err(_) => {
                let jobs = std::mem::take(&mut state.jobs);
                drop(state);
                jobs.into_iter().for_each(|job| job());
            }
        }
    }

    /// There is nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.state.lock().threads == 0
    }

    /// Waits until all is done. `false`: it is not when `limit` has passed; threads that own what they touch go on with
    /// it.
    pub(super) fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock();
        while state.threads > 0 {
            if self.idle.wait_until(&mut state, deadline).timed_out() {
                return state.threads == 0;
            }
        }
        let handles = std::mem::take(&mut state.handles);
        drop(state);
        // They have nothing left to do but to end.
        handles.into_iter().for_each(|handle| drop(handle.join()));
        true
    }

    /// Body of a thread.
    fn work(&self) {
        loop {
            let job = {
                let mut state = self.state.lock();
                let job = state.jobs.pop_front();
                if job.is_none() {
                    // Under the lock, so that whoever adds one sees whether a thread is left that will find it.
                    state.threads -= 1;
                    self.idle.notify_all();
                }
                job
            };
            let Some(job) = job else { return };
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("destroying a queue pair failed inside the library; report the log");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::transport::slice::{Op, Sink, Slice, Status, Task, Work};

    /// Holds up whoever ends the task.
    struct Gate(Mutex<mpsc::Receiver<()>>);

    impl Sink for Gate {
        fn task_ended(&self, _failed: bool) {
            let _ = self.0.lock().recv();
        }
    }

    #[test]
    fn very_many_flights_fail_without_holding_up_the_end_of_the_engine() {
        let (open, gate) = mpsc::channel();
        let tasks = vec![Task::default()].into_boxed_slice();
        let sink = Arc::new(Gate(Mutex::new(gate)));
        let work = Work::new(tasks, None, sink);
        let flight = |_| Flight::new(Slice::new(&work, 0, Op::Read, 1, 2, 1, None), 0, 0);
        let flights: Vec<Flight> = (0..=FEW).map(flight).collect();
        let destroyer = Arc::new(Destroyer::default());
        destroyer.fail(flights.into_iter(), &destroyed());
        assert!(!destroyer.wait(Duration::ZERO), "the last one cannot have ended");
        open.send(()).unwrap();
        assert!(destroyer.wait(Duration::from_secs(30)) && destroyer.is_idle());
        assert_eq!(work.tasks[0].status(), Status::Failed);
        assert_eq!(work.tasks[0].error().unwrap().text(), destroyed().text());
    }

    #[test]
    fn few_flights_have_failed_at_once() {
        let (open, gate) = mpsc::channel();
        open.send(()).unwrap();
        let tasks = vec![Task::default()].into_boxed_slice();
        let work = Work::new(tasks, None, Arc::new(Gate(Mutex::new(gate))));
        let flight = Flight::new(Slice::new(&work, 0, Op::Read, 1, 2, 1, None), 0, 0);
        let destroyer = Arc::new(Destroyer::default());
        destroyer.fail([flight].into_iter(), &destroyed());
        assert!(destroyer.is_idle());
        assert_eq!(work.tasks[0].status(), Status::Failed);
    }
    #[test]
    fn another_thread_is_made_for_what_those_at_work_leave_waiting() {
        let destroyer = Arc::new(Destroyer::default());
        let ((begun, begins), (open, gate)) = (mpsc::channel(), mpsc::channel::<()>());
        let gate = Arc::new(Mutex::new(gate));
        let start = || {
            let (begun, gate) = (begun.clone(), gate.clone());
            let job = move || {
                begun.send(()).unwrap();
                let _ = gate.lock().recv();
            };
            destroyer.start(Box::new(job), false, 2);
        };
        start();
        begins.recv().unwrap();
        let threads = || destroyer.state.lock().threads;
        start();
        start();
        assert_eq!(threads(), 1, "two may wait for it");
        start();
        assert_eq!(threads(), 2);
        for _ in 0..64 {
            start();
        }
        assert_eq!(threads(), THREADS);
        drop(open);
        assert!(destroyer.wait(Duration::from_secs(30)) && destroyer.is_idle());
        assert_eq!(begins.try_iter().count(), 67, "each was done");
    }

    #[test]
    fn what_is_discarded_is_dropped_on_another_thread() {
        struct Told(mpsc::Sender<std::thread::ThreadId>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.send(std::thread::current().id());
            }
        }
        let (sender, dropped) = mpsc::channel();
        Arc::new(Destroyer::default()).discard(Told(sender));
        assert_ne!(dropped.recv().unwrap(), std::thread::current().id());
    }
}
