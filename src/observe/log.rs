//! Log lines, on the tracing crate. The only place that prints: to standard error, or to a
//! file in `MC_LOG_DIR`, unless the host takes the lines (`sink`); never to standard output. A line is one `write(2)`, and no lock is held meanwhile: a thread of
//! the host may fork at any time, and a lock would stay held in the child.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Once;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::Level;

use super::sink::{Lines, Place};
use crate::config::{Config, LogLevel};
use crate::runtime::gate::section;
use crate::runtime::line::Stderr;

/// A cause is logged at most once in this time per peer. Chosen: a peer that stays dead writes twelve lines a minute,
/// and whoever watches the log sees within seconds that it still is.
const INTERVAL: Duration = Duration::from_secs(5);
/// Peers of one cause that are logged in this time; of more there is only one line that says so. Chosen: strangers under
/// many names write 13 lines a second at most, and a person reads no more than so many peers.
const MOST_PEERS: usize = 64;
/// Bytes of a peer's name that tell it from others. Chosen: longer than `host:port` is.
const LONGEST_NAME: usize = 128;

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
        let base = || {
            tracing_subscriber::fmt()
                .with_max_level(level)
                .log_internal_errors(false)
                .event_format(Lines::new())
        };
        let file =
            config.log_dir.as_deref().map(open).and_then(|file| file.map_err(|e| refused = Some(e)).ok());
        // An error means that the host program has a subscriber: it gets the lines.
        let _ = match file {
            Some(file) => tracing::subscriber::set_global_default(base().with_writer(Place(file)).finish()),
            None => tracing::subscriber::set_global_default(base().with_writer(Place(|| Stderr)).finish()),
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

/// The beginning of `text`, of at most `most` bytes: for what a stranger may have made long.
pub fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// Admits one line per cause and peer and interval, and few peers per interval, so that neither a dead peer nor strangers
/// can fill a disk. Its memory is bounded too.
#[derive(Default)]
pub struct RateLimit {
    /// Guards what was logged lately.
    causes: Mutex<HashMap<&'static str, Lately>>,
}

/// The lines of one cause.
#[derive(Default)]
struct Lately {
    /// When each peer was logged.
    last: HashMap<String, Instant>,
    /// When it was said that there are more.
    more: Option<Instant>,
}

impl RateLimit {
    /// Whether to log now.
    pub fn admit(&self, cause: &'static str, peer: &str) -> bool {
        let (now, peer) = (Instant::now(), cut(peer, LONGEST_NAME));
        let is_fresh = |then: &Instant| now.saturating_duration_since(*then) < INTERVAL;
        let mut causes = self.causes.lock();
        let lately = causes.entry(cause).or_default();
        if lately.last.get(peer).is_some_and(is_fresh) {
            return false;
        }
        if lately.last.len() >= MOST_PEERS {
            lately.last.retain(|_, then| is_fresh(then));
        }
        if lately.last.len() < MOST_PEERS {
            lately.last.insert(peer.to_string(), now);
            return true;
        }
        if !lately.more.as_ref().is_some_and(is_fresh) {
            lately.more = Some(now);
            drop(causes);
            tracing::warn!(
                "'{cause}' concerns more than {MOST_PEERS} peers; the others are not logged for now"
            );
        }
        false
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
    }

    #[test]
    fn p20_strangers_under_many_long_names_get_few_lines_and_little_memory() {
        let limit = RateLimit::default();
        let long = "x".repeat(1 << 20);
        let admitted = (0..5000).filter(|n| limit.admit("down", &format!("{n}{long}"))).count();
        assert_eq!(admitted, MOST_PEERS);
        assert!(limit.admit("another cause", "a"));
        let causes = limit.causes.lock();
        assert!(causes["down"].last.keys().all(|name| name.capacity() <= LONGEST_NAME));
        assert_eq!(causes["down"].last.len(), MOST_PEERS);
    }

    #[test]
    fn a_cut_text_is_a_text() {
        for (text, most, cut_text) in
            [("abc", 2, "ab"), ("abc", 9, "abc"), ("a\u{e9}b", 2, "a"), ("\u{e9}", 1, "")]
        {
            assert_eq!(cut(text, most), cut_text);
        }
    }
}
