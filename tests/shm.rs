//! The transport between engines of one host, as C programs use it: those that pass over TCP pass over it too. What only
//! it does is in `tests/c/shm.c`, which `tests/c_abi.rs` runs.

mod common;

use std::process::Command;

use common::{c_programs, library_folder, succeed};

/// The system's pool of huge pages, of 2 MiB each.
const POOL: &str = "/proc/sys/vm/nr_hugepages";
/// More of them, for the time of a test. Its two processes take six.
const MORE: u64 = 12;

/// The pool with more pages in it, until it is dropped.
struct Pool {
    before: u64,
}

impl Pool {
    fn pages() -> Option<u64> {
        std::fs::read_to_string(POOL).ok()?.trim().parse().ok()
    }

    /// `Err`: why there are no more.
    fn grown() -> Result<Pool, String> {
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let sized = memory.lines().find_map(|line| line.strip_prefix("Hugepagesize:")).map(str::trim);
        let before = Pool::pages().filter(|_| sized == Some("2048 kB")).ok_or("there are none of 2 MiB")?;
        std::fs::write(POOL, (before + MORE).to_string()).map_err(|error| format!("{POOL}: {error}"))?;
        let pool = Pool { before };
        match Pool::pages() {
            Some(now) if now == before + MORE => Ok(pool),
            now => Err(format!("{POOL} is {now:?} where {} was asked for", before + MORE)),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(POOL, self.before.to_string()) {
            println!("{POOL} could not be set to {} again: {error}", self.before);
        }
    }
}

#[test]
fn huge_pages_are_shared_too_and_their_want_is_no_failure() {
    let run = |setting: &str| {
        let mut command = Command::new(c_programs().join("shm_huge"));
        command.env("LD_LIBRARY_PATH", library_folder()).env(setting, "1");
        succeed(&format!("shm_huge with {setting}"), &mut command);
    };
    run("NO_HUGE_PAGES");
    match Pool::grown() {
        Ok(_pool) => run("HUGE_PAGES"),
        Err(why) => println!("SKIP huge_pages_are_shared_too: {why}"),
    }
}

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
