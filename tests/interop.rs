//! Interoperation with the released upstream: runs the Python cases of `tests/interop` against `libtransfer_engine.so`.
//!
//! Needs what `make test` prepares: `target/venv` (upstream's wheel), the release library and the C examples.
//! `TE_LIB` names another library, `TE_SKIP_INTEROP=1` skips all of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use transfer_engine::config::Config;
use transfer_engine::runtime::interfaces;

const V1: (&str, &str) = ("MC_TCP_PROTO", "1");
// Upstream's wheel pools connections by default; both values are given so that neither case depends on that.
const POOLED: (&str, &str) = ("MC_TCP_ENABLE_CONNECTION_POOL", "1");
const KEY: (&str, &str) = ("MC_CLUSTER_KEY", "a key that upstream does not know");
const NOT_REQUIRED: (&str, &str) = ("MC_CLUSTER_KEY_REQUIRED", "0");
const ONE_SHOT: (&str, &str) = ("MC_TCP_ENABLE_CONNECTION_POOL", "0");

/// Checks that something `make test` builds is there; its absence is a failure, never a silent skip.
fn prepared(path: PathBuf, what: &str) -> PathBuf {
    assert!(
        path.exists(),
        "{what} is missing at {}: run `make test`, which prepares it, or set TE_SKIP_INTEROP=1",
        path.display()
    );
    path
}

fn run(script_and_arguments: &str, environment: &[(&str, &str)]) {
    if std::env::var_os("TE_SKIP_INTEROP").is_some_and(|value| value == "1") {
        println!("SKIP {script_and_arguments}: TE_SKIP_INTEROP=1 is set");
        return;
    }
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = prepared(top.join("target/venv/bin/python"), "the Python with upstream's wheel");
    let library = std::env::var_os("TE_LIB")
        .map_or_else(|| top.join("target/release/libtransfer_engine.so"), PathBuf::from);
    let library = prepared(library, "the library");
    if script_and_arguments.starts_with("bench_pair.py") {
        prepared(top.join("c_examples/bench"), "the bench example");
    }

    let output = Command::new(python)
        .current_dir(top.join("tests/interop"))
        .args(script_and_arguments.split(' '))
        .env("TE_LIB", library)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(environment.iter().copied())
        .output()
        .expect("the venv's Python cannot be started");
    assert!(
        output.status.success(),
        "{script_and_arguments} with {environment:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Declares one test per case: name, script with its arguments, extra environment.
macro_rules! cases {
    ($($name:ident: $script:literal, $environment:expr;)*) => {
        $(#[test] fn $name() { run($script, &$environment); })*
    };
}

cases! {
    our_writes_and_reads_reach_upstream: "transfer.py ours upstream", [];
    our_v1_writes_and_reads_reach_upstream: "transfer.py ours upstream", [V1];
    upstream_pooled_reaches_us: "transfer.py upstream ours", [POOLED];
    upstream_one_shot_reaches_us: "transfer.py upstream ours", [ONE_SHOT];
    upstream_v1_pooled_reaches_us: "transfer.py upstream ours", [V1, POOLED];
    upstream_v1_one_shot_reaches_us: "transfer.py upstream ours", [V1, ONE_SHOT];
    two_of_ours_reach_each_other: "transfer.py ours ours", [];
    upstream_bench_drives_our_target: "bench_pair.py upstream ours", [];
    our_bench_drives_upstream_target: "bench_pair.py ours upstream", [];
    upstream_addresses_not_registered_are_refused_by_us: "rejected.py ours upstream", [];
    upstream_is_rejected_at_addresses_not_registered: "rejected.py upstream ours", [];
    p38_upstream_gets_nothing_from_who_has_a_key: "strangers.py upstream ours", [KEY];
    p38_upstream_is_not_believed_by_who_has_a_key: "strangers.py ours upstream", [KEY];
    upstream_reaches_who_requires_no_key: "transfer.py upstream ours", [KEY, NOT_REQUIRED];
    who_requires_no_key_reaches_upstream: "transfer.py ours upstream", [KEY, NOT_REQUIRED];
    our_notifications_reach_upstream: "notify.py ours upstream", [];
    upstream_notifications_reach_us: "notify.py upstream ours", [];
    killed_upstream_target_fails_our_tasks: "dying_target.py killed ours upstream", [];
    stopped_upstream_target_times_our_tasks_out: "dying_target.py stopped ours upstream", [];
}

#[test]
fn upstream_reads_a_descriptor_that_lists_addresses_of_nics() {
    let found = interfaces::list().unwrap();
    let Some(nic) = found.iter().find(|nic| nic.is_running && nic.address.is_ipv4()) else {
        return println!("SKIP upstream_reads_a_descriptor: no interface is up but the loopback");
    };
    let address = nic.address.to_string();
    for direction in ["transfer.py upstream ours", "transfer.py ours upstream"] {
        run(direction, &[("MC_TCP_NICS", &address)]);
    }
}

/// Settings of what stands above the engine: upstream's store, its Python logger, and the module `mooncake.engine`, which reads
/// its own here too.
const ABOVE_THE_ENGINE: &[&str] = &["MC_STORE_", "MC_YLT_", "MC_TRANSFER_TIMEOUT"];

#[test]
fn p34_every_setting_of_upstream_is_honoured_or_named_in_a_warning() {
    if std::env::var_os("TE_SKIP_INTEROP").is_some_and(|value| value == "1") {
        println!("SKIP upstream's settings: TE_SKIP_INTEROP=1 is set");
        return;
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let mut names = settings_in(&prepared(target.join("venv/lib"), "upstream's wheel"));
    let newest = target.join("peers/0.3.14");
    match newest.with_extension("14.missing").exists() {
        true => println!("SKIP the settings of 0.3.14: no wheel of it runs here"),
        false => names.append(&mut settings_in(&prepared(newest, "upstream's newest wheel"))),
    }
    assert!(names.len() > 80, "the wheel has been read: {names:?}");
    let silent: Vec<_> = names
        .iter()
        .filter(|name| !ABOVE_THE_ENGINE.iter().any(|prefix| name.starts_with(prefix)))
        .filter(|name| {
            let asked = std::cell::Cell::new(false);
            let (_, warnings) = Config::read(|setting| {
                asked.set(asked.get() || setting == name.as_str());
                (setting == name.as_str()).then(|| "1".into())
            });
            // Asked for by a row, or by the list of those without effect, which then warns.
            !asked.get() && !warnings.iter().any(|warning| warning.contains(name.as_str()))
        })
        .collect();
    assert!(silent.is_empty(), "neither honoured nor named in a warning: {silent:?}");
}

/// Every `MC_…` name in the shared objects below `folder`.
fn settings_in(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            names.append(&mut settings_in(&path));
        } else if path.to_string_lossy().contains("mooncake") && path.to_string_lossy().contains(".so") {
            let bytes = std::fs::read(&path).unwrap();
            let is_name = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
            for start in
                bytes.windows(4).enumerate().filter(|(_, four)| four == b"\0MC_").map(|(at, _)| at + 1)
            {
                let name: Vec<u8> = bytes[start..].iter().copied().take_while(is_name).collect();
                if bytes.get(start + name.len()) == Some(&0) && !name.ends_with(b"_") {
                    names.insert(String::from_utf8(name).unwrap());
                }
            }
        }
    }
    names
}
