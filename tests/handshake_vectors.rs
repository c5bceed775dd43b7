//! The handshake daemon against what an upstream daemon answered, over real sockets.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{json, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use transfer_engine::config::Config;
use transfer_engine::handshake::{server, wire, Client, ConnectionMessage, Handler, Limits, Notification};
use transfer_engine::host_port::HostPort;
use transfer_engine::json;
use transfer_engine::runtime::tracked::Tracked;
use transfer_engine::runtime::BoxFuture;

const NO_RDMA: &str = "no RDMA transport on this node";

/// Far longer than any test takes; a test that waits for it has failed.
const FOREVER: Duration = Duration::from_secs(3600);

#[derive(Default)]
struct Node {
    descriptor: Option<Value>,
    rdma: bool,
    queue_max: usize,
    received: Mutex<Vec<Notification>>,
}

impl Handler for Node {
    fn metadata(&self, _: &Value) -> Option<Value> {
        self.descriptor.clone()
    }

    fn notify(&self, notification: Notification) -> bool {
        let mut received = self.received.lock().unwrap();
        let fits = received.len() < self.queue_max;
        if fits {
            received.push(notification);
        }
        fits
    }

    fn connection(&self, _: ConnectionMessage) -> BoxFuture<'_, Option<ConnectionMessage>> {
        let answer = self.rdma.then(|| ConnectionMessage::rejection(NO_RDMA));
        Box::pin(std::future::ready(answer))
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("test hangs") })
}

/// Limits under which nothing times out.
fn patient() -> Limits {
    let mut limits = Limits::new(&Config::default());
    limits.read.read_timeout = FOREVER;
    limits.read.frame_timeout = FOREVER;
    limits.close_timeout = FOREVER;
    limits
}

async fn start(node: Node, limits: Limits) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, tokio::spawn(server::serve(Tracked::open(|| Ok(listener)).unwrap(), Arc::new(node), limits)))
}

async fn send(address: SocketAddr, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    stream
}

/// Sends `request` and returns everything up to the server's close, which is a reset if the server has not read
/// the whole request.
async fn ask(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut reply = Vec::new();
    match send(address, request).await.read_to_end(&mut reply).await {
        Err(e) if e.kind() != std::io::ErrorKind::ConnectionReset => panic!("{e}"),
        _ => reply,
    }
}

async fn probe(address: SocketAddr) {
    let to = HostPort { host: address.ip().to_string(), port: address.port() };
    Client::new(&Config::default()).probe(&to).await.unwrap();
}

fn bytes(recorded: &Value) -> Vec<u8> {
    let hex = recorded["hex"].as_str().unwrap();
    let mut bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
    // A truncated recording goes on with blanks.
    bytes.resize(recorded["len"].as_u64().unwrap() as usize, b' ');
    bytes
}

