//! Prometheus' text format, version 0.0.4.

use std::fmt::Write;

use super::families::{Family, Kind, Labels, Value};
use crate::observe::histogram::Histogram;

/// All of them. A family without series is left out.
pub(super) fn render(families: &[Family]) -> String {
    let mut text = String::new();
    for family in families.iter().filter(|family| !family.series.is_empty()) {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {0} {1}\n# TYPE {0} {kind}", family.name, family.help);
        for (labels, value) in &family.series {
            let labels = written(labels);
            match value {
                Value::Number(number) => {
                    let _ = writeln!(text, "{}{} {number}", family.name, braces(&labels));
                }
                Value::Histogram(histogram) => {
                    // With digits behind the point, as upstream writes bounds.
                    buckets(
                        &mut text,
                        &family.name,
                        &labels,
                        histogram,
                        |bound| format!("{bound}.000000"),
                        u64::to_string,
                    );
                }
                Value::Seconds(histogram) => {
                    buckets(&mut text, &family.name, &labels, histogram, seconds, |sum| seconds(*sum));
                }
            }
        }
    }
    text
}

/// Microseconds as seconds.
fn seconds(micros: u64) -> String {
    (micros as f64 / 1e6).to_string()
}

fn buckets(
    text: &mut String,
    name: &str,
    labels: &[String],
    histogram: &Histogram,
    bound: fn(u64) -> String,
    sum: fn(&u64) -> String,
) {
    let mut bucket = |bound: &str, count: u64| {
        let with_bound = [labels, &[format!("le=\"{bound}\"")]].concat();
        let _ = writeln!(text, "{name}_bucket{} {count}", braces(&with_bound));
    };
    let mut below = 0;
    for (up_to, count) in histogram.buckets() {
        below += count;
        bucket(&bound(up_to), below);
    }
    bucket("+Inf", histogram.count());
    let labels = braces(labels);
    let _ = writeln!(
        text,
        "{name}_sum{labels} {}\n{name}_count{labels} {}",
        sum(&histogram.sum()),
        histogram.count()
    );
}

/// Labels, each as `name="value"`.
pub(super) fn written(labels: &Labels) -> Vec<String> {
    labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect()
}

/// Labels behind the name of their series; nothing if there are none.
pub(super) fn braces(labels: &[String]) -> String {
    if labels.is_empty() {
        String::new()
    } else {
        format!("{{{}}}", labels.join(","))
    }
}

/// A label's value, which may be a name that a user chose.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
