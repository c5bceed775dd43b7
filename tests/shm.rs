//! The transport between engines of one host, as C programs use it: those that pass over TCP pass over it too, and what only
//! it does (`tests/c/shm.c`).

mod common;

use std::process::Command;

use common::{c_programs, library_folder, succeed};

/// Runs a program of `tests/c` whose engines install this transport.
fn run(program: &str) {
    let mut command = Command::new(c_programs().join(program));
    command.env("LD_LIBRARY_PATH", library_folder()).env("TEST_TRANSPORT", "shm");
    succeed(&format!("{program} over shm"), &mut command);
}

/// Declares a test per program: the tests' sentence, the program.
macro_rules! programs {
    ($($name:ident: $program:literal;)*) => {
        $(#[test] fn $name() { run($program); })*
    };
}

programs! {
    transfers_move_the_right_bytes: "transfer";
    eight_threads_share_an_engine: "threads8";
    completed_writes_are_visible: "visibility";
    memory_that_is_gone_fails_only_its_requests: "unmapped";
    canceled_and_failed_batches_leave_both_sides_quiet: "quiesce";
}
