//! `mte`: tools around the transfer engine.

mod doctor;
mod metadata_server;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "mte", version, about = "Tools around the transfer engine")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the HTTP metadata store: engines are given http://HOST:PORT/metadata
    MetadataServer(metadata_server::Arguments),
    /// Looks for what would keep an engine on this machine from working; status 1: a fault, 3: warnings only
    Doctor(doctor::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::MetadataServer(arguments) => metadata_server::run(arguments),
        Command::Doctor(arguments) => return doctor::run(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mte: {error}");
            ExitCode::FAILURE
        }
    }
}
