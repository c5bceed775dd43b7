//! What `deploy` has for servers, containers and clusters: read by the tools that are to run it, and run here where that needs no
//! daemon and no cluster.

mod common;
#[path = "deploy/docker.rs"]
mod docker;
#[path = "deploy/systemd.rs"]
mod systemd;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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

/// A program of `target/pyvenv`, which `scripts/pyvenv.sh test` makes.
fn python(program: &str) -> PathBuf {
    let path = top().join("target/pyvenv/bin").join(program);
    assert!(path.exists(), "{program} is missing: run scripts/pyvenv.sh test");
    path
}

/// A metadata server, killed when it is dropped.
struct Metadata {
    child: Child,
    port: u16,
}

impl Metadata {
    fn start(token: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mte"));
        command.args(["metadata-server", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
        let mut child = command.envs(token.map(|token| ("MC_METADATA_HTTP_TOKEN", token))).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit_once(':').unwrap_or_else(|| panic!("{line:?}")).1.parse().unwrap();
        Metadata { child, port }
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        self.stop();
    }
}
