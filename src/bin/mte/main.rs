//! `mte`: tools around the transfer engine.

mod answer;
mod bench;
mod doctor;
mod explain;
mod links;
mod metadata_server;
mod ping;
mod reading;
mod segments;
mod shells;
mod top;
mod topology;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use transfer_engine::tools::{Code, Error};

#[derive(Parser)]
#[command(name = "mte", version, about = "Tools around the transfer engine")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures throughput and latency against a segment, and makes a segment to measure against
    Bench(bench::Arguments),
    /// Prints what a shell completes of this command line
    Completions(shells::Completions),
    /// Looks for what would keep an engine on this machine from working; status 1: a fault, 3: warnings only
    Doctor(doctor::Arguments),
    /// Says what an error code means and what to do about it
    Explain(explain::Arguments),
    /// Shows the NICs, rails and queues of a process's engines
    Links(links::Arguments),
    /// Writes the man pages of this program and of its commands
    Manpages(shells::Manpages),
    /// Serves the HTTP metadata store: engines are given http://HOST:PORT/metadata
    MetadataServer(metadata_server::Arguments),
    /// Asks a peer whether it answers, and how fast; reads from it, never writes
    Ping(ping::Arguments),
    /// Shows the segments of a metadata store, and which of them live
    Segments(segments::Arguments),
    /// Shows what running engines do, interval by interval
    Top(top::Arguments),
    /// Shows which NICs of this machine are near which memory
    Topology(topology::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // The doctor tells what is set, and logs nothing.
    let logs = !matches!(arguments.command, Command::Doctor(_));
    if logs && std::env::var_os("MC_LOG_LEVEL").is_none() {
        // What the library does is not what was asked for; what it warns of is told.
        std::env::set_var("MC_LOG_LEVEL", "WARNING");
    }
    let done = match arguments.command {
        Command::Bench(arguments) => bench::run(arguments),
        Command::Completions(arguments) => {
            shells::completions(arguments).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
        Command::Doctor(arguments) => Ok(doctor::run(arguments)),
        Command::Explain(arguments) => explain::run(arguments),
        Command::Links(arguments) => links::run(arguments),
        Command::Manpages(arguments) => {
            shells::manpages(arguments).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
        Command::MetadataServer(arguments) => {
            metadata_server::run(arguments).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
        Command::Ping(arguments) => ping::run(arguments),
        Command::Segments(arguments) => segments::run(arguments),
        Command::Top(arguments) => top::run(arguments),
        Command::Topology(arguments) => topology::run(arguments),
    };
    done.unwrap_or_else(|error| {
        eprintln!("mte: {error}");
        // A store or a name that cannot be, which the command line gave.
        let is_usage = error.downcast_ref::<Error>().is_some_and(|e| e.code() == Code::InvalidArgument);
        if is_usage {
            ExitCode::from(2)
        } else {
            ExitCode::FAILURE
        }
    })
}
