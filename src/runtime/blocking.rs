//! Threads for calls that block: name look-ups inside libc, and drivers. Each control thread has a few of its own, made
//! when they are needed and gone after some idle seconds. Where none can be made, the call is an error at once.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::thread;
use crate::error::{Class, Code, Error, Result};

/// Most threads of one engine for calls that may take seconds. Chosen: half of them may look names up, four may serve
/// connection requests of peers, and four are left for connections of our own.
pub(super) const THREADS: usize = 16;

/// How long an idle thread stays. Chosen: the calls of one connection come closer together.
const IDLE: Duration = Duration::from_secs(10);

/// As good as for ever, without the risk that a sum of times overflows.
pub(super) const FOREVER: Duration = Duration::from_secs(1 << 32);

thread_local!(static POOL: Pool = Pool::default());

/// What is to be done. It leaves its result with a second step, for when the thread can be had again.
type Job = Box<dyn FnOnce() -> Box<dyn FnOnce()> + Send>;

/// The threads that serve one event loop. What they have not begun when it is dropped is dropped too.
#[derive(Default)]
pub(super) struct Pool(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Guards what is to be done, and the counts of who may do it.
    state: Mutex<State>,
    /// Idle threads sleep here, and whoever stops the pool.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    live: usize,
    idle: usize,
    stopped: bool,
    threads: Vec<JoinHandle<()>>,
}

/// Runs `work` on a thread of the event loop that this is polled on. Errors: class RESOURCE (-302) if there is no thread
/// for it, CANCELED if the engine stops first, INTERNAL if it panics. A caller that gives up leaves it to itself.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (done, result) = oneshot::channel();
    let job = Box::new(move || -> Box<dyn FnOnce()> {
        let outcome = catch_unwind(AssertUnwindSafe(work));
        let failed = || Error::invalid("a call failed inside the library; report the log");
        let outcome = outcome.map_err(|_| failed().permanent(Class::Internal));
        Box::new(move || drop(done.send(outcome)))
    });
    POOL.with(|pool| pool.start(job))?;
    result.await.unwrap_or_else(|_| Err(stopped()))
}

/// Sees to it that tokio has a thread of its own for calls that block. For crates that look names up on such threads: they
/// panic where tokio has none and can make none. It stays as long as the event loop that this is polled on, which was
/// built with [`FOREVER`]. Errors as [`run`].
pub async fn tokio_has_one() -> Result<()> {
    thread_local!(static DONE: Cell<bool> = const { Cell::new(false) });
    if !DONE.get() {
        // Fails without a panic, and without a message of it.
        run(|| ()).await?;
        let made = catch_unwind(|| tokio::task::spawn_blocking(|| ()));
        let none = || Error::new(Code::Memory, "cannot start a thread to look names up (check ulimit -u)");
        made.map_err(|_| none().transient(Class::Resource))?;
        DONE.set(true);
    }
    Ok(())
}

/// Stops the threads of the calling thread's event loop, and waits for them until `limit` has passed. One that hangs is
/// left behind; it owns what it touches.
pub(super) fn stop(limit: Duration) {
    POOL.with(|pool| pool.stop(limit));
}

impl Pool {
    fn start(&self, job: Job) -> Result<()> {
        let mut state = self.0.lock();
        if state.stopped {
            return Err(stopped());
        }
        if state.queue.len() < state.idle || state.live >= THREADS {
            state.queue.push_back(job);
            self.0.changed.notify_one();
            return Ok(());
        }
        let shared = self.0.clone();
        // Under the lock, so that `stop` finds every thread. The new one needs the lock only when it is done.
        let thread = thread::spawn("mte-dns", move || shared.work(job), || ())?;
        state.live += 1;
        state.threads.retain(|thread| !thread.is_finished());
        state.threads.push(thread);
        Ok(())
    }

    fn stop(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut state = self.0.lock();
        state.stopped = true;
        state.queue.clear();
        self.0.changed.notify_all();
        while state.live > 0 && Instant::now() < deadline {
            state = self.0.wait(state, deadline - Instant::now()).0;
        }
        let threads = if state.live == 0 { std::mem::take(&mut state.threads) } else { Vec::new() };
        drop(state);
        // They have nothing left to do but to end.
        threads.into_iter().for_each(|thread| drop(thread.join()));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

impl Shared {
    /// The body of a thread.
    fn work(&self, first: Job) {
        let mut next = Some(first);
        while let Some(job) = next {
            let tell = job();
            // Idle from now on, before anybody knows the result and has another call to make.
            self.lock().idle += 1;
            tell();
            next = self.next();
        }
    }

    /// Waits for a job; with `None` the thread ends.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        let mut patient = true;
        let job = loop {
            if let Some(job) = state.queue.pop_front() {
                break Some(job);
            }
            if state.stopped || !patient {
                break None;
            }
            (state, patient) = self.wait(state, IDLE);
        };
        state.idle -= 1;
        if job.is_none() {
            state.live -= 1;
            self.changed.notify_all();
        }
        job
    }

    /// As all code that holds the lock is here and does not panic, the lock is not poisoned.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps for `limit` at the most; `false` if that was over.
    fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> (MutexGuard<'a, State>, bool) {
        let (state, result) = self.changed.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner);
        (state, !result.timed_out())
    }
}

fn stopped() -> Error {
    Error::new(Code::Socket, "the engine is being destroyed").permanent(Class::Canceled)
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::mpsc;

    use super::*;

    fn now<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn calls_share_a_thread_and_come_back_with_their_result_or_their_panic() {
        now(async {
            assert_eq!(run(|| 7).await.unwrap(), 7);
            assert_eq!(
                run(|| -> u32 { panic!("expected by a test") }).await.unwrap_err().kind(),
                Class::Internal
            );
            for _ in 0..100 {
                run(|| ()).await.unwrap();
            }
        });
        POOL.with(|pool| assert_eq!(pool.0.lock().live, 1));
        stop(Duration::from_secs(10));
        POOL.with(|pool| assert_eq!(pool.0.lock().live, 0));
        assert_eq!(now(run(|| 7)).unwrap_err().kind(), Class::Canceled);
    }

    #[test]
    fn more_calls_than_threads_wait_for_their_turn_and_a_stop_ends_them() {
        let (hold, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let (begun, begins) = mpsc::channel();
        let calls: Vec<_> = (0..THREADS + 1)
            .map(|_| {
                let (held, begun) = (held.clone(), begun.clone());
                run(move || {
                    begun.send(()).unwrap();
                    let _ = held.lock().unwrap().recv();
                })
            })
            .collect();
        now(async {
            let mut calls = calls.into_iter().map(Box::pin).collect::<Vec<_>>();
            for call in &mut calls {
                assert!(std::future::poll_fn(|context| {
                    std::task::Poll::Ready(call.as_mut().poll(context))
                })
                .await
                .is_pending());
            }
            (0..THREADS).for_each(|_| begins.recv().unwrap());
            let counts = POOL.with(|pool| {
                let state = pool.0.lock();
                (state.live, state.queue.len())
            });
            assert_eq!(counts, (THREADS, 1));
            stop(Duration::ZERO);
            assert_eq!(calls.pop().unwrap().await.unwrap_err().kind(), Class::Canceled);
            drop(hold);
            for call in calls {
                call.await.unwrap();
            }
        });
    }
}
