//! NICs and keys through a store, over the simulated libibverbs.

use serde_json::{json, Value};

use crate::common::in_simverbs;
use crate::node::{until, Node};
use crate::servers::{Kind, Server};
use crate::SETTINGS;

fn start(server: &Server, name: &str, nic: &str) -> Node {
    let node = Node::create(&server.url(), name).unwrap();
    let matrix = format!(r#"{{"cpu:0":[["{nic}"],[]]}}"#);
    node.engine.install_transport("rdma", Some(&matrix)).unwrap();
    node.engine.register(&[node.range(0)], "cpu:0", true).unwrap();
    node
}

fn over(module: &str, kind: Kind) {
    let name = format!("rdma::{module}");
    let settings: Vec<_> = SETTINGS.iter().copied().chain([("SIMVERBS_DEVICES", "sim0,sim1")]).collect();
    if in_simverbs(&name, &settings) {
        return;
    }
    let server = Server::start(kind);
    let (a, b) = (start(&server, "a", "sim0"), start(&server, "b", "sim1"));
    let desc: Value = serde_json::from_str(&server.get("mooncake/ram/b").unwrap()).unwrap();
    assert_eq!((&desc["protocol"], &desc["devices"][0]["name"]), (&json!("rdma"), &json!("sim1")));
    assert_eq!(desc["buffers"][0]["rkey"].as_array().map(Vec::len), Some(1));
    let target = a.engine.open_segment("b").unwrap();
    a.exchange_with(&b, target, 1).unwrap();
    // Another incarnation under the same name, with other keys and another port.
    drop(b);
    let b = start(&server, "b", "sim1");
    until("the one that came back is reached", || a.exchange_with(&b, target, 2).is_ok());
}

#[test]
fn nics_are_found_through_etcd() {
    over("nics_are_found_through_etcd", Kind::Etcd);
}

#[test]
fn nics_are_found_through_redis() {
    over("nics_are_found_through_redis", Kind::Redis);
}

#[test]
fn nics_are_found_through_http() {
    over("nics_are_found_through_http", Kind::Mte);
}
