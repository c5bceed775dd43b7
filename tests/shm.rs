//! The transport between engines of one host, as C programs use it: those that pass over TCP pass over it too. What only
//! it does is in `tests/c/shm.c`, which `tests/c_abi.rs` runs.

mod common;

use std::process::Command;

use common::{c_programs, library_folder, succeed};

/// Runs a program of `tests/c` whose engines install this transport.
fn run(program: &str) {
    let mut command = Command::new(c_programs().join(program));
    // Several threads, also where there are few processors: they help each other.
    command.env("LD_LIBRARY_PATH", library_folder()).env("TEST_TRANSPORT", "shm").env("MC_TCP_THREADS", "3");
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
    freed_batches_and_engines_leave_nothing_behind: "lifetimes";
    forks_at_any_moment_take_nothing_along: "forks";
    a_peer_is_not_given_up_because_this_process_was_stopped: "paused";
}
