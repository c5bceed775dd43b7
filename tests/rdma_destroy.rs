//! Very many queue pairs, and a driver that takes long to destroy each, on the simulated libibverbs: nobody waits for it.

#![cfg(feature = "rdma")]

mod common;
mod rdma_node;

use std::time::{Duration, Instant};

use rdma_node::{apart, soon, Node, FOREVER, GID};
use serde_json::json;

/// The most that a peer may ask for.
const QUEUE_PAIRS: u32 = 64;

/// A stranger asks `node` for a connection of so many queue pairs, announces that it will confirm it, and does not.
fn stranger(node: &Node, number: usize, queue_pairs: u32) {
    let request = json!({
        "local_nic_path": format!("10.0.0.{number}:15000@mlx5_0"), "peer_nic_path": node.path("sim0"),
        "local_lid": 0, "local_gid": GID, "qp_num": (1..=queue_pairs).collect::<Vec<u32>>(), "ready_ack": false,
        "reply_msg": "", "payload": "",
    });
    assert_eq!(node.connect(&request).unwrap()["reply_msg"], "");
}

#[test]
fn p15_the_end_of_an_engine_does_not_wait_for_the_driver_to_destroy_very_many_queue_pairs() {
    let name = "p15_the_end_of_an_engine_does_not_wait_for_the_driver_to_destroy_very_many_queue_pairs";
    if apart(name, &[("SIMVERBS_DESTROY_MS", "1000")]) {
        return;
    }
    let node = Node::new("sim0");
    (0..5).for_each(|number| stranger(&node, number, QUEUE_PAIRS));
    assert_eq!(node.connected(), 5);
    let start = Instant::now();
    node.engine.destroy();
    assert!(start.elapsed() < FOREVER / 2, "320 seconds of the driver cost {:?}", start.elapsed());
}

#[test]
fn queue_pairs_that_are_being_destroyed_hold_up_no_traffic_of_their_nic() {
    let name = "queue_pairs_that_are_being_destroyed_hold_up_no_traffic_of_their_nic";
    let control = std::env::temp_dir().join(format!("te-destroyed-{}", std::process::id()));
    let settings = [("SIMVERBS_DESTROY_MS", "1000"), ("SIMVERBS_CTL", control.to_str().unwrap())];
    if apart(name, &settings) {
        let _ = std::fs::remove_file(&control);
        return;
    }
    let (node, other) = (Node::new("sim0"), Node::new("sim1"));
    stranger(&node, 0, QUEUE_PAIRS);
    let tell = |lines: &str| {
        let file = std::env::var("SIMVERBS_CTL").unwrap();
        std::fs::write(format!("{file}.new"), lines).unwrap();
        std::fs::rename(format!("{file}.new"), file).unwrap();
    };
    let start = Instant::now();
    tell("port sim0 down\n");
    soon("the port is down", || node.connected() == 0);
    tell("port sim0 up\n");
    soon("the port is up", || {
        node.write(other.name(), other.addr(), 4096).is_ok_and(|failed| failed.is_none())
    });
    assert!(start.elapsed() < FOREVER / 2, "64 seconds of the driver cost {:?}", start.elapsed());
}

#[test]
fn a_connection_that_its_peer_never_confirms_is_destroyed() {
    let name = "a_connection_that_its_peer_never_confirms_is_destroyed";
    let log = std::env::temp_dir().join(format!("te-unconfirmed-{}", std::process::id()));
    if apart(name, &[("SIMVERBS_QP_LOG", log.to_str().unwrap())]) {
        let _ = std::fs::remove_file(&log);
        return;
    }
    let node = Node::new("sim0");
    let start = Instant::now();
    stranger(&node, 0, 3);
    let destroyed = || {
        let log = std::fs::read_to_string(std::env::var("SIMVERBS_QP_LOG").unwrap()).unwrap_or_default();
        log.lines().count()
    };
    soon("the queue pairs stay", || {
        // It waits for the seconds that upstream waits.
        std::thread::park_timeout(Duration::from_millis(100));
        destroyed() == 3
    });
    assert!(start.elapsed() >= Duration::from_secs(10), "given up after {:?}", start.elapsed());
    soon("the rail stays", || node.rails().is_empty());
}
