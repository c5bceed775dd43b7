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

    /// Fails what waits: the thread is gone.
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
    /// Gives the thread work, and starts it with the first one. Class RESOURCE if it cannot be made, CANCELED after
    /// [`Worker::stop`].
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
            Stage::Stopping | Stage::Over => return Err(stopping()),
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
        let mut state = self.state.lock();
        state.stage = Stage::Over;
        let left: Vec<_> = state.current.take().into_iter().chain(std::mem::take(&mut state.ready)).collect();
        self.changed.notify_all();
        drop(state);
        let error = Error::invalid(
            "the thread that copies shared memory has failed inside the library; report the log",
        )
        .permanent(Class::Internal);
        left.iter().filter_map(Weak::upgrade).for_each(|work| work.abandon(&error));
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
