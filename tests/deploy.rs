//! What `deploy` has for servers, containers and clusters, and what releases are made with: read by the tools that are to run it, and run here where that needs no
//! daemon and no cluster.

mod common;
#[path = "deploy/compose.rs"]
mod compose;
#[path = "deploy/docker.rs"]
mod docker;
#[path = "deploy/kubernetes.rs"]
mod kubernetes;
#[path = "deploy/release.rs"]
mod release;
#[path = "deploy/systemd.rs"]
mod systemd;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::top;
use serde_json::Value;

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

/// The documents of a YAML file.
fn yaml(path: &Path) -> Vec<Value> {
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let output = Command::new(python("python")).args(["-c", script]).arg(path).output().unwrap();
    assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Variables that the library reads are in its table; those of others begin otherwise.
fn settings_exist<'a>(names: impl Iterator<Item = &'a str>) {
    let table = read(top().join("src/config.rs"));
    for name in names.filter(|name| name.starts_with("MC_")) {
        assert!(table.contains(&format!("\"{name}\"")), "src/config.rs has no {name}");
    }
}

/// Killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Longest time until a service is healthy. Chosen: they take a second or two.
const HEALTH_LIMIT: Duration = Duration::from_secs(60);

/// Asks as an orchestrator does, until the answer is yes.
fn healthy(what: &str, mut probe: impl FnMut() -> Command) {
    let begun = Instant::now();
    while !probe().stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success() {
        assert!(begun.elapsed() < HEALTH_LIMIT, "{what} does not become healthy");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a container of a stage of the Dockerfile is.
struct DockerStage {
    entry_point: String,
    has_health_check: bool,
}

impl DockerStage {
    fn of(name: &str) -> Self {
        let lines = docker::instructions();
        let begin = format!(" AS {name}");
        let mut stage = lines.iter().skip_while(|line| !line.ends_with(&begin)).skip(1);
        let stage: Vec<_> = stage.by_ref().take_while(|line| !line.starts_with("FROM ")).collect();
        let entry_point = stage.iter().find_map(|line| line.strip_prefix("ENTRYPOINT [\""));
        let entry_point = entry_point.unwrap_or_else(|| panic!("no stage {name} with an entry point"));
        DockerStage {
            entry_point: entry_point.trim_end_matches("\"]").into(),
            has_health_check: stage.iter().any(|line| line.starts_with("HEALTHCHECK ")),
        }
    }
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
