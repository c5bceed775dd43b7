//! P18: a real Prometheus reads what an engine tells, and what `deploy` has for it works: alert rules, scrape job, dashboard.
//!
//! `TE_LIB` names another library than `target/release/libtransfer_engine.so`.

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{c_programs, library_folder, succeed, top, HeldPort};
use serde_json::Value;

/// Longest time for a server to start and to see what it is to see. Chosen: they take a second or two.
const LIMIT: Duration = Duration::from_secs(60);

/// A process that is killed in the end.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn deploy(file: &str) -> PathBuf {
    top().join("deploy").join(file)
}

fn promtool(arguments: &[&str], folder: &Path) {
    succeed(&arguments.join(" "), Command::new("promtool").args(arguments).current_dir(folder));
}

/// An engine with a peer that has moved a MiB and serves metrics at `port`.
fn engine(port: u16) -> Server {
    let mut child = Command::new(c_programs().join("metrics"))
        .args(["serve", &port.to_string()])
        .env("LD_LIBRARY_PATH", library_folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let server = Server(child);
    assert!(lines.map_while(Result::ok).any(|line| line == "READY"), "the engine did not start");
    server
}

/// The body at `http://127.0.0.1:port path`, with status 200; `None`: no answer, or another one.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split_whitespace().nth(1).filter(|status| *status == "200").map(|_| body.to_string())
}

/// The result of an expression, or what is wrong with it.
fn query(port: u16, expression: &str) -> Option<Value> {
    let escaped: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let answer = get(port, &format!("/api/v1/query?query={escaped}"))?;
    Some(serde_json::from_str::<Value>(&answer).unwrap()["data"]["result"].clone())
}

/// The rules that a Prometheus has, each with its health: `unknown` until it was tried, then `ok` or `err`.
fn rules(port: u16) -> Vec<(String, String)> {
    let answer: Value = serde_json::from_str(&get(port, "/api/v1/rules").unwrap()).unwrap();
    let groups = answer["data"]["groups"].as_array().unwrap();
    let text = |rule: &Value, member: &str| rule[member].as_str().unwrap().to_string();
    let all = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    all.map(|rule| (text(rule, "name"), text(rule, "health"))).collect()
}

#[test]
fn p18_alert_rules_tell_what_is_wrong_and_nothing_else() {
    let folder = deploy("prometheus");
    promtool(&["check", "config", "scrape.yml"], &folder);
    promtool(&["test", "rules", "alerts_test.yml"], &folder);
    let rules = std::fs::read_to_string(folder.join("alerts.yml")).unwrap();
    let tests = std::fs::read_to_string(folder.join("alerts_test.yml")).unwrap();
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(alert), "{alert} has no test in alerts_test.yml");
    }
}

/// Expressions of the dashboard, with Grafana's variables filled in.
fn dashboard() -> Vec<String> {
    let text = std::fs::read_to_string(deploy("grafana/transfer-engine.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let filled = |text: &str| text.replace("$__rate_interval", "1m").replace("$instance", ".*");
    targets.map(|target| filled(target["expr"].as_str().unwrap())).collect()
}

/// Names of metrics in an expression or a page.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("mte_") || word.starts_with("mooncake_te_"))
        .map(String::from)
        .collect()
}

#[test]
fn p18_a_real_prometheus_reads_the_metrics() {
    let held = [HeldPort::new(), HeldPort::new()];
    let [port, own] = [held[0].port, held[1].port];
    let engine = engine(port);
    let page = get(port, "/metrics").expect("the engine serves metrics");
    let mut check =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).spawn().unwrap();
    check.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    // 3: it was read, and a name is not as its authors would have it; upstream's units are microseconds.
    let code = check.wait().unwrap().code();
    assert!([Some(0), Some(3)].contains(&code), "promtool says {code:?} of\n{page}");

    let folder = tempfile("prometheus");
    let job = std::fs::read_to_string(deploy("prometheus/scrape.yml")).unwrap();
    let job = job.replace("127.0.0.1:9400", &format!("127.0.0.1:{port}")).replace("15s", "1s");
    let job = format!("global: {{ evaluation_interval: 1s }}\n{job}");
    std::fs::write(folder.join("prometheus.yml"), job).unwrap();
    std::fs::copy(deploy("prometheus/alerts.yml"), folder.join("alerts.yml")).unwrap();
    let started = Command::new("prometheus")
        .arg("--config.file=prometheus.yml")
        .arg(format!("--web.listen-address=127.0.0.1:{own}"))
        .args(["--storage.tsdb.path=data", "--log.level=error"])
        .current_dir(&folder)
        .spawn();
    let prometheus = Server(started.unwrap());

    let begun = Instant::now();
    let seen = loop {
        let seen = query(own, "mooncake_te_write_bytes_total").filter(|result| result[0].is_object());
        if let Some(seen) = seen {
            break seen;
        }
        assert!(begun.elapsed() < LIMIT, "Prometheus does not see the engine");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(seen[0]["value"][1], "1048576", "{seen}");
    let up = query(own, "up{job=\"transfer-engine\"}").unwrap();
    assert_eq!(up[0]["value"][1], "1", "{up}");
    let rules = loop {
        let rules = rules(own);
        if rules.iter().all(|(_, health)| health != "unknown") {
            break rules;
        }
        assert!(begun.elapsed() < LIMIT, "Prometheus does not try {rules:?}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(rules.iter().any(|(name, _)| name == "TransferEngineBroken"), "{rules:?}");
    assert!(rules.iter().all(|(_, health)| health == "ok"), "{rules:?}");

    // NICs have series where there are some.
    let there: BTreeSet<String> = names(&page).into_iter().chain(nic_series()).collect();
    let rules = std::fs::read_to_string(deploy("prometheus/alerts.yml")).unwrap();
    for expression in dashboard() {
        assert!(query(own, &expression).is_some(), "Prometheus does not understand {expression}");
    }
    for name in dashboard().iter().map(String::as_str).chain([rules.as_str()]).flat_map(names) {
        assert!(there.contains(&name), "an engine does not tell {name}");
    }
    drop((prometheus, engine));
    std::fs::remove_dir_all(&folder).unwrap();
}

fn nic_series() -> [String; 3] {
    ["up", "inflight_bytes", "bandwidth_bytes_per_second"].map(|name| format!("mte_nic_{name}"))
}

/// A fresh folder below cargo's.
fn tempfile(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
