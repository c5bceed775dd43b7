//! Work that would hold the control thread up, such as the parsing of a long text: it is done on a thread of its own.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{oneshot, Semaphore};

use super::thread;
use crate::error::{Class, Error, Result};

/// Bytes of text from which on a thread is worth its start. Chosen: the control thread parses as much in about a
/// millisecond, and nearly all messages and descriptors are shorter.
pub const LARGE: usize = 64 << 10;

/// Threads for this at once, in the process. Chosen: a text may unfold into 24 times its length, and not many of them are
/// to be in memory at once.
const AT_ONCE: usize = 2;

static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// Does `job`, which works on `bytes` bytes of text: here if they are few, else on another thread, or here after all
/// if no thread can be had. An error if the job panics.
pub async fn run<T: Send + 'static>(
    bytes: usize,
    job: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if bytes < LARGE {
        return job();
    }
    // The semaphore is never closed.
    let turn = TURNS.acquire().await;
    let (done, result) = oneshot::channel();
    // In a place of its own, so that it is still there if no thread can be made.
    let job = Arc::new(Mutex::new(Some(job)));
    let taken = job.clone();
    let body = move || {
        let job = taken.lock().take();
        if let Some(job) = job {
            let _ = done.send(job());
        }
        // Held until the work has ended, even if the caller gave up.
        drop(turn);
    };
    if thread::spawn("mte-aside", body, || ()).is_err() {
        let job = job.lock().take();
        if let Some(job) = job {
            return job();
        }
    }
    let failed =
        |_| Error::invalid("a bug in the library was stopped; report the log").permanent(Class::Internal);
    result.await.map_err(failed)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_work_leaves_this_thread_and_short_work_does_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let here = std::thread::current().id();
        for (bytes, stays) in [(0, true), (LARGE - 1, true), (LARGE, false), (usize::MAX, false)] {
            let there = runtime.block_on(run(bytes, || Ok(std::thread::current().id()))).unwrap();
            assert_eq!(there == here, stays, "{bytes}");
        }
        let panic: Result<()> = runtime.block_on(run(LARGE, || panic!("on purpose")));
        assert_eq!(panic.unwrap_err().kind(), Class::Internal);
        let error: Result<()> = runtime.block_on(run(LARGE, || Err(Error::invalid("x"))));
        assert_eq!(error.unwrap_err().kind(), Class::Argument);
    }
}
