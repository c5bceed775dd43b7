//! Destroys queue pairs on threads of its own: the driver takes milliseconds for each, there may be very many, and the
//! threads of the data plane and of callers have other things to do meanwhile.

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
use crate::runtime::thread;

/// Most threads at a time. Chosen: 10 000 queue pairs of a millisecond each are gone in less than one second.
const THREADS: usize = 8;
/// Queue pairs that wait for each thread before another one is made. Chosen: those of a few connections do not need two.
const EACH: usize = 8;

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

struct Job {
    queue: Arc<Queue>,
    /// Whoever looks for the connection meanwhile finds it, and can wait for its end.
    _connection: Option<Arc<Connection>>,
    then: Option<Then>,
}

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
        let job = Job { queue: queue.clone(), _connection: connection, then };
        let mut state = self.state.lock();
        match is_urgent {
            true => state.jobs.push_front(job),
            false => state.jobs.push_back(job),
        }
        if state.threads == THREADS || state.jobs.len() <= state.threads * EACH {
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
                jobs.into_iter().for_each(Job::run);
            }
        }
    }

    /// No queue pair is to be destroyed.
    pub(super) fn is_idle(&self) -> bool {
        self.state.lock().threads == 0
    }

    /// Waits until every queue pair that was taken is destroyed. `false`: some are not when `limit` has passed; threads
    /// that own what they touch go on with them.
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
            if catch_unwind(AssertUnwindSafe(|| job.run())).is_err() {
                tracing::error!("destroying a queue pair failed inside the library; report the log");
            }
        }
    }
}

impl Job {
    fn run(self) {
        let flights = self.queue.destroy();
        match self.then {
            Some(then) => then(flights),
            // The queue was stopped or the engine is, so nothing is posted again.
            None => fail_all(flights, &destroyed()),
        }
    }
}
