//! Threads of the library: all signals masked (they are the host's), short names, and a
//! guard at the root that reports a panic instead of unwinding out of the thread.

#![allow(unsafe_code)]

use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::thread::{Builder, JoinHandle};

use parking_lot::Mutex;

use crate::error::{Class, Code, Error, Result};

/// Starts `body` on a thread called `name` (at most 15 bytes). If `body` panics,
/// `on_panic` runs on that thread, to fail what the thread was responsible for.
pub fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
    on_panic: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    let guarded = move || {
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            let _ = catch_unwind(AssertUnwindSafe(on_panic));
        }
    };
    let mask = MaskAll::set();
    let spawned = Builder::new().name(name.to_string()).spawn(guarded);
    drop(mask);
    spawned.map_err(|e| {
        Error::io(Code::Memory, format!("cannot start thread {name} (check ulimit -u)"), &e)
            .transient(Class::Resource)
    })
}

/// Runs all `jobs` at once, one on this thread and a short-lived thread for each other, and waits for them. Where
/// threads cannot be made, those that there are do the jobs one after the other.
pub fn scope<T: Send, F: FnOnce() -> T + Send>(jobs: Vec<F>) -> Vec<T> {
    let helpers = jobs.len().saturating_sub(1);
    let results: Vec<Mutex<Option<T>>> = jobs.iter().map(|_| Mutex::default()).collect();
    // Guards what nobody does yet.
    let open = Mutex::new(jobs.into_iter().enumerate());
    let work = || loop {
        let next = open.lock().next();
        let Some((index, job)) = next else { return };
        let result = job();
        *results[index].lock() = Some(result);
    };
    std::thread::scope(|scope| {
        let mask = MaskAll::set();
        let started: Vec<_> =
            (0..helpers).map_while(|_| Builder::new().spawn_scoped(scope, work).ok()).collect();
        drop(mask);
        work();
        for thread in started {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
    // Every job is done: one that panicked has ended this function.
    results.into_iter().filter_map(Mutex::into_inner).collect()
}

/// Blocks every signal on this thread until dropped; a new thread inherits the mask.
struct MaskAll(libc::sigset_t);

impl MaskAll {
    fn set() -> Self {
        // SAFETY: both sets are plain memory that the calls below fill in.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            MaskAll(before)
        }
    }
}

impl Drop for MaskAll {
    fn drop(&mut self) {
        // SAFETY: restores the set saved by `set` on the same thread.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}
