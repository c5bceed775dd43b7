//! Descriptors in both directions against recorded ones, and routes against a peer of our own.

use parking_lot::Mutex;
use serde_json::{json, Value};

use super::*;
use crate::engine::segment::{open_with, read_again};
use crate::handshake::{self, Handler, Limits, Notification};
use crate::runtime::fork::Tracked;
use crate::runtime::ports::BoundPort;
use crate::transport::rdma::{NicState, PublishedBuffer};

/// The descriptor that upstream published for two NICs.
fn recorded() -> Value {
    let file: Value =
        serde_json::from_str(include_str!("../../../../tests/vectors/rdma-connection.json")).unwrap();
    let replies = file["steps"].as_array().unwrap().iter().map(|step| &step["reply"]["decoded"]);
    replies.filter(|reply| reply["type"] == 1).map(|reply| reply["json"].clone()).next().unwrap()
}

fn desc() -> SegmentDesc {
    SegmentDesc::decode(&recorded()).unwrap()
}

/// What would have to be published for `desc`.
fn publication(desc: &SegmentDesc) -> Publication {
    let nic =
        |d: &Device| NicState { name: d.name.clone(), lid: d.lid, gid: d.gid.clone(), ..NicState::default() };
    let buffer = |b: &Buffer| PublishedBuffer {
        location: b.name.clone(),
        addr: b.addr,
        len: b.length,
        rkey: b.rkey.clone(),
        lkey: b.lkey.clone(),
    };
    Publication {
        nics: desc.devices.iter().map(nic).collect(),
        matrix: Matrix::from_value(&desc.priority_matrix).unwrap(),
        buffers: desc.buffers.iter().map(buffer).collect(),
    }
}

fn described(is_published: impl Fn(u64) -> bool, server: &str) -> SegmentDesc {
    let recorded = desc();
    let mut ours =
        SegmentDesc { name: recorded.name.clone(), protocol: String::new(), ..SegmentDesc::default() };
    describe(publication(&recorded), is_published, server.into(), &mut ours);
    ours
}

#[test]
fn our_descriptor_is_upstreams_without_the_buffers_that_nobody_may_reach() {
    let mut expected = recorded();
    // The second one has no keys.
    expected["buffers"].as_array_mut().unwrap().truncate(1);
    let mut found = described(|_| true, &desc().name).encode();
    found["timestamp"] = expected["timestamp"].clone();
    assert_eq!(found, expected);
    let hidden = described(|_| false, "10.0.0.1:7");
    assert_eq!(hidden.buffers, []);
    assert_eq!(hidden.encode()["rdma_server_name"], "10.0.0.1:7");
}

#[test]
fn with_both_transports_the_form_is_rdmas_and_a_data_port_is_added() {
    let engine = Engine::create("P2PHANDSHAKE", "127.0.0.1", false).unwrap();
    engine.install_transport("tcp", None).unwrap();
    let alone = engine.local.descriptor().unwrap();
    let mut both = described(|_| true, &desc().name);
    super::super::tcp::Tcp.describe(&engine.local, &mut both);
    let json = both.encode();
    assert_eq!((&json["protocol"], &json["tcp_proto_version"]), (&json!("rdma"), &json!(2)));
    assert_eq!(
        (json["tcp_data_port"].as_u64(), &json["tcp_data_host"]),
        (Some(u64::from(alone.tcp_data_port)), &json!("127.0.0.1"))
    );
    assert_eq!(json["buffers"], json!([recorded()["buffers"][0]]));
    assert_eq!(both.incarnation_addr, alone.incarnation_addr);
    assert_eq!(alone.protocol, "tcp");
    assert!(alone.encode().get("devices").is_none());
    engine.destroy();
}

#[test]
fn a_peer_is_what_its_descriptor_says() {
    let peer = peer_desc(&desc());
    assert_eq!(peer.server, desc().name);
    assert_eq!(peer.nics[1].name, "mlx5_1");
    assert_eq!(peer.buffers.len(), 1, "the other one has no keys");
    assert_eq!(peer.buffers[0].rkey, [2088961, 2088705]);
    assert_eq!(peer.matrix.rows().len(), 2);
    let other =
        SegmentDesc { rdma_server_name: Some("s:1".into()), priority_matrix: json!({"cpu:0": 1}), ..desc() };
    let peer = peer_desc(&other);
    assert_eq!((peer.server.as_str(), peer.matrix), ("s:1", Matrix::default()));
}

