//! The handshake client and the peer-to-peer store against scripted servers and our own daemon.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{json, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use transfer_engine::config::Config;
use transfer_engine::error::{Class, Code, Error};
use transfer_engine::handshake::{
    server, wire, Client, ConnectionMessage, Document, Handler, Limits, Notification,
};
use transfer_engine::host_port::HostPort;
use transfer_engine::metadata;
use transfer_engine::runtime::ports::BoundPort;
use transfer_engine::runtime::BoxFuture;
use transfer_engine::segment_desc::SegmentDesc;

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("test hangs") })
}

fn name_of(address: SocketAddr) -> HostPort {
    HostPort { host: address.ip().to_string(), port: address.port() }
}

/// A server that reads each request, answers `reply` and closes; `None` keeps the connection open, silent.
async fn scripted(reply: Option<Vec<u8>>) -> HostPort {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            match &reply {
                None => kept.push(stream),
                Some(bytes) => {
                    let mut length = [0; 8];
                    stream.read_exact(&mut length).await.unwrap();
                    let mut request = vec![0; u64::from_le_bytes(length) as usize];
                    stream.read_exact(&mut request).await.unwrap();
                    stream.write_all(bytes).await.unwrap();
                }
            }
        }
    });
    name_of(address)
}

async fn notify(to: &HostPort) -> Result<(), Error> {
    Client::new(&Config::default()).notify(to, &Notification::default()).await
}

fn frame(kind: Option<u8>, body: &str) -> Option<Vec<u8>> {
    Some(wire::Frame { kind, body: body.into() }.encode())
}

