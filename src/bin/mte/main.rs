//! `mte`: tools around the transfer engine.

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
}

fn main() -> ExitCode {
    let Command::MetadataServer(arguments) = Arguments::parse().command;
    match metadata_server::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mte: {error}");
            ExitCode::FAILURE
        }
    }
}
