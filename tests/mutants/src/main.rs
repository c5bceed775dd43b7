//! Mutants: small changes of the library's sources that the tests should notice. All of them are built once, each behind a switch; then
//! the tests that run a mutant's code are run with it on.
//!
//! ```text
//! mutants instrument                        a copy of the repository with every mutant, in target/mutants/tree
//! mutants cover [--tests TEXT] [--program lib] [--jobs 2]
//!                                           builds its tests and finds out what each reaches; only those whose names have TEXT
//! mutants run [--only src/metadata] [--again survived [--no-new]] [--seed 1] [--time 600] [--budget 60]
//!             [--jobs 2]
//! mutants report                            the table of what is recorded, in tests/mutants/RATES.md too
//! ```

#[cfg(test)]
mod tests;

mod bodies;
mod cover;
mod exec;
mod identity;
mod modules;
mod record;
mod report;
mod run;
mod sites;
mod splice;
mod tree;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use record::Verdict;
use tree::Paths;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match told(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("mutants: {text}");
            ExitCode::FAILURE
        }
    }
}

/// The values of an option, which may be given several times.
fn values<'a>(arguments: &'a [String], option: &str) -> Vec<&'a str> {
    let pairs = arguments.windows(2).filter(|pair| pair[0] == option);
    pairs.map(|pair| pair[1].as_str()).collect()
}

fn number(arguments: &[String], option: &str, usual: u64) -> Result<u64, String> {
    match values(arguments, option).last() {
        Some(text) => text.parse().map_err(|_| format!("{option} {text} is no number")),
        None => Ok(usual),
    }
}

fn told(arguments: &[String]) -> Result<(), String> {
    let top = std::env::current_dir().map_err(|e| e.to_string())?;
    if !top.join("src/lib.rs").exists() {
        return Err("it has to run at the top of the repository".to_string());
    }
    let paths = Paths::below(Path::new(&top));
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let jobs = number(arguments, "--jobs", cores)? as usize;
    match arguments.first().map(String::as_str) {
        Some("instrument") => {
            let count = tree::instrument(&paths)?;
            println!("{count} mutants in {}", paths.tree.display());
            Ok(())
        }
        Some("cover") => {
            let [tests, programs] = ["--tests", "--program"].map(|option| values(arguments, option));
            cover::record(&paths, tests.last().copied(), &programs, jobs)
        }
        Some("run") => {
            let again = values(arguments, "--again").into_iter();
            let again: Option<Vec<_>> = again.map(Verdict::named).collect();
            let wanted = run::Wanted {
                only: values(arguments, "--only").into_iter().map(str::to_string).collect(),
                again: again.ok_or("--again wants caught, survived or open")?,
                new: !arguments.iter().any(|argument| argument == "--no-new"),
                seed: number(arguments, "--seed", 1)?,
                time: Duration::from_secs(number(arguments, "--time", 600)?),
                budget: Duration::from_secs(number(arguments, "--budget", 60)?),
                jobs,
            };
            run::run(&paths, &wanted)
        }
        Some("report") => report::write(&paths),
        _ => Err("instrument, cover, run or report; src/main.rs says how".to_string()),
    }
}
