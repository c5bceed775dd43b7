//! What a data-plane thread does by the clock: deadlines ten times a second, and each millisecond a look at what it left to
//! callers.

use std::time::{Duration, Instant};

/// How often deadlines are looked at. Chosen: they are seconds long, so a tenth of a second later does no harm, and ten
/// wake-ups a second are far below 1 % of a core.
const TICK: Duration = Duration::from_millis(100);
/// A thread that comes so much too late to its tick was stopped, with the process or the machine: peers could not be heard.
/// Chosen: a busy host does not make it so late, and no deadline is as short.
const PAUSE: Duration = Duration::from_secs(1);
/// How often what a caller polls is looked at. Chosen: the shortest that epoll_wait(2) can wait; a caller that stops polling
/// without a word is waited for no longer than that.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// When the thread did these things last.
#[derive(Clone, Debug)]
pub struct Pace {
    ticked: Instant,
    looked: Instant,
}

impl Pace {
    /// The thread starts.
    pub fn new(now: Instant) -> Self {
        Pace { ticked: now, looked: now }
    }

    /// How long the thread may sleep, in milliseconds. `looks_again`: there is something that it left to a caller.
    pub fn timeout_ms(looks_again: bool) -> i32 {
        let timeout = if looks_again { LOOK_AGAIN } else { TICK };
        timeout.as_millis() as i32
    }

    /// `true`: what was left to callers is to be looked at now.
    pub fn looks_again(&mut self, now: Instant) -> bool {
        let is_due = now - self.looked >= LOOK_AGAIN;
        if is_due {
            self.looked = now;
        }
        is_due
    }

    /// Deadlines are to be looked at now. The time is how long the thread did not run before, if that was long, else zero.
    pub fn ticks(&mut self, now: Instant) -> Option<Duration> {
        let since = now - self.ticked;
        if since < TICK {
            return None;
        }
        self.ticked = now;
        Some(if since > PAUSE { since } else { Duration::ZERO })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_come_ten_times_a_second_and_say_how_long_a_thread_was_stopped() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.ticks(start + TICK - Duration::from_nanos(1)), None);
        assert_eq!(pace.ticks(start + TICK), Some(Duration::ZERO));
        assert_eq!(pace.ticks(start + TICK), None);
        let late = start + TICK + PAUSE;
        assert_eq!(pace.ticks(late), Some(Duration::ZERO));
        let stopped = PAUSE + Duration::from_millis(1);
        assert_eq!(pace.ticks(late + stopped), Some(stopped));
        assert_eq!(pace.ticks(late + stopped + TICK), Some(Duration::ZERO));
    }

    #[test]
    fn what_callers_poll_is_looked_at_each_millisecond() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert!(!pace.looks_again(start));
        assert!(pace.looks_again(start + LOOK_AGAIN));
        assert!(!pace.looks_again(start + LOOK_AGAIN));
        assert!(pace.looks_again(start + 2 * LOOK_AGAIN));
        assert_eq!((Pace::timeout_ms(true), Pace::timeout_ms(false)), (1, 100));
    }
}
