//! The transport's thread, which copies what callers do not. It starts with the first work, so an engine that meets no such
//! peer has none. Links have turns, a slice each.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::errors;
use crate::error::{Class, Error, Result};
use crate::runtime::thread;
use crate::transport::links::stopping;

/// How long the end waits for the thread. Chosen: it is at one slice, which takes less than a millisecond, unless the pages of the
/// caller's buffer are served by somebody who does not.
const END_LIMIT: Duration = Duration::from_secs(1);

/// What has work for the thread.
pub(super) trait Work: Send + Sync {
    /// Does a part of it; whether there is more.
    fn step(&self) -> bool;

    /// Fails what waits: the thread is gone, and has it on no list any more.
    fn abandon(&self, error: &Error);
}

/// The thread, or its absence.
#[derive(Default)]
pub(super) struct Worker {
    /// Guards who has work.
    state: Mutex<State>,
    /// The thread sleeps here, and whoever stops it.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Weak<dyn Work>>,
    /// Who has the turn.
    current: Option<Weak<dyn Work>>,
    thread: Option<JoinHandle<()>>,
    stage: Stage,
    /// Of a thread that has panicked.
    failed: Option<Error>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Absent,
    Running,
    Stopping,
    /// Has stopped, or panicked.
    Over,
}

impl Worker {
    /// Gives the thread work, and starts it with the first one. Class RESOURCE if it cannot be made, INTERNAL after
    /// it has panicked, CANCELED after [`Worker::stop`].
    pub(super) fn add(self: &Arc<Self>, work: Weak<dyn Work>) -> Result<()> {
        let mut state = self.state.lock();
        match state.stage {
            Stage::Running => {}
            Stage::Absent => {
                let (body, panicked) = (self.clone(), self.clone());
                state.thread =
                    Some(thread::spawn("mte-posix-shm", move || body.run(), move || panicked.fail())?);
                state.stage = Stage::Running;
            }
            Stage::Stopping | Stage::Over => return Err(state.failed.clone().unwrap_or_else(stopping)),
        }
        state.ready.try_reserve(1).map_err(|_| errors::no_memory())?;
        state.ready.push_back(work);
        self.changed.notify_all();
        Ok(())
    }

    fn run(&self) {
        let mut state = self.state.lock();
        while state.stage == Stage::Running {
            let Some(work) = state.ready.pop_front() else {
                self.changed.wait(&mut state);
                continue;
            };
            state.current = Some(work.clone());
            drop(state);
            let has_more = work.upgrade().is_some_and(|work| work.step());
            state = self.state.lock();
            state.current = None;
            if has_more {
                state.ready.push_back(work);
            }
        }
        state.stage = Stage::Over;
        self.changed.notify_all();
    }

    /// The thread has panicked.
    fn fail(&self) {
        let error = Error::invalid(
            "the thread that copies shared memory has failed inside the library; report the log",
        )
        .permanent(Class::Internal);
        let mut state = self.state.lock();
        state.stage = Stage::Over;
        state.failed = Some(error.clone());
        let (current, ready) = (state.current.take(), std::mem::take(&mut state.ready));
        self.changed.notify_all();
        drop(state);
        let left = current.iter().chain(&ready);
        left.filter_map(Weak::upgrade).for_each(|work| work.abandon(&error));
    }

    /// Ends the thread. What waits is the links' to fail.
    pub(super) fn stop(&self) {
        let deadline = Instant::now() + END_LIMIT;
        let mut state = self.state.lock();
        if state.stage == Stage::Running {
            state.stage = Stage::Stopping;
            self.changed.notify_all();
        }
        while state.stage == Stage::Stopping {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                // What it uses it holds.
                tracing::error!("the thread that copies shared memory does not return, and is left behind");
                return;
            }
        }
        let ended = state.thread.take();
        drop(state);
        // It may be this very thread that drops the transport.
        ended.filter(|thread| thread.thread().id() != std::thread::current().id()).map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{channel, Sender};

    use super::*;

    struct Panics(Mutex<Sender<Class>>);

    impl Work for Panics {
        fn step(&self) -> bool {
            panic!("as the test wants")
        }

        fn abandon(&self, error: &Error) {
            self.0.lock().send(error.kind()).unwrap();
        }
    }

    #[test]
    fn after_a_panic_of_the_thread_all_work_fails_and_so_does_what_comes_later() {
        let (worker, (told, hears)) = (Arc::new(Worker::default()), channel());
        let work: Vec<Arc<dyn Work>> =
            (0..2).map(|_| Arc::new(Panics(Mutex::new(told.clone()))) as Arc<dyn Work>).collect();
        // The second one may come before or after the panic.
        worker.add(Arc::downgrade(&work[0])).unwrap();
        let late = worker.add(Arc::downgrade(&work[1]));
        assert_eq!(hears.recv().unwrap(), Class::Internal);
        match late {
            Ok(()) => assert_eq!(hears.recv().unwrap(), Class::Internal),
            Err(error) => assert_eq!(error.kind(), Class::Internal),
        }
        assert_eq!(worker.add(Arc::downgrade(&work[0])).unwrap_err().kind(), Class::Internal);
        worker.stop();
        assert_eq!(worker.add(Arc::downgrade(&work[0])).unwrap_err().kind(), Class::Internal);
    }
}
