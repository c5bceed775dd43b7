//! The data-plane threads of one transport: what it looks after is spread over them, and has a token that nothing else of it has.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;

use crate::error::Result;

/// Most threads of a transport, unless a setting says otherwise. Chosen: a peer has four lanes over TCP by default, which more
/// threads would not make faster, and on one host more threads than that meet at the memory's bandwidth.
const MOST: usize = 4;

/// How many threads a transport starts: as many as `setting` says; 0: as the machine suggests.
pub fn wanted(setting: usize) -> usize {
    match setting {
        0 => suited_to(std::thread::available_parallelism().map_or(1, usize::from)),
        count => count,
    }
}

/// Half of the processors, because callers need some too; but two where there are two. Measured on two, with one and two threads at
/// either end. TCP: 16 MiB READs 5.3 and 6.2 GB/s, 1 MiB WRITEs of four callers 6.4 and 7.9 GB/s, of one caller 5.9 and 6.2. Shared
/// memory of one host, where the threads of the target share a WRITE: 1 MiB x 16 14.1 and 19.9 GB/s, 16 MiB x 4 8.8 and 13 GB/s.
fn suited_to(processors: usize) -> usize {
    (processors / 2).clamp(processors.min(2), MOST)
}

/// The threads, by their handles of type `R`.
pub struct Threads<R> {
    reactors: OnceLock<Vec<Arc<R>>>,
    next_reactor: AtomicUsize,
    /// 0 is never a token: it stands for [`super::WAKEUP`].
    next_token: AtomicU64,
    started: Instant,
    /// Guards the join handles; whoever joins takes them.
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl<R> Default for Threads<R> {
    /// None yet.
    fn default() -> Self {
        Threads {
            reactors: OnceLock::new(),
            next_reactor: AtomicUsize::new(0),
            next_token: AtomicU64::new(1),
            started: Instant::now(),
            running: Mutex::default(),
        }
    }
}

impl<R> Threads<R> {
    /// Starts as many threads as there are `reactors`, by `run`, which is called with each and its number. After an error those
    /// run that were started before.
    pub fn start(
        &self,
        reactors: Vec<Arc<R>>,
        run: impl Fn(&Arc<R>, usize) -> Result<JoinHandle<()>>,
    ) -> Result<()> {
        self.set(reactors);
        for (index, reactor) in self.reactors().iter().enumerate() {
            self.running.lock().push(run(reactor, index)?);
        }
        Ok(())
    }

    /// Takes the handles of threads that others start. Only the first call counts.
    pub fn set(&self, reactors: Vec<Arc<R>>) {
        let _ = self.reactors.set(reactors);
    }

    /// All of them; none before they are started.
    pub fn reactors(&self) -> &[Arc<R>] {
        self.reactors.get().map_or(&[], Vec::as_slice)
    }

    /// The thread for one more thing to be looked after: each in turn. They were started before.
    pub fn next_reactor(&self) -> Arc<R> {
        let reactors = self.reactors();
        reactors[self.next_reactor.fetch_add(1, Relaxed) % reactors.len()].clone()
    }

    /// A token that nothing else has.
    pub fn next_token(&self) -> u64 {
        self.next_token.fetch_add(1, Relaxed)
    }

    /// Microseconds since the transport started; never 0.
    #[inline]
    pub fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64 + 1
    }

    /// What is to be joined, once.
    pub fn take_running(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.running.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::runtime::thread;

    #[test]
    fn callers_keep_half_of_the_processors_where_there_are_more_than_two() {
        for (processors, threads) in [(1, 1), (2, 2), (3, 2), (4, 2), (6, 3), (8, 4), (128, 4)] {
            assert_eq!(suited_to(processors), threads, "{processors} processors");
        }
        assert_eq!(wanted(7), 7);
    }

    #[test]
    fn each_thread_has_its_turn_and_each_token_is_new() {
        let threads = Threads::default();
        assert!(threads.reactors().is_empty());
        threads.set(vec![Arc::new("one"), Arc::new("other")]);
        threads.set(vec![Arc::new("late")]);
        let turns: Vec<_> = (0..5).map(|_| *threads.next_reactor()).collect();
        assert_eq!(turns, ["one", "other", "one", "other", "one"]);
        let tokens: Vec<_> = (0..3).map(|_| threads.next_token()).collect();
        assert_eq!(tokens, [1, 2, 3]);
        assert!(threads.now_us() > 0);
    }

    #[test]
    fn threads_that_were_started_before_one_could_not_be_are_joined() {
        let threads = Threads::default();
        let run = |reactor: &Arc<Mutex<bool>>, index: usize| {
            if index == 2 {
                return Err(Error::invalid("there are two already"));
            }
            let reactor = reactor.clone();
            thread::spawn("mte-test", move || *reactor.lock() = true, || {})
        };
        let outcome = threads.start((0..4).map(|_| Arc::default()).collect(), run);
        assert!(outcome.is_err());
        let running = threads.take_running();
        assert_eq!((running.len(), threads.take_running().len()), (2, 0));
        running.into_iter().for_each(|thread| thread.join().unwrap());
        let ran: Vec<_> = threads.reactors().iter().map(|reactor| *reactor.lock()).collect();
        assert_eq!(ran, [true, true, false, false]);
    }
}
