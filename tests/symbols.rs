//! What the shared library shows to a linker: its exported symbols, its name, what it needs.
//!
//! `TE_LIB` names another library than `target/release/libtransfer_engine.so`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The functions of upstream's `transfer_engine_c.h`.
const API: [&str; 27] = [
    "allocateBatchID",
    "closeSegment",
    "createTransferEngine",
    "destroyTransferEngine",
    "discoverTopology",
    "enableGracefulShutdown",
    "freeBatchID",
    "freeNotifsMsgBuf",
    "genNotifyInEngine",
    "getLocalIpAndPort",
    "getNicLoadStats",
    "getNotifsFromEngine",
    "getTransferStatus",
    "installTransport",
    "openSegment",
    "openSegmentNoCache",
    "registerLocalMemory",
    "registerLocalMemoryBatch",
    "removeLocalSegment",
    "showLinks",
    "submitTransfer",
    "submitTransferWithNotify",
    "syncSegmentCache",
    "uninstallTransport",
    "unregisterLocalMemory",
    "unregisterLocalMemoryBatch",
    "warmupEfaSegment",
];

/// The functions of `transfer_engine_ext.h`.
const EXTENSIONS: [&str; 34] = [
    "checkSegmentStatus",
    "getBatchTransferStatus",
    "getRpcPort",
    "mte_allocate_shared",
    "mte_batch_fd",
    "mte_batch_notification",
    "mte_batch_status",
    "mte_cancel_batch",
    "mte_create_engine",
    "mte_discover_topology",
    "mte_free_shared",
    "mte_last_error",
    "mte_last_error_info",
    "mte_local_topology",
    "mte_metrics",
    "mte_only_transport",
    "mte_overlaps",
    "mte_probe_peer",
    "mte_register_memory",
    "mte_segment_buffers",
    "mte_segment_descriptor",
    "mte_set_log_callback",
    "mte_strerror",
    "mte_submit_arrays",
    "mte_submit_pages",
    "mte_task_drained",
    "mte_task_error",
    "mte_task_report",
    "mte_transfer_arrays",
    "mte_transfer_pages",
    "mte_transport",
    "mte_version",
    "mte_wait_batch",
    "probePeerAliveByID",
];

/// The functions of `transfer_engine_tokenspeed.h`.
const TOKENSPEED: [&str; 8] = [
    "ts_mooncake_abi_version",
    "ts_mooncake_create",
    "ts_mooncake_destroy",
    "ts_mooncake_register",
    "ts_mooncake_rpc_port",
    "ts_mooncake_unregister",
    "ts_mooncake_write",
    "ts_mooncake_write_pages",
];

/// Libraries of the C run-time that may be needed; some are part of libc in newer versions of it.
const MAY_NEED: [&str; 6] = ["libc.so", "libgcc_s.so", "ld-linux", "libm.so", "libpthread.so", "libdl.so"];

fn library() -> PathBuf {
    let path = std::env::var_os("TE_LIB").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/release/libtransfer_engine.so"),
        PathBuf::from,
    );
    assert!(path.exists(), "the library is missing at {}: run `make build` or set TE_LIB", path.display());
    path
}

fn run(tool: &str, arguments: &[&str]) -> String {
    let output = Command::new(tool)
        .args(arguments)
        .arg(library())
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|e| panic!("{tool} cannot be started: {e}"));
    assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The text in brackets of every dynamic entry with this tag.
fn entries<'a>(dynamic: &'a str, tag: &str) -> Vec<&'a str> {
    let lines = dynamic.lines().filter(|line| line.contains(tag));
    lines.map(|line| line.split_once('[').unwrap().1.trim_end_matches(']')).collect()
}

#[test]
fn exactly_the_documented_functions_are_exported() {
    let listing = run("nm", &["-D", "--defined-only"]);
    let mut exported = BTreeSet::new();
    for line in listing.lines() {
        let mut words = line.split_whitespace().rev();
        let name = words.next().unwrap();
        let kind = words.next().unwrap();
        assert_eq!(kind, "T", "{name} is exported, but not as a function");
        exported.insert(name);
    }
    let documented: BTreeSet<&str> = API.iter().chain(&EXTENSIONS).chain(&TOKENSPEED).copied().collect();
    let extra: Vec<_> = exported.difference(&documented).collect();
    let missing: Vec<_> = documented.difference(&exported).collect();
    assert!(
        extra.is_empty() && missing.is_empty(),
        "exported but not listed here: {extra:?}; missing: {missing:?}"
    );
}

#[test]
fn every_exported_function_is_declared_in_a_header_and_the_other_way_round() {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    for (header, names) in [
        ("transfer_engine_c.h", &API[..]),
        ("transfer_engine_ext.h", &EXTENSIONS[..]),
        ("transfer_engine_tokenspeed.h", &TOKENSPEED[..]),
    ] {
        let text = std::fs::read_to_string(include.join(header)).unwrap();
        // A declaration starts at the left margin, ends with `;` and has its name before the first bracket.
        let mut declared = BTreeSet::new();
        for line in text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_alphabetic())) {
            if let Some((before, _)) = line.split_once('(') {
                let name = before.rsplit([' ', '*']).next().unwrap();
                assert!(declared.insert(name), "{header} declares {name} twice");
            }
        }
        assert_eq!(declared, names.iter().copied().collect(), "{header}");
    }
}

#[test]
fn the_library_has_its_name_and_stays_mapped() {
    let dynamic = run("readelf", &["-d", "-W"]);
    assert_eq!(entries(&dynamic, "(SONAME)"), ["libtransfer_engine.so"]);
    let flags: Vec<&str> = dynamic.lines().filter(|line| line.contains("(FLAGS_1)")).collect();
    assert!(flags.iter().any(|line| line.contains("NODELETE")), "no NODELETE flag: {flags:?}");
    assert!(
        entries(&dynamic, "(RPATH)").is_empty() && entries(&dynamic, "(RUNPATH)").is_empty(),
        "{dynamic}"
    );
}

#[test]
fn p29_the_library_needs_only_the_c_run_time() {
    let dynamic = run("readelf", &["-d", "-W"]);
    let needed = entries(&dynamic, "(NEEDED)");
    assert!(needed.iter().any(|name| name.starts_with("libc.so")), "readelf is not understood:\n{dynamic}");
    let foreign: Vec<_> =
        needed.iter().filter(|name| !MAY_NEED.iter().any(|allowed| name.starts_with(allowed))).collect();
    assert!(foreign.is_empty(), "needs {foreign:?} as well");
}
