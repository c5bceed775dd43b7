//! The images: what is in the Dockerfile, and what their health check says. `scripts/dockerfile-stages.sh` does their steps in a folder.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use super::common::{succeed, top};
use super::{deploy, python, read, Metadata};

const DOCKERFILE: &str = "docker/Dockerfile";

/// Its lines, continued ones joined, without comments.
pub fn instructions() -> Vec<String> {
    let text = read(deploy(DOCKERFILE));
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    joined.lines().map(words).filter(|line| !line.is_empty()).collect()
}

/// What `apt-get install` names in a line.
fn packages(line: &str) -> BTreeSet<String> {
    let installs = line.split("&&").find_map(|part| part.trim().strip_prefix("apt-get install "));
    let words = installs.into_iter().flat_map(str::split_whitespace);
    words.filter(|word| !word.starts_with('-')).map(String::from).collect()
}

#[test]
fn hadolint_finds_nothing() {
    succeed("hadolint", Command::new(python("hadolint")).arg(deploy(DOCKERFILE)));
    let mut child = Command::new(python("hadolint"));
    let mut child = child.arg("-").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"FROM debian:latest\n").unwrap();
    assert!(!child.wait().unwrap().success(), "it finds nothing in what is wrong either");
}

#[test]
fn the_build_stage_installs_what_make_deps_asks_for() {
    let found = instructions().iter().map(|line| packages(line)).find(|names| !names.is_empty()).unwrap();
    let needs = read(top().join("scripts/deps/build.sh"));
    // need NAME PACKAGES AFTER REASON; libclang's packages are a function's, whose first line is Debian 12's.
    let mut wanted = BTreeSet::from(["make".to_string()]);
    for line in needs.lines().filter(|line| line.starts_with("need ")) {
        let rest = line.splitn(3, ' ').nth(2).unwrap();
        let names =
            rest.strip_prefix('"').map_or_else(|| rest.split(' ').next(), |rest| rest.split('"').next());
        wanted
            .extend(names.unwrap().split(' ').filter(|name| *name != "libclang_packages").map(String::from));
    }
    let libclang = needs.lines().find_map(|line| line.trim().strip_prefix("echo libclang")).unwrap();
    wanted.extend(format!("libclang{libclang}").split(' ').map(String::from));
    assert_eq!(found, wanted);
}

#[test]
fn images_are_pinned_small_and_nobodys() {
    let lines = instructions();
    let stages: Vec<&[String]> = lines.split(|line| line.starts_with("FROM ")).skip(1).collect();
    let names: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert_eq!(stages.len(), 3);
    for (name, stage) in names.iter().zip(&stages) {
        let tag = name.split(' ').next().unwrap().split_once(':').expect("no tag").1;
        assert!(tag.contains('.'), "{name} is not one release");
        assert!(!stage.iter().any(|line| line.starts_with("ADD ")), "{name}: ADD fetches without a check");
        for line in stage.iter().filter(|line| line.contains("apt-get install")) {
            for part in ["--no-install-recommends", "rm -rf /var/lib/apt/lists/*"] {
                assert!(line.contains(part), "{name}: no {part}");
            }
        }
        if !name.ends_with(" AS build") {
            assert!(stage.contains(&"USER 10001:10001".to_string()), "{name} runs as root");
            assert!(stage.iter().any(|line| line.starts_with("HEALTHCHECK ")), "{name} has no check");
        }
    }
    for line in lines.iter().filter_map(|line| line.strip_prefix("COPY ")) {
        let source = line.split(' ').next().unwrap();
        assert!(source == "--from=build" || top().join(source).exists(), "{source} is not there");
    }
}

/// What cargo and the Makefile read is not kept out of the image's sources.
#[test]
fn the_ignored_files_are_none_that_building_reads() {
    let ignored = read(top().join(".dockerignore"));
    let lines: Vec<&str> = ignored.lines().filter(|line| !line.starts_with('#')).collect();
    for needed in
        ["src", "capi", "include", "packaging", "scripts", "deploy", "benches", "Cargo.lock", "build.rs"]
    {
        assert!(top().join(needed).exists() && !lines.contains(&needed), "{needed}");
    }
    for large in ["target", ".git"] {
        assert!(lines.contains(&large), "{large} would be sent to the daemon");
    }
    assert!(lines.contains(&"!tests/models"), "cargo needs all members of the workspace");
}

fn is_well(port: u16) -> bool {
    let mut check = Command::new(deploy("docker/health.sh"));
    check.arg(port.to_string()).status().unwrap().success()
}

#[test]
fn the_health_check_tells_a_server_that_works_from_one_that_does_not() {
    let mut server = Metadata::start(Some("secret"));
    assert!(is_well(server.port), "it asks without a token");
    let asked = Command::new(deploy("docker/health.sh"))
        .env("MC_TE_METRIC_HTTP_PORT", server.port.to_string())
        .status();
    assert!(asked.unwrap().success(), "it does not take the port of metrics");
    server.stop();
    assert!(!is_well(server.port), "nobody listens");
    // One that answers everything with another status, as a server of something else would.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let answers = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().unwrap();
        std::io::Read::read(&mut stream, &mut [0; 1024]).unwrap();
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
    });
    assert!(!is_well(port), "404 is not well");
    answers.join().unwrap();
}
