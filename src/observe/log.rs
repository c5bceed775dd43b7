//! Log lines, on the tracing crate. The only place that prints: to standard error, or to a
//! file in `MC_LOG_DIR`; never to standard output. A line is one `write(2)`, and no lock is held meanwhile: a thread of
//! the host may fork at any time, and a lock would stay held in the child.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Once;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::Level;

use crate::config::{Config, LogLevel};
use crate::runtime::gate::section;
use crate::runtime::line::Stderr;

/// A cause is logged at most once in this time per peer. Chosen: a peer that stays dead writes twelve lines a minute,
/// and whoever watches the log sees within seconds that it still is.
const INTERVAL: Duration = Duration::from_secs(5);
/// Causes and peers remembered; when there are as many, all are forgotten at once. Chosen: more than fail together as a
/// rule, in some hundred KiB.
const REMEMBERED: usize = 1024;

/// Sets the library's log up, once per process. A Rust program that has its own tracing
/// subscriber keeps it.
pub fn init(config: &Config, warnings: &[String]) {
    static ONCE: Once = Once::new();
    let mut refused = None;
    // A child has what is done here done, or not begun: the crate takes locks of its own meanwhile.
    let section = section();
    ONCE.call_once(|| {
        let level = match config.log_level {
            LogLevel::Trace => Level::TRACE,
            LogLevel::Info => Level::INFO,
            LogLevel::Warning => Level::WARN,
            LogLevel::Error => Level::ERROR,
        };
        // A line that cannot be written is lost. The crate would say so through the standard library's lock.
        let base =
            || tracing_subscriber::fmt().with_max_level(level).with_ansi(false).log_internal_errors(false);
        let file =
            config.log_dir.as_deref().map(open).and_then(|file| file.map_err(|e| refused = Some(e)).ok());
        // An error means that the host program has a subscriber: it gets the lines.
        let _ = match file {
            Some(file) => tracing::subscriber::set_global_default(base().with_writer(file).finish()),
            None => tracing::subscriber::set_global_default(base().with_writer(|| Stderr).finish()),
        };
    });
    drop(section);
    if let Some(error) = refused {
        tracing::warn!("MC_LOG_DIR ignored: {error}; logging to standard error");
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

fn open(folder: &str) -> std::io::Result<std::fs::File> {
    let path = Path::new(folder).join(format!("transfer_engine.{}.log", std::process::id()));
    OpenOptions::new().create(true).append(true).open(path)
}

/// Admits one line per cause and peer and interval, so that a dead peer cannot fill a disk.
#[derive(Default)]
pub struct RateLimit {
    /// Guards the time of the last line of each cause and peer.
    last: Mutex<HashMap<(&'static str, String), Instant>>,
}

impl RateLimit {
    /// Whether to log now.
    pub fn admit(&self, cause: &'static str, peer: &str) -> bool {
        let now = Instant::now();
        let mut last = self.last.lock();
        let key = (cause, peer.to_string());
        if last.get(&key).is_some_and(|then| now - *then < INTERVAL) {
            return false;
        }
        if last.len() >= REMEMBERED {
            last.clear();
        }
        last.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p20_a_repeated_cause_is_admitted_once_per_peer() {
        let limit = RateLimit::default();
        assert!(limit.admit("down", "a"));
        assert!(limit.admit("down", "b"));
        assert!((0..1000).all(|_| !limit.admit("down", "a")));
        for n in 0..5000 {
            assert!(limit.admit("down", &format!("peer {n}")));
        }
        assert!(limit.last.lock().len() <= REMEMBERED);
    }
}
