//! Whether a segment that is opened again is read again first: its owner may have been started anew under the same name, and
//! the caller's next request is meant for the new one.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::newest::Reading;
use super::turns::Turns;
use crate::runtime::instant;

/// How long opening a segment again waits for its descriptor. Chosen: peers and stores that live answer within it, and the old
/// descriptor may still be right.
pub(crate) const OPEN_LIMIT: Duration = Duration::from_secs(1);

/// After a reading that was not answered in time, openings do without one for so many times as long as it took. Chosen: a
/// program that opens a segment for each request waits a fifth of its time for a peer that does not answer. Where nobody
/// listens that is known at once, and no rest is needed.
const REST: u32 = 4;
/// A reading counts as no longer than this, which is what openings wait: this process itself may have been stopped.
const LONGEST: Duration = OPEN_LIMIT;

/// One segment's.
pub(super) struct Opening {
    /// The last reading that had begun when nobody answered where its owner should be; 0: it is not suspected.
    suspect: AtomicU64,
    /// Guards the times; never held across I/O.
    times: Mutex<Times>,
    /// Calls that open it at once share readings.
    pub(super) turns: Turns,
}

struct Times {
    /// The reading of the descriptor began.
    read_at: Instant,
    /// It is not to be read before this time, because the last reading was not answered.
    rests_until: Instant,
}

impl Opening {
    /// Of a segment whose descriptor was asked for at `began`.
    pub(super) fn new(began: Instant) -> Self {
        let times = Mutex::new(Times { read_at: began, rests_until: began });
        Opening { suspect: AtomicU64::new(0), times, turns: Turns::default() }
    }

    /// The descriptor was read. Its age counts from when it was asked for: it may have been over since, and the process may have
    /// been stopped while the answer waited for it.
    pub(super) fn note_read(&self, reading: Reading) {
        // What was asked for before nobody answered may be what the owner said before it ended.
        let ends = |suspect| (suspect < reading.number).then_some(0);
        let _ = self.suspect.fetch_update(SeqCst, SeqCst, ends);
        let read_at = &mut self.times.lock().read_at;
        *read_at = reading.began.max(*read_at);
    }

    /// Nobody answered where its owner should be, after the reading `last` had begun.
    pub(super) fn suspect(&self, last: u64) {
        self.suspect.fetch_max(last.max(1), SeqCst);
    }

    /// Whether the descriptor is to be read again. `lives` is what connections tell of the owner, as
    /// [`crate::transport::Link::peer_lives`]; `oldest` is the age from which it is where they tell nothing.
    pub(super) fn is_due(&self, lives: Option<bool>, oldest: Duration, now: Instant) -> bool {
        let suspect = self.suspect.load(SeqCst) != 0 || lives == Some(false);
        if !suspect && lives == Some(true) {
            return false;
        }
        let times = self.times.lock();
        now >= times.rests_until && (suspect || now.saturating_duration_since(times.read_at) >= oldest)
    }

    /// Has the descriptor read by `read`, which says whether there was an answer, or waits until another call has.
    pub(super) fn read_again(&self, read: impl FnOnce() -> bool) {
        self.turns.take(|| {
            let began = instant::now();
            if !self.rests(began) && !read() {
                self.note_unanswered(began, instant::now());
            }
        });
    }

    /// Another call has just waited in vain, which need not be followed by one that does so too.
    pub(super) fn rests(&self, now: Instant) -> bool {
        now < self.times.lock().rests_until
    }

    /// A reading that began then was not answered in time.
    pub(super) fn note_unanswered(&self, began: Instant, now: Instant) {
        let took = now.saturating_duration_since(began).min(LONGEST);
        self.times.lock().rests_until = now + REST * took;
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
        suspect.suspect(1);
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
        suspect.note_read(Reading { number: 1, began: now + OLDEST });
        assert!(
            suspect.is_due(None, OLDEST, now + OLDEST),
            "what was asked for before says nothing of what has happened since"
        );
        suspect.note_read(Reading { number: 2, began: now + OLDEST });
        assert!(!suspect.is_due(None, OLDEST, now + OLDEST), "a reading ends the suspicion");
    }

    #[test]
    fn an_owner_that_cannot_be_asked_holds_callers_up_for_a_part_of_their_time() {
        let opening = Opening::new(Instant::now());
        opening.suspect(1);
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
        refused.suspect(1);
        refused.read_again(|| true);
        assert!(
            refused.is_due(None, OLDEST, Instant::now()),
            "who was told so at once may ask again at once"
        );
        assert!(opening.is_due(None, OLDEST, Instant::now() + REST * took));
    }

    #[test]
    fn the_age_of_a_descriptor_counts_from_when_it_was_asked_for() {
        let began = Instant::now();
        let opening = Opening::new(began);
        opening.note_read(Reading { number: 2, began: began + OLDEST });
        assert!(!opening.is_due(None, OLDEST, began + OLDEST));
        opening.note_read(Reading { number: 1, began });
        assert!(!opening.is_due(None, OLDEST, began + OLDEST), "another one is newer");
        assert!(opening.is_due(None, OLDEST, began + 2 * OLDEST));
    }

    #[test]
    fn the_rest_after_an_hour_in_which_this_process_was_stopped_is_short() {
        let began = Instant::now();
        let opening = Opening::new(began);
        opening.suspect(1);
        let hour = began + Duration::from_secs(3600);
        opening.note_unanswered(began, hour);
        assert!(!opening.is_due(None, OLDEST, hour + LONGEST));
        assert!(opening.is_due(None, OLDEST, hour + REST * LONGEST));
    }
}
