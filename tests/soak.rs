//! The soak (`tests/soak/soak.py`, `make soak`) for a few seconds over each transport: that it works, and that nothing grows fast.

mod common;

use std::path::Path;
use std::process::Command;

/// Chosen: each fault comes up.
const SECONDS: &str = "6";

fn soak(protocol: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/soak/soak.py");
    let mut python = Command::new("python3");
    python.arg(script).args([SECONDS, "1", protocol]).env("TE_LIB", common::library());
    if protocol == "rdma" {
        python.env("LD_LIBRARY_PATH", common::simverbs());
        python.env("SIMVERBS_DEVICES", "sim0").env("SIMVERBS_QUIET", "1");
        python.env("SIMVERBS_SHM", format!("te-soak-{}", std::process::id()));
    }
    let output = python.output().unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{protocol}: {said}{complained}");
    println!("{said}");
}

#[test]
fn p14_nothing_grows_over_tcp() {
    soak("tcp");
}

#[test]
fn p14_nothing_grows_on_one_host() {
    soak("shm");
}

#[test]
#[cfg(feature = "rdma")]
fn p14_nothing_grows_over_rdma() {
    soak("rdma");
}