fn route(segment: &Arc<Segment>) -> RdmaRoute {
    RdmaRoute {
        route: SegmentRoute::new(segment),
        client: Client::new(&Config::default()),
        prepared: ArcSwapOption::empty(),
    }
}

#[test]
fn a_peer_is_prepared_once_per_version_of_its_descriptor() {
    let (table, segment) = open_with(desc());
    let route = route(&segment);
    let (first, version) = route.desc().unwrap();
    read_again(&segment, desc());
    let (again, same) = route.desc().unwrap();
    assert!(Arc::ptr_eq(&first, &again) && same == version);
    read_again(&segment, SegmentDesc { buffers: Vec::new(), ..desc() });
    let (changed, newer) = route.desc().unwrap();
    assert!(changed.buffers.is_empty() && newer != version);
    read_again(&segment, SegmentDesc { protocol: "tcp".into(), ..desc() });
    assert_eq!(route.desc().unwrap_err().code(), Code::DeviceNotFound);
    drop((table, segment));
    let (last, _) = route.desc().unwrap();
    assert!(Arc::ptr_eq(&last, &changed), "tasks under way go on after the segment was closed");
}

/// A peer whose descriptor is made up.
struct Peer {
    descriptor: Mutex<Value>,
    asked: Mutex<Vec<ConnectionMessage>>,
}

impl Handler for Peer {
    fn metadata(&self, _: &Value) -> Option<Value> {
        Some(self.descriptor.lock().clone())
    }

    fn notify(&self, _: Notification) -> bool {
        false
    }

    fn connection(&self, request: ConnectionMessage) -> Answer<'_> {
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
    let listener = engine.control.enter(|| tokio::net::TcpListener::from_std(listener)).unwrap();
    let mut descriptor = recorded();
    descriptor["name"] = name.as_str().into();
    let peer = Arc::new(Peer { descriptor: Mutex::new(descriptor), asked: Mutex::default() });
    let serving = handshake::serve(Tracked::new(listener), peer.clone(), Limits::new(&engine.config));
    engine.control.spawn(serving);
    (engine, peer, name)
}

#[test]
fn connection_requests_go_to_the_peers_handshake_port() {
    let (engine, peer, name) = pair();
    let id = engine.open_segment(&name).unwrap();
    let route = Arc::new(route(&engine.segment(id).unwrap()));
    assert_eq!(route.peer(), name);
    let request =
        ConnectionMessage { peer_nic_path: format!("{name}@mlx5_0"), ..ConnectionMessage::default() };
    let (asking, sent) = (route.clone(), request.clone());
    let reply = engine.control.block(async move { asking.exchange(sent).await }).unwrap();
    assert_eq!(reply.qp_num, [9]);
    assert_eq!(*peer.asked.lock(), [request]);
    peer.descriptor.lock()["tcp_data_port"] = json!(7);
    let (_, before) = route.desc().unwrap();
    let refreshing = route.clone();
    engine.control.block(async move { refreshing.refresh().await }).unwrap();
    assert_ne!(route.desc().unwrap().1, before);
    engine.destroy();
}

#[test]
fn nics_are_looked_up_by_their_path_at_the_peer() {
    let (engine, peer, name) = pair();
    let look_up = |path: String| {
        let host = EngineHost(Arc::downgrade(&engine));
        engine.control.block(async move { host.look_up_nic(&path).await })
    };
    let expected = ("00:00:00:00:00:00:00:00:00:00:ff:ff:c0:a8:01:0b".to_string(), 0);
    assert_eq!(look_up(format!("{name}@mlx5_1")).unwrap(), expected);
    for path in [format!("{name}@mlx5_7"), name.clone(), "@mlx5_1".into()] {
        let error = look_up(path.clone()).unwrap_err();
        assert!(error.text().contains(&path), "{error}");
    }
    // A server name that is no address is known from the segment that was opened.
    peer.descriptor.lock()["rdma_server_name"] = json!("no-such-host.invalid:1");
    engine.open_segment(&name).unwrap();
    assert_eq!(look_up("no-such-host.invalid:1@mlx5_1".into()).unwrap(), expected);
    engine.destroy();
}

#[test]
fn the_limit_of_a_task_grows_with_its_bytes() {
    let config = Config::default();
    let limit = |bytes| Rdma.task_limit(&config, bytes).unwrap();
    assert_eq!(limit(0), config.rdma_task_timeout);
    assert_eq!(limit(10 * config.rdma_min_rate), config.rdma_task_timeout + Duration::from_secs(10));
}
