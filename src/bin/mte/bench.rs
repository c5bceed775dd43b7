//! `mte bench`: throughput and latency against a segment, and a segment to measure against.

mod report;
mod size;

use std::error::Error;
use std::io::{IsTerminal, Read};
use std::process::ExitCode;
use std::time::Duration;

use transfer_engine::tools::{Bench, Load, Op, Target};

use crate::answer::{duration, print};

/// Which side this process is.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    side: Side,
}

#[derive(clap::Subcommand)]
enum Side {
    /// Registers memory and prints LISTENING and the segment's name; serves until its standard input ends or it is killed
    Target(TargetArguments),
    /// Measures against a segment. WRITEs go into its first registered buffer, and what is there is lost; with --verify, READs
    /// write there too
    Run(RunArguments),
}

#[derive(clap::Args)]
struct TargetArguments {
    /// The store as engines are given it
    #[arg(long, value_name = "URL", default_value = "P2PHANDSHAKE")]
    metadata: String,
    /// Name or address under which others reach this engine
    #[arg(long, default_value = "127.0.0.1")]
    name: String,
    /// How much memory
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = size::parse)]
    bytes: u64,
}

#[derive(clap::Args)]
struct RunArguments {
    /// Name of the segment; host:port without a store
    segment: String,
    /// The store as engines are given it
    #[arg(long, value_name = "URL", default_value = "P2PHANDSHAKE")]
    metadata: String,
    /// What is measured; write and both overwrite the peer's first buffer
    #[arg(long, value_enum, default_value = "read")]
    op: Ops,
    /// Bytes of one request; several, separated by commas, make a row each
    #[arg(long, value_name = "SIZES", default_value = "4KiB,64KiB,1MiB", value_delimiter = ',', value_parser = size::parse)]
    block: Vec<u64>,
    /// Requests of one batch
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Submitting threads, each with batches of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,
    /// How long each row takes
    #[arg(long, value_name = "TIME", default_value = "2", value_parser = time)]
    seconds: Duration,
    /// Times single requests: batches of one, by one thread
    #[arg(long, conflicts_with_all = ["batch", "threads"])]
    latency: bool,
    /// Compares after each row what was moved; also overwrites the peer's first buffer for READs
    #[arg(long)]
    verify: bool,
    /// As JSON, when all rows are done
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Ops {
    Read,
    Write,
    Both,
}

impl Ops {
    fn each(self) -> &'static [Op] {
        match self {
            Ops::Read => &[Op::Read],
            Ops::Write => &[Op::Write],
            Ops::Both => &[Op::Read, Op::Write],
        }
    }
}

/// Status 1 if anything failed or differs; each row has been printed then.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    match arguments.side {
        Side::Target(arguments) => serve(&arguments),
        Side::Run(arguments) => measure(&arguments),
    }
}

fn serve(arguments: &TargetArguments) -> Result<ExitCode, Box<dyn Error>> {
    let target = Target::start(&arguments.metadata, &arguments.name, arguments.bytes)?;
    print(&format!("LISTENING {}", target.name()))?;
    let mut input = std::io::stdin().lock();
    let mut ignored = [0; 4096];
    while input.read(&mut ignored)? > 0 {}
    Ok(ExitCode::SUCCESS)
}

fn measure(arguments: &RunArguments) -> Result<ExitCode, Box<dyn Error>> {
    let (batch, threads) = if arguments.latency { (1, 1) } else { (arguments.batch, arguments.threads) };
    let load = |op, block| Load {
        op,
        block,
        batch: batch as usize,
        threads: threads as usize,
        time: arguments.seconds,
        verify: arguments.verify,
    };
    let loads: Vec<Load> = arguments
        .op
        .each()
        .iter()
        .flat_map(|op| arguments.block.iter().map(|block| load(*op, *block)))
        .collect();
    let mut bench = Bench::open(&arguments.metadata, &arguments.segment, &loads)?;
    let shows_progress = std::io::stdout().is_terminal();
    let mut rows = Vec::new();
    for load in loads {
        if shows_progress {
            eprint!(
                "\r{} rows done, {} of {} next\x1b[K",
                rows.len(),
                report::name(load.op),
                size::show(load.block)
            );
        }
        let measured = bench.run(&load);
        rows.push((load, measured));
    }
    if shows_progress {
        eprint!("\r\x1b[K");
    }
    let bytes = bench.buffer_bytes();
    drop(bench);
    if arguments.json {
        print(&report::json(&rows).to_string())?;
    } else {
        let head = format!("{}: first buffer of {}", arguments.segment, size::show(bytes));
        print(&format!("{head}\n{}", report::text(&rows, arguments.latency)))?;
    }
    let is_well = rows.iter().all(|(_, measured)| report::is_well(measured));
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn time(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    (!time.is_zero()).then_some(time).ok_or_else(|| "nothing can be measured within no time".to_string())
}
