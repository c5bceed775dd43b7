//! Who looks after a lane: a caller that polls it, or its reactor. Atomics, because the poller and the reactor must not
//! wait for each other.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::super::reactor::Reactor;
use crate::runtime::epoll::{self, ONESHOT, OUT};

/// A caller that polled within this time is expected to poll again, so the reactor leaves the lane to it.
const POLLED_RECENTLY: Duration = Duration::from_micros(200);

const IN: u32 = epoll::IN | epoll::RDHUP;

/// What keeps the reactor away from a lane, or calls it. Relaxed throughout: nothing is reached through these values,
/// and the reactor looks again every millisecond at what it left to a caller.
#[derive(Default)]
pub(super) struct Interest {
    /// The reactor has the lane on its list of what to look at again.
    pub listed: AtomicBool,
    /// Microseconds since the transport started at which a caller last polled; 0: the caller sleeps.
    polled_at: AtomicU64,
    /// The epoll interest that is set; 0 after an event until it is set again.
    armed: AtomicU32,
}

impl Interest {
    /// A caller polls at `now_us`.
    pub(super) fn note_poll(&self, now_us: u64) {
        self.polled_at.store(now_us, Relaxed);
    }

    /// Callers sleep from now on.
    pub(super) fn note_sleep(&self) {
        self.polled_at.store(0, Relaxed);
    }

    /// A caller polled a moment ago.
    pub(super) fn is_polled(&self, now_us: impl FnOnce() -> u64) -> bool {
        let polled = self.polled_at.load(Relaxed);
        polled != 0 && now_us().saturating_sub(polled) < POLLED_RECENTLY.as_micros() as u64
    }

    /// Watches a new connection.
    pub(super) fn watch(&self, reactor: &Reactor, fd: RawFd, id: u64) -> io::Result<()> {
        // First the note, then the interest: the event may come before this function ends.
        self.armed.store(IN | OUT, Relaxed);
        reactor.watch(fd, id, IN | OUT | ONESHOT)
    }

    /// Has the reactor called for replies, and for room to send if there is something to send.
    pub(super) fn arm(&self, reactor: &Reactor, fd: RawFd, id: u64, wants_to_send: bool) {
        let want = if wants_to_send { IN | OUT } else { IN };
        if self.armed.swap(want, Relaxed) != want {
            reactor.rewatch(fd, id, want | ONESHOT);
        }
    }

    /// An event came, which ends the interest that was set.
    pub(super) fn note_event(&self) {
        self.armed.store(0, Relaxed);
    }
}
