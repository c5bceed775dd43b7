//! Which tests run the code of which mutants, and how long they take.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;

use crate::exec::{at_once, locked, End, Place};
use crate::tree::{messages, Paths};

/// Integration tests that are quick and need no guest, sanitizer or interpreter. Those of stores count where the servers are installed.
const PROGRAMS: &[&str] = &[
    "c_abi",
    "engine_rdma",
    "handshake_client",
    "handshake_vectors",
    "hosts",
    "large_answers",
    "memory_limits",
    "metadata_server",
    "nics",
    "order_check",
    "out_of_memory",
    "prometheus",
    "rdma_accept",
    "rdma_destroy",
    "rdma_fake_peers",
    "rdma_inbox",
    "rdma_named",
    "rdma_reread",
    "rdma_share",
    "rdma_sim",
    "rdma_turns",
    "shm",
    "status_page",
    "stores",
    "tcp_client",
    "tcp_middlebox",
    "tcp_server",
    "topology",
    "transports",
    "verbs",
];
/// The same tests again in programs that are built with the address sanitizer.
const LEFT_OUT: &str = "under_asan::";
/// A test that takes longer would eat the time of every mutant that it reaches.
const LONGEST: Duration = Duration::from_secs(9);
/// The size of the file that `switch.rs` maps.
const MOST_MUTANTS: u64 = 1 << 20;

pub struct Test {
    pub program: String,
    pub name: String,
    pub took: Duration,
    pub reaches: BTreeSet<u32>,
}

/// Builds the tests of `programs` (all: none is named) in the tree, runs each by itself, and writes down what it reaches.
pub fn record(paths: &Paths, only: Option<&str>, programs: &[&str], jobs: usize) -> Result<(), String> {
    // What programs in C are linked to.
    compiled(paths, &["build", "-p", "transfer-engine", "-p", "transfer-engine-capi", "--lib"])?;
    let mut arguments = vec!["test", "-p", "transfer-engine", "--no-run"];
    let wanted = |program: &str| programs.is_empty() || programs.contains(&program);
    arguments.extend(wanted("lib").then_some("--lib"));
    let named = PROGRAMS.iter().filter(|program| wanted(program));
    named.for_each(|program| arguments.extend(["--test", program]));
    let built = compiled(paths, &arguments)?;
    let tests = built.iter().filter(|message| message["profile"]["test"] == true);
    let programs: BTreeMap<&str, &str> = tests
        .filter_map(|message| Some((message["executable"].as_str()?, message["target"]["name"].as_str()?)))
        .collect();
    std::fs::create_dir_all(&paths.cover).map_err(|e| format!("{}: {e}", paths.cover.display()))?;
    for (program, name) in programs {
        let file = paths.cover.join(format!("{name}.txt"));
        if only.is_some() || !is_older(Path::new(program), &file) {
            record_program(paths, program, name, &file, only, jobs)?;
        }
    }
    Ok(())
}

/// The messages of a build without faults.
fn compiled(paths: &Paths, arguments: &[&str]) -> Result<Vec<Value>, String> {
    let built = messages(paths, arguments)?;
    match built.iter().map(|message| &message["message"]).find(|message| message["level"] == "error") {
        Some(fault) => {
            Err(format!("the tree does not compile: {}", fault["rendered"].as_str().unwrap_or_default()))
        }
        None => Ok(built),
    }
}

