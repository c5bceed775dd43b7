//! What a link sees of its segment, and that its requests reach the peer.

use parking_lot::Mutex;
use serde_json::{json, Value};

use super::*;
use crate::config::Config;
use crate::engine::segment::tests::{open_with, read_again};
use crate::engine::Engine;
use crate::handshake::{self, Document, Handler, Limits, Notification};
use crate::runtime::ports::BoundPort;
use crate::runtime::BoxFuture;
use crate::transport::table;

fn recorded() -> Value {
    json!({"name": "n", "protocol": "tcp", "tcp_data_port": 1, "buffers": [{"name": "n", "addr": 4096, "length": 1}]})
}

fn with(member: &str, value: Value) -> Value {
    let mut desc = recorded();
    desc[member] = value;
    desc
}

fn route(segment: &Arc<Segment>) -> SegmentRoute {
    SegmentRoute::new(table::position("tcp").unwrap(), segment, &Client::new(&Config::default()))
}

#[test]
fn an_offer_changes_with_what_the_descriptor_says_and_outlives_the_segment() {
    let (table, segment) = open_with(recorded());
    let route = route(&segment);
    let first = route.offer();
    read_again(&segment, recorded());
    assert_eq!(route.offer().version, first.version);
    read_again(&segment, with("buffers", json!([])));
    let changed = route.offer();
    assert_ne!(changed.version, first.version);
    assert!(changed.offer.as_ref().unwrap().buffers().len() == 0);
    drop((table, segment));
    let last = route.offer();
    assert!(Arc::ptr_eq(&last.offer.unwrap(), &changed.offer.unwrap()), "transfers under way go on");
    assert_eq!(last.version, changed.version);
}

#[test]
fn a_peer_may_take_its_offer_back() {
    let (_table, segment) = open_with(recorded());
    let route = route(&segment);
    let mut other = with("protocol", json!("efa"));
    other["tcp_data_port"] = json!(0);
    read_again(&segment, other);
    assert!(route.offer().offer.is_none());
}

/// A peer whose descriptor is made up.
struct Peer {
    descriptor: Mutex<Value>,
    asked: Mutex<Vec<ConnectionMessage>>,
}

impl Handler for Peer {
    fn metadata(self: Arc<Self>, _: Value) -> BoxFuture<'static, Option<Arc<Document>>> {
        Box::pin(std::future::ready(Some(Document::new(&self.descriptor.lock()).unwrap())))
    }

    fn notify(&self, _: Notification) -> bool {
        false
    }

    fn connection(&self, request: ConnectionMessage) -> BoxFuture<'_, Option<ConnectionMessage>> {
        self.asked.lock().push(request);
        Box::pin(std::future::ready(Some(ConnectionMessage {
            qp_num: vec![9],
            ..ConnectionMessage::default()
        })))
    }
}

/// An engine, and a peer on its control thread with the recorded descriptor under a name of its own.
fn pair() -> (Arc<Engine>, Arc<Peer>, String) {
    let engine = Engine::create("P2PHANDSHAKE", "127.0.0.1", false).unwrap();
    engine.install_transport("tcp", None).unwrap();
    let bound = BoundPort::handshake(&engine.config).unwrap();
    let name = format!("127.0.0.1:{}", bound.port());
    let listener = bound.listen(8).unwrap();
    let listener = engine.control.enter(|| listener.map(tokio::net::TcpListener::from_std)).unwrap();
    let mut descriptor = recorded();
    descriptor["name"] = name.as_str().into();
    let peer = Arc::new(Peer { descriptor: Mutex::new(descriptor), asked: Mutex::default() });
    let serving = handshake::serve(listener, peer.clone(), Limits::new(&engine.config));
    engine.control.spawn(serving);
    (engine, peer, name)
}

#[test]
fn connection_requests_go_to_the_peers_handshake_port() {
    let (engine, peer, name) = pair();
    let id = engine.open_segment(&name).unwrap();
    let route = Arc::new(route(&engine.segment(id).unwrap()));
    let expected =
        name.split_once(':').map(|(host, port)| (host.to_string(), port.parse().unwrap())).unwrap();
    let asking = route.clone();
    let address = engine.control.block(async move { asking.rpc_address().await }).unwrap();
    assert_eq!((address.host, address.port), expected.clone());
    let elsewhere = route.by_way_of([127, 0, 0, 9].into());
    let address = engine.control.block(async move { elsewhere.rpc_address().await }).unwrap();
    assert_eq!((address.host.as_str(), address.port), ("127.0.0.9", expected.1));
    assert_eq!(route.peer(), name);
    let request =
        ConnectionMessage { peer_nic_path: format!("{name}@mlx5_0"), ..ConnectionMessage::default() };
    let (asking, sent) = (route.clone(), request.clone());
    let reply = engine.control.block(async move { asking.exchange(sent).await }).unwrap();
    assert_eq!(reply.qp_num, [9]);
    assert_eq!(*peer.asked.lock(), [request]);
    peer.descriptor.lock()["tcp_data_port"] = json!(7);
    let before = route.offer().version;
    let refreshing = route.clone();
    engine.control.block(async move { refreshing.refresh().await }).unwrap();
    assert_ne!(route.offer().version, before);
    engine.destroy();
}
