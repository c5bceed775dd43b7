//! How an open segment hears of changes: the store tells, or the descriptor is read again when it is used and old. What
//! is not used costs nothing.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{Known, Segment};
use crate::config::Config;
use crate::metadata::{Change, SegmentDesc, Watch};
use crate::runtime::control::Control;

/// Descriptors of one engine that are read again at once in the background.
const READING_AT_ONCE: usize = 8;

/// The same for all segments of an engine.
pub struct Settings {
    /// Age at which a descriptor in use is read again; zero: never.
    interval: Duration,
    reading: Arc<Semaphore>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings::new(&Config::default())
    }
}

impl Settings {
    /// As configured.
    pub fn new(config: &Config) -> Self {
        Settings { interval: config.metadata_revalidate, reading: Arc::new(Semaphore::new(READING_AT_ONCE)) }
    }
}

/// One segment's.
pub struct Freshness {
    /// `None` where the store tells, or the peer is asked when a connection fails.
    interval: Option<Duration>,
    reading: Arc<Semaphore>,
    /// Guards the time of the last reading.
    read_at: Mutex<Instant>,
    /// Highest revision known; an older answer that comes later is not used.
    latest: AtomicI64,
    watch: OnceCell<Watch>,
    /// A reading in the background waits for its turn; one that has begun may miss what happens now.
    awaited: AtomicBool,
}

impl Freshness {
    /// A descriptor that was read just now; `told`: somebody tells of changes.
    pub fn new(settings: &Settings, told: bool) -> Self {
        Freshness {
            interval: Some(settings.interval).filter(|interval| !told && !interval.is_zero()),
            reading: settings.reading.clone(),
            read_at: Mutex::new(Instant::now()),
            latest: AtomicI64::new(0),
            watch: OnceCell::new(),
            awaited: AtomicBool::new(false),
        }
    }

    /// Highest revision known.
    pub fn latest(&self) -> i64 {
        self.latest.load(SeqCst)
    }

    /// The descriptor was read, as of this revision.
    pub fn read_now(&self, revision: i64) {
        self.latest.store(revision, SeqCst);
        if self.interval.is_some() {
            *self.read_at.lock() = Instant::now();
        }
    }

    /// It is time to read again; says so once per interval.
    fn is_due(&self) -> bool {
        let Some(interval) = self.interval else { return false };
        let mut read_at = self.read_at.lock();
        let due = read_at.elapsed() >= interval;
        if due {
            *read_at = Instant::now();
        }
        due
    }
}

impl Segment {
    /// Has the store tell of changes, if it does.
    pub fn start_watch(self: &Arc<Self>, control: &Arc<Control>) {
        let since = self.known().revision;
        let (me, of) = (Arc::downgrade(self), Arc::downgrade(control));
        let changed = Box::new(move |change| {
            let (Some(segment), Some(control)) = (me.upgrade(), of.upgrade()) else { return };
            segment.hear(change, &control);
        });
        let _ = self
            .freshness
            .watch
            .get_or_try_init(|| self.store.watch(&self.opened_as, since, changed).ok_or(()));
    }

    /// Reads a descriptor that is in use and old again, in the background.
    pub fn revalidate(self: &Arc<Self>, control: &Control) {
        if self.freshness.is_due() {
            self.refresh_soon(control);
        }
    }

    fn hear(self: &Arc<Self>, change: Change, control: &Control) {
        match change {
            Change::To(desc, revision) => match heard(*desc, revision) {
                Some(known) => self.replace(known),
                None => self.refresh_soon(control),
            },
            Change::Unknown => {
                // The store may have begun to count anew.
                self.freshness.latest.store(0, SeqCst);
                self.refresh_soon(control);
            }
        }
    }

    fn refresh_soon(self: &Arc<Self>, control: &Control) {
        if self.freshness.awaited.swap(true, SeqCst) {
            return;
        }
        let (segment, reading) = (self.clone(), self.freshness.reading.clone());
        control.spawn(async move {
            // The semaphore is never closed.
            let _turn = reading.acquire().await;
            segment.freshness.awaited.store(false, SeqCst);
            if let Err(error) = segment.refresh().await {
                tracing::debug!("descriptor of '{}' not read again: {error}", segment.opened_as);
            }
        });
    }
}

/// A descriptor that says all there is to know; `None` if the host of its data port is to be looked up.
fn heard(desc: SegmentDesc, revision: i64) -> Option<Known> {
    let host = desc.tcp_data_host.clone().unwrap_or_default();
    if host.is_empty() && desc.tcp_data_port != 0 {
        return None;
    }
    let host = if desc.tcp_data_port == 0 { String::new() } else { host };
    Some(Known { revision, ..Known::new(desc, host).ok()? })
}
