//! `mte segments`: what a store has, and which of it lives.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{json, Value};
use transfer_engine::tools::{Code, Seen, Watcher};

use crate::answer::{limit, print, table};

/// Where to look.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The segment to look at; without it, all of them, where the store can list them
    name: Option<String>,
    /// The store as engines are given it: etcd://…, redis://…, http://…, or P2PHANDSHAKE
    #[arg(long, value_name = "URL")]
    metadata: String,
    /// How long a peer has to answer
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = limit)]
    timeout: Duration,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let watcher = Watcher::open(&arguments.metadata, arguments.timeout)?;
    let names = match arguments.name {
        Some(name) => vec![name],
        None => match watcher.names() {
            Err(error) if error.code() == Code::NotImplemented => {
                eprintln!("mte: {error}: mte segments --metadata {} NAME", arguments.metadata);
                return Ok(ExitCode::from(2));
            }
            listed => listed?,
        },
    };
    let seen = watcher.look_at(names)?;
    let text = match (arguments.json, seen.is_empty()) {
        (true, _) => Value::from_iter(seen.iter().map(as_json)).to_string(),
        (false, true) => "the store has no segments".into(),
        (false, false) => shown(&seen),
    };
    print(&text)?;
    let all_live = seen.iter().all(|seen| seen.fault.is_none());
    Ok(if all_live { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn shown(seen: &[Seen]) -> String {
    let head = ["segment", "state", "protocol", "buffers", "bytes", "handshake", "nics", "published"];
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let or_dash = |text: String| if text.is_empty() { "-".into() } else { text };
    let row = |seen: &Seen| {
        vec![
            seen.name.clone(),
            state(seen).to_string(),
            or_dash(seen.protocol.clone()),
            seen.buffers.to_string(),
            seen.bytes.to_string(),
            known(&seen.address),
            or_dash(seen.nics.join(",")),
            known(&seen.published),
        ]
    };
    let rows: Vec<_> = std::iter::once(head.map(String::from).to_vec()).chain(seen.iter().map(row)).collect();
    let faults = seen.iter().filter_map(|seen| Some(format!("{}: {}\n", seen.name, seen.fault.as_ref()?)));
    table(&rows) + &faults.collect::<String>()
}

fn as_json(seen: &Seen) -> Value {
    json!({
        "name": seen.name,
        "alive": seen.fault.is_none(),
        "protocol": seen.protocol,
        "buffers": seen.buffers,
        "bytes": seen.bytes,
        "nics": seen.nics,
        "handshake": seen.address,
        "published": seen.published,
        "error": seen.fault.as_ref().map(ToString::to_string),
    })
}

fn state(seen: &Seen) -> &'static str {
    if seen.fault.is_none() {
        "alive"
    } else {
        "dead"
    }
}
