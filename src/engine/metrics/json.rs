//! Metrics as one JSON object. Upstream's series have the members that upstream gives them; a series with labels is named as
//! Prometheus writes it.

use serde_json::{Map, Value as Json};

use super::families::{Family, Value};
use super::text::{braces, written};
use crate::observe::histogram::Histogram;

/// All of them.
pub(super) fn render(families: &[Family]) -> String {
    let mut all = Map::new();
    for family in families {
        for (labels, value) in &family.series {
            let name = format!("{}{}", family.name, braces(&written(labels)));
            all.insert(name, json(value));
        }
    }
    Json::Object(all).to_string()
}

fn json(value: &Value) -> Json {
    match value {
        Value::Number(number) => Json::from(*number),
        Value::Histogram(histogram) => buckets(histogram, Json::from),
        Value::Seconds(histogram) => buckets(histogram, |micros| Json::from(micros as f64 / 1e6)),
    }
}

fn buckets(histogram: &Histogram, shown: fn(u64) -> Json) -> Json {
    let buckets = histogram.buckets().map(|(bound, count)| (shown(bound).to_string(), Json::from(count)));
    serde_json::json!({
        "count": histogram.count(),
        "sum": shown(histogram.sum()),
        "buckets": buckets.collect::<Map<_, _>>(),
    })
}
