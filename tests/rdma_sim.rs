//! RDMA through the C API, by the programs `tests/c/rdma_*.c`, each a test of its own: engines in processes of their own
//! over the simulated libibverbs of `tests/simverbs`, whose NICs fail when told to.
//!
//! `TE_LIB` names another library than `target/release/libtransfer_engine.so`.

#![cfg(feature = "rdma")]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{c_programs, c_programs_with_asan, library_folder, simverbs, succeed, top};

/// Files of one program's run, removed at its end.
struct Run {
    control: PathBuf,
    registry: String,
}

impl Run {
    fn of(program: &Path) -> Self {
        // Both builds of a program may run at once in threads of one process.
        let folder = program.parent().unwrap().file_name().unwrap().display();
        let name = format!("{}-{folder}-{}", program.file_name().unwrap().display(), std::process::id());
        let control = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.nics"));
        std::fs::write(&control, "").unwrap();
        Run { control, registry: name }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.control);
        for entry in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("simverbs-") && name.contains(&self.registry) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// The simulated libibverbs and the library, in that order.
fn library_path() -> std::ffi::OsString {
    std::env::join_paths([simverbs(), library_folder()]).unwrap()
}

fn run(name: &str, programs: &Path) {
    let program = programs.join(name);
    let files = Run::of(&program);
    let mut command = Command::new(program);
    command
        .env("LD_LIBRARY_PATH", library_path())
        .env("SIMVERBS_DEVICES", "sim0,sim1,sim2,sim3")
        .env("SIMVERBS_QUIET", "1")
        .env("SIMVERBS_SHM", &files.registry)
        .env("SIMVERBS_CTL", &files.control);
    succeed(name, &mut command);
}

/// Declares two tests per program, the second under the address sanitizer: the tests' sentence, the program.
macro_rules! programs {
    ($($name:ident: $program:literal;)*) => {
        const PROGRAMS: &[&str] = &[$($program,)*];
        $(#[test] fn $name() { run($program, c_programs()); })*

        mod under_asan {
            $(#[test] fn $name() { super::run($program, super::c_programs_with_asan()); })*
        }
    };
}

programs! {
    transfers_over_nics_move_the_right_bytes: "rdma_transfer";
    tasks_survive_nics_that_fail: "rdma_faults";
    peers_that_die_restart_or_withdraw_memory_fail_tasks_only: "rdma_peers";
    memory_is_registered_on_every_nic_or_on_none: "rdma_memory";
    limits_delay_and_cycles_leak_nothing: "rdma_limits";
    every_code_of_rdma_has_its_trigger: "rdma_codes";
}

#[test]
fn every_rdma_program_has_a_test() {
    let listed: BTreeSet<String> = PROGRAMS.iter().map(|name| name.to_string()).collect();
    let files = std::fs::read_dir(top().join("tests/c")).unwrap();
    let found: BTreeSet<String> = files
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter_map(|name| Some(name.strip_suffix(".c")?.to_string()))
        .filter(|name| name.starts_with("rdma_"))
        .collect();
    assert_eq!(found, listed);
}