#[test]
fn every_recorded_request_gets_the_recorded_reply() {
    run(async {
        let file = json::parse(include_bytes!("vectors/handshake-daemon.json")).unwrap();
        let cases = file["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 17);
        let metadata = cases.iter().find(|case| case["case"] == "metadata").unwrap();
        let descriptor = json::parse(metadata["reply_text"].as_str().unwrap().as_bytes()).unwrap();
        let node = Node { descriptor: Some(descriptor), rdma: true, queue_max: 100, ..Node::default() };
        let (address, _server) = start(node, Limits::new(&Config::default())).await;
        for case in cases {
            let name = case["case"].as_str().unwrap();
            let reply = ask(address, &bytes(&case["request"])).await;
            let recorded = bytes(&case["reply"]);
            let text = case["reply_text"].as_str().unwrap();
            if name.starts_with("connection") || name.starts_with("untyped") {
                // By design the reason is filled in here, where upstream answers an empty object.
                let expected = text.replace("\"reply_msg\":\"\"", &format!("\"reply_msg\":\"{NO_RDMA}\""));
                let head = recorded.len() - text.len();
                assert_eq!(String::from_utf8_lossy(&reply[head..]), expected, "{name}");
                assert_eq!(reply[8..head], recorded[8..head], "{name}");
                assert_eq!(reply[..8], (reply.len() as u64 - 8).to_le_bytes(), "{name}");
            } else if name == "metadata, body not an object" {
                // The same descriptor, but the recording has a later time stamp.
                assert_eq!(reply, bytes(&metadata["reply"]), "{name}");
            } else {
                assert_eq!(reply, recorded, "{name}");
            }
            probe(address).await;
        }
    });
}

#[test]
fn requests_that_abort_upstream_are_closed_without_a_reply() {
    run(async {
        let (address, _server) = start(Node { rdma: true, ..Node::default() }, patient()).await;
        for (kind, body) in [
            (wire::CONNECTION, "[]"),
            (wire::CONNECTION, "null"),
            (wire::CONNECTION, r#"{"qp_num":[-1]}"#),
            (wire::CONNECTION, r#"{"payload":{}}"#),
            (wire::NOTIFY, "[]"),
            (wire::NOTIFY, "\"x\""),
            (wire::NOTIFY, "1"),
            (wire::NOTIFY, r#"{"name":7}"#),
        ] {
            let request = wire::Frame { kind: Some(kind), body: body.into() };
            assert!(ask(address, &request.encode()).await.is_empty(), "{kind} {body}");
            probe(address).await;
        }
        let deep = wire::Frame { kind: None, body: vec![b'['; 1 << 20] };
        assert!(ask(address, &deep.encode()).await.is_empty());
        probe(address).await;
    });
}

#[test]
fn what_the_node_cannot_answer_is_null_or_refused() {
    run(async {
        let (address, _server) = start(Node::default(), patient()).await;
        for kind in [Some(wire::CONNECTION), Some(wire::METADATA), None] {
            let request = wire::Frame::of_json(kind, &json!({}));
            assert_eq!(
                ask(address, &request.encode()).await,
                wire::Frame::of_json(kind, &Value::Null).encode()
            );
        }
        let full = wire::Frame::of_json(Some(wire::NOTIFY), &json!({"name": "n", "notify_msg": "m"}));
        let refused = wire::Frame::of_json(Some(wire::NOTIFY), &json!({"name": "", "notify_msg": ""}));
        assert_eq!(ask(address, &full.encode()).await, refused.encode());
    });
}

#[test]
fn silent_clients_delay_nobody() {
    run(async {
        let (address, _server) = start(Node::default(), patient()).await;
        let mut silent = Vec::new();
        for _ in 0..20 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        // Neither do clients that stay after their reply, or stop inside a frame.
        silent.push(send(address, &wire::Frame::of_json(Some(wire::PROBE), &json!({})).encode()).await);
        silent.push(send(address, &[100, 0, 0, 0, 0, 0, 0, 0, 1, b'{']).await);
        probe(address).await;
        for stream in &silent[..20] {
            let error = stream.try_read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        }
    });
}

#[test]
fn a_silent_client_is_closed_after_the_read_time_out() {
    run(async {
        let mut limits = patient();
        limits.read.read_timeout = Duration::from_millis(10);
        let (address, _server) = start(Node::default(), limits).await;
        assert!(ask(address, &[]).await.is_empty());
        probe(address).await;
    });
}

#[test]
fn clients_over_the_limit_are_closed_and_room_is_used_again() {
    run(async {
        let (address, _server) = start(Node::default(), Limits { max_clients: 1, ..patient() }).await;
        let first = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        assert_eq!(second.read(&mut [0]).await.unwrap(), 0);
        drop(first);
        // The server notices the close of the first some time after it happened.
        let request = wire::Frame::of_json(Some(wire::PROBE), &json!({})).encode();
        loop {
            let mut reply = Vec::new();
            let mut stream = TcpStream::connect(address).await.unwrap();
            let sent = stream.write_all(&request).await;
            if sent.is_ok() && stream.read_to_end(&mut reply).await.is_ok() && !reply.is_empty() {
                break;
            }
        }
    });
}

/// Never has an answer.
struct Undecided;

impl Handler for Undecided {
    fn metadata(&self, _: &Value) -> Option<Value> {
        None
    }

    fn notify(&self, _: Notification) -> bool {
        false
    }

    fn connection(&self, _: ConnectionMessage) -> BoxFuture<'_, Option<ConnectionMessage>> {
        Box::pin(std::future::pending())
    }
}

#[test]
fn a_connection_that_is_being_set_up_delays_nobody_and_not_for_ever() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits { answer_timeout: Duration::from_millis(300), ..patient() };
        tokio::spawn(server::serve(Tracked::open(|| Ok(listener)).unwrap(), Arc::new(Undecided), limits));
        let request = wire::Frame { kind: Some(wire::CONNECTION), body: b"{}".to_vec() }.encode();
        let mut waiting = send(address, &request).await;
        probe(address).await;
        let mut reply = Vec::new();
        waiting.read_to_end(&mut reply).await.unwrap();
        assert_eq!(reply, b"");
    });
}

#[test]
fn connections_end_with_the_server() {
    run(async {
        let (address, server) = start(Node::default(), patient()).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        probe(address).await;
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        assert_eq!(silent.read(&mut [0]).await.unwrap_or(0), 0);
        assert!(TcpStream::connect(address).await.is_err());
    });
}
