//! Rows as a table with a plot, and as JSON.

use std::time::Duration;

use serde_json::{json, Value};
use transfer_engine::tools::{Load, Measured, Op};

use super::size;
use crate::answer::table;

/// Characters of the longest bar. Chosen: the table fits a terminal of 120 columns.
const BAR: f64 = 24.0;
/// An eighth of a character, two of them, and so on.
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// Nothing failed, and nothing differs.
pub(super) fn is_well(measured: &Measured) -> bool {
    measured.failed == 0 && measured.fault.is_none() && !matches!(measured.compared, Some(Err(_)))
}

pub(super) fn name(op: Op) -> &'static str {
    match op {
        Op::Read => "READ",
        Op::Write => "WRITE",
    }
}

/// The table, the longest bar for the most GB/s or, with `is_latency`, for the longest median; then what went wrong.
pub(super) fn text(rows: &[(Load, Measured)], is_latency: bool) -> String {
    let last = if is_latency { "p50" } else { "GB/s" };
    let head = [
        "op",
        "block",
        "batch",
        "threads",
        "over",
        "GB/s",
        "requests/s",
        "p50 us",
        "p99 us",
        "max us",
        "failed",
        last,
    ];
    let mut lines = vec![head.map(String::from).to_vec()];
    let plotted = |row: &(Load, Measured)| match (is_latency, row.1.times) {
        (true, Some([half, ..])) => micros(half),
        (true, None) => 0.0,
        (false, _) => gigabytes(row),
    };
    let most = rows.iter().map(plotted).fold(0.0, f64::max);
    for row in rows {
        let (load, measured) = row;
        let mut line = vec![
            name(load.op).to_string(),
            size::show(load.block),
            load.batch.to_string(),
            load.threads.to_string(),
            measured.transport.unwrap_or("-").to_string(),
            format!("{:.3}", gigabytes(row)),
            format!("{:.0}", requests(measured)),
        ];
        line.extend(match measured.times {
            Some(times) => times.map(|time| format!("{:.1}", micros(time))),
            None => ["-", "-", "-"].map(String::from),
        });
        line.push(measured.failed.to_string());
        line.push(bar(plotted(row), most));
        lines.push(line);
    }
    let as_wanted = rows.iter().filter(|(_, measured)| measured.compared == Some(Ok(()))).count();
    let compared = (as_wanted > 0)
        .then(|| format!("compared: {as_wanted} of {} rows moved what they should", rows.len()));
    rows.iter().flat_map(notes).chain(compared).fold(table(&lines), |text, note| text + &note + "\n")
}

/// What went wrong in a row.
fn notes((load, measured): &(Load, Measured)) -> Vec<String> {
    let what = format!("{} of {}", name(load.op), size::show(load.block));
    let fault = measured.fault.as_ref().map(|error| match measured.failed {
        0 => format!("{what}: failed: {error}"),
        failed => format!("{what}: {failed} requests failed, the first: {error}"),
    });
    let differs = measured.compared.and_then(Result::err);
    let differs = differs.map(|at| format!("{what}: MISMATCH at byte {at} of the buffer"));
    fault.into_iter().chain(differs).collect()
}

pub(super) fn json(rows: &[(Load, Measured)]) -> Value {
    let one = |row: &(Load, Measured)| {
        let (load, measured) = row;
        let [half, most, max] = match measured.times {
            Some(times) => times.map(|time| Some(micros(time))),
            None => [None; 3],
        };
        json!({
            "op": name(load.op).to_lowercase(),
            "block": load.block,
            "batch": load.batch,
            "threads": load.threads,
            "transport": measured.transport,
            "seconds": measured.took.as_secs_f64(),
            "requests": measured.requests,
            "gb_per_s": gigabytes(row),
            "requests_per_s": requests(measured),
            "p50_us": half,
            "p99_us": most,
            "max_us": max,
            "failed": measured.failed,
            "error": measured.fault.as_ref().map(ToString::to_string),
            "is_verified": measured.compared.map(|compared| compared.is_ok()),
            "mismatch_at": measured.compared.and_then(Result::err),
        })
    };
    rows.iter().map(one).collect()
}

/// 10⁹ bytes a second.
fn gigabytes((load, measured): &(Load, Measured)) -> f64 {
    requests(measured) * load.block as f64 / 1e9
}

fn requests(measured: &Measured) -> f64 {
    match measured.took {
        Duration::ZERO => 0.0,
        took => measured.requests as f64 / took.as_secs_f64(),
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn bar(value: f64, most: f64) -> String {
    if most <= 0.0 {
        return String::new();
    }
    let eighths = (value / most * BAR * 8.0).round() as usize;
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values() {
        for (value, shown) in [(0.0, ""), (1.0, "█"), (1.5, "█▌"), (2.125, "██▏")] {
            assert_eq!(bar(value, 24.0), shown);
        }
        assert_eq!((bar(3.0, 3.0).chars().count(), bar(0.0, 0.0)), (24, String::new()));
    }

    #[test]
    fn a_mismatch_and_a_failure_are_told_and_are_not_well() {
        let load =
            Load { op: Op::Write, block: 4096, batch: 2, threads: 1, time: Duration::ZERO, verify: true };
        let well = || Measured {
            requests: 2,
            took: Duration::from_secs(1),
            compared: Some(Ok(())),
            ..Measured::default()
        };
        let differs = Measured { compared: Some(Err(4097)), ..well() };
        let failed = Measured { failed: 1, ..well() };
        assert!(is_well(&well()) && !is_well(&differs) && !is_well(&failed));
        let rows = [(load, well()), (load, differs)];
        assert!(text(&rows, false).contains("WRITE of 4KiB: MISMATCH at byte 4097 of the buffer"));
        let found = json(&rows);
        assert_eq!((&found[0]["is_verified"], &found[1]["mismatch_at"]), (&json!(true), &json!(4097)));
        assert_eq!(found[0]["gb_per_s"], json!(8192.0 / 1e9));
    }
}