fn record_program(
    paths: &Paths,
    program: &str,
    name: &str,
    file: &Path,
    only: Option<&str>,
    jobs: usize,
) -> Result<(), String> {
    let all = listed(paths, program, &["--list", "--format", "terse"])?;
    let ignored = listed(paths, program, &["--list", "--format", "terse", "--ignored"])?;
    let wanted = |test: &String| {
        !test.starts_with(LEFT_OUT) && only.is_none_or(|only| format!("{name}::{test}").contains(only))
    };
    let tests: Vec<_> = all.difference(&ignored).filter(|test| wanted(test)).collect();
    let mut lines: Vec<String> = Vec::new();
    if only.is_some() {
        let old = std::fs::read_to_string(file).unwrap_or_default();
        let is_kept =
            |line: &&str| line.split('\t').nth(1).is_some_and(|test| !tests.iter().any(|new| *new == test));
        lines.extend(old.lines().filter(is_kept).map(|line| format!("{line}\n")));
    }
    let (queue, found) = (Mutex::new(tests.iter()), Mutex::new((lines, Vec::new())));
    let work = |worker: usize| -> Result<(), String> {
        loop {
            let Some(test) = locked(&queue).next() else { return Ok(()) };
            let mut reached = reached(paths, program, test, worker)?;
            // The first of those that run a program in C builds it.
            if reached.is_none() {
                reached = self::reached(paths, program, test, worker)?;
            }
            let (lines, left_out) = &mut *locked(&found);
            match reached {
                Some((took, ids)) => {
                    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
                    lines.push(format!("{program}\t{test}\t{}\t{}\n", took.as_millis(), ids.join(",")));
                }
                None => left_out.push(test.as_str()),
            }
        }
    };
    at_once(jobs, work)?;
    let (lines, left_out) = &*locked(&found);
    if !tests.is_empty() {
        println!("{name}: {} tests; left out: {}", tests.len(), left_out.join(", "));
    }
    std::fs::write(file, lines.concat()).map_err(|e| format!("{}: {e}", file.display()))
}

/// Whether `program` was built before `cover` was written, so that what that says is true of it.
fn is_older(program: &Path, cover: &Path) -> bool {
    let [program, cover] = [program, cover].map(|path| path.metadata().and_then(|file| file.modified()).ok());
    program.zip(cover).is_some_and(|(program, cover)| program < cover)
}

fn listed(paths: &Paths, program: &str, arguments: &[&str]) -> Result<BTreeSet<String>, String> {
    let output = Command::new(program).args(arguments).current_dir(&paths.tree).output();
    let output = output.map_err(|e| format!("{program}: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_string).collect())
}

/// How long a test takes and what it reaches; nothing of one that fails as it is, or takes too long.
fn reached(
    paths: &Paths,
    program: &str,
    test: &str,
    worker: usize,
) -> Result<Option<(Duration, BTreeSet<u32>)>, String> {
    let file = paths.cover.with_extension(format!("reached{worker}"));
    let failed = |e: std::io::Error| format!("{}: {e}", file.display());
    let empty = std::fs::File::create(&file).map_err(failed)?;
    empty.set_len(MOST_MUTANTS).map_err(failed)?;
    let place = Place { tree: &paths.tree, build: &paths.build };
    let switch = ("MTE_MUTANT_REACHED", file.to_str().ok_or("the path is no text")?);
    let (end, took) = place.run(program, &[test], switch, LONGEST)?;
    let bytes = std::fs::read(&file).map_err(failed)?;
    let ids = bytes.iter().zip(0..).filter(|(byte, _)| **byte != 0).map(|(_, id)| id).collect();
    Ok((end == End::Passed).then_some((took, ids)))
}

/// What `record` wrote.
pub fn tests(paths: &Paths) -> Result<Vec<Test>, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", paths.cover.display());
    let mut tests = Vec::new();
    for entry in std::fs::read_dir(&paths.cover).map_err(failed)?.flatten() {
        let text = std::fs::read_to_string(entry.path()).map_err(failed)?;
        tests.extend(text.lines().filter_map(|line| {
            let mut fields = line.split('\t').map(str::to_string);
            let (program, name, took) = (fields.next()?, fields.next()?, fields.next()?);
            let reaches = fields.next()?.split(',').filter_map(|id| id.parse().ok()).collect();
            Some(Test { program, name, took: Duration::from_millis(took.parse().ok()?), reaches })
        }));
    }
    tests.sort_by(|one: &Test, other| (&one.program, &one.name).cmp(&(&other.program, &other.name)));
    Ok(tests)
}
