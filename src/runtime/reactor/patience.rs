//! How long a data-plane thread looks for events before it sleeps. In a stream of requests the next one comes within
//! microseconds, and waking a sleeping thread costs more than that; but a thread that looks in vain takes a processor away.

use std::time::{Duration, Instant};

/// An event that came within so many times `MC_TCP_BUSY_POLL_US` makes looking for the next one worth it. Chosen: it came
/// about when a thread that looks would still have been looking.
const SOON: u32 = 2;
/// By how much the time to look shrinks after each sleep that was longer. Chosen: with the default setting nothing is
/// left of it after nine such sleeps, so an idle engine does not spin.
const WANE: u32 = 4;

/// The time to look: all of `MC_TCP_BUSY_POLL_US` while that is worth it, and less after each time that it was not.
#[derive(Clone, Debug)]
pub struct Patience {
    most: Duration,
    now: Duration,
}

impl Patience {
    /// It grows up to `most`, and begins with nothing.
    pub fn new(most: Duration) -> Self {
        Patience { most, now: Duration::ZERO }
    }

    /// Looks by means of `look` for as long as there is patience since `began`, and at least once if there is any. What it
    /// finds is returned; `None`: nothing, and the thread is to [sleep](Self::sleep).
    pub fn look<T>(&mut self, began: Instant, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        while !self.now.is_zero() {
            match look() {
                None if began.elapsed() > self.now => break,
                None => std::thread::yield_now(),
                found => {
                    self.now = self.most;
                    return found;
                }
            }
        }
        None
    }

    /// Sleeps by means of `wait`, which says how many events there are then; `began`: when the thread had nothing to do any more.
    pub fn sleep(&mut self, began: Instant, wait: impl FnOnce() -> usize) -> usize {
        let ready = wait();
        self.note_sleep(ready > 0 && began.elapsed() < SOON * self.most);
        ready
    }

    /// The thread has slept; `soon`: an event came when it would nearly still have been looking.
    fn note_sleep(&mut self, soon: bool) {
        self.now = if soon { self.most } else { self.now / WANE };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(1000);

    /// How often it looks while nothing is found before look number `last`.
    fn looks(patience: &mut Patience, last: usize) -> usize {
        let mut looks = 0;
        let found = patience.look(Instant::now(), || {
            looks += 1;
            (looks == last).then_some("an event")
        });
        assert_eq!(found.is_some(), looks == last);
        looks
    }

    #[test]
    fn there_is_none_before_an_event_came_soon() {
        let mut patience = Patience::new(LONG);
        assert_eq!(looks(&mut patience, 1), 0);
        assert_eq!(patience.sleep(Instant::now(), || 3), 3);
        assert_eq!(looks(&mut patience, 7), 7);
    }

    #[test]
    fn it_wanes_with_each_sleep_that_was_for_nothing_and_recovers_with_an_event() {
        // The default of the setting.
        let most = Duration::from_micros(100);
        let mut patience = Patience::new(most);
        patience.note_sleep(true);
        assert_eq!(patience.now, most);
        for _ in 0..9 {
            assert!(!patience.now.is_zero());
            let before = patience.now;
            patience.note_sleep(false);
            assert_eq!(patience.now, before / WANE);
        }
        assert!(patience.now.is_zero());
        patience.note_sleep(true);
        assert_eq!(patience.now, most);
        // What is found by looking is as good.
        patience.note_sleep(false);
        patience.now = LONG;
        assert_eq!(looks(&mut patience, 2), 2);
        assert_eq!(patience.now, most);
    }

    #[test]
    fn a_sleep_without_an_event_is_for_nothing_and_so_is_one_that_was_long() {
        let mut patience = Patience::new(LONG);
        patience.note_sleep(true);
        assert_eq!(patience.sleep(Instant::now(), || 0), 0);
        assert_eq!(patience.now, LONG / WANE);
        patience.most = Duration::from_nanos(1);
        let long_ago = Instant::now() - Duration::from_secs(1);
        assert_eq!(patience.sleep(long_ago, || 1), 1);
        assert_eq!(patience.now, LONG / WANE / WANE);
    }

    #[test]
    fn it_ends_and_it_looks_once_however_late_it_is() {
        let mut patience = Patience::new(Duration::from_nanos(1));
        patience.note_sleep(true);
        let long_ago = Instant::now() - Duration::from_secs(1);
        let mut looks = 0;
        let found = patience.look(long_ago, || {
            looks += 1;
            None::<()>
        });
        assert_eq!((found, looks), (None, 1));
    }

    #[test]
    fn a_thread_that_is_not_to_look_never_does() {
        let mut patience = Patience::new(Duration::ZERO);
        assert_eq!(patience.sleep(Instant::now(), || 1), 1);
        assert_eq!(looks(&mut patience, 1), 0);
    }
}
