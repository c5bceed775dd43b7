//! The commands of `mte` that look at codes, at this machine, at stores and at peers, each as a process.

mod common;
#[allow(dead_code)]
#[path = "stores/node.rs"]
mod node;
#[allow(dead_code)]
#[path = "stores/servers.rs"]
mod servers;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;

use common::net::{address, ip, Net};
use node::Node;
use serde_json::{json, Value};
use servers::{free_port, Kind, Server};
use transfer_engine::error::codes::TABLE;

/// What a command has printed, and its exit status.
struct Ran {
    status: i32,
    out: String,
    errors: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}{}", self.out, self.errors))
    }
}

fn mte(arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mte"));
    let output = command.args(arguments).envs(environment.iter().copied()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { status: output.status.code().unwrap(), out: text(output.stdout), errors: text(output.stderr) }
}

#[test]
fn a_code_is_explained_by_number_and_by_name() {
    for wanted in ["-102", "ERR_SOCKET", "err_socket", "socket"] {
        let ran = mte(&["explain", wanted], &[]);
        assert_eq!((ran.status, ran.errors.as_str()), (0, ""), "{wanted}");
        for part in ["ERR_SOCKET (-102): socket error", "Common causes:", "What to do:\n  By class."] {
            assert!(ran.out.contains(part), "{wanted}: {part} in {}", ran.out);
        }
        let found = mte(&["explain", "--json", wanted], &[]).json();
        assert_eq!((&found["code"], &found["name"]), (&json!(-102), &json!("ERR_SOCKET")));
    }
}

#[test]
fn a_class_is_explained_by_name() {
    for wanted in ["TIMEOUT", "timeout", "MTE_CLASS_TIMEOUT"] {
        let ran = mte(&["explain", wanted], &[]);
        assert_eq!((ran.status, ran.errors.as_str()), (0, ""), "{wanted}");
        let parts = ["class TIMEOUT: a deadline passed\n", "What to do:\n  repeat elsewhere"];
        assert!(parts.iter().all(|part| ran.out.contains(part)), "{}", ran.out);
        assert_eq!(mte(&["explain", "--json", wanted], &[]).json()["class"], json!("TIMEOUT"));
    }
}

#[test]
fn an_unknown_code_is_named_with_the_remedy() {
    for (wanted, remedy) in [
        ("-5", "mte explain without a code"),
        ("ERR_WARP", "mte explain without a code"),
        ("", "mte explain without a code"),
        ("1", "mte explain -1"),
        ("0", "success"),
    ] {
        let ran = mte(&["explain", wanted], &[]);
        assert_eq!((ran.status, ran.out.as_str()), (2, ""), "{wanted}");
        let is_told = ran.errors.starts_with("mte: ") && ran.errors.contains(wanted);
        assert!(is_told && ran.errors.contains(remedy), "{wanted}: {}", ran.errors);
    }
}

#[test]
fn without_a_code_every_code_is_shown() {
    let shown = mte(&["explain"], &[]).out;
    assert_eq!(shown.lines().count(), TABLE.len() + 1, "{shown}");
    let listed = mte(&["explain", "--json"], &[]).json();
    for (line, (row, found)) in shown.lines().skip(1).zip(TABLE.iter().zip(listed.as_array().unwrap())) {
        assert!(line.contains(row.name) && line.ends_with(row.meaning), "{line}");
        assert_eq!((&found["code"], &found["meaning"]), (&json!(row.value), &json!(row.meaning)));
        assert!(
            !found["causes"].as_str().unwrap().is_empty() && !found["remedy"].as_str().unwrap().is_empty()
        );
    }
}

#[test]
fn the_topology_is_what_an_engine_would_use() {
    let none = [("MC_CUSTOM_TOPO_JSON", "")];
    assert!(mte(&["topology", "--json"], &none).json().is_object());
    let found = mte(&["topology", "--json", "--devices", "no_such_nic"], &none).json();
    assert!(found.as_object().unwrap().values().all(|row| *row == json!([[], []])), "{found}");
    let matrix = json!({"cpu:0": [["mlx5_0"], ["mlx5_1", "mlx5_2"]], "cuda:0": [["mlx5_1"], []]});
    let path = std::env::temp_dir().join(format!("mte-topology-{}", std::process::id()));
    std::fs::write(&path, matrix.to_string()).unwrap();
    let given = [("MC_CUSTOM_TOPO_JSON", path.to_str().unwrap())];
    assert_eq!(mte(&["topology", "--json"], &given).json(), matrix);
    let shown = mte(&["topology"], &given);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(shown.status, 0, "{}", shown.errors);
    let words: Vec<Vec<&str>> = shown.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[1], ["cpu:0", "mlx5_0", "mlx5_1,mlx5_2"]);
    assert_eq!(words[2], ["cuda:0", "mlx5_1", "-"]);
    assert!(shown.out.ends_with("from MC_CUSTOM_TOPO_JSON\n"), "{}", shown.out);
}

