//! `mte metadata-server` under clients that are silent, slow or many, and beside files that are not its own.

#[allow(dead_code)]
#[path = "stores/servers.rs"]
mod servers;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use servers::http;

/// Far longer than the server takes for one request; far shorter than its own limits.
const SOON: Duration = Duration::from_secs(5);

/// A server with a limit of descriptors; killed when it is dropped.
struct Mte {
    child: Child,
    port: u16,
}

impl Mte {
    fn start(descriptors: u32, arguments: &str) -> Self {
        let program = env!("CARGO_BIN_EXE_mte");
        let line = format!(
            "ulimit -n {descriptors}; exec setpriv --pdeathsig KILL -- {program} metadata-server --listen 127.0.0.1:0 {arguments}"
        );
        let mut child = Command::new("sh")
            .args(["-c", &line])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut listening = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut listening).unwrap();
        let port = listening.trim().rsplit_once(':').expect(&listening).1.parse().unwrap();
        Mte { child, port }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    /// The status of a request, which is answered soon.
    fn ask(&self, method: &str, key: &str, value: &[u8]) -> u16 {
        let begun = Instant::now();
        let target = format!("/metadata?key={key}");
        let (status, _) = http(self.port, method, &target, value).expect("no answer");
        assert!(begun.elapsed() < SOON, "{method} {key} took {:?}", begun.elapsed());
        status
    }

    /// What it has printed as errors; ends it.
    fn errors(mut self) -> String {
        self.child.kill().unwrap();
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Mte {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn silent_clients_do_not_keep_others_out() {
    let mte = Mte::start(128, "");
    assert_eq!(mte.ask("PUT", "a", b"1"), 200);
    // Silent ones, and ones that stop inside the head or the body.
    let openings = [
        "",
        "GET /metadata?key=a HTTP/1.1\r\nHost",
        "PUT /metadata?key=b HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n1",
    ];
    let mut held = Vec::new();
    for round in 0..300 {
        let mut stream = mte.connect();
        stream.write_all(openings[round % 3].as_bytes()).unwrap();
        held.push(stream);
        if round % 50 == 49 {
            assert_eq!(mte.ask("GET", "a", b""), 200);
        }
    }
    assert_eq!(mte.ask("PUT", "c", b"1"), 200);
    let errors = mte.errors();
    assert!(errors.lines().count() <= 2, "{errors}");
}

#[test]
fn what_is_kept_has_a_limit() {
    let mte = Mte::start(1024, "--max-total 1000000 --max-value 400000");
    let value = vec![b'x'; 400_000];
    assert_eq!(mte.ask("PUT", "a", &value), 200);
    assert_eq!(mte.ask("PUT", "b", &value), 200);
    assert_eq!(mte.ask("PUT", "c", &value), 507);
    assert_eq!(mte.ask("PUT", "c", &[b'x'; 400_001]), 413);
    assert_eq!(mte.ask("GET", "c", b""), 404);
    assert_eq!(mte.ask("DELETE", "a", b""), 200);
    assert_eq!(mte.ask("PUT", "c", &value), 200);
    // Many small ones end too: keys are counted.
    assert_eq!(mte.ask("DELETE", "c", b""), 200);
    assert!((0..4000).any(|n| mte.ask("PUT", &format!("small{n}"), b"") == 507));
    assert_eq!(mte.ask("GET", "b", b""), 200);
}

#[test]
fn a_value_that_is_read_slowly_counts_until_it_is_read() {
    let mte = Mte::start(1024, "--max-total 60000000 --max-value 50000000");
    let value = vec![b'x'; 50_000_000];
    assert_eq!(mte.ask("PUT", "a", &value), 200);
    let mut slow = mte.connect();
    slow.write_all(b"GET /metadata?key=a HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    slow.read_exact(&mut [0; 12]).unwrap();
    assert_eq!(mte.ask("DELETE", "a", b""), 200);
    assert_eq!(mte.ask("PUT", "b", &value), 507);
    drop(slow);
    let begun = Instant::now();
    while mte.ask("PUT", "b", &value) != 200 {
        assert!(begun.elapsed() < SOON, "the memory does not come back");
    }
}

#[test]
fn a_file_of_somebody_else_is_refused_and_stays() {
    let path = std::env::temp_dir().join(format!("mte-foreign-{}", std::process::id()));
    std::fs::write(&path, "127.0.0.1 localhost\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mte"))
        .args(["metadata-server", "--listen", "127.0.0.1:0", "--file"])
        .arg(&path)
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && errors.contains("left as it is"), "{errors}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "127.0.0.1 localhost\n");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_token_that_no_request_could_bring_is_refused() {
    for token in ["", " ", "a\nb", " a", "\u{e4}"] {
        let output = Command::new(env!("CARGO_BIN_EXE_mte"))
            .args(["metadata-server", "--listen", "127.0.0.1:0", "--token", token])
            // Not what an empty one stands for.
            .env("MC_METADATA_HTTP_TOKEN", "secret")
            .output()
            .unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && errors.contains("token"), "{token:?}: {errors}");
        assert!(output.stdout.is_empty(), "{token:?}");
    }
    // A variable that is set to nothing is no wish to serve everybody.
    let mut command = Command::new(env!("CARGO_BIN_EXE_mte"));
    command.args(["metadata-server", "--listen", "127.0.0.1:0"]).env("MC_METADATA_HTTP_TOKEN", "");
    let output = command.output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("token"));
}
