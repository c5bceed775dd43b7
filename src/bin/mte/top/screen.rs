//! What is shown of an interval, as text and as JSON.

use serde_json::{json, Value};

use super::figures::{Direction, Figures, Quantile};
use crate::answer::table;
use crate::reading::Endpoint;

/// What is known of an endpoint after an interval.
pub(super) enum State {
    /// It does not answer: why, and what to do.
    Silent(String),
    /// It answered for the first time: from the next interval on there are figures.
    First,
    /// What happened in the interval.
    Known(Box<Figures>),
}

/// A table of what moves, and below it a line for each thing that somebody should look at.
pub(super) fn as_text(states: &[(&Endpoint, State)]) -> String {
    let words = |words: [&str; 9]| words.map(String::from).to_vec();
    let head =
        ["endpoint", "op", "GB/s", "requests/s", "failures/s", "timeouts/s", "p50", "p99", "under way"];
    let mut rows = vec![words(head)];
    let mut lines = Vec::new();
    for (endpoint, state) in states {
        let mut tell = |line: String| lines.push(format!("{endpoint}: {line}\n"));
        match state {
            State::Silent(cause) => tell(cause.clone()),
            State::First => tell("it answers; figures follow after the next interval".into()),
            State::Known(figures) => {
                let (name, waiting) = (endpoint.to_string(), figures.under_way.to_string());
                rows.push(row([&name, "READ", &waiting], &figures.read));
                rows.push(row(["", "WRITE", ""], &figures.write));
                trouble(figures).into_iter().for_each(tell);
            }
        }
    }
    let table = if rows.len() > 1 { table(&rows) } else { String::new() };
    table + &lines.concat()
}

fn row([endpoint, op, waiting]: [&str; 3], figures: &Direction) -> Vec<String> {
    let gigabytes = format!("{:.3}", figures.bytes / 1e9);
    let rates = [figures.requests, figures.failures, figures.timeouts].map(rate);
    let quantiles = [figures.p50, figures.p99].map(latency);
    let ends = [vec![endpoint.to_string(), op.into(), gigabytes], rates.into(), quantiles.into()];
    ends.concat().into_iter().chain([waiting.to_string()]).collect()
}

fn trouble(figures: &Figures) -> Vec<String> {
    let mut lines = Vec::new();
    if figures.restarted {
        lines.push("the process was started anew".to_string());
    }
    for (op, direction) in [("READ", &figures.read), ("WRITE", &figures.write)] {
        let classes = direction.classes.iter();
        lines.extend(
            classes.map(|(class, per_second)| format!("{op} fails: {class} {}/s", rate(*per_second))),
        );
    }
    let events = figures.events.iter();
    lines.extend(events.map(|e| format!("{} over {}: {} +{}", e.engine, e.transport, e.event, e.count)));
    let refused = figures.refused.iter();
    lines.extend(refused.map(|r| format!("peers refused at the {} port: {} +{}", r.port, r.cause, r.count)));
    lines.extend(figures.down.iter().map(|(engine, nic)| format!("{engine}: NIC {nic} is down")));
    let broken = figures.broken.iter();
    lines.extend(broken.map(|engine| format!("{engine}: a call failed inside the library; restart it")));
    lines
}

/// Digits behind the point where there are few before it.
fn rate(per_second: f64) -> String {
    if per_second == 0.0 || per_second >= 100.0 {
        format!("{per_second:.0}")
    } else {
        format!("{per_second:.2}")
    }
}

fn latency(quantile: Option<Quantile>) -> String {
    let shown = |micros: f64| match micros {
        micros if micros < 1e3 => format!("{micros:.0} us"),
        micros if micros < 1e6 => format!("{:.1} ms", micros / 1e3),
        micros => format!("{:.1} s", micros / 1e6),
    };
    match quantile {
        None => "-".into(),
        Some(Quantile::About(micros)) => shown(micros),
        Some(Quantile::Above(micros)) => format!("> {}", shown(micros)),
    }
}

/// The same. `null` where there is nothing to tell.
pub(super) fn as_json(states: &[(&Endpoint, State)]) -> Value {
    let endpoints = states.iter().map(|(endpoint, state)| {
        let (error, figures) = match state {
            State::Silent(cause) => (Some(cause), None),
            State::First => (None, None),
            State::Known(figures) => (None, Some(known(figures))),
        };
        json!({"endpoint": endpoint.to_string(), "error": error, "figures": figures})
    });
    json!({"endpoints": endpoints.collect::<Vec<_>>()})
}

