//! Interoperation with the released upstream through a store: the cases of `tests/interop`, in both directions, bytes
//! verified. The wheel has the etcd and the HTTP store; its Redis store is not built in.
//!
//! Needs what `make test` prepares, as `tests/interop.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::succeed;
use crate::servers::{Kind, Server};

fn run(kind: Kind, script: &str, initiator: &str, target: &str) {
    let server = Server::start(kind);
    run_at(&server.url(), script, initiator, target);
}

fn run_at(url: &str, script: &str, initiator: &str, target: &str) {
    if std::env::var_os("TE_SKIP_INTEROP").is_some_and(|value| value == "1") {
        println!("SKIP {script}: TE_SKIP_INTEROP=1 is set");
        return;
    }
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = top.join("target/venv/bin/python");
    let library = std::env::var_os("TE_LIB")
        .map_or_else(|| top.join("target/release/libtransfer_engine.so"), PathBuf::from);
    for path in [&python, &library] {
        assert!(path.exists(), "{} is missing: run `make test`, which prepares it", path.display());
    }
    let mut command = Command::new(python);
    command.current_dir(top.join("tests/interop")).args([script, initiator, target]);
    command.env("TE_STORE", url).env("TE_LIB", library).env("MC_TCP_BIND_ADDRESS", "127.0.0.1");
    succeed(
        &format!("{script} {initiator} {target} through {url}"),
        command.env("PYTHONDONTWRITEBYTECODE", "1"),
    );
}

macro_rules! cases {
    ($($name:ident: $kind:ident, $script:literal, $initiator:literal, $target:literal;)*) => {
        $(#[test] fn $name() { run(Kind::$kind, $script, $initiator, $target); })*
    };
}

cases! {
    p36_our_bytes_reach_upstream_through_etcd: Etcd, "transfer.py", "ours", "upstream";
    p36_upstreams_bytes_reach_us_through_etcd: Etcd, "transfer.py", "upstream", "ours";
    p36_our_bytes_reach_upstream_through_its_server: Wheel, "transfer.py", "ours", "upstream";
    p36_upstreams_bytes_reach_us_through_its_server: Wheel, "transfer.py", "upstream", "ours";
    p36_our_bytes_reach_upstream_through_our_server: Mte, "transfer.py", "ours", "upstream";
    p36_upstreams_bytes_reach_us_through_our_server: Mte, "transfer.py", "upstream", "ours";
    two_of_ours_meet_through_redis: Redis, "transfer.py", "ours", "ours";
    our_notifications_reach_upstream_through_etcd: Etcd, "notify.py", "ours", "upstream";
    upstreams_notifications_reach_us_through_etcd: Etcd, "notify.py", "upstream", "ours";
    our_notifications_reach_upstream_through_http: Mte, "notify.py", "ours", "upstream";
    upstreams_notifications_reach_us_through_http: Mte, "notify.py", "upstream", "ours";
}

/// The day the wheel gets a Redis store, its cases belong above. It aborts today.
#[test]
fn the_wheel_has_no_redis_store() {
    if std::env::var_os("TE_SKIP_INTEROP").is_some_and(|value| value == "1") {
        println!("SKIP: TE_SKIP_INTEROP=1 is set");
        return;
    }
    let server = Server::start(Kind::Redis);
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
    let mut command = Command::new(python);
    let script = "import sys; from mooncake.engine import TransferEngine as T; print('here', flush=True); T().initialize('a', sys.argv[1], 'tcp', '')";
    command.args(["-c", script]);
    let output = command.arg(server.url()).env("MC_TCP_BIND_ADDRESS", "127.0.0.1").output().unwrap();
    assert!(output.stdout.starts_with(b"here"), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "it works: add its cases");
    assert_eq!(server.get("mooncake/ram/a"), None, "it published: add its cases");
}
