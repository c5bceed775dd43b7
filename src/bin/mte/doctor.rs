//! `mte doctor`: looks at this machine, at the settings in its environment and at the store, and says what is wrong.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use transfer_engine::doctor::{examine, json, text, Finding, Level, Scope};

/// At least one fault.
const FAULTS: u8 = 1;
/// Warnings only; 2 is for wrong arguments.
const WARNINGS: u8 = 3;

/// What is looked at.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Asks this store too: the connection string that engines are given
    #[arg(long, value_name = "URL")]
    metadata: Option<String>,
    /// Writes, reads and removes a key of its own in that store
    #[arg(long, requires = "metadata")]
    write: bool,
    /// Prints one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// A folder that stands for /, for tests
    #[arg(long, hide = true, value_name = "FOLDER")]
    root: Option<PathBuf>,
    /// Asks libibverbs although there is such a folder, for tests
    #[arg(long, hide = true, requires = "root")]
    drivers: bool,
}

/// Prints the report. The exit status is 0 if all is well, 1 with a fault, 3 with warnings only.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { metadata, write, json: as_json, root, drivers } = arguments;
    let findings = examine(&Scope { metadata, write, root, drivers });
    let mut out = std::io::stdout();
    let report = if as_json { json(&findings) + "\n" } else { text(&findings, out.is_terminal()) };
    if let Err(error) = out.write_all(report.as_bytes()).and_then(|()| out.flush()) {
        eprintln!("mte: cannot write the report: {error}");
        return ExitCode::FAILURE;
    }
    status(&findings)
}

fn status(findings: &[Finding]) -> ExitCode {
    match findings.iter().map(|finding| finding.level).max() {
        Some(Level::Fault) => ExitCode::from(FAULTS),
        Some(Level::Warning) => ExitCode::from(WARNINGS),
        _ => ExitCode::SUCCESS,
    }
}
