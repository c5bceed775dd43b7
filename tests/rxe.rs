//! RDMA on real verbs: groups of cases that run in a QEMU guest with soft-RoCE devices (`tests/rxe`). One guest per
//! group; guests run one after the other.
//!
//! `TE_LIB` names another library than `target/release/libtransfer_engine.so`. A machine that cannot run the guest
//! skips, and says why.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What `tests/rxe/guest.sh` ends with where this machine cannot run a guest.
const CANNOT: i32 = 77;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn library_folder() -> PathBuf {
    let path = std::env::var_os("TE_LIB")
        .map_or_else(|| top().join("target/release/libtransfer_engine.so"), PathBuf::from);
    assert!(path.exists(), "the library is missing at {}: run `make build` or set TE_LIB", path.display());
    path.canonicalize().unwrap().parent().unwrap().to_path_buf()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|e| panic!("{command:?} cannot be started: {e}"))
}

/// Builds the programs that run in the guest; several tests may try at once.
fn build_programs() -> PathBuf {
    let out = top().join("target/rxe/bin");
    std::fs::create_dir_all(&out).unwrap();
    let mut make = Command::new("flock");
    make.arg(out.join("lock")).args(["make", "--no-print-directory", "-C"]).arg(top().join("tests/rxe"));
    make.arg("all").arg(format!("OUT={}", out.display()));
    make.arg(format!("TE_LIB_DIR={}", library_folder().display()));
    for variable in ["MAKEFLAGS", "MAKELEVEL", "MFLAGS"] {
        make.env_remove(variable);
    }
    let built = run(&mut make);
    assert!(built.status.success(), "building tests/rxe: {}\n{}", built.status, text(&built));
    out
}

/// Runs the cases of a group in one guest with `nics` devices, within `limit` seconds.
fn group(name: &str, nics: u32, limit: u32) {
    let programs = build_programs();
    let suite = top().join("tests/rxe/suite.sh");
    let listed = run(Command::new("bash").arg(&suite).args(["--list", name]));
    assert!(listed.status.success(), "{}", text(&listed));
    let listed = String::from_utf8_lossy(&listed.stdout);
    let expected: Vec<&str> = listed.split_whitespace().collect();
    assert!(!expected.is_empty(), "group {name} has no cases");
    // The guest's console may lose the last lines when the guest is switched off; this folder is the host's.
    let out = top().join("target/rxe/out").join(name);
    let results = out.join("results");
    let _ = std::fs::remove_file(&results);

    let mut guest = Command::new("bash");
    guest.current_dir(top()).arg("tests/rxe/guest.sh");
    guest.args(["-n", &nics.to_string(), "-t", &limit.to_string(), "-o"]);
    guest.arg(&out).args(["--", "env"]);
    guest.arg(format!("BIN={}", programs.display()));
    guest.arg(format!("LD_LIBRARY_PATH={}", library_folder().display()));
    guest.args([
        "bash",
        "-o",
        "pipefail",
        "-c",
        "bash tests/rxe/suite.sh \"$@\" 2>&1 | tee /out/results",
        "suite",
        name,
    ]);
    let output = run(&mut guest);
    let said = format!("{}{}", text(&output), std::fs::read_to_string(&results).unwrap_or_default());
    if output.status.code() == Some(CANNOT) {
        println!("SKIP {name}: this machine cannot run the guest\n{said}");
        return;
    }
    let ok = |case: &&&str| said.lines().any(|line| line.split_whitespace().take(2).eq(["ok", case]));
    let missing: Vec<_> = expected.iter().filter(|case| !ok(case)).collect();
    assert!(missing.is_empty(), "group {name}: not ok: {missing:?} ({})\n{said}", output.status);
    assert!(output.status.success(), "group {name}: {}\n{said}", output.status);
}

#[test]
fn rdma_transfers_conform_on_real_verbs() {
    group("conformance", 2, 600);
}

#[test]
fn p05_rdma_survives_what_happens_to_links_and_peers() {
    group("faults", 4, 900);
}

#[test]
fn upstream_and_we_reach_each_other_over_rdma() {
    group("interop", 4, 900);
}

#[test]
fn p09_connections_that_fail_a_thousand_times_leave_nothing_behind() {
    group("cycles", 2, 1000);
}
