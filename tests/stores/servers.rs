//! Real stores, started for one test and killed with it, and what a test does to them behind the engines' backs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Far longer than a server takes to start.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Debian's etcd, one node.
    Etcd,
    /// Debian's redis-server.
    Redis,
    /// Our `mte metadata-server`.
    Mte,
    /// The HTTP server in upstream's wheel.
    Wheel,
}

impl Kind {
    /// Keys of dead engines go by themselves.
    pub fn expires(self) -> bool {
        self != Kind::Wheel
    }

    /// Values end in a newline.
    pub fn newline(self) -> &'static str {
        if matches!(self, Kind::Etcd | Kind::Redis) {
            "\n"
        } else {
            ""
        }
    }
}

/// A running server.
pub struct Server {
    /// Which server it is.
    pub kind: Kind,
    port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// A server without keys.
    pub fn start(kind: Kind) -> Self {
        Self::with(kind, &[])
    }

    /// The same with more arguments.
    pub fn with(kind: Kind, arguments: &[&str]) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("te-store-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let arguments = arguments.iter().map(|text| text.to_string()).collect();
        let mut server = Server { kind, port, folder, arguments, child: None };
        server.again();
        server
    }

    /// Three etcd nodes that know each other, the ports for peers included.
    pub fn cluster() -> Vec<Self> {
        let peers: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let all: Vec<_> =
            peers.iter().enumerate().map(|(i, port)| format!("n{i}=http://127.0.0.1:{port}")).collect();
        let all = all.join(",");
        let mut nodes: Vec<Self> = Vec::new();
        for (i, port) in peers.iter().enumerate() {
            let url = format!("http://127.0.0.1:{port}");
            let (name, port) = (format!("n{i}"), free_port());
            let arguments = [
                "--name",
                &name,
                "--listen-peer-urls",
                &url,
                "--initial-advertise-peer-urls",
                &url,
                "--initial-cluster",
                &all,
                "--initial-cluster-state",
                "new",
                "--heartbeat-interval",
                "50",
                "--election-timeout",
                "500",
            ];
            let folder = std::env::temp_dir().join(format!("te-store-{}-{port}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let arguments = arguments.iter().map(|text| text.to_string()).collect();
            nodes.push(Server { kind: Kind::Etcd, port, folder, arguments, child: None });
        }
        nodes.iter_mut().for_each(Server::spawn);
        nodes.iter_mut().for_each(Server::wait_until_it_answers);
        nodes
    }

    /// As `again`, for a member that has to wait for others.
    pub fn again_without_waiting(&mut self) {
        self.spawn();
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: i32) {
        let sent = Command::new("kill").args([format!("-{signal}"), self.pid().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Loses everything, also what is on disk.
    pub fn lose_everything(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(self.folder.join("data"));
        self.again();
    }

    /// What engines are given.
    pub fn url(&self) -> String {
        let port = self.port;
        match self.kind {
            Kind::Etcd => format!("etcd://127.0.0.1:{port}"),
            Kind::Redis if self.has_tls() => format!("rediss://127.0.0.1:{port}"),
            Kind::Redis => format!("redis://127.0.0.1:{port}"),
            Kind::Mte | Kind::Wheel => format!("http://127.0.0.1:{port}/metadata"),
        }
    }

    fn has_tls(&self) -> bool {
        self.arguments.iter().any(|argument| argument.starts_with("--tls-cert-file"))
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts the server again after it was stopped, on the same port; etcd with its data.
    pub fn again(&mut self) {
        self.spawn();
        self.wait_until_it_answers();
    }

    fn spawn(&mut self) {
        assert!(self.child.is_none());
        let port = self.port;
        let mut words: Vec<String> = match self.kind {
            Kind::Etcd => {
                let client = if self.arguments.iter().any(|a| a.starts_with("--cert-file")) {
                    "https"
                } else {
                    "http"
                };
                let words = format!(
                    "etcd --data-dir {0}/data --listen-client-urls {client}://127.0.0.1:{port} --advertise-client-urls \
                     {client}://127.0.0.1:{port} --log-level error",
                    self.folder.display()
                );
                let alone = ["--listen-peer-urls", "http://127.0.0.1:0"];
                let alone = alone.iter().filter(|_| !self.arguments.iter().any(|a| a == "--initial-cluster"));
                words.split_whitespace().chain(alone.copied()).map(String::from).collect()
            }
            Kind::Redis => {
                let ports = if self.has_tls() { format!("0 --tls-port {port}") } else { port.to_string() };
                let words = format!("redis-server --port {ports} --bind 127.0.0.1 --appendonly no --save");
                words.split(' ').chain([""]).map(String::from).collect()
            }
            Kind::Mte => {
                let program = env!("CARGO_BIN_EXE_mte");
                [program, "metadata-server", "--listen", &format!("127.0.0.1:{port}")]
                    .map(String::from)
                    .to_vec()
            }
            Kind::Wheel => {
                let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
                assert!(python.exists(), "target/venv is missing: run scripts/venv.sh");
                let module = ["-m", "mooncake.http_metadata_server", "--host", "127.0.0.1", "--port"];
                let words = std::iter::once(python.display().to_string()).chain(module.map(String::from));
                words.chain([port.to_string()]).collect()
            }
        };
        words.extend(self.arguments.iter().cloned());
        let log = std::fs::File::create(self.folder.join("log")).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args(&words)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("{words:?}: {e}"));
        self.child = Some(child);
    }

    fn wait_until_it_answers(&mut self) {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(ended.is_none(), "{:?} ended: {}", self.kind, log());
            let answers = match self.kind {
                // etcd accepts before it has a leader.
                Kind::Etcd if !self.arguments.iter().any(|a| a.starts_with("--cert-file")) => {
                    self.health().is_some_and(|text| text.contains("true"))
                }
                _ => TcpStream::connect(("127.0.0.1", self.port)).is_ok(),
            };
            if answers {
                return;
            }
            assert!(Instant::now() < deadline, "{:?} does not answer: {}", self.kind, log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn health(&self) -> Option<String> {
        http(self.port, "GET", "/health", b"").map(|(_, body)| String::from_utf8_lossy(&body).into_owned())
    }

    /// Kills the server.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<String> {
        match self.kind {
            Kind::Etcd => {
                let found = self.etcd("range", &format!(r#"{{"key":"{}"}}"#, base64(key.as_bytes())));
                let found: serde_json::Value = serde_json::from_str(&found).unwrap();
                found["kvs"][0]["value"].as_str().map(|text| String::from_utf8(unbase64(text)).unwrap())
            }
            Kind::Redis => self.redis(&["GET", key]),
            Kind::Mte | Kind::Wheel => {
                let (status, body) = http(self.port, "GET", &target(key), b"").unwrap();
                (status == 200).then(|| String::from_utf8(body).unwrap())
            }
        }
    }

    /// Writes a key.
    pub fn put(&self, key: &str, value: &str) {
        match self.kind {
            Kind::Etcd => {
                let body = format!(
                    r#"{{"key":"{}","value":"{}"}}"#,
                    base64(key.as_bytes()),
                    base64(value.as_bytes())
                );
                self.etcd("put", &body);
            }
            Kind::Redis => drop(self.redis(&["SET", key, value])),
            Kind::Mte | Kind::Wheel => {
                let put = http(self.port, "PUT", &target(key), value.as_bytes()).unwrap();
                assert_eq!(put.0, 200, "{}", String::from_utf8_lossy(&put.1));
            }
        }
    }

    /// Writes many keys of etcd at once.
    pub fn put_all(&self, pairs: &[(String, String)]) {
        let put = |(key, value): &(String, String)| {
            let (key, value) = (base64(key.as_bytes()), base64(value.as_bytes()));
            format!(r#"{{"requestPut":{{"key":"{key}","value":"{value}"}}}}"#)
        };
        let puts: Vec<_> = pairs.iter().map(put).collect();
        self.etcd("txn", &format!(r#"{{"success":[{}]}}"#, puts.join(",")));
    }

    /// Removes every key.
    pub fn wipe(&mut self) {
        match self.kind {
            Kind::Etcd => drop(self.etcd("deleterange", r#"{"key":"AA==","range_end":"AA=="}"#)),
            Kind::Redis => drop(self.redis(&["FLUSHALL"])),
            Kind::Mte | Kind::Wheel => {
                self.stop();
                self.again();
            }
        }
    }

    /// Calls etcd's JSON gateway.
    pub fn etcd(&self, what: &str, body: &str) -> String {
        let (status, answer) = http(self.port, "POST", &format!("/v3/kv/{what}"), body.as_bytes()).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// One command to redis; `None` for a null.
    pub fn redis(&self, words: &[&str]) -> Option<String> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let mut connection = client.get_connection().unwrap();
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query(&mut connection).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn target(key: &str) -> String {
    let encoded = key.bytes().map(|b| match b {
        b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    });
    format!("/metadata?key={}", encoded.collect::<String>())
}

/// One request; `None` if the server does not answer it.
pub fn http(port: u16, method: &str, target: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).ok()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let mut chunked = false;
    let mut length = None;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let header = line.trim().to_ascii_lowercase();
        match header.split_once(": ") {
            Some(("transfer-encoding", _)) => chunked = true,
            Some(("content-length", text)) => length = text.parse::<usize>().ok(),
            _ if header.is_empty() => break,
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            line.clear();
            reader.read_line(&mut line).ok()?;
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            body.extend(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    } else {
        reader.read_to_end(&mut body).ok()?;
        body.truncate(length.unwrap_or(usize::MAX));
    }
    Some((status, body))
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

fn unbase64(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in text.trim_end_matches('=').as_bytes().chunks(4) {
        let digit = |byte: &u8| DIGITS.iter().position(|digit| digit == byte).unwrap() as u32;
        let word = chunk.iter().fold(0, |word, byte| word << 6 | digit(byte)) << (6 * (4 - chunk.len()));
        out.extend(&word.to_be_bytes()[1..chunk.len()]);
    }
    out
}