#[test]
fn a_peer_is_asked_and_read_but_not_written() {
    let peer = Node::start("P2PHANDSHAKE", "127.0.0.1");
    peer.memory.iter().enumerate().for_each(|(at, byte)| byte.store(at as u8, Relaxed));
    let name = peer.engine.address().to_string();
    let arguments = ["ping", &name, "--count", "3", "--interval", "0"];
    let ran = mte(&[&arguments[..], &["--json"]].concat(), &[]);
    let found = ran.json();
    assert_eq!((ran.status, &found["failed"]), (0, &json!(0)), "{found} {}", ran.errors);
    assert_eq!(found["rounds"].as_array().unwrap().len(), 3);
    for round in found["rounds"].as_array().unwrap() {
        assert_eq!((&round["read_bytes"], &round["error"]), (&json!(4096), &Value::Null));
        assert!(round["handshake_ns"].as_u64().unwrap() > 0 && round["read_ns"].as_u64().unwrap() > 0);
        assert!(round["transport"].is_string());
    }
    assert_eq!((&found["read"]["count"], &found["handshake"]["count"]), (&json!(3), &json!(3)));
    let ran = mte(&arguments, &[]);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!((ran.status, lines.len(), lines[5]), (0, 6, "0 of 3 rounds failed"), "{}", ran.out);
    assert!(lines[0].contains("READ of 4096 bytes"), "{}", ran.out);
    assert!(peer.memory.iter().enumerate().all(|(at, byte)| byte.load(Relaxed) == at as u8));
}

#[test]
fn a_peer_without_buffers_is_only_asked() {
    let peer = Node::create("P2PHANDSHAKE", "127.0.0.1").unwrap();
    peer.engine.install_transport("tcp", None).unwrap();
    let ran = mte(&["ping", &peer.engine.address().to_string(), "--count", "1"], &[]);
    assert_eq!(ran.status, 0, "{}{}", ran.out, ran.errors);
    assert!(ran.out.contains("no buffer to read"), "{}", ran.out);
}

#[test]
fn a_peer_that_does_not_answer_fails_each_round_in_its_time() {
    // Nobody listens; somebody listens who never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for (port, why) in [(free_port(), "nobody listens"), (silent.local_addr().unwrap().port(), "300ms")] {
        let name = format!("127.0.0.1:{port}");
        let arguments = ["ping", &name, "--count", "2", "--interval", "0ms", "--timeout", "300ms", "--json"];
        let ran = mte(&arguments, &[]);
        let found = ran.json();
        assert_eq!((ran.status, &found["failed"]), (1, &json!(2)), "{found}");
        let told = found["rounds"][1]["error"].as_str().unwrap();
        assert!(told.contains(why) && told.contains(&name), "{told}");
    }
}

