//! `mte links`: what connects the engines of a process to others, as their port for metrics tells it.

use std::error::Error;
use std::process::ExitCode;

use serde_json::Value;

use crate::answer::{print, table};
use crate::reading::{Endpoint, Reader};

/// Page with the links of all engines of a process.
const PAGE: &str = "/links";

/// Whom to ask.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where the process serves its metrics
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9400")]
    address: Endpoint,
    /// As JSON: a list with what showLinks tells of each engine, and its queues
    #[arg(long)]
    json: bool,
}

/// Shows them. The exit status is 1 if the process does not answer.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { address, json } = arguments;
    let mut answers = Reader::new()?.read(std::slice::from_ref(&address), PAGE);
    let page = answers.pop().unwrap_or_else(|| Err("nobody was asked".into()));
    let (_, links) = page.map_err(|cause| format!("{address}: {cause}"))?;
    let engines = links["engines"].as_array().ok_or_else(|| {
        format!("{address}: what answers there is no engine, or one of a version without this page")
    })?;
    match json {
        true => print(&Value::from(engines.clone()).to_string())?,
        false => print(&shown(engines))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What stands in a cell: a terminal obeys some characters, and whoever answers may be anybody.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.is_empty() {
        "-".into()
    } else {
        text
    }
}

/// A table for each kind of thing of which there is one.
fn shown(engines: &[Value]) -> String {
    let kinds: [(&[&str], &str, &[&str]); 3] = [
        (
            &["engine", "NIC", "state", "NUMA node", "Gbit/s", "bytes under way", "last error"],
            "/links/local_nics",
            &["device", "state", "numa", "speed_gbps", "inflight_bytes", "last_error"],
        ),
        (
            &["engine", "rail", "to", "state", "waiting", "bytes under way", "done", "failed", "last error"],
            "/links/rails",
            &["device", "peer", "state", "waiting", "inflight_bytes", "completed", "failures", "last_error"],
        ),
        (
            &["engine", "transport", "peer", "queue", "under way", "waiting"],
            "/queues",
            &["transport", "peer", "queue", "under_way", "waiting"],
        ),
    ];
    let mut tables = Vec::new();
    for (head, place, members) in kinds {
        let mut rows = vec![head.iter().map(|word| word.to_string()).collect::<Vec<_>>()];
        for engine in engines {
            let things = engine.pointer(place).and_then(Value::as_array);
            rows.extend(things.into_iter().flatten().map(|thing| {
                let cells = members.iter().map(|member| cell(&thing[*member]));
                std::iter::once(cell(&engine["engine"])).chain(cells).collect()
            }));
        }
        if rows.len() > 1 {
            tables.push(table(&rows));
        }
    }
    for engine in engines {
        let fallbacks = engine.pointer("/links/fallbacks").and_then(Value::as_object);
        for (name, count) in fallbacks.into_iter().flatten() {
            tables.push(format!("{}: {} {count}\n", cell(&engine["engine"]), cell(&name.as_str().into())));
        }
    }
    if tables.is_empty() {
        let names: Vec<String> = engines.iter().map(|engine| cell(&engine["engine"])).collect();
        return format!("no NIC and no connection: {}", names.join(", "));
    }
    tables.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn links_are_tables_of_what_there_is() {
        let engines = [json!({
            "engine": "node-7\u{1b}",
            "links": {
                "local_nics": [{"device": "mlx5_0", "state": "down", "numa": 1, "speed_gbps": 100, "inflight_bytes": 7, "last_error": "the port is down"}],
                "rails": [{"device": "mlx5_0", "peer": "h@mlx5_1", "state": "paused", "waiting": 2, "inflight_bytes": 0, "completed": 40, "failures": 1, "last_error": ""}],
                "fallbacks": {"fallback_transport": 5},
            },
            "queues": [{"transport": "tcp", "peer": "h", "queue": "0", "under_way": 3, "waiting": 0}],
        })];
        let words: Vec<String> = shown(&engines)
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            words,
            [
                "engine NIC state NUMA node Gbit/s bytes under way last error",
                "node-7? mlx5_0 down 1 100 7 the port is down",
                "",
                "engine rail to state waiting bytes under way done failed last error",
                "node-7? mlx5_0 h@mlx5_1 paused 2 0 40 1 -",
                "",
                "engine transport peer queue under way waiting",
                "node-7? tcp h 0 3 0",
                "",
                "node-7?: fallback_transport 5",
            ]
        );
        assert_eq!(
            shown(&[json!({"engine": "a", "links": {"local_nics": []}, "queues": []})]),
            "no NIC and no connection: a"
        );
    }
}
