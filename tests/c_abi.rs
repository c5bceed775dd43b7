//! The C programs of `tests/c`, each a test of its own, against the release library; once more under the address sanitizer.
//!
//! `TE_LIB` names another library than `target/release/libtransfer_engine.so`; the static one lies beside it.
//! The programs are built once per run: the tests may run in processes of their own, so a file lock guards `make`.

mod common;
#[allow(dead_code)]
#[path = "stores/servers.rs"]
mod servers;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use common::{c_programs, c_programs_with_asan, library, library_folder, succeed, top};
use servers::{Kind, Server};

/// Exit code for definite leaks under valgrind; the programs never use it.
const LEAKS: &str = "99";

/// Starts each store, puts what the program expects into it, and passes its URL and process.
fn run_with_stores(programs: &Path) {
    let text = |value: serde_json::Value| value.to_string();
    for kind in [Kind::Etcd, Kind::Redis, Kind::Mte] {
        let server = Server::start(kind);
        server.put("mooncake/ram/malformed", "{\"name\":");
        let ghost = serde_json::json!({
            "name": "ghost", "protocol": "tcp", "tcp_data_port": 1, "tcp_data_host": "127.0.0.1", "buffers": [],
        });
        server.put("mooncake/ram/ghost", &text(ghost));
        let address = serde_json::json!({"ip_or_host_name": "no-such-host.invalid", "rpc_port": 15001});
        server.put("mooncake/rpc_meta/ghost", &text(address));
        let mut command = Command::new(programs.join("stores"));
        command.args([server.url(), server.pid().to_string()]).env("LD_LIBRARY_PATH", library_folder());
        succeed(&format!("stores with {kind:?}"), &mut command);
    }
}

/// The stores whose crates look names up themselves, by name.
fn run_without_threads(programs: &Path) {
    for kind in [Kind::Etcd, Kind::Redis] {
        let server = Server::start(kind);
        let mut command = Command::new(programs.join("nothreads"));
        command.arg(server.url().replace("127.0.0.1", "localhost")).env("LD_LIBRARY_PATH", library_folder());
        succeed(&format!("nothreads with {kind:?}"), &mut command);
    }
}

fn run_restarts_with_stores(programs: &Path) {
    for kind in [Kind::Etcd, Kind::Redis, Kind::Mte] {
        let server = Server::start(kind);
        let mut command = Command::new(programs.join("restarts"));
        command.arg(server.url()).env("LD_LIBRARY_PATH", library_folder());
        succeed(&format!("restarts with {kind:?}"), &mut command);
    }
}

/// The folder with certificates, made once.
fn certificates() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("certificates-{}", std::process::id()));
        common::certificates::make(&folder);
        folder
    })
}

/// Runs one of the built `programs`.
fn run(program: &str, programs: &Path) {
    if program == "stores" {
        return run_with_stores(programs);
    }
    match program {
        "nothreads" => run_without_threads(programs),
        "restarts" => run_restarts_with_stores(programs),
        // Over TCP below.
        "permissions" => {
            let mut command = Command::new(programs.join(program));
            command.env("TEST_TRANSPORT", "shm").env("LD_LIBRARY_PATH", library_folder());
            succeed("permissions over shm", &mut command);
        }
        // Without a key and TLS below, and with either here.
        "garbage" | "faults" | "transfer" | "visibility" => {
            let mut command = Command::new(programs.join(program));
            command.env("MC_CLUSTER_KEY", "a key that no stranger can know or guess");
            // Some of its peers are sockets that have no key, and no TLS.
            command.env("MC_CLUSTER_KEY_REQUIRED", if program == "faults" { "0" } else { "1" });
            command.env("ASAN_OPTIONS", asan_options(program)).env("LD_LIBRARY_PATH", library_folder());
            succeed(&format!("{program} with a cluster key"), &mut command);
            let mut command = Command::new(programs.join(program));
            let file = |name: &str| certificates().join(name);
            command.env("MC_TLS_CA_FILE", file("good.pem")).env("MC_TLS_CERT_FILE", file("one.pem"));
            command.env("MC_TLS_KEY_FILE", file("one.key"));
            command.env("MC_TLS_REQUIRED", if program == "faults" { "0" } else { "1" });
            command.env("ASAN_OPTIONS", asan_options(program)).env("LD_LIBRARY_PATH", library_folder());
            succeed(&format!("{program} with TLS"), &mut command);
        }
        _ => {}
    }
    let mut command = Command::new(programs.join(program));
    match program {
        "noclock" => drop(command.arg(programs.join("clock.so"))),
        "dlopened" => drop(command.arg(library())),
        "tls" => drop(command.env("TEST_CERTIFICATES", certificates())),
        _ => {}
    }
    command.env("ASAN_OPTIONS", asan_options(program));
    // The programs remember where the library was when they were linked.
    succeed(program, command.env("LD_LIBRARY_PATH", library_folder()));
}

