//! RDMA on real verbs: groups of cases that run in a QEMU guest with soft-RoCE devices (`tests/rxe`). One guest per
//! group; guests run one after the other, whatever runs the tests: `guest.sh` holds a file lock.
//!
//! `TE_LIB` names another library than `target/release/libtransfer_engine.so`. A machine that cannot run the guest
//! skips, and says why.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use common::classes::GCC;

/// What `tests/rxe/guest.sh` ends with where this machine cannot run a guest.
const CANNOT: i32 = 77;

/// Guests that a group gets. Soft-RoCE in an emulated machine sometimes stands still for seconds, and some cases are
/// about seconds; what fails in the first guest has to work in the second.
const GUESTS: usize = 2;

/// Seconds after which a guest hangs: several times what the longest group takes on two loaded processors.
const HANGS_AFTER: u32 = 1200;

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

/// The program of the C++ classes, beside the others.
fn build_classes() {
    std::fs::copy(GCC.program(), top().join("target/rxe/bin").join(GCC.name)).unwrap();
}

/// Whether the long forms of tests are asked for, which take several minutes each.
fn is_full() -> bool {
    std::env::var_os("MTE_TEST_FULL").is_some()
}

/// Runs the cases of a group in a guest with `nics` devices, and those that are not ok there once more in another.
fn group(name: &str, nics: u32) {
    let programs = build_programs();
    if name == "classes" {
        build_classes();
    }
    let listed = run(Command::new("bash").arg(top().join("tests/rxe/suite.sh")).args(["--list", name]));
    assert!(listed.status.success(), "{}", text(&listed));
    let listed = text(&listed);
    let mut left: Vec<&str> = listed.split_whitespace().collect();
    assert!(!left.is_empty(), "group {name} has no cases");
    for guest in 1..=GUESTS {
        let (status, said) = in_guest(name, nics, &left, &programs);
        if status.code() == Some(CANNOT) {
            println!("SKIP {name}: this machine cannot run the guest\n{said}");
            return;
        }
        let ok = |case: &&str| said.lines().any(|line| line.split_whitespace().take(2).eq(["ok", case]));
        left.retain(|case| !ok(case));
        if left.is_empty() {
            assert!(status.success(), "group {name}: {status}\n{said}");
            return;
        }
        println!("group {name}, guest {guest} of {GUESTS}: not ok: {left:?} ({status})\n{said}");
    }
    panic!("group {name}: not ok in {GUESTS} guests: {left:?}");
}

/// Runs `cases` of a group in one guest; its end, and what was said.
fn in_guest(name: &str, nics: u32, cases: &[&str], programs: &Path) -> (ExitStatus, String) {
    // The guest's console may lose the last lines when the guest is switched off; this folder is the host's.
    let out = top().join("target/rxe/out").join(name);
    let results = out.join("results");
    let _ = std::fs::remove_file(&results);
    let mut guest = Command::new("bash");
    guest.current_dir(top()).arg("tests/rxe/guest.sh");
    guest.args(["-n", &nics.to_string(), "-t", &HANGS_AFTER.to_string(), "-o"]);
    guest.arg(&out).args(["--", "env"]);
    guest.arg(format!("BIN={}", programs.display()));
    guest.arg(format!("LD_LIBRARY_PATH={}", library_folder().display()));
    guest.arg(format!("CYCLES={}", if is_full() { 1000 } else { 300 }));
    let suite = "bash tests/rxe/suite.sh \"$@\" 2>&1 | tee /out/results";
    guest.args(["bash", "-o", "pipefail", "-c", suite, "suite", name]).args(cases);
    let output = run(&mut guest);
    let said = format!("{}{}", text(&output), std::fs::read_to_string(&results).unwrap_or_default());
    (output.status, said)
}

#[test]
fn rdma_transfers_conform_on_real_verbs() {
    group("conformance", 2);
}

#[test]
fn the_cpp_classes_work_on_real_verbs() {
    group("classes", 2);
}

#[test]
fn p05_rdma_survives_what_happens_to_links_and_peers() {
    group("faults", 4);
}

#[test]
fn upstream_and_we_reach_each_other_over_rdma() {
    group("interop", 4);
}

/// With `MTE_TEST_FULL=1` a thousand of them, which takes six minutes.
#[test]
fn p09_connections_that_fail_hundreds_of_times_leave_nothing_behind() {
    group("cycles", 2);
}

/// The test program of the fault matrix, which is built beside this one.
fn matrix() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let is_it = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix("matrix-").is_some_and(|rest| !rest.contains('.'))
    };
    let beside = std::fs::read_dir(own.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let built = |path: &PathBuf| std::fs::metadata(path).and_then(|file| file.modified()).ok();
    beside.filter(is_it).max_by_key(built).expect("tests/matrix is built beside this program")
}

/// Under WRITEs; with `MTE_TEST_FULL=1` at every moment, which takes four minutes.
#[test]
fn p03_p17_the_fault_matrix_holds_on_real_verbs() {
    let moment = if is_full() { "rdma::" } else { "while_writing" };
    for guest in 1..=GUESTS {
        let mut command = Command::new("bash");
        command.current_dir(top()).args([
            "tests/rxe/guest.sh",
            "-n",
            "2",
            "-t",
            &HANGS_AFTER.to_string(),
            "--",
        ]);
        command.args(["env", "MTE_TEST_NICS=rxe", "RUST_BACKTRACE=0"]).arg(matrix());
        command.args(["--nocapture", "--test-threads", "1", moment, "--skip", "nic_down"]);
        command.args(["--skip", "tcp::", "--skip", "tcp_nics::", "--skip", "shm::"]);
        let output = run(&mut command);
        let said = text(&output);
        if output.status.code() == Some(CANNOT) {
            return println!("SKIP the fault matrix: this machine cannot run the guest\n{said}");
        }
        let passed = said.lines().filter(|line| line.contains("CELL rdma::")).count();
        if output.status.success() && passed > 0 {
            return;
        }
        println!("guest {guest} of {GUESTS}: {}\n{said}", output.status);
    }
    panic!("the fault matrix fails in {GUESTS} guests");
}
