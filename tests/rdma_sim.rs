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
    fn of(program: &Path, case: &str) -> Self {
        // Both builds of a program, and all its cases, may run at once in threads of one process.
        let folder = program.parent().unwrap().file_name().unwrap().display();
        let program = program.file_name().unwrap().display();
        let name = format!("{program}-{folder}-{}{case}", std::process::id());
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

fn run(name: &str, case: &[&str], programs: &Path) {
    let program = programs.join(name);
    run_with(name, case, &program, &[]);
    // With a key the connection requests of NICs need its proof, too.
    if name == "rdma_transfer" {
        run_with(name, case, &program, &[("MC_CLUSTER_KEY", "a key that all engines of this test have")]);
    }
}

fn run_with(name: &str, case: &[&str], program: &Path, settings: &[(&str, &str)]) {
    let files = Run::of(program, &case.concat());
    let mut command = Command::new(program);
    command
        .args(case)
        .env("LD_LIBRARY_PATH", library_path())
        .env("SIMVERBS_DEVICES", "sim0,sim1,sim2,sim3")
        .env("SIMVERBS_QUIET", "1")
        .env("SIMVERBS_SHM", &files.registry)
        .env("SIMVERBS_CTL", &files.control)
        .envs(settings.iter().copied());
    succeed(&format!("{name} {case:?}"), &mut command);
}

/// Declares two tests per program, or per case of a program, the second under the address sanitizer: the tests' sentence,
/// the program, the case.
macro_rules! programs {
    ($($name:ident: $program:literal $(, $case:literal)?;)*) => {
        const PROGRAMS: &[(&str, &[&str])] = &[$(($program, &[$($case)?]),)*];
        $(#[test] fn $name() { run($program, &[$($case)?], c_programs()); })*

        mod under_asan {
            $(#[test] fn $name() { super::run($program, &[$($case)?], super::c_programs_with_asan()); })*
        }
    };
}

programs! {
    transfers_over_nics_move_the_right_bytes: "rdma_transfer";
    p05_tasks_survive_every_status_where_another_nic_is_left: "rdma_faults", "statuses_with_another_nic";
    a_task_is_posted_again_on_the_only_nic: "rdma_faults", "statuses_alone";
    p16_an_only_nic_whose_peer_does_not_answer_fails_the_task: "rdma_faults", "only_nic_without_answers";
    p16_an_only_nic_with_bad_keys_fails_the_task: "rdma_faults", "only_nic_with_bad_keys";
    p16_an_only_nic_without_queue_pairs_fails_the_task: "rdma_faults", "only_nic_without_queue_pairs";
    p03_a_nic_that_completes_nothing_is_left: "rdma_faults", "stall_with_another_nic";
    p02_a_canceled_batch_ends_without_completions_and_leaves_both_sides_quiet: "rdma_faults", "canceled";
    p02_a_task_that_ran_out_of_time_leaves_its_buffer_alone: "rdma_faults", "deadline";
    p05_one_of_two_ports_goes_down_and_up: "rdma_faults", "port_of_one_nic";
    tasks_wait_for_the_only_port_but_not_for_ever: "rdma_faults", "port_of_the_only_nic";
    p05_a_port_of_a_known_peer_goes_down_and_up: "rdma_faults", "port_of_a_known_peer";
    p05_a_port_of_a_peer_that_was_never_reached_goes_down: "rdma_faults", "port_of_an_unknown_peer";
    a_device_that_fails_for_good_is_published_no_more: "rdma_faults", "fatal_device";
    events_that_change_nothing_disturb_nothing: "rdma_faults", "harmless_events";
    p28_a_slow_nic_gets_less_of_the_data: "rdma_faults", "slow_nic";
    peers_that_die_restart_or_withdraw_memory_fail_tasks_only: "rdma_peers";
    memory_is_registered_on_every_nic_or_on_none: "rdma_memory";
    limits_delay_and_cycles_leak_nothing: "rdma_limits";
    every_code_of_rdma_has_its_trigger: "rdma_codes";
    p37_nics_do_with_a_region_what_it_is_open_for: "rdma_permissions";
    a_host_without_threads_is_no_end_of_a_rail: "rdma_threads";
}

#[test]
fn every_rdma_program_has_a_test() {
    let listed: BTreeSet<String> = PROGRAMS.iter().map(|(name, _)| name.to_string()).collect();
    let files = std::fs::read_dir(top().join("tests/c")).unwrap();
    let found: BTreeSet<String> = files
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter_map(|name| Some(name.strip_suffix(".c")?.to_string()))
        .filter(|name| name.starts_with("rdma_"))
        .collect();
    assert_eq!(found, listed);
}

#[test]
fn every_case_of_the_faults_has_a_test() {
    let faults = PROGRAMS.iter().filter(|(name, _)| *name == "rdma_faults");
    let listed: BTreeSet<String> = faults.flat_map(|(_, case)| *case).map(|case| case.to_string()).collect();
    let mut program = Command::new(c_programs().join("rdma_faults"));
    let output = program.arg("list").env("LD_LIBRARY_PATH", library_path()).output().unwrap();
    let found: BTreeSet<String> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_string).collect();
    assert!(output.status.success());
    assert_eq!(found, listed);
}
