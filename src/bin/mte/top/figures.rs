//! From two readings of an endpoint's metrics to what happened in between. Nothing is read here and no clock is asked.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};
use transfer_engine::tools::tells_of_trouble;

/// Counters with this name belong to an engine, and go with it.
const EVENTS: &str = "mte_transport_events_total";
/// So do those whose names begin so, and another peer may get the place of one.
const OF_PEERS: &str = "mte_peer_";

/// All that an endpoint told at one time.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    numbers: BTreeMap<Series, u64>,
    /// Counts by upper bound, and how many there are, by name.
    histograms: BTreeMap<String, (Vec<(f64, u64)>, u64)>,
}

/// Which number it is: a name, and labels that tell it from others of that name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
}

/// What the engines of a process did in an interval.
#[derive(Debug)]
pub(super) struct Figures {
    /// Length of the interval.
    pub seconds: f64,
    /// The process was started anew in the interval; what it did since then is all that is known.
    pub restarted: bool,
    pub read: Direction,
    pub write: Direction,
    /// Engines of the process, now.
    pub engines: usize,
    /// Requests that have not ended, now.
    pub under_way: u64,
    /// Events that tell of trouble and happened in the interval.
    pub events: Vec<Event>,
    /// Engines that refuse everything since a call failed inside the library.
    pub broken: Vec<String>,
    /// NICs that cannot be used now, each with its engine before it.
    pub down: Vec<(String, String)>,
    /// Peers refused in the interval because of the cluster key.
    pub refused: Vec<Refused>,
}

/// Peers that did not prove the cluster key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub port: String,
    pub cause: String,
    pub count: u64,
}

/// READs or WRITEs that ended in the interval. All but the quantiles are per second.
#[derive(Debug)]
pub(super) struct Direction {
    pub bytes: f64,
    pub requests: f64,
    /// Other than time-outs.
    pub failures: f64,
    pub timeouts: f64,
    /// All that failed, time-outs too, by class; no class without failures.
    pub classes: Vec<(String, f64)>,
    pub p50: Option<Quantile>,
    pub p99: Option<Quantile>,
}

/// A latency in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Quantile {
    /// Estimated: within a bucket, values are taken to be spread evenly.
    About(f64),
    /// Beyond the last bound, which is this.
    Above(f64),
}

/// Something that a transport counted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub engine: String,
    pub transport: String,
    pub event: String,
    pub count: u64,
}

impl Metrics {
    /// From the page `/metrics/json`; `None` if it is no page of an engine.
    pub(super) fn of(page: &Value) -> Option<Self> {
        let page = page.as_object().filter(|page| page.contains_key("mooncake_te_read_bytes_total"))?;
        let mut metrics = Metrics::default();
        for (key, value) in page {
            if let Some(number) = number(value) {
                metrics.numbers.insert(Series::of(key), number);
            } else if let Some(buckets) = value["buckets"].as_object() {
                let count = number(&value["count"]).unwrap_or(0);
                metrics.histograms.insert(key.clone(), (ascending(buckets), count));
            }
        }
        Some(metrics)
    }

    /// The number of `series`; 0 if there is none.
    fn number(&self, series: &Series) -> u64 {
        self.numbers.get(series).copied().unwrap_or(0)
    }

    /// All series with this name.
    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a BTreeMap<String, String>, u64)> {
        let named = self.numbers.iter().filter(move |(series, _)| series.name == name);
        named.map(|(series, number)| (&series.labels, *number))
    }

    /// Whether a counter of the whole process is lower than `before`, which none is while the process lives.
    fn fell_since(&self, before: &Metrics) -> bool {
        let mut counters = before
            .numbers
            .iter()
            .filter(|(series, _)| series.name.ends_with("_total"))
            .filter(|(series, _)| series.name != EVENTS && !series.name.starts_with(OF_PEERS));
        let mut histograms = before.histograms.iter();
        counters.any(|(series, number)| self.number(series) < *number)
            || histograms
                .any(|(name, (_, count))| self.histograms.get(name).is_none_or(|(_, now)| now < count))
    }
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().map(|number| number as u64))
}

/// The members of JSON objects have no order of their own.
fn ascending(buckets: &Map<String, Value>) -> Vec<(f64, u64)> {
    let bucket = |(bound, count): (&String, &Value)| Some((bound.parse().ok()?, number(count)?));
    let mut buckets: Vec<(f64, u64)> = buckets.iter().filter_map(bucket).collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    buckets
}

impl Series {
    /// From `name` or `name{label="value",…}`, in whose values quotes and backslashes have a backslash before them.
    fn of(key: &str) -> Self {
        let (name, labels) = key.split_once('{').unwrap_or((key, ""));
        let mut series = Series { name: name.into(), labels: BTreeMap::new() };
        let mut rest = labels;
        while let Some((label, quoted)) = rest.split_once("=\"") {
            let (mut value, mut escaped, mut end) = (String::new(), false, quoted.len());
            for (at, c) in quoted.char_indices() {
                match c {
                    '"' if !escaped => {
                        end = at + 1;
                        break;
                    }
                    '\\' if !escaped => escaped = true,
                    c => {
                        // A terminal obeys some of them, and whoever answers may be anybody.
                        value.push(if c.is_control() { '?' } else { c });
                        escaped = false;
                    }
                }
            }
            series.labels.insert(label.trim_start_matches(',').into(), value);
            rest = &quoted[end..];
        }
        series
    }

