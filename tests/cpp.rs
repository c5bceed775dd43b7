//! The C++ classes: the program of `tests/cpp`, built by two compilers for two standards and once with sanitizers, and run
//! over TCP, over stores and over simulated NICs.
//!
//! `TE_LIB` names another library than `target/release/libtransfer_engine.so`.

mod common;
#[allow(dead_code)]
#[path = "stores/servers.rs"]
mod servers;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use common::classes::{Build, CLANG, GCC, SANITIZED};
use common::{library_folder, top};
use servers::{Kind, Server};

/// Runs all its tests; a run that skips or selects none does not count.
fn run(build: &Build, environment: &[(&str, &str)]) {
    let mut command = Command::new(build.program());
    command.env("LD_LIBRARY_PATH", library_folder()).envs(environment.iter().copied());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("[  PASSED  ]") && !said.contains("[  SKIPPED ]"),
        "{} with {environment:?}: {}\n{said}{}",
        build.name,
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let passed = said.rsplit("[  PASSED  ] ").next().and_then(|rest| rest.split(' ').next());
    assert!(passed.and_then(|count| count.parse().ok()).is_some_and(|count: u32| count > 70), "{said}");
}

#[test]
fn the_classes_work_as_gcc_compiles_them() {
    run(&GCC, &[]);
}

#[test]
fn the_classes_work_as_clang_compiles_them() {
    run(&CLANG, &[]);
}

#[test]
fn the_classes_misuse_no_memory() {
    run(&SANITIZED, &[]);
}

fn over_a_store(kind: Kind) {
    let server = Server::start(kind);
    run(&GCC, &[("MTE_TEST_STORE", &server.url()), ("MC_TCP_BIND_ADDRESS", "127.0.0.1")]);
}

#[test]
fn the_classes_work_over_etcd() {
    over_a_store(Kind::Etcd);
}

#[test]
fn the_classes_work_over_http() {
    over_a_store(Kind::Mte);
}

#[test]
fn the_classes_work_over_redis() {
    over_a_store(Kind::Redis);
}

#[cfg(feature = "rdma")]
fn over_nics(build: &Build) {
    let registry = format!("{}-{}", build.name, std::process::id());
    let path = std::env::join_paths([common::simverbs(), library_folder()]).unwrap();
    run(
        build,
        &[
            ("LD_LIBRARY_PATH", path.to_str().unwrap()),
            ("SIMVERBS_DEVICES", "sim0,sim1"),
            ("SIMVERBS_QUIET", "1"),
            ("SIMVERBS_SHM", &registry),
            ("MTE_TEST_PROTOCOL", "rdma"),
            ("MTE_TEST_MATRIX", r#"{"cpu:0":[["sim0","sim1"],[]]}"#),
        ],
    );
    for entry in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains(&registry) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(feature = "rdma")]
#[test]
fn the_classes_work_over_nics() {
    over_nics(&CLANG);
}

#[cfg(feature = "rdma")]
#[test]
fn the_classes_misuse_no_memory_over_nics() {
    over_nics(&SANITIZED);
}

/// What programs include, each by itself and twice.
const HEADERS: [&str; 12] = [
    "common.h",
    "common/base/status.h",
    "config.h",
    "cuda_alike.h",
    "environ.h",
    "memory_location.h",
    "show_links.h",
    "topology.h",
    "transfer_engine.h",
    "transfer_engine/scoped.h",
    "transfer_metadata.h",
    "transport/transport.h",
];

fn compiles(compiler: &str, options: &[&str], source: &str) {
    let mut child = Command::new(compiler)
        .args(options)
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-fsyntax-only", "-xc++", "-I"])
        .args([&top().join("include"), Path::new("-")])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler} {options:?} on\n{source}\n{errors}");
}

#[test]
fn each_header_stands_alone() {
    let twice = |header: &str| format!("#include \"{header}\"\n#include \"{header}\"\n");
    for (compiler, standard) in [("g++", "-std=c++17"), ("clang++", "-std=c++20")] {
        for header in HEADERS {
            compiles(compiler, &[standard], &twice(header));
        }
    }
    let all: String = HEADERS.into_iter().map(twice).collect();
    compiles("g++", &["-std=c++20"], &all);
    // As programs are built that can do without.
    compiles("clang++", &["-std=c++17", "-fno-exceptions", "-fno-rtti"], &all);
}

#[test]
fn headers_have_guards_and_private_ones_their_own_folder() {
    let mut folders = vec![top().join("include")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
                continue;
            }
            let text = std::fs::read_to_string(&entry).unwrap();
            let name = entry.strip_prefix(top().join("include")).unwrap().display().to_string();
            assert!(name.ends_with(".h") && text.contains("#ifndef "), "{name}");
            found.push(name);
        }
    }
    // Those that build.rs generates, and C's others, are tested by tests/headers.rs.
    let c = ["error.h", "transfer_engine_c.h", "transfer_engine_ext.h", "transfer_engine_tokenspeed.h"];
    found.retain(|name| !name.starts_with("transfer_engine/detail/") && !c.contains(&name.as_str()));
    found.sort();
    assert_eq!(found, HEADERS);
}
