//! What several test binaries share.

// Each binary uses a part of it.
#![allow(dead_code)]

pub mod browser;
pub mod certificates;
pub mod classes;
pub mod net;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use socket2::{Domain, Socket, Type};

/// Set in the processes that `in_child` starts.
const CHILD: &str = "TRANSFER_ENGINE_TEST_CHILD";

/// A port of 127.0.0.1 that nobody else gets, and that no connection comes from, while this lives. It is bound, not listened at:
/// a server that sets SO_REUSEADDR may do that.
pub struct HeldPort {
    _socket: Socket,
    pub port: u16,
}

impl HeldPort {
    pub fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        HeldPort { _socket: socket, port }
    }
}

/// Runs the test called `name` in a process of its own with more environment; `false` in that process.
pub fn in_child(name: &str, environment: &[(&str, &str)]) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return false;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .envs(environment.iter().copied())
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let ran = output.status.success() && text.contains("1 passed");
    assert!(
        ran,
        "{name} with {environment:?}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let is_told = |line: &&str| ["SKIP ", "CELL "].iter().any(|word| line.starts_with(word));
    text.lines().filter(is_told).for_each(|line| println!("{line}"));
    true
}

/// As `in_child`, in a process that finds the simulated libibverbs instead of the system's.
pub fn in_simverbs(name: &str, environment: &[(&str, &str)]) -> bool {
    in_library_path(name, simverbs, environment)
}

/// As `in_child`, in a process that looks for libraries in `folder()` first.
pub fn in_library_path(name: &str, folder: impl Fn() -> PathBuf, environment: &[(&str, &str)]) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return false;
    }
    let mut path = folder().into_os_string().into_string().unwrap();
    if let Ok(more) = std::env::var("LD_LIBRARY_PATH") {
        path = format!("{path}:{more}");
    }
    let environment: Vec<_> =
        [("LD_LIBRARY_PATH", path.as_str())].iter().chain(environment).copied().collect();
    in_child(name, &environment)
}

/// The folder with the simulated `libibverbs.so.1`, to be put first in `LD_LIBRARY_PATH`.
pub fn simverbs() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| make("tests/simverbs", "simverbs", &[])).clone()
}

/// The repository.
pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The library under test: `TE_LIB`, or the one of `make build`.
pub fn library() -> PathBuf {
    let path = std::env::var_os("TE_LIB")
        .map_or_else(|| top().join("target/release/libtransfer_engine.so"), PathBuf::from);
    assert!(path.exists(), "the library is missing at {}: run `make build` or set TE_LIB", path.display());
    path.canonicalize().unwrap()
}

/// Its folder, where the static one is too.
pub fn library_folder() -> PathBuf {
    library().parent().unwrap().to_path_buf()
}

/// The folder with the built programs of `tests/c`.
pub fn c_programs() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build_c_programs("c-tests", ""))
}

/// The same programs under the address sanitizer. The library is not instrumented, but its allocations and copies are
/// checked too: they go through the sanitizer's `malloc` and `memcpy`.
pub fn c_programs_with_asan() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build_c_programs("c-tests-asan", "-fsanitize=address"))
}

fn build_c_programs(name: &str, sanitize: &str) -> PathBuf {
    let include = format!("TE_INCLUDE={}", top().join("include").display());
    let library = format!("TE_LIB_DIR={}", library_folder().display());
    make("tests/c", name, &[include, library, format!("SANITIZE={sanitize}")])
}

/// Builds `folder` of the repository into the folder `name` for temporary files, which is returned. Tests may run in
/// processes of their own, so a file lock guards `make`.
pub fn make(folder: &str, name: &str, variables: &[String]) -> PathBuf {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&out).unwrap();
    let mut make = Command::new("flock");
    make.arg(out.join("lock")).args(["make", "--no-print-directory", "-C"]);
    make.arg(top().join(folder));
    make.arg("all").arg(format!("OUT={}", out.display())).args(variables);
    // Not the jobs and variables of the `make test` that may have started this.
    for variable in ["MAKEFLAGS", "MAKELEVEL", "MFLAGS"] {
        make.env_remove(variable);
    }
    succeed(&format!("building {folder}"), &mut make);
    out
}

/// Runs `command` and fails with everything it printed unless it succeeds.
pub fn succeed(what: &str, command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{what}: {command:?} cannot be started: {e}"));
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
