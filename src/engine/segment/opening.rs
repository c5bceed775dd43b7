//! Whether a segment that is opened again is read again first: its owner may have been started anew under the same name, and
//! the caller's next request is meant for the new one.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::turns::Turns;

/// After a reading that was not answered in time, openings do without one for so many times as long as it took. Chosen: a
/// program that opens a segment for each request waits a fifth of its time for a peer that does not answer. Where nobody
/// listens that is known at once, and no rest is needed.
const REST: u32 = 4;

/// One segment's.
pub(super) struct Opening {
    /// Nobody answered where its owner should be.
    suspect: AtomicBool,
    /// Guards the times; never held across I/O.
    times: Mutex<Times>,
    /// Calls that open it at once share readings.
    turns: Turns,
}

struct Times {
    /// The descriptor was read.
    read_at: Instant,
    /// It is not to be read before this time, because the last reading was not answered.
    rests_until: Instant,
}

impl Opening {
    /// Of a segment whose descriptor was read `now`.
    pub(super) fn new(now: Instant) -> Self {
        let times = Mutex::new(Times { read_at: now, rests_until: now });
        Opening { suspect: AtomicBool::new(false), times, turns: Turns::default() }
    }

    /// The descriptor was read.
    pub(super) fn note_read(&self, now: Instant) {
        self.suspect.store(false, SeqCst);
        self.times.lock().read_at = now;
    }

    /// Nobody answered where its owner should be.
    pub(super) fn suspect(&self) {
        self.suspect.store(true, SeqCst);
    }

    /// Whether the descriptor is to be read again. `lives` is what connections tell of the owner, as
    /// [`crate::transport::Link::peer_lives`]; `oldest` is the age from which it is where they tell nothing.
    pub(super) fn is_due(&self, lives: Option<bool>, oldest: Duration, now: Instant) -> bool {
        let suspect = self.suspect.load(SeqCst) || lives == Some(false);
        if !suspect && lives == Some(true) {
            return false;
        }
        let times = self.times.lock();
        now >= times.rests_until && (suspect || now.saturating_duration_since(times.read_at) >= oldest)
    }

    /// Has the descriptor read by `read`, which says whether there was an answer, or waits until another call has.
    pub(super) fn read_again(&self, read: impl FnOnce() -> bool) {
        self.turns.take(|| {
            let began = Instant::now();
            // Another call that has just waited in vain need not be followed by one that does so too.
            if began < self.times.lock().rests_until || read() {
                return;
            }
            let now = Instant::now();
            self.times.lock().rests_until = now + REST * now.saturating_duration_since(began);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLDEST: Duration = Duration::from_secs(1);

    #[test]
    fn a_descriptor_is_read_again_where_its_owner_may_be_another() {
        let now = Instant::now();
        let fresh = Opening::new(now);
        let suspect = Opening::new(now);
        suspect.suspect();
        for (what, opening, lives, age, due) in [
            ("just read, and no connection", &fresh, None, 0, false),
            ("some time ago, and no connection", &fresh, None, 1, true),
            ("a connection is up", &fresh, Some(true), 100, false),
            ("a connection has ended", &fresh, Some(false), 0, true),
            ("nobody answered", &suspect, None, 0, true),
            ("nobody answered, although a connection is up", &suspect, Some(true), 0, true),
        ] {
            assert_eq!(opening.is_due(lives, OLDEST, now + age * OLDEST), due, "{what}");
        }
        suspect.note_read(now + OLDEST);
        assert!(!suspect.is_due(None, OLDEST, now + OLDEST), "a reading ends the suspicion");
    }

    #[test]
    fn an_owner_that_cannot_be_asked_holds_callers_up_for_a_part_of_their_time() {
        let opening = Opening::new(Instant::now());
        opening.suspect();
        let began = Instant::now();
        opening.read_again(|| {
            // As long as it takes: the rest grows with it.
            while began.elapsed() < Duration::from_millis(20) {
                std::thread::yield_now();
            }
            false
        });
        let took = began.elapsed();
        assert!(!opening.is_due(None, OLDEST, began + 2 * took));
        opening.read_again(|| panic!("not now"));
        let refused = Opening::new(began);
        refused.suspect();
        refused.read_again(|| true);
        assert!(
            refused.is_due(None, OLDEST, Instant::now()),
            "who was told so at once may ask again at once"
        );
        assert!(opening.is_due(None, OLDEST, Instant::now() + REST * took));
    }
}
