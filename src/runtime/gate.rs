//! The gate between forks and *sections*: short pieces of work that a fork must not cut in two, such as making a socket and
//! noting its number, or setting up what a child needs too. Forks wait for sections, and sections for forks.
//!
//! A lock of the standard library would not do: a child could not open it again.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// In [`GATE`], one fork that is under way; below it, sections are counted.
const FORK: u64 = 1 << 32;
/// Longest that a fork waits. Chosen: a section takes microseconds, opening the log file milliseconds; a fork that waits
/// longer has met a thread that cannot go on, and must not wait for it for ever.
const LIMIT: Duration = Duration::from_secs(1);
/// How often whoever waits looks again. Chosen: a fork takes longer than that.
const NAP: Duration = Duration::from_micros(50);

/// Forks and sections under way.
static GATE: AtomicU64 = AtomicU64::new(0);
/// Threads that wait for forks to end. The next fork lets them go first, or forks in a loop would keep them out.
static WAITING: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// How many sections this thread is in; only the outermost is counted in the gate.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// While it lives, no fork begins.
pub struct Section(PhantomData<*const ()>);

/// Enters a section, for work that does not block; waits while a fork is under way.
pub fn section() -> Section {
    let depth = INSIDE.get();
    INSIDE.set(depth + 1);
    if depth == 0 && GATE.fetch_add(1, SeqCst) >= FORK {
        WAITING.fetch_add(1, SeqCst);
        loop {
            GATE.fetch_sub(1, SeqCst);
            while GATE.load(SeqCst) >= FORK {
                std::thread::sleep(NAP);
            }
            if GATE.fetch_add(1, SeqCst) < FORK {
                break;
            }
        }
        WAITING.fetch_sub(1, SeqCst);
    }
    Section(PhantomData)
}

impl Drop for Section {
    fn drop(&mut self) {
        INSIDE.set(INSIDE.get() - 1);
        if INSIDE.get() == 0 {
            GATE.fetch_sub(1, SeqCst);
        }
    }
}

/// What this thread has in the gate itself, if a signal handler forks inside a section.
fn own() -> u64 {
    u64::from(INSIDE.get() > 0)
}

/// Before a fork: waits until nobody is in a section, and keeps new ones from beginning.
pub(super) fn close() {
    let begun = Instant::now();
    let late = || begun.elapsed() >= LIMIT;
    while WAITING.load(SeqCst) > 0 && !late() {
        std::thread::sleep(NAP);
    }
    GATE.fetch_add(FORK, SeqCst);
    while GATE.load(SeqCst) % FORK > own() && !late() {
        std::thread::sleep(NAP);
    }
}

/// After the fork, in the parent.
pub(super) fn open() {
    GATE.fetch_sub(FORK, SeqCst);
}

/// After the fork, in the child, where no other thread is. Only touches atomics.
pub(super) fn open_in_child() {
    GATE.store(own(), SeqCst);
    WAITING.store(0, SeqCst);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn forks_wait_for_sections_but_not_for_ever_and_sections_for_forks() {
        static ENTERED: AtomicBool = AtomicBool::new(false);
        let outer = section();
        let inner = section();
        // A fork by this very thread does not wait for itself.
        close();
        let other = std::thread::spawn(|| {
            drop(section());
            ENTERED.store(true, SeqCst);
        });
        while WAITING.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        assert!(!ENTERED.load(SeqCst));
        open();
        other.join().unwrap();
        let begun = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                close();
                open();
            });
        });
        assert!(begun.elapsed() >= LIMIT);
        drop((inner, outer));
        // Other tests of this process enter sections too.
        let deadline = Instant::now() + Duration::from_secs(60);
        while GATE.load(SeqCst) != 0 {
            assert!(Instant::now() < deadline, "{:#x}", GATE.load(SeqCst));
            std::thread::yield_now();
        }
    }
}
