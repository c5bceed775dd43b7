//! What was counted at earlier times, so that a page can say what happens now. A few dozen samples, taken when somebody looks and when the
//! line for the log is made.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster_key::refusals::{self, Refusals};
use crate::engine::tally::{Direction, Tally};
use crate::engine::Engine;
use crate::error::Class;
use crate::observe::durations::{self, Timed};

/// The shortest time between two samples. Chosen: pages ask every 2 s, and several readers must not crowd out what is older.
const LEAST: Duration = Duration::from_millis(900);
/// A sample that is older says little of what happens now. Chosen: twice the longest span that pages ask for.
const OLDEST: Duration = Duration::from_secs(120);
/// Words in the name of an event that tell of trouble; so do names that begin with `fallback`.
const TROUBLE: &[&str] = &["failed", "lost", "refused", "rejected", "reposted"];

/// Whether an event that a transport counts tells of trouble.
pub fn tells_of_trouble(event: &str) -> bool {
    event.starts_with("fallback") || event.split('_').any(|word| TROUBLE.contains(&word))
}

/// Counters at one time.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// READs and WRITEs.
    pub ops: [Op; 2],
    /// Failures, in the order of [`Timed::ALL`].
    pub control: [u64; Timed::ALL.len()],
    /// Peers refused because of the cluster key.
    pub refused: Refusals,
    /// Events that tell of trouble, by engine, transport and name.
    pub trouble: BTreeMap<(String, &'static str, &'static str), u64>,
}

/// Tasks of one direction that have ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Op {
    /// Of COMPLETED ones.
    pub bytes: u64,
    /// That ended.
    pub requests: u64,
    /// That FAILED, by class.
    pub failures: [u64; Class::COUNT],
}

impl Sample {
    /// As it is now.
    pub(super) fn of(tally: &Tally, engines: &[Arc<Engine>]) -> Self {
        let op = |of: &Direction| Op { bytes: of.bytes, requests: of.requests, failures: of.failures };
        let mut trouble = BTreeMap::new();
        for engine in engines {
            for (transport, events) in engine.counters() {
                for (event, count) in events.into_iter().filter(|(event, _)| tells_of_trouble(event)) {
                    *trouble.entry((engine.label().to_string(), transport, event)).or_insert(0) += count;
                }
            }
        }
        let control = durations::so_far().map(|outcomes| outcomes.failed);
        let refused = refusals::so_far();
        Sample { ops: [op(&tally.read), op(&tally.write)], control, refused, trouble }
    }
}

impl Op {
    /// Those that FAILED, of any class.
    pub(super) fn failed(&self) -> u64 {
        self.failures.iter().sum()
    }

    /// Those that nobody wanted to fail.
    pub(super) fn faults(&self) -> u64 {
        self.failed() - self.failures[Class::Canceled as usize]
    }
}

/// Samples, the oldest first.
#[derive(Default)]
pub(super) struct History(VecDeque<(Instant, Sample)>);

impl History {
    /// Keeps `sample`, unless the last one is hardly older.
    pub(super) fn note(&mut self, now: Instant, sample: Sample) {
        if self.0.back().is_some_and(|(at, _)| now.saturating_duration_since(*at) < LEAST) {
            return;
        }
        self.0.retain(|(at, _)| now.saturating_duration_since(*at) <= OLDEST);
        self.0.push_back((now, sample));
    }

    /// The sample of `span` ago, or the oldest one if there is none of that time, with its age. `None`: nothing that is older than
    /// a moment is known.
    pub(super) fn before(&self, now: Instant, span: Duration) -> Option<(Duration, &Sample)> {
        let age = |at: &Instant| now.saturating_duration_since(*at);
        let known = self.0.iter().map(|(at, sample)| (age(at), sample));
        let mut fit = known.filter(|(age, _)| (LEAST..=OLDEST).contains(age)).rev();
        let mut best = fit.next()?;
        for older in fit {
            if best.0 >= span {
                break;
            }
            best = older;
        }
        Some(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_that_fits_a_span_best_is_found() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut history = History::default();
        assert!(history.before(begin, Duration::ZERO).is_none());
        let note = |history: &mut History, ms: u64| {
            history.note(at(ms), Sample { control: [ms, 0, 0], ..Sample::default() });
        };
        let found = |history: &History, now: u64, span: u64| {
            let (age, sample) = history.before(at(now), Duration::from_secs(span))?;
            assert_eq!(age, Duration::from_millis(now - sample.control[0]));
            Some(sample.control[0])
        };
        note(&mut history, 0);
        assert_eq!((found(&history, 500, 10), found(&history, 1000, 10)), (None, Some(0)));
        // Too near to the one before.
        note(&mut history, 800);
        (1..=30).for_each(|second| note(&mut history, second * 1000));
        assert_eq!(found(&history, 30_000, 10), Some(20_000));
        assert_eq!(found(&history, 30_000, 60), Some(0));
        assert_eq!(found(&history, 30_500, 1), Some(29_000));
        // What is too old says nothing, and goes.
        assert_eq!(found(&history, 200_000, 10), None);
        note(&mut history, 200_000);
        assert_eq!(history.0.len(), 1);
    }

    #[test]
    fn events_tell_of_trouble_by_their_words() {
        for (event, told) in [("fallback_v1", true), ("rails_failed", true), ("inbound_requests", false)] {
            assert_eq!(tells_of_trouble(event), told, "{event}");
        }
    }
}