/// Leaks count as failures, but for what a program does on purpose.
fn asan_options(program: &str) -> &'static str {
    match program {
        // A child has the memory of threads that it does not have.
        "forked" | "forks" => "detect_leaks=0",
        // Asks for more memory than there is.
        "codes" | "whole" => "allocator_may_return_null=1",
        // Measures its memory, of which freed blocks are a part until the sanitizer lets them go.
        "lifetimes" => "quarantine_size_mb=1",
        // Starts itself with a library that comes before the sanitizer's.
        "noclock" => "verify_asan_link_order=0",
        _ => "",
    }
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
    every_code_has_its_trigger: "codes";
    null_arguments_are_refused: "nulls";
    single_calls_return_what_the_contract_says: "results";
    known_consumers_calls_work: "consumers";
    structs_and_constants_have_upstreams_layout: "layout";
    transfers_move_the_right_bytes: "transfer";
    copies_inside_the_own_segment_outlive_unmapped_memory: "own_segment";
    eight_threads_share_an_engine: "threads8";
    completed_writes_are_visible: "visibility";
    signals_release_the_engine_when_asked_to: "shutdown";
    a_forked_child_is_refused: "forked";
    forks_at_any_moment_take_nothing_along: "forks";
    a_host_without_threads_is_an_error: "nothreads";
    garbage_from_peers_is_survived: "garbage";
    faults_of_peers_fail_tasks: "faults";
    a_system_without_a_clock_is_an_error: "noclock";
    the_library_can_be_loaded_and_unloaded: "dlopened";
    settings_have_their_effects: "settings";
    calls_have_their_meaning_beyond_their_result: "semantics";
    upstreams_declarations_fit: "prototypes";
    a_stores_codes_have_their_triggers: "stores";
    a_batchs_notification_waits_for_nobody_and_tells_its_fate: "notified";
    memory_that_is_gone_fails_only_its_requests: "unmapped";
    transfers_in_one_call_and_questions_about_peers: "whole";
    canceled_and_failed_batches_leave_both_sides_quiet: "quiesce";
    a_peer_is_not_given_up_because_this_process_was_stopped: "paused";
    a_segment_that_is_opened_again_leads_to_the_new_engine: "restarts";
    freed_batches_and_engines_leave_nothing_behind: "lifetimes";
    only_who_is_proven_to_be_on_this_host_is_reached_through_memory: "shm";
    the_hosts_logger_gets_the_lines: "log";
    p18_what_tasks_did_is_counted_and_told: "metrics";
    p37_peers_do_with_a_region_what_it_is_open_for: "permissions";
    p38_who_does_not_prove_the_cluster_key_gets_nothing: "keys";
    p40_who_has_no_certificate_of_the_authority_gets_nothing: "tls";
    only_what_is_proven_to_be_the_peers_is_taken_for_its_shared_memory: "posix_shm";
}

#[test]
fn every_c_program_has_a_test() {
    let listed: std::collections::BTreeSet<String> = PROGRAMS.iter().map(|name| name.to_string()).collect();
    let mut found = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(top().join("tests/c")).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        // Two are preloaded. Those over RDMA are the tests of rdma_sim.rs, starved is that of out_of_memory.rs,
        // shm_huge that of shm.rs, and one measures.
        let elsewhere = ["clock", "nomemory", "shm_bench", "shm_huge", "starved"].contains(&&*stem)
            || stem.starts_with("rdma_");
        if path.extension().is_some_and(|ext| ext == "c") && !elsewhere {
            found.insert(stem);
        }
    }
    assert_eq!(found, listed);
}

#[test]
fn a_program_links_the_static_library() {
    let archive = library_folder().join("libtransfer_engine.a");
    assert!(archive.exists(), "{} is missing: run `make build`", archive.display());
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("results-static");
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-D_GNU_SOURCE", "-I"]);
    gcc.arg(top().join("include")).arg(top().join("tests/c/results.c")).arg("-o").arg(&program).arg(archive);
    succeed("linking the static library", gcc.args(["-lpthread", "-ldl", "-lm"]));
    succeed("results, linked statically", &mut Command::new(program));
}

#[test]
fn nothing_is_definitely_lost_under_valgrind() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("SKIP nothing_is_definitely_lost_under_valgrind: valgrind is not installed");
        return;
    }
    for program in ["results", "transfer", "garbage"] {
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--leak-check=full", "--errors-for-leak-kinds=definite"]);
        valgrind.arg(format!("--error-exitcode={LEAKS}")).arg(c_programs().join(program));
        succeed(&format!("{program} under valgrind"), valgrind.env("LD_LIBRARY_PATH", library_folder()));
    }
}
