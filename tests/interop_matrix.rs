//! Rolling upgrades: every released wheel of upstream that runs here, against `libtransfer_engine.so`, in both roles, over
//! TCP, simulated NICs and stores. The table in `docs/src/peers.md` is what this test has found.
//!
//! Needs what `make test` prepares (`scripts/peers.sh`, etcd). `TE_LIB` names another library, `TE_SKIP_INTEROP=1` skips
//! all of it, `UPDATE_PEERS=1` rewrites the table instead of comparing.

mod common;
#[allow(dead_code)]
#[path = "stores/servers.rs"]
mod servers;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Mutex;

use common::{library, simverbs, top};
use servers::{Kind, Server};

/// Wheels that are tried at once. Chosen: each is two processes that wait for each other most of the time.
const AT_ONCE: usize = 3;
const COLUMNS: [&str; 14] = [
    "release",
    "framing",
    "tcp",
    "notify",
    "probe",
    "shm",
    "http",
    "token",
    "etcd",
    "rdma",
    "rdma http",
    "rdma etcd",
    "rdma gid",
    "rdma notify",
];
const BEGIN: &str = "<!-- peers -->\n";
const END: &str = "<!-- /peers -->";

type Found = BTreeMap<String, String>;

/// Runs the wheel in `folder`; what each column has.
fn run(folder: &Path, http: &Server, guarded: &Server, etcd: &Server) -> Result<Found, String> {
    let output = Command::new(top().join("target/venv/bin/python"))
        .current_dir(top().join("tests/interop"))
        .args(["matrix.py".as_ref(), folder.as_os_str()])
        .env("TE_LIB", library())
        .env("TE_SIMVERBS", simverbs())
        .env("TE_HTTP", http.url())
        .env("TE_HTTP_TOKEN", guarded.url())
        .env("TE_ETCD", etcd.url())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .map_err(|e| format!("the venv's Python cannot be started: {e}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("{}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_str(&said).map_err(|e| format!("{e}: {said}"))
}

fn row(cells: impl IntoIterator<Item = String>) -> String {
    format!("| {} |", cells.into_iter().collect::<Vec<_>>().join(" | "))
}

/// Numbers of a release, `post` after what it follows.
fn order(release: &str) -> Vec<u32> {
    release.split('.').map(|part| part.trim_start_matches("post").parse().unwrap_or(0)).collect()
}

#[test]
fn every_released_upstream_and_we_understand_each_other() {
    if std::env::var_os("TE_SKIP_INTEROP").is_some_and(|value| value == "1") {
        println!("SKIP upstream's releases: TE_SKIP_INTEROP=1 is set");
        return;
    }
    let peers = top().join("target/peers");
    let entries =
        std::fs::read_dir(&peers).unwrap_or_else(|e| panic!("{}: {e}: run `make test`", peers.display()));
    let mut releases: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    releases.retain(|name| !name.ends_with(".new"));
    releases.sort_by_key(|name| order(name.trim_end_matches(".missing")));
    assert!(releases.len() >= 13, "scripts/peers.sh has not come to its end: {releases:?}");
    let (http, etcd) = (Server::start(Kind::Mte), Server::start(Kind::Etcd));
    let guarded = Server::with(Kind::Mte, &["--token", "open sesame"]);
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(release) = releases.get(next.fetch_add(1, Relaxed)) {
                    if !release.ends_with(".missing") {
                        let result = run(&peers.join(release), &http, &guarded, &etcd);
                        found.lock().unwrap().insert(release.clone(), result);
                    }
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    let mut table = vec![row(COLUMNS.map(str::to_string)), row(COLUMNS.map(|_| "---".to_string()))];
    let mut failed = Vec::new();
    for release in &releases {
        match found.get(release) {
            Some(Ok(cells)) => {
                let cell = |column: &&str| cells.get(*column).cloned().unwrap_or_default();
                table.push(row(std::iter::once(release.clone()).chain(COLUMNS[1..].iter().map(cell))));
            }
            Some(Err(text)) => failed.push(format!("{release}: {text}")),
            None => {
                let why = std::fs::read_to_string(peers.join(release)).unwrap();
                println!("SKIP {}: {}", release.trim_end_matches(".missing"), why.trim());
            }
        }
    }
    println!("{}", table.join("\n"));
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    assert!(table.len() > 2, "no wheel runs here");
    compare(&table);
}

/// Each row of the table stands in `docs/src/peers.md`, which has none of a release that was not found to be so.
fn compare(table: &[String]) {
    let path = top().join("docs/src/peers.md");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (before, rest) = text.split_once(BEGIN).expect(BEGIN);
    let (kept, after) = rest.split_once(END).expect(END);
    if std::env::var_os("UPDATE_PEERS").is_some_and(|value| value == "1") {
        std::fs::write(&path, format!("{before}{BEGIN}\n{}\n\n{END}{after}", table.join("\n"))).unwrap();
        return;
    }
    for row in table {
        assert!(
            kept.lines().any(|line| line == row),
            "docs/src/peers.md lacks this; run with UPDATE_PEERS=1\n{row}"
        );
    }
}
