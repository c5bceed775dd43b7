//! `mte bench` as processes: a target, and runs against it and against other engines.

#[allow(dead_code)]
#[path = "stores/node.rs"]
mod node;
#[allow(dead_code)]
#[path = "stores/servers.rs"]
mod servers;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use node::Node;
use serde_json::{json, Value};
use servers::{free_port, Kind, Server};
use transfer_engine::memory::Range;

/// A target with 1 MiB.
struct Target {
    process: Child,
    name: String,
}

impl Target {
    fn start(more: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_mte"))
            .args(["bench", "target", "--bytes", "1MiB"])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let name = line.trim_end().strip_prefix("LISTENING ").unwrap_or_else(|| panic!("{line:?}"));
        Target { name: name.into(), process }
    }

    /// Closes its input, upon which it ends.
    fn end(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Exit status, what was printed, errors.
fn run(segment: &str, more: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mte"));
    let output = command.args(["bench", "run", segment, "--seconds", "50ms"]).args(more).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn rows(segment: &str, more: &[&str]) -> (i32, Vec<Value>) {
    let (status, out, errors) = run(segment, &[more, &["--json"]].concat());
    let found: Vec<Value> = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{errors}"));
    (status, found)
}

fn assert_well(row: &Value) {
    for number in ["gb_per_s", "requests_per_s", "p50_us", "p99_us", "max_us", "requests", "seconds"] {
        assert!(row[number].as_f64().unwrap() > 0.0, "{number}: {row}");
    }
    assert!(row["p50_us"].as_f64() <= row["p99_us"].as_f64(), "{row}");
    assert!(row["p99_us"].as_f64() <= row["max_us"].as_f64(), "{row}");
    assert_eq!((&row["failed"], &row["error"]), (&json!(0), &Value::Null), "{row}");
}

#[test]
fn a_sweep_has_a_row_for_each_operation_and_block() {
    let target = Target::start(&[]);
    let (status, found) =
        rows(&target.name, &["--op", "both", "--block", "1000,4KiB,64KiB", "--threads", "2"]);
    assert_eq!((status, found.len()), (0, 6), "{found:?}");
    let blocks = [1000, 4096, 65536];
    let wanted = ["read", "write"].into_iter().flat_map(|op| blocks.map(|block| (op, block)));
    for (row, (op, block)) in found.iter().zip(wanted) {
        assert_well(row);
        assert_eq!((&row["op"], &row["block"]), (&json!(op), &json!(block)), "{row}");
        assert_eq!((&row["batch"], &row["threads"]), (&json!(16), &json!(2)), "{row}");
        assert!(row["transport"].is_string() && row["is_verified"].is_null(), "{row}");
    }
    target.end();
}

#[test]
fn a_table_has_a_bar_for_each_row_and_no_progress() {
    let target = Target::start(&[]);
    let (status, out, errors) = run(&target.name, &["--block", "64,64KiB", "--op", "both"]);
    assert_eq!((status, errors.as_str()), (0, ""), "{out}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 6, "{out}");
    assert!(lines[0].starts_with(&target.name) && lines[0].ends_with("first buffer of 1MiB"), "{out}");
    let has_full_bar = |line: &&&str| line.ends_with(&"█".repeat(24));
    assert_eq!(lines.iter().filter(has_full_bar).count(), 1, "{out}");
    assert!(!out.contains('\r') && !out.contains('\u{1b}'), "{out:?}");
}

#[test]
fn what_was_moved_is_compared() {
    let target = Target::start(&[]);
    // The last: more at once than the peer has room for, and no whole number of words.
    for more in
        [&["--block", "1,777,256KiB,1MiB"][..], &["--block", "99999", "--batch", "30", "--threads", "3"]]
    {
        let (status, found) = rows(&target.name, &[more, &["--op", "both", "--verify"]].concat());
        assert_eq!(status, 0, "{found:?}");
        for row in &found {
            assert_well(row);
            assert_eq!((&row["is_verified"], &row["mismatch_at"]), (&json!(true), &Value::Null), "{row}");
        }
    }
}

#[test]
fn single_requests_are_timed() {
    let target = Target::start(&[]);
    let (status, found) = rows(&target.name, &["--latency", "--block", "64"]);
    assert_eq!((status, found.len()), (0, 1), "{found:?}");
    assert_well(&found[0]);
    assert_eq!((&found[0]["batch"], &found[0]["threads"]), (&json!(1), &json!(1)));
    assert_eq!(run(&target.name, &["--latency", "--batch", "2"]).0, 2);
}

/// 8 KiB whose halves are the same memory.
#[allow(unsafe_code)]
fn memory_seen_twice() -> Range {
    const HALF: usize = 4096;
    // SAFETY: the reservation is this function's, and nobody but peers uses what is mapped over it; it is never unmapped.
    unsafe {
        let file = libc::memfd_create(c"twice".as_ptr(), libc::MFD_CLOEXEC);
        assert!(file >= 0 && libc::ftruncate(file, HALF as libc::off_t) == 0);
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let start = libc::mmap(std::ptr::null_mut(), 2 * HALF, libc::PROT_NONE, anonymous, -1, 0);
        assert_ne!(start, libc::MAP_FAILED);
        for half in 0..2 {
            let rights = libc::PROT_READ | libc::PROT_WRITE;
            let place = start.byte_add(half * HALF);
            let mapped = libc::mmap(place, HALF, rights, libc::MAP_SHARED | libc::MAP_FIXED, file, 0);
            assert_eq!(mapped, place);
        }
        Range { addr: start as u64, len: 2 * HALF as u64 }
    }
}

#[test]
fn a_mismatch_is_told_with_its_place() {
    let peer = Node::create("P2PHANDSHAKE", "127.0.0.1").unwrap();
    peer.engine.install_transport("tcp", None).unwrap();
    peer.engine.register(&[memory_seen_twice()], "*", true).unwrap();
    let name = peer.engine.address().to_string();
    for op in ["read", "write"] {
        let arguments = ["--op", op, "--block", "4KiB", "--batch", "2", "--verify"];
        let (status, found) = rows(&name, &arguments);
        assert_eq!((status, &found[0]["is_verified"]), (1, &json!(false)), "{found:?}");
        // One half has what was written to the other, whichever came last.
        let place = found[0]["mismatch_at"].as_u64().unwrap();
        assert!(place < 8 || (4096..4104).contains(&place), "{place}");
        let (status, out, _) = run(&name, &arguments);
        assert!(status == 1 && out.contains("MISMATCH at byte "), "{out}");
    }
}

#[test]
fn nothing_is_written_for_reads() {
    let peer = Node::start("P2PHANDSHAKE", "127.0.0.1");
    let (status, found) = rows(&peer.engine.address().to_string(), &["--op", "read", "--block", "4KiB"]);
    assert_eq!(status, 0, "{found:?}");
    assert!(peer.memory.iter().all(|byte| byte.load(Relaxed) == 0));
}

#[test]
fn a_target_in_a_store_is_found_by_its_name() {
    let server = Server::start(Kind::Mte);
    let url = server.url();
    let target = Target::start(&["--metadata", &url, "--name", "bench-target"]);
    assert_eq!(target.name, "bench-target");
    let (status, found) = rows(&target.name, &["--metadata", &url, "--block", "4KiB", "--verify"]);
    assert_eq!((status, &found[0]["is_verified"]), (0, &json!(true)), "{found:?}");
    target.end();
}

#[test]
fn what_cannot_be_measured_is_told_in_a_sentence() {
    let target = Target::start(&[]);
    let empty = Node::create("P2PHANDSHAKE", "127.0.0.1").unwrap();
    empty.engine.install_transport("tcp", None).unwrap();
    let empty = empty.engine.address().to_string();
    let nobody = format!("127.0.0.1:{}", free_port());
    for (segment, more, status, word) in [
        (&target.name, &["--block", "4KiB,2MiB"][..], 2, "has 1048576 bytes"),
        (&target.name, &["--block", "4KB"], 2, "a size is a number"),
        (&target.name, &["--block", "0"], 2, "a size is a number"),
        (&target.name, &["--seconds", "0"], 2, "within no time"),
        (&target.name, &["--batch", "0"], 2, "--batch"),
        (&target.name, &["--metadata", "warp://h"], 2, "mte: "),
        (&empty, &[], 2, "no registered buffer"),
        (&nobody, &[], 1, "nobody listens"),
    ] {
        // clap refuses an option that is given twice, so the time is not.
        let mut command = Command::new(env!("CARGO_BIN_EXE_mte"));
        let output = command.args(["bench", "run", segment]).args(more).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(status), 0), "{more:?}: {errors}");
        assert!(errors.contains(word), "{more:?}: {errors}");
    }
}

#[test]
fn a_peer_that_goes_away_ends_the_run_with_failures() {
    let peer = Node::start("P2PHANDSHAKE", "127.0.0.1");
    let name = peer.engine.address().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mte"));
    command.args(["bench", "run", &name, "--op", "write", "--block", "4KiB,1KiB", "--verify", "--json"]);
    let run = command.args(["--seconds", "600"]).stdout(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while peer.memory[0].load(Relaxed) == 0 {
        assert!(begun.elapsed() < node::FOREVER, "nothing was written");
        std::thread::yield_now();
    }
    drop(peer);
    let output = run.wait_with_output().unwrap();
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), found.len()), (Some(1), 2), "{found:?}");
    for row in &found {
        assert!(row["failed"].as_u64().unwrap() > 0 && row["error"].is_string(), "{row}");
        assert_eq!(row["is_verified"], Value::Null, "{row}");
    }
}
