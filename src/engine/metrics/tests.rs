use super::*;
use crate::observe::histogram::LATENCY_US;

/// What upstream's scrapers look for, as its release prints it.
#[test]
fn p18_upstreams_series_have_its_names_and_form() {
    let mut tally = Tally::NONE;
    tally.read.requests = 3;
    tally.read.latency[2].add(LATENCY_US[0] + 1);
    let families = families::of(&tally, &[]);
    let text = text::render(&families);
    for line in [
        "# TYPE mooncake_te_read_requests_total counter",
        "mooncake_te_read_requests_total 3",
        "mooncake_te_write_timeouts_total 0",
        "# TYPE mooncake_te_read_latency_us histogram",
        "mooncake_te_read_latency_us_bucket{le=\"100.000000\"} 0",
        "mooncake_te_read_latency_us_bucket{le=\"500.000000\"} 1",
        "mooncake_te_read_latency_us_bucket{le=\"+Inf\"} 1",
        "mooncake_te_read_latency_us_sum 101",
        "mooncake_te_read_latency_us_count 1",
        "# TYPE mte_task_duration_seconds histogram",
        "mte_task_duration_seconds_bucket{op=\"read\",size=\"1MiB\",le=\"0.0001\"} 0",
        "mte_task_duration_seconds_bucket{op=\"read\",size=\"1MiB\",le=\"0.0005\"} 1",
        "mte_task_duration_seconds_count{op=\"read\",size=\"64KiB\"} 0",
        "mte_task_duration_seconds_count{op=\"read\",size=\"1MiB\"} 1",
        "mte_task_failures_total{op=\"write\",class=\"timeout\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    let json: serde_json::Value = serde_json::from_str(&json::render(&families)).unwrap();
    assert_eq!(json["mooncake_te_read_requests_total"], 3);
    assert_eq!(json["mooncake_te_read_latency_us"]["buckets"]["500"], 1);
    assert_eq!(json["mooncake_te_read_latency_us"]["buckets"]["1000"], 0, "not cumulative");
}

/// A name that a user chose cannot break the format.
#[test]
fn labels_are_escaped() {
    let series = vec![(vec![("engine", "a\"b\\c\nd\t".to_string())], families::Value::Number(1))];
    let family = families::Family { name: "x".into(), help: "y", kind: families::Kind::Gauge, series };
    let json: serde_json::Value = serde_json::from_str(&json::render(std::slice::from_ref(&family))).unwrap();
    assert_eq!(json["x{engine=\"a\\\"b\\\\c\\nd\t\"}"], 1, "as Prometheus writes it");
    assert_eq!(text::render(&[family]), "# HELP x y\n# TYPE x gauge\nx{engine=\"a\\\"b\\\\c\\nd\t\"} 1\n");
}

/// Prometheus wants seconds; what is not upstream's has them.
#[test]
fn durations_are_told_in_seconds() {
    let mut histogram = crate::observe::histogram::Histogram::new(LATENCY_US);
    histogram.add(1500);
    let series = vec![(vec![], families::Value::Seconds(histogram))];
    let family = families::Family { name: "x".into(), help: "y", kind: families::Kind::Histogram, series };
    let text = text::render(std::slice::from_ref(&family));
    for line in ["x_bucket{le=\"0.001\"} 0", "x_bucket{le=\"0.005\"} 1", "x_sum 0.0015", "x_count 1"] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    let json: serde_json::Value = serde_json::from_str(&json::render(&[family])).unwrap();
    assert_eq!((&json["x"]["sum"], &json["x"]["buckets"]["0.005"]), (&0.0015.into(), &1.into()));
}

fn page(
    tally: &Tally,
    history: &mut history::History,
    now: std::time::Instant,
) -> crate::observe::page::Status {
    status::of(tally, &[], history, now)
}

/// Who opens the page is told of what happens now, with what to do, and not of what is long over.
#[test]
fn the_status_page_tells_what_failed_in_the_last_minute() {
    use crate::cluster_key::{refusals, Distrust, Purpose};
    use crate::error::Class;
    use crate::observe::page::{Level, Problem};
    use std::time::{Duration, Instant};

    let begin = Instant::now();
    let at = |secs| begin + Duration::from_secs(secs);
    let (mut tally, mut history) = (Tally::NONE, history::History::default());
    let first = page(&tally, &mut history, begin);
    assert_eq!((first.level, first.problems.len()), (Level::Good, 0));
    assert_eq!(first.tables[0].rows[0][1].text, "–", "a rate needs two looks");
    tally.write.requests = 7;
    tally.write.bytes = 10 << 20;
    tally.write.failures[Class::Timeout as usize] = 3;
    tally.write.failures[Class::Canceled as usize] = 2;
    let second = page(&tally, &mut history, at(10));
    assert_eq!(second.level, Level::Bad);
    let problems: Vec<_> = second.problems.iter().map(|problem| problem.what.as_str()).collect();
    assert_eq!(problems, ["3 WRITE tasks have failed in the last minute (class timeout)."]);
    assert!(second.problems[0].advice.contains("`mte ping NAME`"));
    assert!(
        second.summary.ends_with("; tasks that were submitted here have failed in the last minute."),
        "{}",
        second.summary
    );
    let row: Vec<_> = second.tables[0].rows[0].iter().map(|cell| cell.text.as_str()).collect();
    assert_eq!(
        row,
        ["WRITE", "1.0 MiB/s", "0.7", "0.5", "10.0 MiB", "2", "2", "3"],
        "what fails comes first"
    );
    // By class: canceled ones are no fault.
    let classes: Vec<_> =
        second.tables[1].rows.iter().map(|row| (row[0].text.as_str(), row[1].level)).collect();
    assert_eq!(classes, [("timeout", Level::Bad), ("canceled", Level::Plain)]);
    // Whoever does not prove the cluster key is told of by port and cause.
    refusals::note(Purpose::Handshake, Distrust::OtherKey);
    let refused = page(&tally, &mut history, at(15));
    let warned = |problem: &&Problem| problem.level == Level::Warn;
    let told = refused.problems.iter().find(warned).map(|problem| problem.what.as_str());
    let told = told.unwrap_or_default();
    assert!(
        told.ends_with("with another cluster key refused at the handshake port in the last minute."),
        "{told}"
    );
    let table = refused.tables.iter().find(|table| table.id == "refused").unwrap();
    let row = table.rows.iter().find(|row| row[1].text == "handshake" && row[2].level == Level::Warn);
    assert_eq!(row.unwrap()[0].text, "Peers with another cluster key");
    // Nothing more fails, but what somebody wanted.
    tally.read.requests = 1;
    tally.read.failures[Class::Canceled as usize] = 1;
    let third = page(&tally, &mut history, at(20));
    assert_eq!(third.level, Level::Bad, "it was in the last minute");
    tally.read.requests = 2;
    tally.read.failures[Class::Canceled as usize] = 2;
    let last = page(&tally, &mut history, at(81));
    assert_eq!((last.level, last.problems.len()), (Level::Good, 0), "{:?}", last.problems);
    assert!(
        last.summary.ends_with("; no task that was submitted here has failed in the last minute."),
        "{}",
        last.summary
    );
}
