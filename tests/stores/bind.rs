//! `MC_BIND_ADDRESS`: both ports of an engine are at one address, with and without a store.

use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use transfer_engine::engine::Engine;
use transfer_engine::error::Code;
use transfer_engine::observe::sink;

use crate::common::in_child;
use crate::node::{until, Node};
use crate::servers::{Kind, Server};
use crate::SETTINGS;

/// `false` in the process that is to run the case, with an address that is not the usual one.
fn elsewhere(name: &str, address: &str) -> bool {
    let settings = SETTINGS.iter().filter(|(name, _)| *name != "MC_TCP_BIND_ADDRESS").copied();
    let settings: Vec<_> = settings.chain([("MC_BIND_ADDRESS", address)]).collect();
    in_child(name, &settings)
}

/// The handshake port and the data port.
fn ports(node: &Node) -> [u16; 2] {
    let desc: Value = serde_json::from_str(&node.engine.segment_descriptor(0).unwrap()).unwrap();
    [node.engine.address().port, desc["tcp_data_port"].as_u64().unwrap() as u16]
}

fn are_at(address: &str, node: &Node) -> bool {
    let reach = |host: &str, port| TcpStream::connect((host, port)).is_ok();
    ports(node).iter().all(|port| reach(address, *port) && !reach("127.0.0.1", *port))
}

#[test]
fn p39_an_engine_is_reached_at_its_address_only() {
    if elsewhere("bind::p39_an_engine_is_reached_at_its_address_only", "127.0.0.2") {
        return;
    }
    let [a, b] = [(); 2].map(|()| Node::start("P2PHANDSHAKE", "127.0.0.2"));
    assert!(are_at("127.0.0.2", &a) && are_at("127.0.0.2", &b));
    a.exchange_with(&b, a.engine.open_segment(&b.engine.address().to_string()).unwrap(), 1).unwrap();

    let server = Server::start(Kind::Mte);
    let [c, d] = ["c", "d"].map(|name| Node::start(&server.url(), name));
    assert_eq!(c.engine.address().host, "127.0.0.2", "peers are told where it listens");
    assert!(are_at("127.0.0.2", &c) && are_at("127.0.0.2", &d));
    c.exchange_with(&d, c.engine.open_segment("d").unwrap(), 2).unwrap();
}

#[test]
fn an_engine_whose_name_leads_elsewhere_is_warned_of() {
    if elsewhere("bind::an_engine_whose_name_leads_elsewhere_is_warned_of", "127.0.0.2") {
        return;
    }
    let lines = Arc::new(Mutex::new(Vec::new()));
    let told = lines.clone();
    let note = move |_, text: &str| told.lock().unwrap().push(text.to_string());
    sink::set(Some(Box::new(note))).unwrap();
    let warnings = || lines.lock().unwrap().iter().filter(|line| line.contains("MC_BIND_ADDRESS")).count();
    let reached = Engine::create("P2PHANDSHAKE", "127.0.0.2", false).unwrap();
    let elsewhere = Engine::create("P2PHANDSHAKE", "127.0.0.1", false).unwrap();
    until("a warning", || warnings() > 0);
    reached.destroy();
    elsewhere.destroy();
    assert_eq!(warnings(), 1);
    sink::set(None).unwrap();
}

#[test]
fn an_address_of_another_host_is_an_error() {
    if elsewhere("bind::an_address_of_another_host_is_an_error", "192.0.2.1") {
        return;
    }
    let error = Engine::create("P2PHANDSHAKE", "127.0.0.1", false).err().unwrap();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.text().contains("MC_BIND_ADDRESS=192.0.2.1"), "{error}");
}
