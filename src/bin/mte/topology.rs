//! `mte topology`: which NICs are near which memory, as an engine on this machine would find it.

use std::error::Error;
use std::process::ExitCode;

use serde_json::Value;
use transfer_engine::tools;

use crate::answer::{print, table};

/// What is shown.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these NICs, separated by commas
    #[arg(long, default_value = "", hide_default_value = true)]
    devices: String,
    /// As JSON, in the form that an engine takes and gives
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let (text, origin) = tools::topology(&arguments.devices)?;
    if arguments.json {
        print(&text)?;
    } else {
        print(&shown(&serde_json::from_str(&text)?, origin))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(matrix: &Value, origin: &str) -> String {
    let head = ["memory", "preferred", "available"].map(String::from).to_vec();
    let names = |list: &Value| {
        let names: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if names.is_empty() {
            "-".to_string()
        } else {
            names.join(",")
        }
    };
    let rows = matrix.as_object().into_iter().flatten();
    let rows = rows.map(|(location, lists)| vec![location.clone(), names(&lists[0]), names(&lists[1])]);
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let has_nic = rows.iter().skip(1).any(|row| row[1] != "-" || row[2] != "-");
    let note = if has_nic { "" } else { "; no usable NIC, so engines here take TCP" };
    format!("{}from {origin}{note}", table(&rows))
}
