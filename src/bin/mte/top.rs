//! `mte top`: reads the metrics of engines again and again, and shows what they did in between.

mod figures;
mod screen;

use std::error::Error;
use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::answer::limit;
use crate::reading::{Endpoint, Reader, NO_ENGINE};
use figures::{figures, Metrics};
use screen::{as_json, as_text, State};

/// What a terminal is sent before each interval: the cursor to the first column of the first line, and all is blank.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Page with all metrics as one JSON object.
const PAGE: &str = "/metrics/json";

/// Whom to ask, and how often.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where engines serve their metrics: http://127.0.0.1:9400, or host:port
    #[arg(value_name = "URL", required = true)]
    endpoints: Vec<Endpoint>,
    /// Time that each set of figures is about
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = limit)]
    interval: Duration,
    /// Ends after so many intervals
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// One JSON object per interval, each on a line
    #[arg(long)]
    json: bool,
}

/// The metrics that an endpoint told last, and when.
type Told = Option<(Instant, Metrics)>;

/// Shows interval after interval. The exit status is 0 if every endpoint has answered in the last one.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { endpoints, interval, count, json } = arguments;
    let reader = Reader::new()?;
    let clears = !json && std::io::stdout().is_terminal();
    let mut next = Instant::now();
    let read = || reader.read(&endpoints, PAGE).into_iter().map(metrics);
    let mut told: Vec<Told> = read().map(Result::ok).collect();
    let mut shown = 0;
    loop {
        // After a round that took longer than an interval, the next one has a whole interval again.
        next = (next + interval).max(Instant::now());
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let answers = read().zip(&mut told);
        let states: Vec<State> = answers.map(|(answer, before)| state(answer, before)).collect();
        let states: Vec<(&Endpoint, State)> = endpoints.iter().zip(states).collect();
        let text = match (json, clears) {
            (true, _) => as_json(&states).to_string() + "\n",
            (false, true) => CLEAR.to_string() + &as_text(&states),
            // A blank line parts the intervals.
            (false, false) => as_text(&states) + "\n",
        };
        shown += 1;
        if !write(&text)? || count == Some(shown) {
            let silent = states.iter().any(|(_, state)| matches!(state, State::Silent(_)));
            return Ok(if silent { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
    }
}

fn metrics(answer: Result<(Instant, serde_json::Value), String>) -> Result<(Instant, Metrics), String> {
    let (at, page) = answer?;
    Metrics::of(&page).map(|metrics| (at, metrics)).ok_or_else(|| NO_ENGINE.to_string())
}

/// What is known of an endpoint now. An answer takes the place of the one before, which a failure leaves there.
fn state(answer: Result<(Instant, Metrics), String>, before: &mut Told) -> State {
    let (now, metrics) = match answer {
        Ok(answer) => answer,
        Err(cause) => return State::Silent(cause),
    };
    let state = match before.as_ref() {
        Some((then, old)) => State::Known(figures(old, &metrics, now - *then).into()),
        None => State::First,
    };
    *before = Some((now, metrics));
    state
}

/// `false`: the reader of the output has seen enough and closed the pipe.
fn write(text: &str) -> std::io::Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        done => done.map(|()| true),
    }
}
