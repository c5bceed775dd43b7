use super::*;
use crate::observe::histogram::LATENCY_US;

/// What upstream's scrapers look for, as its release prints it.
#[test]
fn p18_upstreams_series_have_its_names_and_form() {
    let mut tally = Tally::NONE;
    tally.read.requests = 3;
    tally.read.latency.add(LATENCY_US[0] + 1);
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
    let series = vec![(vec![("engine", "a\"b\\c\nd".to_string())], families::Value::Number(1))];
    let family = families::Family { name: "x".into(), help: "y", kind: families::Kind::Gauge, series };
    assert_eq!(text::render(&[family]), "# HELP x y\n# TYPE x gauge\nx{engine=\"a\\\"b\\\\c\\nd\"} 1\n");
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
