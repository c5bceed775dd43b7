//! Hosts without memory, by `tests/c/nomemory.c`: the large allocations of the library fail, each in its turn. What the host
//! gets is an error, never a signal.
//!
//! `TE_LIB` names another library than `target/release/libtransfer_engine.so`.

mod common;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use common::{c_programs, library_folder, succeed};

/// More large allocations than any of these programs makes.
const MOST: u32 = 1 << 12;

fn starved(program: &str) -> Command {
    let mut command = Command::new(c_programs().join(program));
    command.env("LD_PRELOAD", c_programs().join("nomemory.so")).env("LD_LIBRARY_PATH", library_folder());
    command
}

/// A scene of `tests/c/starved.c`, which has the right values.
fn play(scene: &str) {
    succeed(&format!("starved {scene}"), starved("starved").arg(scene));
}

/// Runs a program that knows nothing of it again and again, each time with twice as many allocations before the one that
/// fails; what it checks may fail, but it ends by itself.
fn ends_by_itself(program: &str) {
    for at in std::iter::successors(Some(1), |at| Some(2 * at)).take_while(|at| *at < MOST) {
        let output = starved(program).env("NOMEMORY_AT", at.to_string()).output().unwrap();
        let (shown, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let signal = output.status.signal();
        assert_eq!(signal, None, "{program}, allocation {at}:\n{shown}{errors}");
        if errors.ends_with("nomemory: 0 failed\n") {
            assert!(at > 1 && output.status.success(), "{program} with memory:\n{shown}{errors}");
            return;
        }
    }
    panic!("{program} does not come to an end of its allocations");
}

#[test]
fn p13_copies_inside_the_own_segment_end() {
    play("copies");
}

#[test]
fn p13_many_regions_are_registered_or_none() {
    play("registers");
}

#[test]
fn p13_the_own_buffers_are_listed() {
    play("lists");
}

#[test]
fn p13_writes_end() {
    play("writes");
}

#[test]
fn p13_reads_end() {
    play("reads");
}

#[test]
fn p13_a_segment_with_many_buffers_is_opened_or_not() {
    play("opens");
}

#[test]
fn p13_a_long_notification_is_delivered_or_not() {
    play("notifies");
}

#[test]
fn p13_a_program_that_does_not_expect_it_is_not_aborted() {
    ends_by_itself("own_segment");
}
