//! The handshake daemon against what an upstream daemon answered, over real sockets.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{json, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use transfer_engine::config::Config;
use transfer_engine::handshake::{
    server, wire, Client, ConnectionMessage, Document, Handler, Limits, Notification,
};
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
    fn metadata(self: Arc<Self>, _: Value) -> BoxFuture<'static, Option<Arc<Document>>> {
        Box::pin(std::future::ready(self.descriptor.as_ref().map(|value| Document::new(value).unwrap())))
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

/// Sends `request` and returns the frame of the reply, then closes, as clients do; nothing if the server does not
/// reply: it resets the connection then.
async fn ask(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = send(address, request).await;
    let mut reply = vec![0; 8];
    match stream.read_exact(&mut reply).await {
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Vec::new(),
        read => drop(read.unwrap()),
    }
    let length = u64::from_le_bytes(reply[..].try_into().unwrap());
    reply.resize(8 + length as usize, 0);
    stream.read_exact(&mut reply[8..]).await.unwrap();
    reply
}

/// Whether the server has closed or reset the connection, which is waited for.
async fn is_closed(stream: &mut TcpStream) -> bool {
    stream.read(&mut [0]).await.map_or(true, |read| read == 0)
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
fn p12_silent_clients_delay_nobody() {
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
fn clients_over_the_limit_are_closed_unless_another_makes_room() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits { max_clients: 1, ..patient() };
        let node = Arc::new(Undecided::default());
        tokio::spawn(server::serve(Tracked::open(|| Ok(listener)).unwrap(), node.clone(), limits));
        // A client that is being answered stays.
        let first = send(address, &wire::Frame::of_json(Some(wire::CONNECTION), &json!({})).encode()).await;
        node.0.notified().await;
        let mut second = TcpStream::connect(address).await.unwrap();
        assert!(is_closed(&mut second).await);
        drop(first);
    });
    run(async {
        let (address, _server) = start(Node::default(), Limits { max_clients: 1, ..patient() }).await;
        // One without a request makes room.
        let mut first = TcpStream::connect(address).await.unwrap();
        probe(address).await;
        assert!(is_closed(&mut first).await);
    });
}

#[test]
fn p39_a_crowd_that_dribbles_keeps_nobody_out() {
    run(async {
        let (address, _server) = start(Node::default(), Limits { max_clients: 16, ..patient() }).await;
        let mut crowd = Vec::new();
        for round in 0..300 {
            // The same host has other addresses.
            let from = tokio::net::TcpSocket::new_v4().unwrap();
            from.bind(SocketAddr::from(([127, 0, 0, 2 + (round % 3) as u8], 0))).unwrap();
            let mut dribbling = from.connect(address).await.unwrap();
            dribbling.write_all(&[100, 0, 0]).await.unwrap();
            crowd.push(dribbling);
            if round % 10 == 9 {
                probe(address).await;
            }
        }
    });
}

#[test]
fn a_client_that_stays_after_its_reply_is_reset() {
    run(async {
        let limits = Limits { close_timeout: Duration::from_millis(20), ..patient() };
        let (address, _server) = start(Node::default(), limits).await;
        let request = wire::Frame::of_json(Some(wire::PROBE), &json!({})).encode();
        let mut staying = send(address, &request).await;
        let mut reply = Vec::new();
        let end = staying.read_to_end(&mut reply).await.unwrap_err();
        assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(reply.ends_with(b"{\"status\":\"success\"}\n"));
        // One that closes its own direction only still gets the whole reply and a proper end.
        let mut half = send(address, &request).await;
        half.shutdown().await.unwrap();
        let mut reply = Vec::new();
        half.read_to_end(&mut reply).await.unwrap();
        assert!(reply.ends_with(b"{\"status\":\"success\"}\n"));
    });
}

#[test]
fn a_large_reply_is_waited_for_as_long_as_the_client_reads() {
    run(async {
        let large = Value::Array(vec![json!("x".repeat(1 << 10)); 4 << 10]);
        let node = Node { descriptor: Some(large.clone()), ..Node::default() };
        let limits = Limits { close_timeout: Duration::from_millis(20), ..patient() };
        let (address, _server) = start(node, limits).await;
        let mut slow = send(address, &wire::Frame::of_json(Some(wire::METADATA), &json!({})).encode()).await;
        let mut reply = vec![0; 9];
        slow.read_exact(&mut reply).await.unwrap();
        reply.resize(8 + u64::from_le_bytes(reply[..8].try_into().unwrap()) as usize, 0);
        for chunk in reply[9..].chunks_mut(64 << 10) {
            slow.read_exact(chunk).await.unwrap();
            // Slower than the time to close.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(json::parse(&reply[9..]).unwrap(), large);
    });
}

#[test]
fn a_document_is_shared_and_ends_when_it_is_withdrawn() {
    run(async {
        let document = Document::new(&json!("x".repeat(8 << 20))).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let node = Arc::new(Published(document.clone()));
        tokio::spawn(server::serve(Tracked::open(|| Ok(listener)).unwrap(), node, patient()));
        let request = wire::Frame::of_json(Some(wire::METADATA), &json!({})).encode();
        let mut unread = Vec::new();
        for _ in 0..50 {
            unread.push(send(address, &request).await);
        }
        for stream in &mut unread {
            stream.read_exact(&mut [0; 9]).await.unwrap();
        }
        // One for this test, one for the node, one for each reply.
        assert_eq!(Arc::strong_count(&document), 52);
        document.withdraw();
        for mut stream in unread {
            let mut rest = Vec::new();
            let end = stream.read_to_end(&mut rest).await.unwrap_err();
            assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
        }
        probe(address).await;
    });
}

struct Published(Arc<Document>);

impl Handler for Published {
    fn metadata(self: Arc<Self>, _: Value) -> BoxFuture<'static, Option<Arc<Document>>> {
        Box::pin(std::future::ready(Some(self.0.clone())))
    }

    fn notify(&self, _: Notification) -> bool {
        false
    }

    fn connection(&self, _: ConnectionMessage) -> BoxFuture<'_, Option<ConnectionMessage>> {
        Box::pin(std::future::ready(None))
    }
}

/// Never has an answer; tells when it is asked.
#[derive(Default)]
struct Undecided(tokio::sync::Notify);

impl Handler for Undecided {
    fn metadata(self: Arc<Self>, _: Value) -> BoxFuture<'static, Option<Arc<Document>>> {
        Box::pin(std::future::ready(None))
    }

    fn notify(&self, _: Notification) -> bool {
        false
    }

    fn connection(&self, _: ConnectionMessage) -> BoxFuture<'_, Option<ConnectionMessage>> {
        self.0.notify_one();
        Box::pin(std::future::pending())
    }
}

#[test]
fn p12_a_connection_that_is_being_set_up_delays_nobody_and_not_for_ever() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits { answer_timeout: Duration::from_millis(300), ..patient() };
        tokio::spawn(server::serve(
            Tracked::open(|| Ok(listener)).unwrap(),
            Arc::new(Undecided::default()),
            limits,
        ));
        let request = wire::Frame { kind: Some(wire::CONNECTION), body: b"{}".to_vec() }.encode();
        let mut waiting = send(address, &request).await;
        probe(address).await;
        assert!(is_closed(&mut waiting).await);
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
