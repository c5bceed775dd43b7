//! The status page of a process: its engines, what they do now, and what somebody should look at.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::history::{History, Op, Sample};
use super::problems;
use crate::cluster_key::refusals::PORTS;
use crate::engine::tally::Tally;
use crate::engine::Engine;
use crate::error::Class;
use crate::observe::durations;
use crate::observe::page::{amount, shown, Cell, Column, Level, Status, Table};

/// What rates are about, if as much is known.
const NOW: Duration = Duration::from_secs(10);
/// How long a failure is a problem of the page.
const RECENT: Duration = Duration::from_secs(60);
/// Longest table. Chosen: a page of several hundred KiB; the metrics have everything.
const MOST_ROWS: usize = 500;
/// Directions, in the order of [`Sample`].
const OPS: [&str; 2] = ["READ", "WRITE"];

/// The page, which becomes a part of the history.
pub(super) fn of(tally: &Tally, engines: &[Arc<Engine>], history: &mut History, now: Instant) -> Status {
    let sample = Sample::of(tally, engines);
    let minute = history.before(now, RECENT).map(|(_, before)| before);
    let problems = problems::of(&sample, minute, engines);
    let host = crate::observe::page::host_name().unwrap_or_else(|| "this host".into());
    let status = Status {
        title: shown(&format!("Transfer engines of process {} on {host}", std::process::id())),
        level: problems.first().map_or(Level::Good, |problem| problem.level),
        summary: summary(engines, &sample, minute),
        tables: vec![
            tasks(&sample, history.before(now, NOW)),
            failures(&sample, minute),
            engine_rows(engines),
            nics(engines),
            rails(engines),
            control(&sample, minute),
            refused(&sample, minute),
            events(&sample, engines, minute),
        ],
        problems,
    };
    history.note(now, sample);
    status
}

fn summary(engines: &[Arc<Engine>], sample: &Sample, minute: Option<&Sample>) -> String {
    let all = engines.len();
    let broken = engines.iter().filter(|engine| engine.is_broken()).count();
    let mut text = match (all, broken) {
        (1, 0) => "The engine of this process works".to_string(),
        (_, 0) => format!("All {all} engines of this process work"),
        _ => format!("{broken} of {all} engines cannot be used any more"),
    };
    let down = engines.iter().flat_map(|engine| engine.nics()).filter(|nic| !nic.active).count();
    if down > 0 {
        text += &format!("; {down} {} cannot be used", if down == 1 { "NIC" } else { "NICs" });
    }
    let failed = |of: &Sample| of.ops.iter().map(Op::faults).sum::<u64>();
    text += match minute {
        Some(before) if failed(sample) > failed(before) => {
            "; tasks that were submitted here have failed in the last minute."
        }
        Some(_) => "; no task that was submitted here has failed in the last minute.",
        None => ".",
    };
    text
}