fn known(figures: &Figures) -> Value {
    let events = figures
        .events
        .iter()
        .map(|e| json!({"engine": e.engine, "transport": e.transport, "event": e.event, "count": e.count}));
    let refused = figures.refused.iter();
    let refused = refused.map(|r| json!({"port": r.port, "cause": r.cause, "count": r.count}));
    let down = figures.down.iter().map(|(engine, nic)| json!({"engine": engine, "nic": nic}));
    json!({
        "seconds": figures.seconds,
        "restarted": figures.restarted,
        "engines": figures.engines,
        "requests_under_way": figures.under_way,
        "read": direction(&figures.read),
        "write": direction(&figures.write),
        "events": events.collect::<Vec<_>>(),
        "peers_refused": refused.collect::<Vec<_>>(),
        "nics_down": down.collect::<Vec<_>>(),
        "engines_broken": figures.broken,
    })
}

fn direction(figures: &Direction) -> Value {
    let quantile = |quantile: Option<Quantile>| match quantile {
        None => Value::Null,
        Some(Quantile::About(micros)) => json!({"us": micros, "is_above": false}),
        Some(Quantile::Above(micros)) => json!({"us": micros, "is_above": true}),
    };
    let classes = figures.classes.iter().map(|(class, rate)| (class.clone(), json!(rate)));
    json!({
        "bytes_per_second": figures.bytes,
        "requests_per_second": figures.requests,
        "failures_per_second": figures.failures,
        "timeouts_per_second": figures.timeouts,
        "failures_per_second_by_class": classes.collect::<serde_json::Map<_, _>>(),
        "p50": quantile(figures.p50),
        "p99": quantile(figures.p99),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direction(requests: f64) -> Direction {
        let classes = vec![("network".to_string(), 2.5)];
        let (p50, p99) = (Some(Quantile::About(350.0)), Some(Quantile::Above(1e6)));
        Direction { bytes: 12.5e9, requests, failures: 2.5, timeouts: 0.0, classes, p50, p99 }
    }

    #[test]
    fn figures_are_a_table_and_trouble_is_lines() {
        let figures = Figures {
            seconds: 1.0,
            restarted: true,
            read: direction(12345.6),
            write: Direction { classes: vec![], p50: None, p99: None, ..direction(0.5) },
            engines: 1,
            under_way: 7,
            events: vec![super::super::figures::Event {
                engine: "node-7".into(),
                transport: "tcp".into(),
                event: "lanes_lost".into(),
                count: 3,
            }],
            broken: vec!["node-7".into()],
            down: vec![("node-7".into(), "mlx5_0".into())],
            refused: vec![super::super::figures::Refused {
                port: "data".into(),
                cause: "no_key".into(),
                count: 2,
            }],
        };
        let endpoints: Vec<Endpoint> = ["h:1", "h:2", "h:3"].map(|text| text.parse().unwrap()).into();
        let states = [State::Known(figures.into()), State::Silent("why".into()), State::First];
        let states: Vec<_> = endpoints.iter().zip(states).collect();
        let text = as_text(&states);
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[1], "h:1 READ 12.500 12346 2.50 0 350 us > 1.0 s 7".split(' ').collect::<Vec<_>>());
        assert_eq!(words[2], "WRITE 12.500 0.50 2.50 0 - -".split(' ').collect::<Vec<_>>());
        let lines: Vec<&str> = text.lines().skip(3).collect();
        assert_eq!(
            lines,
            [
                "h:1: the process was started anew",
                "h:1: READ fails: network 2.50/s",
                "h:1: node-7 over tcp: lanes_lost +3",
                "h:1: peers refused at the data port: no_key +2",
                "h:1: node-7: NIC mlx5_0 is down",
                "h:1: node-7: a call failed inside the library; restart it",
                "h:2: why",
                "h:3: it answers; figures follow after the next interval",
            ]
        );
        let told = as_json(&states);
        let known = &told["endpoints"][0]["figures"];
        assert_eq!(known["read"]["p99"], json!({"us": 1e6, "is_above": true}));
        assert_eq!(known["read"]["failures_per_second_by_class"], json!({"network": 2.5}));
        assert_eq!(
            (&told["endpoints"][1]["error"], &told["endpoints"][2]["figures"]),
            (&json!("why"), &Value::Null)
        );
    }
}
