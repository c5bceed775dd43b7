//! Who reads a descriptor again, and when: submit calls whose range is missing take turns, so that wrong addresses are no
//! load for a peer or a store, and a range that the peer has registered a moment ago is never refused.

use std::time::{Duration, Instant};

use crate::runtime::instant;
use crate::runtime::sync::{Condvar, Mutex};

/// Least time between two readings of which the first one did not help. Chosen: ten readings a second for each peer are no
/// load for a store, and a call with a wrong address is not held up for long.
const INTERVAL: Duration = Duration::from_millis(100);

/// The readings of one segment.
#[derive(Default)]
pub(super) struct Turns {
    /// Guards the last reading; never held while one runs.
    pub(super) last: Mutex<Last>,
    ended: Condvar,
}

/// What a call has to do next.
pub(super) enum Step {
    /// Read, and end its turn afterwards, as [`Running`] does.
    Read,
    /// Wait until the reading that runs has ended.
    Wait,
    /// Wait until then, or until a reading has ended.
    WaitUntil(Instant),
    /// Go on: there was a reading since it came.
    GoOn,
}

/// The last reading.
#[derive(Default)]
pub(super) struct Last {
    /// When it began.
    began: Option<Instant>,
    /// It has not ended yet.
    is_running: bool,
    /// A call's range was still missing afterwards.
    was_fruitless: bool,
}

impl Turns {
    /// Returns after a reading that began after this call did: its own, made by `read`, or another thread's. Waits while
    /// another one runs, and until [`INTERVAL`] has passed since one that was fruitless.
    pub(super) fn take(&self, read: impl FnOnce()) {
        let asked = instant::now();
        let mut last = self.last.lock();
        loop {
            match last.step(asked, instant::now()) {
                Step::Read => break,
                Step::Wait => self.ended.wait(&mut last),
                Step::WaitUntil(due) => drop(self.ended.wait_until(&mut last, due)),
                Step::GoOn => return,
            }
        }
        drop(last);
        let _running = Running(self);
        read();
    }

    /// The range of a call was still missing after its turn. A reading that helped does not count: a peer may register
    /// region after region, and each may be used at once.
    pub(super) fn note_fruitless(&self) {
        self.last.lock().was_fruitless = true;
    }
}

impl Last {
    /// What a call has to do that came at `asked`. If it is to read, its turn begins.
    pub(super) fn step(&mut self, asked: Instant, now: Instant) -> Step {
        if self.is_running {
            return Step::Wait;
        }
        if self.began.is_some_and(|began| began >= asked) {
            return Step::GoOn;
        }
        let due = self.began.filter(|_| self.was_fruitless).map(|began| began + INTERVAL);
        if let Some(due) = due.filter(|due| *due > now) {
            return Step::WaitUntil(due);
        }
        *self = Last { began: Some(now), is_running: true, was_fruitless: false };
        Step::Read
    }
}

/// Ends the turn, also if the reading panics.
pub(super) struct Running<'a>(pub(super) &'a Turns);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.last.lock().is_running = false;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn a_fruitless_reading_puts_the_next_one_off_and_does_not_replace_it() {
        let (turns, readings) = (Turns::default(), AtomicUsize::new(0));
        let read = || {
            readings.fetch_add(1, SeqCst);
        };
        turns.take(read);
        turns.take(read);
        assert_eq!(readings.load(SeqCst), 2, "one that helped puts nothing off");
        let before = Instant::now();
        turns.note_fruitless();
        turns.take(read);
        assert_eq!(readings.load(SeqCst), 3);
        let began = turns.last.lock().began.unwrap();
        assert!(began >= before, "the earlier reading is not taken for a new one");
    }

    #[test]
    fn whoever_asks_while_one_runs_waits_for_another() {
        let (turns, readings, inside) = (Turns::default(), AtomicUsize::new(0), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                turns.take(|| {
                    inside.wait();
                    // Until the other thread has asked, or nearly: both orders are right.
                    inside.wait();
                    readings.fetch_add(1, SeqCst);
                });
            });
            inside.wait();
            let asked = Instant::now();
            inside.wait();
            turns.take(|| {
                readings.fetch_add(1, SeqCst);
            });
            assert!(
                turns.last.lock().began.unwrap() >= asked,
                "one that began earlier may have missed the change"
            );
        });
        assert_eq!(readings.load(SeqCst), 2);
    }

    #[test]
    fn many_that_wait_share_a_reading() {
        let (turns, readings) = (Turns::default(), AtomicUsize::new(0));
        let all = Barrier::new(8);
        turns.take(|| ());
        turns.note_fruitless();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    all.wait();
                    turns.take(|| {
                        readings.fetch_add(1, SeqCst);
                    });
                });
            }
        });
        // All have asked long before it was due; a straggler may need one more.
        assert!((1..=2).contains(&readings.load(SeqCst)), "{readings:?}");
    }

    #[test]
    fn a_reading_that_panics_ends_its_turn() {
        let turns = Turns::default();
        let caught =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| turns.take(|| panic!("as meant"))));
        assert!(caught.is_err());
        turns.take(|| ());
    }
}
