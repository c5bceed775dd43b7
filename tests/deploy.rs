//! What `deploy` has for servers, containers and clusters: read by the tools that are to run it, and run here where that needs no
//! daemon and no cluster.

mod common;
#[path = "deploy/systemd.rs"]
mod systemd;

use std::path::{Path, PathBuf};

use common::top;

fn deploy(file: &str) -> PathBuf {
    top().join("deploy").join(file)
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A fresh folder below cargo's.
fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("deploy-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
