//! `mte top` beside an engine that serves metrics; `mte completions` and `mte manpages`, and how they are installed.
//!
//! `TE_LIB` names another library than `target/release/libtransfer_engine.so`.

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use common::{c_programs, library_folder, succeed, top, HeldPort};
use serde_json::{json, Value};

fn mte(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mte")).args(arguments).output().unwrap()
}

fn out(ran: &Output) -> &str {
    std::str::from_utf8(&ran.stdout).unwrap()
}

/// One JSON object for each line.
fn lines(ran: &Output) -> Vec<Value> {
    out(ran).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A fresh folder below cargo's.
fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A process with an engine that has written a MiB and serves metrics at a port; its end is the end of its input.
struct Served {
    child: Child,
    port: u16,
    _held: HeldPort,
}

impl Served {
    fn start() -> Self {
        let held = HeldPort::new();
        let port = held.port;
        let mut child = Command::new(c_programs().join("metrics"))
            .args(["serve", &port.to_string()])
            .env("LD_LIBRARY_PATH", library_folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let served = Served { child, port, _held: held };
        assert!(lines.map_while(Result::ok).any(|line| line == "READY"), "the engine did not start");
        served
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_engine_is_shown_interval_by_interval() {
    let served = Served::start();
    let ran = mte(&["top", &served.url(), "--count", "2", "--interval", "50ms", "--json"]);
    let told = lines(&ran);
    assert_eq!((ran.status.code(), told.len()), (Some(0), 2), "{ran:?}");
    for interval in told {
        let endpoint = &interval["endpoints"][0];
        assert_eq!(endpoint["endpoint"], json!(format!("127.0.0.1:{}", served.port)));
        let figures = &endpoint["figures"];
        assert_eq!((&endpoint["error"], &figures["engines"]), (&Value::Null, &json!(1)), "{endpoint}");
        assert!(figures["seconds"].as_f64().unwrap() > 0.0, "{figures}");
        // It moved its MiB before, and nothing now.
        for op in ["read", "write"] {
            assert_eq!(figures[op]["requests_per_second"], json!(0.0), "{figures}");
            assert_eq!(figures[op]["p99"], Value::Null, "{figures}");
        }
        assert_eq!((&figures["requests_under_way"], &figures["restarted"]), (&json!(0), &json!(false)));
    }
    let ran = mte(&["top", &served.url(), "--count", "1", "--interval", "50ms"]);
    let shown: Vec<Vec<&str>> = out(&ran).lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(shown[1][1..4], ["READ", "0.000", "0"], "{ran:?}");
    assert_eq!(shown[2][..3], ["WRITE", "0.000", "0"], "{ran:?}");
    assert!(!out(&ran).contains('\x1b'), "{ran:?}");
}

#[test]
fn links_of_a_real_engine_are_shown() {
    let served = Served::start();
    let address = format!("127.0.0.1:{}", served.port);
    let ran = mte(&["links", "--address", &address, "--json"]);
    let told: Value = serde_json::from_str(out(&ran)).unwrap();
    assert_eq!((ran.status.code(), told.as_array().unwrap().len()), (Some(0), 1), "{ran:?}");
    assert!(told[0]["links"]["local_nics"].is_array(), "{told}");
    let queue = &told[0]["queues"][0];
    assert_eq!(
        (&queue["transport"], &queue["queue"], &queue["under_way"]),
        (&json!("tcp"), &json!("0"), &json!(0))
    );
    let ran = mte(&["links", "--address", &served.url()]);
    let shown: Vec<Vec<&str>> = out(&ran).lines().map(|line| line.split_whitespace().collect()).collect();
    let row = shown.iter().find(|row| row.get(1) == Some(&"tcp")).unwrap_or_else(|| panic!("{ran:?}"));
    assert_eq!(
        (row[0], row[3..].to_vec()),
        (told[0]["engine"].as_str().unwrap(), vec!["0", "0", "0"]),
        "{ran:?}"
    );

    let port = pages(vec![json!({"other": 1})]);
    let ran = mte(&["links", "--address", &format!("127.0.0.1:{port}")]);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.code() == Some(1) && said.contains("no engine"), "{ran:?}");
    let held = HeldPort::new();
    let ran = mte(&["links", "--address", &format!("127.0.0.1:{}", held.port)]);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.code() == Some(1) && said.contains("MC_TE_METRIC=1"), "{ran:?}");
}

/// An endpoint whose answers are the given pages, one after the other.
fn pages(pages: Vec<Value>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for page in pages {
            let (mut stream, _) = listener.accept().unwrap();
            let head = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            head.take_while(|line| !line.is_empty()).for_each(drop);
            let body = page.to_string();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    port
}

#[test]
fn what_rises_between_two_answers_is_shown() {
    let page = |requests: u64, lost: u64| {
        json!({
            "mooncake_te_read_bytes_total": 0,
            "mooncake_te_write_bytes_total": requests * 1000,
            "mooncake_te_write_requests_total": requests,
            "mooncake_te_write_latency_us": {"count": requests, "sum": 1, "buckets": {"100": requests}},
            "mte_transport_events_total{engine=\"a\",transport=\"tcp\",event=\"lanes_lost\"}": lost,
            "mte_peers_refused_total{port=\"handshake\",cause=\"other_key\"}": lost,
            "mte_nic_up{engine=\"a\",nic=\"mlx5_0\"}": 0,
        })
    };
    // The process that answers in the end is a new one.
    let port = pages(vec![page(10, 0), page(30, 2), page(5, 0)]);
    let ran = mte(&["top", &format!("127.0.0.1:{port}"), "--count", "2", "--interval", "20ms", "--json"]);
    let told = lines(&ran);
    let figures = told.iter().map(|interval| &interval["endpoints"][0]["figures"]);
    let in_interval = |figures: &Value| {
        let seconds = figures["seconds"].as_f64().unwrap();
        (figures["write"]["requests_per_second"].as_f64().unwrap() * seconds).round()
    };
    let found: Vec<_> = figures.clone().map(|f| (in_interval(f), f["restarted"] == json!(true))).collect();
    assert_eq!((ran.status.code(), found), (Some(0), vec![(20.0, false), (5.0, true)]), "{ran:?}");
    let events: Vec<_> = figures.clone().map(|figures| &figures["events"]).collect();
    let lost = json!([{"engine": "a", "transport": "tcp", "event": "lanes_lost", "count": 2}]);
    assert_eq!(events, [&lost, &json!([])]);
    let refused: Vec<_> = figures.clone().map(|figures| &figures["peers_refused"]).collect();
    assert_eq!(refused, [&json!([{"port": "handshake", "cause": "other_key", "count": 2}]), &json!([])]);
    for figures in figures {
        assert_eq!(figures["nics_down"], json!([{"engine": "a", "nic": "mlx5_0"}]));
        assert_eq!(figures["write"]["p50"], json!({"us": 50.0, "is_above": false}));
    }
}

#[test]
fn an_endpoint_that_does_not_answer_is_named_with_the_remedy() {
    let served = Served::start();
    let held = HeldPort::new();
    let closed = format!("127.0.0.1:{}", held.port);
    let arguments = ["top", &served.url(), &closed, "--count", "2", "--interval", "50ms"];
    let ran = mte(&[&arguments[..], &["--json"]].concat());
    let told = lines(&ran);
    assert_eq!((ran.status.code(), told.len()), (Some(1), 2), "{ran:?}");
    for interval in told {
        assert!(interval["endpoints"][0]["figures"].is_object(), "{interval}");
        let error = interval["endpoints"][1]["error"].as_str().unwrap();
        let port = closed.split_once(':').unwrap().1;
        for part in ["refused", "MC_TE_METRIC=1", &format!("MC_TE_METRIC_HTTP_PORT={port}")] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }
    let ran = mte(&arguments);
    assert_eq!(ran.status.code(), Some(1));
    assert_eq!(out(&ran).matches(&format!("{closed}: cannot connect")).count(), 2, "{ran:?}");
    // Something answers there, but no engine.
    let port = pages(vec![json!({"status": "ok"}); 2]);
    let ran = mte(&["top", &format!("127.0.0.1:{port}"), "--count", "1", "--interval", "20ms"]);
    assert!(ran.status.code() == Some(1) && out(&ran).contains("no engine"), "{ran:?}");
}

/// As the port of a process that was stopped: its kernel accepts, and nobody answers.
#[test]
fn a_port_that_accepts_and_does_not_answer_is_told_from_a_closed_one() {
    let stopped = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stopped.local_addr().unwrap().to_string();
    let ran = mte(&["top", &address, "--count", "1", "--interval", "50ms"]);
    let said = format!("{}{}", out(&ran), String::from_utf8_lossy(&ran.stderr));
    assert!(
        said.contains("its process is stopped or hangs") && !said.contains("MC_TE_METRIC_HTTP_PORT"),
        "{said}"
    );
}

#[test]
fn a_wrong_url_is_a_usage_error() {
    for arguments in
        [&["top"][..], &["top", "https://h:1"], &["top", "h"], &["top", "h:1", "--interval", "0"]]
    {
        let ran = mte(arguments);
        assert_eq!((ran.status.code(), out(&ran)), (Some(2), ""), "{arguments:?}");
        assert!(String::from_utf8_lossy(&ran.stderr).starts_with("error: "), "{ran:?}");
    }
}

#[test]
fn every_shell_has_completions_that_bash_can_read() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = mte(&["completions", shell]);
        assert!(ran.status.success() && out(&ran).contains("metadata-server"), "{shell}: {ran:?}");
        if shell == "bash" {
            let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
            bash.stdin.take().unwrap().write_all(&ran.stdout).unwrap();
            assert!(bash.wait().unwrap().success());
        }
    }
    assert_eq!(mte(&["completions", "warp"]).status.code(), Some(2));
}

/// The files below `folder`.
fn files(folder: &Path) -> BTreeSet<String> {
    let found = Command::new("find").arg(folder).args(["-type", "f", "-printf", "%P\n"]).output().unwrap();
    out(&found).lines().map(String::from).collect()
}

/// The names of the commands below one, as its help lists them.
fn subcommands(command: &[&str]) -> Vec<String> {
    let help = mte(&[command, &["--help"]].concat());
    let lines = out(&help).lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines.take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(String::from).collect()
}

#[test]
fn every_command_has_a_man_page() {
    let folder = scratch("manpages").join("new");
    assert!(mte(&["manpages", folder.to_str().unwrap()]).status.success());
    let commands = subcommands(&[]);
    let mut below = Vec::new();
    for name in &commands {
        below.extend(subcommands(&[name]).iter().map(|below| format!("mte-{name}-{below}.1")));
    }
    let wanted = commands.iter().map(|name| format!("mte-{name}.1")).chain(below);
    let wanted: BTreeSet<String> = wanted.chain(["mte.1".to_string()]).collect();
    assert!(wanted.contains("mte-top.1") && wanted.contains("mte-bench-run.1"), "{wanted:?}");
    assert_eq!(files(&folder), wanted);
    let page = std::fs::read_to_string(folder.join("mte-top.1")).unwrap();
    assert!(page.contains(".SH OPTIONS") && page.contains("interval"), "{page}");
    // A file is where the folder would be.
    let ran = mte(&["manpages", folder.join("mte.1").to_str().unwrap()]);
    assert!(
        ran.status.code() == Some(1) && String::from_utf8_lossy(&ran.stderr).starts_with("mte: cannot"),
        "{ran:?}"
    );
}

#[test]
fn man_pages_and_completions_are_installed_and_removed() {
    let folder = scratch("share");
    let (built, tree) = (folder.join("built"), folder.join("tree"));
    std::fs::create_dir_all(&built).unwrap();
    let mte = env!("CARGO_BIN_EXE_mte");
    let share = || Command::new(top().join("scripts/share.sh"));
    succeed("share.sh", share().arg(mte).arg(built.join("share")));
    let listed = share().arg("list").output().unwrap();
    let listed: BTreeSet<String> = out(&listed).lines().map(String::from).collect();
    assert_eq!(
        files(&built.join("share")),
        listed,
        "scripts/share.sh has another list than mte has commands"
    );
    for file in ["libtransfer_engine.so", "libtransfer_engine.a", "mte"] {
        std::fs::write(built.join(file), "x").unwrap();
    }
    let install = |what: &str| {
        let mut install = Command::new(top().join("scripts/install.sh"));
        install.arg(what).env("BUILT", &built).env("DESTDIR", &tree).env("PREFIX", "/usr");
        for name in ["LIBDIR", "INCLUDEDIR", "BINDIR", "DATADIR", "COMPANIONS"] {
            install.env_remove(name);
        }
        succeed(what, &mut install);
    };
    install("install");
    assert_eq!(files(&tree.join("usr/share")), listed);
    // Also where nothing is built any more.
    std::fs::remove_dir_all(&built).unwrap();
    install("uninstall");
    assert_eq!(files(&tree), BTreeSet::new());
}
