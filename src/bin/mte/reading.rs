//! Asks ports for metrics, all at once, over HTTP.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header::HOST;
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// For a whole answer. Chosen: an engine takes milliseconds, and a dead one must not hold up the others for long.
const LIMIT: Duration = Duration::from_secs(2);
/// Longest answer. Chosen: a process with some hundred engines tells less than a MiB.
const LONGEST_BYTES: usize = 16 << 20;
/// What is told of an answer that no engine gives.
pub(crate) const NO_ENGINE: &str = "what answers there is no engine";

/// Where the engines of a process serve metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Name or address, an IPv6 address without its brackets.
    host: String,
    port: u16,
}

impl FromStr for Endpoint {
    type Err = String;

    /// Takes `host:port` with or without `http://` before it, and the page's path behind it or none.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = "an endpoint is http://HOST:PORT or HOST:PORT, as http://127.0.0.1:9400";
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some((scheme, _)) => {
                return Err(format!("engines serve metrics over http, not {scheme}; {wrong}"))
            }
            None => text,
        };
        let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !["", "metrics", "metrics/json"].contains(&path.trim_end_matches('/')) {
            return Err(format!("engines serve metrics at /metrics, not at /{path}; {wrong}"));
        }
        let (host, port) = address.rsplit_once(':').ok_or(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0);
        let port = port.ok_or_else(|| format!("the port is a number from 1 to 65535; {wrong}"))?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match bare {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
        };
        is_host.then(|| Endpoint { host: bare.unwrap_or(host).into(), port }).ok_or_else(|| wrong.into())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Asks from the thread that calls.
pub(crate) struct Reader(Runtime);

impl Reader {
    /// Fails if the process has no descriptors left.
    pub(crate) fn new() -> std::io::Result<Self> {
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map(Reader)
    }

    /// The JSON page at `path` of each endpoint and when it came, or why it did not and what to do. Blocks for [`LIMIT`] at most.
    pub(crate) fn read(
        &self,
        endpoints: &[Endpoint],
        path: &'static str,
    ) -> Vec<Result<(Instant, Value), String>> {
        self.0.block_on(async {
            let ask = |endpoint: &Endpoint| tokio::spawn(answer(endpoint.clone(), path));
            let asked: Vec<_> = endpoints.iter().map(ask).collect();
            let mut answers = Vec::new();
            for task in asked {
                answers.push(task.await.unwrap_or_else(|error| Err(error.to_string())));
            }
            answers
        })
    }
}

async fn answer(endpoint: Endpoint, path: &str) -> Result<(Instant, Value), String> {
    let is_connected = AtomicBool::new(false);
    let cause = match timeout(LIMIT, ask(&endpoint, path, &is_connected)).await {
        Ok(Ok(page)) => return Ok((Instant::now(), page)),
        Ok(Err(error)) => error.to_string(),
        // The kernel of its host accepts for a process that does not run.
        Err(_) if is_connected.load(Relaxed) => {
            return Err(format!(
                "it accepts connections and does not answer within {} s: its process is stopped or hangs; look at the state of the \
                 process on its host (ps; T is stopped)",
                LIMIT.as_secs()
            ))
        }
        Err(_) => format!("no answer within {} s", LIMIT.as_secs()),
    };
    Err(format!(
        "{cause}; metrics are served by a process that has MC_TE_METRIC=1 and MC_TE_METRIC_HTTP_PORT={}, \
         and to other hosts with MC_TE_METRIC_HTTP_HOST=0.0.0.0",
        endpoint.port
    ))
}

async fn ask(
    endpoint: &Endpoint,
    path: &str,
    is_connected: &AtomicBool,
) -> Result<Value, Box<dyn Error + Send + Sync>> {
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port))
        .await
        .map_err(|error| format!("cannot connect: {error}"))?;
    is_connected.store(true, Relaxed);
    // By its address, which every endpoint answers to: the name may be one that it does not know.
    let address = host_header(stream.peer_addr()?);
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Ends with the sender. What fails there fails the request too.
    tokio::spawn(connection);
    let request = Request::get(path).header(HOST, address).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    if !response.status().is_success() {
        return Err(format!("it answers with status {}", response.status()).into());
    }
    let body = Limited::new(response.into_body(), LONGEST_BYTES).collect().await?.to_bytes();
    serde_json::from_slice(&body).map_err(|_| NO_ENGINE.into())
}

/// Without the interface of a link-local address, which is none of the other end's.
fn host_header(address: SocketAddr) -> String {
    SocketAddr::new(address.ip(), address.port()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_with_and_without_scheme_and_page() {
        for (text, shown) in [
            ("http://127.0.0.1:9400", "127.0.0.1:9400"),
            ("node-7.rack_2:9400/", "node-7.rack_2:9400"),
            ("http://h:1/metrics", "h:1"),
            ("h:1/metrics/json", "h:1"),
            ("[::1]:9400", "[::1]:9400"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn the_other_end_is_not_told_of_interfaces_of_this_one() {
        let scoped: SocketAddr = "[fe80::1%7]:9400".parse().unwrap();
        assert_eq!(host_header(scoped), "[fe80::1]:9400");
        assert_eq!(host_header(([127, 0, 0, 1], 9400).into()), "127.0.0.1:9400");
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_an_example() {
        for text in [
            "",
            "h",
            "9400",
            ":9400",
            "h:",
            "h:0",
            "h:65536",
            "h:x",
            "https://h:1",
            "http://h",
            "http://h:1/other",
            "::1:9400",
            "[h]:1",
            "a b:1",
            "user@h:1",
        ] {
            let refusal = text.parse::<Endpoint>().unwrap_err();
            assert!(refusal.contains("http://127.0.0.1:9400"), "{text}: {refusal}");
        }
    }
}