#[test]
fn replies_have_the_right_codes() {
    run(async {
        let good = r#"{"name":"","notify_msg":"success"}"#;
        let truncated = frame(Some(2), good).map(|bytes| bytes[..20].to_vec());
        for (case, reply, code) in [
            ("closed without a reply", Some(vec![]), Code::Socket),
            ("half a length", Some(vec![9, 0]), Code::Socket),
            ("length 0", Some(vec![0; 8]), Code::Socket),
            ("truncated", truncated, Code::Socket),
            ("huge length", Some(vec![0xff; 64]), Code::Socket),
            ("claims 128 MiB", Some(vec![0, 0, 0, 8, 0, 0, 0, 0, 2, b'{']), Code::Socket),
            ("wrong type", frame(Some(3), good), Code::Socket),
            ("no type", frame(None, good), Code::Socket),
            ("not JSON", frame(Some(2), "hello"), Code::MalformedJson),
            ("empty body", frame(Some(2), ""), Code::MalformedJson),
            ("not an object", frame(Some(2), "[]"), Code::MalformedJson),
            ("null", frame(Some(2), "null"), Code::MalformedJson),
            ("wrong member", frame(Some(2), r#"{"notify_msg":1}"#), Code::MalformedJson),
            ("empty message", frame(Some(2), r#"{"notify_msg":""}"#), Code::Metadata),
            ("null message", frame(Some(2), r#"{"notify_msg":null}"#), Code::Metadata),
            ("no message", frame(Some(2), "{}"), Code::Metadata),
        ] {
            let to = scripted(reply).await;
            let error = notify(&to).await.expect_err(case);
            assert_eq!(error.code(), code, "{case}: {error}");
            assert_eq!(error.peer_name(), to.to_string(), "{case}");
            assert!(error.text().contains(&to.to_string()), "{case}: {error}");
        }
        let to = scripted(frame(Some(2), good)).await;
        notify(&to).await.unwrap();
    });
}

#[test]
fn a_closed_port_is_a_socket_error_with_its_errno() {
    run(async {
        let bound = BoundPort::handshake(&Config::default()).unwrap();
        let error = notify(&HostPort { host: "localhost".into(), port: bound.port() }).await.unwrap_err();
        assert_eq!((error.code(), error.errno()), (Code::Socket, libc::ECONNREFUSED));
        assert!(error.retryable());
    });
}

#[test]
fn a_silent_server_is_a_time_out() {
    run(async {
        let to = scripted(None).await;
        let config = Config { handshake_timeout: Duration::from_millis(50), ..Config::default() };
        let error = Client::new(&config).probe(&to).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), (Code::Socket, Class::Timeout));
        assert_eq!(error.errno(), libc::ETIMEDOUT);
    });
}

#[test]
fn names_without_an_address_are_dns_errors() {
    run(async {
        for host in ["no-such-host.invalid", "::1", ""] {
            let error = notify(&HostPort { host: host.into(), port: 15001 }).await.unwrap_err();
            assert_eq!(error.code(), Code::Dns, "{error}");
            assert!(error.peer_name().contains("15001"));
        }
    });
}

#[test]
fn a_connection_refused_without_a_reason_is_a_rejection() {
    run(async {
        let ask = |to: HostPort| async move {
            let request = ConnectionMessage { peer_nic_path: "peer@mlx5_7".into(), ..Default::default() };
            Client::new(&Config::default()).connection(&to, &request).await
        };
        let error = ask(scripted(frame(Some(0), "null")).await).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), (Code::RejectHandshake, Class::Rejected), "{error}");
        assert!(error.text().contains("mlx5_7"), "{error}");
        let error = ask(scripted(frame(Some(0), "[]")).await).await.unwrap_err();
        assert_eq!(error.code(), Code::MalformedJson, "{error}");
        let refused = ask(scripted(frame(Some(0), r#"{"reply_msg":"no"}"#)).await).await.unwrap();
        assert_eq!(refused, ConnectionMessage::rejection("no"));
    });
}

struct Node(Mutex<Value>);

impl Handler for Node {
    fn metadata(self: Arc<Self>, request: Value) -> BoxFuture<'static, Option<Arc<Document>>> {
        assert_eq!(request["buffers"], json!([]), "requests carry no buffers");
        let descriptor = self.0.lock().unwrap().clone();
        Box::pin(std::future::ready(
            Some(descriptor).filter(|v| !v.is_null()).map(|v| Document::new(&v).unwrap()),
        ))
    }

    fn notify(&self, _: Notification) -> bool {
        true
    }

    fn connection(&self, _: ConnectionMessage) -> BoxFuture<'_, Option<ConnectionMessage>> {
        Box::pin(std::future::ready(None))
    }
}

#[test]
fn the_peer_to_peer_store_asks_the_peer_each_time() {
    run(async {
        let bound = BoundPort::handshake(&Config::default()).unwrap();
        let segment = format!("127.0.0.1:{}", bound.port());
        let listener = bound.listen(8).unwrap().map(TcpListener::from_std).unwrap();
        let node = Arc::new(Node(Mutex::new(Value::Null)));
        tokio::spawn(server::serve(listener, node.clone(), Limits::new(&Config::default())));

        let own = Arc::new(Mutex::new(Value::Null));
        let sent = own.clone();
        let closure = Arc::new(move || sent.lock().unwrap().clone());
        let engine = metadata::Own { incarnation: String::new(), descriptor: closure };
        let store = metadata::open("P2PHANDSHAKE", &Config::default(), engine).unwrap();

        let error = store.get(&segment).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "no transport here: {error}");

        *own.lock().unwrap() = json!({"name": "me", "protocol": "tcp", "buffers": [1, 2, 3]});
        let error = store.get(&segment).await.unwrap_err();
        assert_eq!(error.code(), Code::Metadata, "no transport there: {error}");

        *node.0.lock().unwrap() = json!({"name": "x", "protocol": ["tcp"]});
        let error = store.get(&segment).await.unwrap_err();
        assert_eq!(error.code(), Code::MalformedJson, "{error}");
        assert_eq!(error.peer_name(), segment);

        for port in [1, 2] {
            let mut desc =
                SegmentDesc { name: segment.clone(), protocol: "tcp".into(), ..SegmentDesc::default() };
            desc.put("tcp_data_port", port);
            desc.put("buffers", json!([]));
            *node.0.lock().unwrap() = desc.clone().encode();
            assert_eq!(store.get(&segment).await.unwrap(), desc);
        }
        let address = store.rpc_address("host").await.unwrap();
        assert_eq!(address, HostPort { host: "host".into(), port: 12001 });
        store.put(SegmentDesc::default()).await.unwrap();
        store.remove(&segment).await.unwrap();
    });
}