fn table(
    id: &'static str,
    caption: &'static str,
    empty: &'static str,
    columns: &[&'static str],
    mut rows: Vec<Vec<Cell>>,
) -> Table {
    // What is worst first.
    rows.sort_by_key(|row| {
        std::cmp::Reverse(row.iter().map(|cell| cell.level).max().filter(|l| *l > Level::Good))
    });
    let left_out = rows.len().saturating_sub(MOST_ROWS);
    rows.truncate(MOST_ROWS);
    Table { id, caption, empty, columns: Column::list(columns), rows, left_out }
}

/// How much more there is than before, per second.
fn rate(now: u64, before: Option<(Duration, u64)>, words: fn(f64) -> String) -> Cell {
    match before {
        Some((age, before)) => {
            let rate = now.saturating_sub(before) as f64 / age.as_secs_f64();
            Cell::number(words(rate), rate)
        }
        None => Cell::text("–"),
    }
}

fn since(now: u64, before: Option<u64>) -> Cell {
    before.map_or_else(|| Cell::text("–"), |before| Cell::count(now.saturating_sub(before)))
}

fn bytes(count: u64) -> Cell {
    Cell::number(amount(count as f64), count as f64)
}

/// Zero is as it should be.
fn judged(cell: Cell, level: Level) -> Cell {
    let is_some = cell.value.is_some_and(|value| value > 0.0);
    cell.with(if is_some { level } else { Level::Plain })
}

fn tasks(sample: &Sample, recent: Option<(Duration, &Sample)>) -> Table {
    let rows = OPS.iter().zip(&sample.ops).enumerate().map(|(place, (name, op))| {
        let then = |number: fn(&Op) -> u64| recent.map(|(age, before)| (age, number(&before.ops[place])));
        let timeouts = op.failures[Class::Timeout as usize];
        let is_bad = recent.is_some_and(|(_, before)| op.faults() > before.ops[place].faults());
        let level = if is_bad { Level::Bad } else { Level::Plain };
        vec![
            Cell::text(name),
            rate(op.bytes, then(|op| op.bytes), |rate| amount(rate) + "/s"),
            rate(op.requests, then(|op| op.requests), |rate| format!("{rate:.1}")),
            rate(op.failed(), then(Op::failed), |rate| format!("{rate:.1}")).with(level),
            bytes(op.bytes),
            Cell::count(op.requests.saturating_sub(op.failed())),
            Cell::count(op.failed() - timeouts),
            Cell::count(timeouts),
        ]
    });
    let columns = [
        "Tasks",
        "#Bytes now",
        "#Ended per second",
        "#Failed per second",
        "#Bytes in all",
        "#Completed",
        "#Failed",
        "#Timed out",
    ];
    table("tasks", "Tasks that have ended", "", &columns, rows.collect())
}

fn failures(sample: &Sample, minute: Option<&Sample>) -> Table {
    let [read, write] = &sample.ops;
    let rows = Class::NAMES.iter().filter_map(|(class, name)| {
        let at = *class as usize;
        let counts = [read.failures[at], write.failures[at]];
        let all: u64 = counts.iter().sum();
        let then = minute.map(|before| before.ops.iter().map(|op| op.failures[at]).sum());
        let level = if *class == Class::Canceled { Level::Plain } else { Level::Bad };
        (all > 0).then(|| {
            vec![
                Cell::text(name),
                judged(since(all, then), level),
                Cell::count(counts[0]),
                Cell::count(counts[1]),
                Cell::text(problems::advice(*class)),
            ]
        })
    });
    let columns = ["Class", "#Last minute", "#READs", "#WRITEs", "What to do"];
    table("failures", "Failed tasks by class", "No task has failed.", &columns, rows.collect())
}

fn engine_rows(engines: &[Arc<Engine>]) -> Table {
    let row = |engine: &Arc<Engine>| {
        let load = engine.occupation();
        let names: Vec<_> = engine.transports().all().iter().map(|transport| transport.name()).collect();
        let state = match engine.is_broken() {
            true => Cell::text("broken").with(Level::Bad),
            false => Cell::text("works").with(Level::Good),
        };
        let counts = [load.waiting, load.batches, load.regions, load.segments];
        let counts = counts.map(|count| Cell::count(count as u64));
        let transports = if names.is_empty() { "none".into() } else { names.join(", ") };
        [Cell::text(engine.label()), state, Cell::text(&transports)].into_iter().chain(counts).collect()
    };
    let columns = [
        "Engine",
        "State",
        "Transports",
        "#Tasks under way",
        "#Batches",
        "#Regions",
        "#Peers open or lingering",
    ];
    let rows = engines.iter().map(row).collect();
    table("engines", "Engines", "No engine is left.", &columns, rows)
}

fn nics(engines: &[Arc<Engine>]) -> Table {
    let rows = engines.iter().flat_map(|engine| {
        engine.nics().into_iter().map(|nic| {
            let state = match nic.active {
                true => Cell::text("up").with(Level::Good),
                false => Cell::text("down").with(Level::Bad),
            };
            vec![
                Cell::text(&nic.name),
                Cell::text(engine.label()),
                state,
                bytes(nic.inflight_bytes),
                Cell::number(amount(nic.bandwidth_bps) + "/s", nic.bandwidth_bps),
                Cell::text(&nic.last_error),
            ]
        })
    });
    let columns = ["NIC", "Engine", "State", "#Under way", "#Rate, measured", "Last error"];
    let empty = "No transport of these engines uses NICs by name: those that use sockets have none here.";
    table("nics", "NICs", empty, &columns, rows.collect())
}

fn rails(engines: &[Arc<Engine>]) -> Table {
    let mut rows = Vec::new();
    for engine in engines {
        for transport in engine.transports().all().iter() {
            rows.extend(transport.rails().into_iter().map(|rail| {
                let level = match rail.state {
                    "up" => Level::Good,
                    "paused" => Level::Warn,
                    _ => Level::Plain,
                };
                vec![
                    Cell::text(&format!("{} → {}", rail.local, rail.peer)),
                    Cell::text(engine.label()),
                    Cell::text(transport.name()),
                    Cell::text(rail.state).with(level),
                    Cell::count(rail.waiting as u64),
                    bytes(rail.inflight_bytes),
                    Cell::count(rail.completed),
                    Cell::count(rail.failures),
                    Cell::text(&rail.last_error),
                ]
            }));
        }
    }
    let columns = [
        "Rail to a peer",
        "Engine",
        "Transport",
        "State",
        "#Waiting",
        "#Under way",
        "#Slices done",
        "#Attempts failed",
        "Last error",
    ];
    let empty = "No peer is reached over several NICs.";
    table("rails", "Rails: pairs of a NIC here and one of a peer", empty, &columns, rows)
}

fn control(sample: &Sample, minute: Option<&Sample>) -> Table {
    let rows =
        problems::CONTROL.iter().zip(durations::so_far()).enumerate().map(|(place, (kind, outcomes))| {
            let (count, failed) = (outcomes.done.count(), sample.control[place]);
            let mean = match count {
                0 => Cell::text("–"),
                _ => {
                    let millis = outcomes.done.sum() as f64 / count as f64 / 1e3;
                    Cell::number(format!("{millis:.1} ms"), millis)
                }
            };
            let recent = since(failed, minute.map(|before| before.control[place]));
            vec![
                Cell::text(kind.name),
                judged(recent, Level::Warn),
                Cell::count(failed),
                Cell::count(count),
                mean,
            ]
        });
    let columns = ["What", "#Failed in the last minute", "#Failed", "#Succeeded", "#Mean time"];
    table("control", "Handshakes, store, registrations", "", &columns, rows.collect())
}

fn refused(sample: &Sample, minute: Option<&Sample>) -> Table {
    let mut rows = Vec::new();
    for (place, ((_, port), counts)) in PORTS.iter().zip(&sample.refused).enumerate() {
        for (cause, (kind, count)) in
            problems::REFUSED.iter().zip(counts).enumerate().filter(|row| *row.1 .1 > 0)
        {
            let recent = since(*count, minute.map(|before| before.refused[place][cause]));
            rows.push(vec![
                Cell::text(&format!("Peers {}", kind.name)),
                Cell::text(port),
                judged(recent, Level::Warn),
                Cell::count(*count),
                Cell::text(kind.advice),
            ]);
        }
    }
    let columns = ["Who", "Port", "#Last minute", "#In all", "What to do"];
    table("refused", "Peers refused because of the cluster key", "No peer was refused.", &columns, rows)
}

fn events(sample: &Sample, engines: &[Arc<Engine>], minute: Option<&Sample>) -> Table {
    let mut rows = Vec::new();
    for engine in engines {
        let name = engine.label();
        for (transport, events) in engine.counters() {
            for (event, count) in events.into_iter().filter(|(_, count)| *count > 0) {
                let key = (name.to_string(), transport, event);
                let rose = sample.trouble.contains_key(&key)
                    && minute.is_some_and(|before| before.trouble.get(&key).is_none_or(|then| *then < count));
                let number = if event.contains("bytes") { bytes(count) } else { Cell::count(count) };
                rows.push(vec![
                    Cell::text(event),
                    Cell::text(name),
                    Cell::text(if transport.is_empty() { "all" } else { transport }),
                    number.with(if rose { Level::Warn } else { Level::Plain }),
                ]);
            }
        }
    }
    let columns = ["Event", "Engine", "Transport", "#Count"];
    table("events", "What the transports have counted", "Nothing yet.", &columns, rows)
}
