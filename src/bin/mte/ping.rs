//! `mte ping`: asks a peer as an engine does, and reads a little of its memory.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{json, Value};
use transfer_engine::tools::{Pinger, Round};

use crate::answer::{duration, limit, print};

/// Whom to ask, and how often.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Name of the segment; host:port without a store
    segment: String,
    /// The store as engines are given it
    #[arg(long, value_name = "URL", default_value = "P2PHANDSHAKE")]
    metadata: String,
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Pause between rounds
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    interval: Duration,
    /// How long the peer has for each answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = limit)]
    timeout: Duration,
    /// As JSON, when all rounds are done
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let mut pinger = Pinger::new(&arguments.metadata, &arguments.segment, arguments.timeout)?;
    let mut rounds = Vec::new();
    for number in 1..=arguments.count {
        if number > 1 {
            std::thread::sleep(arguments.interval);
        }
        let round = pinger.round();
        if !arguments.json {
            print(&format!("{number}: {}", shown(&round)))?;
        }
        rounds.push(round);
    }
    drop(pinger);
    let failed = rounds.iter().filter(|round| round.fault.is_some()).count();
    if arguments.json {
        print(&as_json(&arguments.segment, &rounds, failed).to_string())?;
    } else {
        let line = |what: &str, times: Vec<Duration>| {
            let [min, avg, max] = summary(&times)?.map(millis);
            let count = format!("{} of {}", times.len(), rounds.len());
            Some(format!("{what}: {count}, min {min} avg {avg} max {max} ms\n"))
        };
        let lines = [line("handshake", handshakes(&rounds)), line("READ", reads(&rounds))];
        let lines: String = lines.into_iter().flatten().collect();
        print(&format!("{lines}{failed} of {} rounds failed", rounds.len()))?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn shown(round: &Round) -> String {
    let handshake = round.handshake.map(|time| format!("handshake {} ms", millis(time)));
    let read = match (round.read, round.transport) {
        (Some((bytes, time)), Some(transport)) => {
            Some(format!("READ of {bytes} bytes {} ms over {transport}", millis(time)))
        }
        (None, Some(transport)) if round.fault.is_none() => {
            Some(format!("no buffer to read, else over {transport}"))
        }
        _ => None,
    };
    let fault = round.fault.as_ref().map(|error| format!("failed: {error}"));
    [handshake, read, fault].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn as_json(segment: &str, rounds: &[Round], failed: usize) -> Value {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let one = |round: &Round| {
        json!({
            "handshake_ns": round.handshake.map(nanos),
            "read_ns": round.read.map(|(_, time)| nanos(time)),
            "read_bytes": round.read.map(|(bytes, _)| bytes),
            "transport": round.transport,
            "error": round.fault.as_ref().map(ToString::to_string),
        })
    };
    let all = |times: Vec<Duration>| {
        summary(&times).map(|[min, avg, max]| {
            json!({"count": times.len(), "min_ns": nanos(min), "avg_ns": nanos(avg), "max_ns": nanos(max)})
        })
    };
    json!({
        "segment": segment,
        "rounds": rounds.iter().map(one).collect::<Vec<_>>(),
        "handshake": all(handshakes(rounds)),
        "read": all(reads(rounds)),
        "failed": failed,
    })
}

fn handshakes(rounds: &[Round]) -> Vec<Duration> {
    rounds.iter().filter_map(|round| round.handshake).collect()
}

fn reads(rounds: &[Round]) -> Vec<Duration> {
    rounds.iter().filter_map(|round| round.read).map(|(_, time)| time).collect()
}

/// The least, the mean and the greatest; `None` if there is none.
fn summary(times: &[Duration]) -> Option<[Duration; 3]> {
    let mean = times.iter().sum::<Duration>().checked_div(u32::try_from(times.len()).ok()?)?;
    Some([*times.iter().min()?, mean, *times.iter().max()?])
}

/// Milliseconds with three digits behind the point.
fn millis(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1e3)
}