    fn plain(name: String) -> Self {
        Series { name, labels: BTreeMap::new() }
    }
}

/// What happened between two readings, `after` being the one that was made `time` later.
pub(super) fn figures(before: &Metrics, after: &Metrics, time: Duration) -> Figures {
    let restarted = after.fell_since(before);
    let nothing = Metrics::default();
    let before = if restarted { &nothing } else { before };
    let seconds = time.as_secs_f64().max(f64::EPSILON);
    let of = |labels: &BTreeMap<String, String>, label: &str| labels.get(label).cloned().unwrap_or_default();
    let events = after.numbers.iter().filter(|(series, _)| series.name == EVENTS);
    let events = events.filter_map(|(series, now)| {
        let event = of(&series.labels, "event");
        let count = rise(before.number(series), *now);
        let (engine, transport) = (of(&series.labels, "engine"), of(&series.labels, "transport"));
        (count > 0 && tells_of_trouble(&event)).then_some(Event { engine, transport, event, count })
    });
    let refused = after.numbers.iter().filter(|(series, _)| series.name == "mte_peers_refused_total");
    let refused = refused.filter_map(|(series, now)| {
        let count = rise(before.number(series), *now);
        let (port, cause) = (of(&series.labels, "port"), of(&series.labels, "cause"));
        (count > 0).then_some(Refused { port, cause, count })
    });
    let engines = after.named("mte_engine_up");
    let broken = after.named("mte_engine_up").filter(|(_, up)| *up == 0);
    let down = after.named("mte_nic_up").filter(|(_, up)| *up == 0);
    Figures {
        seconds,
        restarted,
        read: direction("read", before, after, seconds),
        write: direction("write", before, after, seconds),
        engines: engines.count(),
        under_way: after.named("mte_tasks_waiting").map(|(_, waiting)| waiting).sum(),
        events: events.collect(),
        broken: broken.map(|(labels, _)| of(labels, "engine")).collect(),
        down: down.map(|(labels, _)| (of(labels, "engine"), of(labels, "nic"))).collect(),
        refused: refused.collect(),
    }
}

fn direction(op: &str, before: &Metrics, after: &Metrics, seconds: f64) -> Direction {
    let rate = |series: &Series| rise(before.number(series), after.number(series)) as f64 / seconds;
    let upstreams = |what: &str| rate(&Series::plain(format!("mooncake_te_{op}_{what}_total")));
    let failures = after.numbers.keys();
    let failures = failures.filter(|series| series.name == "mte_task_failures_total");
    let own = failures.filter(|series| series.labels.get("op").is_some_and(|own| own == op));
    let classes = own.filter_map(|series| Some((series.labels.get("class")?.clone(), rate(series))));
    let name = format!("mooncake_te_{op}_latency_us");
    let quantile = |part: f64| {
        let (buckets, count) = after.histograms.get(&name)?;
        let (old, old_count) = before.histograms.get(&name).map_or((&[][..], 0), |(b, n)| (&b[..], *n));
        let before = |bound: f64| old.iter().find(|(own, _)| *own == bound).map_or(0, |(_, count)| *count);
        let rises = buckets.iter().map(|(bound, count)| (*bound, rise(before(*bound), *count)));
        quantile(&rises.collect::<Vec<_>>(), rise(old_count, *count), part)
    };
    Direction {
        bytes: upstreams("bytes"),
        requests: upstreams("requests"),
        failures: upstreams("failures"),
        timeouts: upstreams("timeouts"),
        classes: classes.filter(|(_, rate)| *rate > 0.0).collect(),
        p50: quantile(0.5),
        p99: quantile(0.99),
    }
}

/// By how much a counter rose. One that fell began anew, from 0.
fn rise(before: u64, after: u64) -> u64 {
    after.checked_sub(before).unwrap_or(after)
}

/// The latency that `part` of `count` values do not exceed; `None` if there are no values. `buckets` are the values
/// below each bound and above the one before; those that none of them has are above the last bound.
fn quantile(buckets: &[(f64, u64)], count: u64, part: f64) -> Option<Quantile> {
    let rank = (count > 0).then_some(count as f64 * part)?;
    let (mut below, mut lower) = (0.0, 0.0);
    for (bound, values) in buckets {
        let values = *values as f64;
        if values > 0.0 && below + values >= rank {
            return Some(Quantile::About(lower + (bound - lower) * (rank - below) / values));
        }
        (below, lower) = (below + values, *bound);
    }
    Some(Quantile::Above(lower))
}

#[cfg(test)]
mod tests;
