//! How old a cached descriptor may be. Where the store tells of changes, any age will do. Elsewhere a descriptor in
//! use is read again once it is older than the interval; one that is not in use costs nothing.

use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::newest::{Reading, Readings};
use crate::config::Config;
use crate::engine::traffic::Peers;
use crate::metadata::Watch;
use crate::observe::log::RateLimit;
use crate::runtime::instant;

/// Descriptors that one engine reads at once in the background. Chosen: little beside what its callers ask of the
/// store.
const READING_AT_ONCE: usize = 8;

/// What all segments of an engine share.
pub(super) struct Settings {
    /// Age at which a descriptor in use is read again; zero: never.
    interval: Duration,
    reading: Arc<Semaphore>,
    log: Arc<RateLimit>,
    /// Numbers all readings.
    pub readings: Arc<Readings>,
    /// Where tasks are counted by peer.
    pub peers: Peers,
}

impl Default for Settings {
    fn default() -> Self {
        Settings::new(&Config::default())
    }
}

impl Settings {
    /// As configured.
    pub(super) fn new(config: &Config) -> Self {
        Settings {
            interval: config.metadata_revalidate,
            reading: Arc::new(Semaphore::new(READING_AT_ONCE)),
            log: Arc::default(),
            readings: Arc::default(),
            peers: Peers::new(config.metric_peers),
        }
    }
}

/// One segment's.
pub(super) struct Freshness {
    /// `None` where nothing is read at intervals: the store tells of changes, or the peer itself is asked when a
    /// connection fails.
    interval: Option<Duration>,
    /// Lets few readings run in the background at once.
    pub reading: Arc<Semaphore>,
    /// Limits the log lines about new descriptors that cannot be used.
    pub log: Arc<RateLimit>,
    /// Guards the time at which the last reading began, or was ordered.
    read_at: Mutex<Instant>,
    /// Set once the store tells of changes.
    pub watch: OnceCell<Watch>,
    /// A reading in the background waits for its turn. Cleared when it begins: from then on it may miss a change, so
    /// another one may be ordered.
    pub awaited: AtomicBool,
    /// Held by a reading in the background: a segment has one at a time.
    pub background: tokio::sync::Mutex<()>,
}

impl Freshness {
    /// For a descriptor that was just read; `told`: the store tells of changes, or the peer is asked.
    pub(super) fn new(settings: &Settings, reading: Reading, told: bool) -> Self {
        Freshness {
            interval: Some(settings.interval).filter(|interval| !told && !interval.is_zero()),
            reading: settings.reading.clone(),
            log: settings.log.clone(),
            read_at: Mutex::new(reading.began),
            watch: OnceCell::new(),
            awaited: AtomicBool::new(false),
            background: tokio::sync::Mutex::default(),
        }
    }

    /// The descriptor was read; its age counts from when it was asked for.
    pub(super) fn note_read(&self, reading: Reading) {
        if self.interval.is_some() {
            let mut read_at = self.read_at.lock();
            *read_at = reading.began.max(*read_at);
        }
    }

    /// It is time to read again; says so once per interval.
    pub(super) fn is_due(&self) -> bool {
        let Some(interval) = self.interval else { return false };
        let mut read_at = self.read_at.lock();
        let now = instant::now();
        let due = now.saturating_duration_since(*read_at) >= interval;
        if due {
            *read_at = now;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn freshness(millis: u64, told: bool) -> Freshness {
        let config = Config { metadata_revalidate: Duration::from_millis(millis), ..Config::default() };
        Freshness::new(&Settings::new(&config), reading(), told)
    }

    fn reading() -> Reading {
        Reading { number: 1, began: Instant::now() }
    }

    #[test]
    fn a_descriptor_is_due_once_per_interval() {
        let freshness = freshness(60_000, false);
        assert!(!freshness.is_due(), "it was read just now");
        // A minute ago, as far as it knows.
        let ago = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        *freshness.read_at.lock() = ago;
        assert!(freshness.is_due());
        assert!(!freshness.is_due(), "whoever asked first reads");
        *freshness.read_at.lock() = ago;
        freshness.note_read(Reading { number: 2, began: ago });
        assert!(freshness.is_due(), "what was asked for a minute ago is a minute old");
        *freshness.read_at.lock() = ago;
        freshness.note_read(reading());
        assert!(!freshness.is_due());
    }

    #[test]
    fn where_changes_are_told_or_no_age_is_too_high_nothing_is_due() {
        for (millis, told) in [(1, true), (0, false)] {
            let freshness = freshness(millis, told);
            *freshness.read_at.lock() = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
            assert!(!freshness.is_due());
        }
    }
}
