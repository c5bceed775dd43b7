//! The status pages of `mte metadata-server` and of an engine's port for metrics, in a real browser beside real engines.
//!
//! `TE_LIB` names another library than `target/release/libtransfer_engine.so`.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::browser::Browser;
use common::{c_programs, library_folder};
use serde_json::Value;

/// Longest time for a server to start and to see what it is to see. Chosen: they take seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// What a stranger may call a segment.
const HOSTILE: &str = "<img src=x onerror=alert(1)>";

/// A process that is killed in the end, and its first line.
struct Process {
    child: Child,
    line: String,
}

impl Process {
    /// Waits for the line that begins with `ready`.
    fn start(command: &mut Command, ready: &str) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let line = lines.find(|line| line.starts_with(ready));
        let process = Process { child, line: line.unwrap_or_default() };
        assert!(process.line.starts_with(ready), "{command:?} did not start");
        process
    }

    fn server(arguments: &[&str]) -> (Self, u16) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mte"));
        command.args(["metadata-server", "--listen", "127.0.0.1:0"]).args(arguments);
        let server = Process::start(&mut command, "LISTENING");
        let port = server.line.rsplit_once(':').unwrap().1.parse().unwrap();
        (server, port)
    }

    /// An engine with a buffer of a MiB, whose keys live for 8 s.
    fn engine(port: u16, name: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mte"));
        let store = format!("http://127.0.0.1:{port}/metadata");
        command.args(["bench", "target", "--bytes", "1MiB", "--name", name, "--metadata", &store]);
        Process::start(command.env("MC_METADATA_TTL_SEC", "8"), "LISTENING")
    }

    fn kill(&mut self) {
        // SIGKILL: it says goodbye to nobody.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A fresh folder below cargo's.
fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Head and body of the answer to a request with these lines of head.
fn ask(port: u16, request: &str, lines: &[&str], body: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let length = body.len();
    let head =
        format!("{request} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{lines}\r\n{body}");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
    (head.to_ascii_lowercase(), body.to_string())
}

fn status(port: u16, request: &str, lines: &[&str]) -> u16 {
    let (head, _) = ask(port, request, lines, "");
    head.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Every answer to the page's paths that is asked for by an address is guarded, and none is given to another name.
fn assert_is_guarded(port: u16) {
    for path in ["/", "/status.json"] {
        let get = format!("GET {path}");
        let (head, _) = ask(port, &get, &["Host: 127.0.0.1"], "");
        for part in [
            "default-src 'none'",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
        ] {
            assert!(head.starts_with("http/1.1 200") && head.contains(part), "{part}: {head}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", ""] {
            assert_eq!(status(port, &get, &[&format!("Host: {host}")]), 403, "{host}");
        }
        for host in ["127.0.0.1:1", "[::1]:80", "LOCALHOST", &own_name()] {
            assert_eq!(status(port, &get, &[&format!("Host: {host}")]), 200, "{host}");
        }
        assert_ne!(status(port, &format!("POST {path}"), &["Host: 127.0.0.1"]), 200);
    }
}

fn own_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_string()
}

/// The page on a phone: nothing is wider than the screen, and everything can be hit with a thumb.
fn assert_fits_a_phone(browser: &mut Browser) {
    browser.look(360, 800, "light");
    let width = browser.value("document.documentElement.scrollWidth");
    assert_eq!(width, 360, "wider than the screen");
    let small = browser.value(
        "[...document.querySelectorAll('button, input')].filter(each => each.checkVisibility()).map(each => each.getBoundingClientRect()) \
         .filter(box => box.width < 44 || box.height < 44).length",
    );
    assert_eq!(small, 0, "too small for a thumb");
}

fn assert_follows_the_dark(browser: &mut Browser) {
    let mut page = |scheme| {
        browser.look(1280, 900, scheme);
        let colors = browser
            .value("getComputedStyle(document.body).backgroundColor + getComputedStyle(document.body).color");
        let numbers: Vec<u32> = colors
            .as_str()
            .unwrap()
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|n| n.parse().ok())
            .collect();
        let [back, front] = [&numbers[..3], &numbers[3..6]].map(|color| color.iter().sum::<u32>());
        (back, front)
    };
    let [(light, ink), (dark, chalk)] = [page("light"), page("dark")];
    assert!(light > 600 && ink < 200 && dark < 200 && chalk > 600, "{light} {ink} {dark} {chalk}");
}

#[test]
fn the_metadata_servers_page_shows_who_lives_and_who_does_not() {
    let folder = scratch("status-page");
    let (_server, port) = Process::server(&[]);
    let [mut first, _second, _third] = ["node-a", "node-b", "node-c"].map(|name| Process::engine(port, name));
    let key: String = HOSTILE.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let value = format!(r#"{{"name":"{HOSTILE}","protocol":"{HOSTILE}","buffers":[]}}"#);
    let put = format!("PUT /metadata?key=mooncake/ram/{key}");
    // Keys are served under every name: the store's clients call it as they like.
    assert!(ask(port, &put, &["Host: store.example"], &value).0.starts_with("http/1.1 200"));
    assert_is_guarded(port);

    let mut browser = Browser::start(&folder);
    browser.look(1280, 900, "light");
    let page = format!("http://127.0.0.1:{port}/");
    browser.open(&page);
    browser.wait_for("document.querySelectorAll('#content tbody')[0]?.rows.length === 4 && !document.getElementById('tools').hidden");
    let names =
        "[...document.querySelectorAll('#content tbody')[0].rows].map(row => row.cells[0].textContent)";
    let shown = browser.value(names);
    for name in [HOSTILE, "node-a", "node-b", "node-c"] {
        assert!(shown.as_array().unwrap().contains(&name.into()), "{name}: {shown}");
    }
    // On a busy machine one may be late in between.
    let summary = browser.value("document.getElementById('summary').textContent");
    let summary = summary.as_str().unwrap();
    let unknown = "1 has no lease, so whether the engine lives is not known here.";
    assert!(summary.starts_with("All 4 segments were seen in the last minute; "), "{summary}");
    assert!(summary.ends_with(unknown), "{summary}");
    assert_eq!(browser.value("document.images.length"), 0);

    // By keyboard: a filter, a button, and the heads of the tables that sort.
    browser.press("Tab");
    assert_eq!(browser.value("document.activeElement.labels[0].textContent.trim()"), "Show only rows with");
    assert_eq!(browser.value("getComputedStyle(document.activeElement).outlineWidth"), "3px");
    browser.write("NODE-C");
    assert_eq!(browser.value(names), serde_json::json!(["node-c"]));
    browser.value("document.getElementById('filter').value = ''");
    browser.press("Tab");
    assert_eq!(browser.value("document.activeElement.textContent"), "Pause updates");
    browser.press("Tab");
    assert_eq!(browser.value("document.activeElement.textContent"), "Segment");
    browser.press("Enter");
    browser.press("Enter");
    assert_eq!(browser.value("document.activeElement.parentNode.getAttribute('aria-sort')"), "descending");
    assert_eq!(browser.value(names), serde_json::json!(["node-c", "node-b", "node-a", HOSTILE]));
    browser.press("Enter");
    let roles = browser.roles();
    for (role, name) in [
        ("banner", ""),
        ("main", ""),
        ("heading", "Segments"),
        ("table", "Segments"),
        ("columnheader", "State"),
        ("rowheader", "node-a"),
        ("searchbox", "Show only rows with"),
    ] {
        assert!(roles.contains(&(role.into(), name.into())), "{role} {name} in {roles:?}");
    }
    assert_fits_a_phone(&mut browser);
    assert_follows_the_dark(&mut browser);

    // Its last sign of life is known, then that it has ended.
    first.kill();
    browser.wait_for("document.getElementById('summary').textContent.includes('1 is gone')");
    let said = browser.value("document.querySelector('.problems li').textContent");
    assert!(said.as_str().unwrap().starts_with("node-a at "), "{said}");
    assert!(said.as_str().unwrap().contains("run mte doctor there"), "{said}");
    assert_eq!(browser.value(names)[0], "node-a", "what is worst comes first");

    // Without JavaScript the server has made the tables.
    browser.call("Emulation.setScriptExecutionDisabled", serde_json::json!({ "value": true }));
    browser.open(&page);
    browser.wait_for("document.querySelectorAll('#content tbody')[0]?.rows.length === 4");
    assert_eq!(browser.value("document.querySelectorAll('thead button').length + document.images.length"), 0);
    assert_eq!(browser.value(names)[0], "node-a");
    assert_eq!(browser.value("document.querySelector('noscript').checkVisibility()"), true);

    assert_eq!(browser.console, [""; 0]);
    assert!(browser.requests.len() > 3, "{:?}", browser.requests);
    assert!(
        browser.requests.iter().all(|url| url.starts_with(&page) || url.starts_with("data:,")),
        "{:?}",
        browser.requests
    );
    drop(browser);
    // A process of the browser may still write there.
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn with_a_token_the_page_asks_for_it_and_shows_nothing_before() {
    let folder = scratch("status-token");
    let (_server, port) = Process::server(&["--token", "secret", "--host", "store.example"]);
    let (host, token) = ("Host: 127.0.0.1", "Authorization: Bearer secret");
    assert!(ask(port, "PUT /metadata?key=mooncake/ram/node-a", &[host, token], "{}")
        .0
        .starts_with("http/1.1 200"));
    let (_, body) = ask(port, "GET /", &[host], "");
    assert!(!body.contains("node-a") && body.contains("data-access=\"token\""), "{body}");
    assert_eq!(status(port, "GET /status.json", &[host]), 401);
    assert_eq!(status(port, "GET /status.json", &[host, "Authorization: Bearer other"]), 401);
    assert_eq!(status(port, "GET /status.json", &[host, token]), 200);
    // A server whose names were given answers to no other, for keys too.
    let get = "GET /metadata?key=mooncake/ram/node-a";
    assert_eq!(status(port, get, &["Host: store.example:1", token]), 200);
    assert_eq!(status(port, get, &["Host: evil.example", token]), 403);

    let mut browser = Browser::start(&folder);
    browser.look(360, 800, "dark");
    browser.open(&format!("http://127.0.0.1:{port}/"));
    browser.wait_for("document.activeElement.id === 'token'");
    assert_fits_a_phone(&mut browser);
    browser.write("wrong");
    browser.press("Enter");
    browser.wait_for(
        "document.getElementById('refused').textContent === 'That is not the token of this server.'",
    );
    assert_eq!(browser.value("document.body.innerText.includes('node-a')"), false);
    browser.write("secret");
    browser.press("Enter");
    browser.wait_for("document.querySelector('#content tbody th')?.textContent === 'node-a'");
    let kept = "localStorage.length + sessionStorage.length + document.cookie.length + document.getElementById('token').value.length";
    assert_eq!(browser.value(kept), 0, "the token is kept somewhere");
    drop(browser);
    // A process of the browser may still write there.
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn an_engines_page_shows_what_it_does_and_that_it_has_ended() {
    let folder = scratch("status-engine");
    let port = free_port();
    let mut command = Command::new(c_programs().join("metrics"));
    command.args(["serve", &port.to_string()]).env("LD_LIBRARY_PATH", library_folder());
    let mut engine = Process::start(&mut command, "READY");
    assert_is_guarded(port);
    let told: Value =
        serde_json::from_str(&ask(port, "GET /status.json", &["Host: 127.0.0.1"], "").1).unwrap();
    let write = &told["tables"][0]["rows"][1];
    assert_eq!(
        (&write[0]["text"], &write[4]["value"], &write[5]["value"]),
        (&"WRITE".into(), &1048576.0.into(), &1.0.into())
    );

    let mut browser = Browser::start(&folder);
    browser.look(1280, 900, "light");
    let page = format!("http://127.0.0.1:{port}/");
    browser.open(&page);
    // Rates are there once there are two looks.
    let rate = "document.querySelectorAll('#content tbody')[0]?.rows[1]?.cells[1].textContent.endsWith('/s')";
    browser.wait_for(&format!("!document.getElementById('tools').hidden && {rate}"));
    let summary = browser.value("document.getElementById('summary').textContent");
    assert_eq!(
        summary,
        "The engine of this process works; no task that was submitted here has failed in the last minute."
    );
    let roles = browser.roles();
    for (role, name) in [("table", "Engines"), ("rowheader", "WRITE"), ("columnheader", "Timed out")] {
        assert!(roles.contains(&(role.into(), name.into())), "{role} {name} in {roles:?}");
    }
    assert_fits_a_phone(&mut browser);
    assert_follows_the_dark(&mut browser);
    assert_eq!(browser.console, [""; 0]);
    assert!(
        browser.requests.iter().all(|url| url.starts_with(&page) || url.starts_with("data:,")),
        "{:?}",
        browser.requests
    );

    engine.kill();
    let begun = Instant::now();
    browser.wait_for("document.getElementById('connection').textContent.includes('does not answer since')");
    assert!(begun.elapsed() < LIMIT);
    drop(browser);
    // A process of the browser may still write there.
    let _ = std::fs::remove_dir_all(folder);
}