/// The peer's link takes packets of 9000 bytes and believes that ours does, which takes 1500: what is larger is lost without a word.
#[test]
fn a_ping_tells_that_only_small_packets_arrive() {
    let name = "a_ping_tells_that_only_small_packets_arrive";
    if common::in_child(name, &[]) {
        return;
    }
    let Some(net) = Net::new(name) else { return };
    let [a, b] = ["a", "b"].map(|side| net.space(side));
    ip(&["-n", &a, "link", "set", "eth1", "mtu", "9000"]).unwrap();
    ip(&["-n", &b, "route", "change", "10.77.1.0/24", "dev", "eth1", "advmss", "8960"]).unwrap();
    let program = env!("CARGO_BIN_EXE_mte");
    let mut target = Command::new("ip")
        .args(["netns", "exec", &a, program, "bench", "target", "--name", address("a")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(target.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let segment = line.trim().strip_prefix("LISTENING ").unwrap();
    let ping = ["netns", "exec", &b, program, "ping", segment, "--count", "1", "--timeout", "2s"];
    let output = Command::new("ip").args(ping).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("READ of 4096 bytes over tcp, although one of 64 bytes has just arrived"),
        "{said}"
    );
    assert!(said.contains("compare the MTU"), "{said}");
    // Its standard input ends.
    drop(target.stdin.take());
    target.wait().unwrap();
}

/// A segment of an engine that is gone without having said so.
fn ghost(server: &Server) {
    let desc = json!({"name": "ghost", "protocol": "tcp", "tcp_data_port": 1, "timestamp": "2026-01-02 03:04:05",
        "buffers": [{"name": "ghost", "addr": 4096, "length": 10}, {"name": "ghost", "addr": 8192, "length": 20}]});
    server.put("mooncake/ram/ghost", &desc.to_string());
    let address = json!({"ip_or_host_name": "127.0.0.1", "rpc_port": free_port()});
    server.put("mooncake/rpc_meta/ghost", &address.to_string());
}

#[test]
fn the_segments_of_a_store_are_listed_with_what_lives() {
    for kind in [Kind::Etcd, Kind::Redis, Kind::Mte] {
        let server = Server::start(kind);
        let url = server.url();
        let list = |more: &[&str]| mte(&[&["segments", "--metadata", &url], more].concat(), &[]);
        let ran = list(&[]);
        assert_eq!(
            (ran.status, ran.out.as_str()),
            (0, "the store has no segments\n"),
            "{kind:?} {}",
            ran.errors
        );
        let _node = Node::start(&url, "node");
        let ran = list(&["--json"]);
        let found = ran.json();
        assert_eq!((ran.status, found.as_array().unwrap().len()), (0, 1), "{kind:?}: {found} {}", ran.errors);
        assert_eq!((&found[0]["name"], &found[0]["alive"]), (&json!("node"), &json!(true)), "{found}");
        assert_eq!((&found[0]["buffers"], &found[0]["bytes"]), (&json!(1), &json!(node::BYTES)));
        ghost(&server);
        // Not segments of this cluster.
        server.put("mooncake/ramp/other", "{}");
        server.put("mooncake/ram/ram/other", "{}");
        let ran = list(&["--json"]);
        let found = ran.json();
        assert_eq!((ran.status, found.as_array().unwrap().len()), (1, 2), "{kind:?}: {found}");
        assert_eq!((&found[0]["name"], &found[0]["alive"]), (&json!("ghost"), &json!(false)), "{found}");
        assert_eq!((&found[0]["buffers"], &found[0]["bytes"]), (&json!(2), &json!(30)));
        assert_eq!(found[0]["published"], json!("2026-01-02 03:04:05"));
        let shown = list(&[]);
        assert!(shown.out.contains("ghost: handshake with 127.0.0.1:"), "{}", shown.out);
    }
}

#[test]
fn a_store_that_cannot_list_wants_a_name() {
    let server = Server::start(Kind::Wheel);
    let url = server.url();
    let look = |more: &[&str]| mte(&[&["segments", "--metadata", &url], more].concat(), &[]);
    let ran = look(&[]);
    assert_eq!((ran.status, ran.out.as_str()), (2, ""), "{}", ran.errors);
    assert!(ran.errors.starts_with("mte: ") && ran.errors.contains("NAME"), "{}", ran.errors);
    let _node = Node::start(&url, "node");
    let ran = look(&["node"]);
    assert!(ran.status == 0 && ran.out.contains("alive"), "{}{}", ran.out, ran.errors);
    let ran = mte(&["ping", "node", "--metadata", &url, "--count", "1"], &[]);
    assert!(ran.status == 0 && ran.out.contains("READ of 4096 bytes"), "{}{}", ran.out, ran.errors);
    ghost(&server);
    assert_eq!(look(&["ghost"]).status, 1);
    let found = look(&["nowhere", "--json"]);
    assert_eq!((found.status, &found.json()[0]["alive"]), (1, &json!(false)));
}

#[test]
fn a_peer_without_a_store_is_looked_at_by_its_address() {
    let peer = Node::start("P2PHANDSHAKE", "127.0.0.1");
    let name = peer.engine.address().to_string();
    let look = |name: &str| mte(&["segments", "--metadata", "P2PHANDSHAKE", "--json", name], &[]);
    let ran = look(&name);
    assert_eq!((ran.status, &ran.json()[0]["handshake"]), (0, &json!(name)), "{}", ran.errors);
    assert_eq!(look(&format!("127.0.0.1:{}", free_port())).status, 1);
}

#[test]
fn slips_are_usage_errors_or_told_in_a_sentence() {
    let closed = format!("http://127.0.0.1:{}/metadata", free_port());
    // The first word is of whoever found the slip: the reader of command lines, or the command.
    for (arguments, status, word) in [
        (&["ping"][..], 2, "error: "),
        (&["ping", "h:1", "--timeout", "0"], 2, "error: "),
        (&["ping", "h:1", "--count", "0"], 2, "error: "),
        (&["ping", "h:1", "--metadata", "warp://h"], 2, "mte: "),
        (&["segments"], 2, "error: "),
        (&["segments", "--metadata", "warp://h"], 2, "mte: "),
        (&["segments", "--metadata", &closed, "node"], 1, "mte: "),
    ] {
        let ran = mte(arguments, &[]);
        assert_eq!((ran.status, ran.out.as_str()), (status, ""), "{arguments:?}: {}", ran.errors);
        assert!(ran.errors.starts_with(word), "{arguments:?}: {}", ran.errors);
    }
}
