//! Engines with RDMA, TCP or both, on the simulated libibverbs: over which transport each peer is reached, and what is
//! left when a transport cannot be installed.
//!
//! libibverbs is found by dlopen, so each test runs in a process of its own with another `LD_LIBRARY_PATH`.

#![cfg(feature = "rdma")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::in_simverbs;
use transfer_engine::engine::submit::Request;
use transfer_engine::engine::Engine;
use transfer_engine::error::{Class, Code, Error};
use transfer_engine::memory::Range;

/// Far longer than anything here takes.
const FOREVER: Duration = Duration::from_secs(30);
const LEN: usize = 300_000;
const READ: i32 = 0;
const WRITE: i32 = 1;
const STATUS_COMPLETED: i32 = 4;

fn matrix(nic: &str) -> String {
    format!(r#"{{"cpu:0":[["{nic}"],[]]}}"#)
}

/// An engine with registered memory, destroyed at the end.
struct Node {
    engine: Arc<Engine>,
    memory: Vec<u8>,
}

impl Node {
    /// With RDMA on `nic` if it is not "", and with TCP if `tcp`.
    fn new(nic: &str, tcp: bool) -> Self {
        let node = Self::bare();
        node.register();
        // The region is there before the transports, and is to be prepared by each of them.
        if tcp {
            node.engine.install_transport("tcp", None).unwrap();
        }
        if !nic.is_empty() {
            node.engine.install_transport("rdma", Some(&matrix(nic))).unwrap();
        }
        node
    }

    fn bare() -> Self {
        Node { engine: Engine::create("P2PHANDSHAKE", "127.0.0.1", false).unwrap(), memory: vec![0; LEN] }
    }

    fn register(&self) {
        self.engine.register(&[Range { addr: self.addr(), len: LEN as u64 }], "*", true).unwrap();
    }

    fn addr(&self) -> u64 {
        self.memory.as_ptr() as u64
    }

    fn name(&self) -> &str {
        &self.engine.local().name
    }

    fn protocol(&self) -> String {
        self.engine.local().descriptor().unwrap().unwrap().protocol
    }

    /// As peers read it.
    fn descriptor(&self) -> serde_json::Value {
        self.engine.local().descriptor().unwrap().unwrap().encode()
    }

    fn request(&self, opcode: i32, peer: &Node) -> Request {
        let target = self.engine.open_segment(peer.name()).unwrap();
        Request { opcode, source: self.addr(), target, offset: peer.addr(), len: LEN as u64 }
    }

    /// One submit call; its tasks are COMPLETED afterwards.
    fn run(&self, requests: &[Request]) -> Result<(), Error> {
        let batch = self.engine.allocate_batch(requests.len()).unwrap();
        let submitted = self.engine.submit(batch, requests.len(), |index| requests[index], None);
        if submitted.is_ok() {
            self.engine.wait_batch(batch, Some(FOREVER)).unwrap();
            for task in 0..requests.len() {
                let why = self.engine.task_error(batch, task).unwrap();
                assert_eq!(
                    self.engine.task_status(batch, task).unwrap().0,
                    STATUS_COMPLETED,
                    "{task}: {why:?}"
                );
            }
        }
        self.engine.free_batch(batch).unwrap();
        submitted
    }

    /// Why a request that was accepted failed.
    fn failure(&self, request: Request) -> Error {
        let batch = self.engine.allocate_batch(1).unwrap();
        self.engine.submit(batch, 1, |_| request, None).unwrap();
        self.engine.wait_batch(batch, Some(FOREVER)).unwrap();
        let error = self.engine.task_error(batch, 0).unwrap().expect("it completed");
        self.engine.free_batch(batch).unwrap();
        error
    }

    fn links(&self) -> serde_json::Value {
        serde_json::from_str(&self.engine.show_links(true)).unwrap()
    }

    /// Servers of the rails.
    fn rdma_peers(&self) -> Vec<String> {
        let rails = self.links()["rails"].as_array().cloned().unwrap_or_default();
        let peer =
            |rail: &serde_json::Value| rail["peer"].as_str().unwrap().split('@').next().unwrap().to_string();
        rails.iter().map(peer).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.engine.destroy();
    }
}

#[test]
fn each_target_is_reached_by_what_it_offers_rdma_first() {
    let environment = [("SIMVERBS_DEVICES", "sim0,sim1"), ("SIMVERBS_SHM", "te-both")];
    if in_simverbs("each_target_is_reached_by_what_it_offers_rdma_first", &environment) {
        return;
    }
    let mut here = Node::new("sim0", true);
    let (both, tcp, rdma) = (Node::new("sim1", true), Node::new("", true), Node::new("sim1", false));
    assert_eq!([&both, &tcp, &rdma].map(Node::protocol), ["rdma", "tcp", "rdma"]);
    let desc = both.descriptor();
    assert!(desc["tcp_data_port"] != 0 && desc["tcp_proto_version"] == 2 && length(&desc["devices"]) == 1);
    assert_eq!(length(&desc["buffers"][0]["rkey"]), 1, "the form is RDMA's");
    let alone = rdma.descriptor();
    assert_eq!((&alone["tcp_data_port"], &alone["tcp_proto_version"]), (&0.into(), &1.into()));
    assert!(alone.get("tcp_data_host").is_none() && tcp.descriptor().get("devices").is_none());

    here.memory.iter_mut().enumerate().for_each(|(index, byte)| *byte = (index % 251) as u8);
    let peers = [&both, &tcp, &rdma];
    here.run(&peers.map(|peer| here.request(WRITE, peer))).unwrap();
    assert!(peers.iter().all(|peer| peer.memory == here.memory));
    here.memory.fill(0);
    here.run(&[here.request(READ, &rdma)]).unwrap();
    assert_eq!(here.memory, rdma.memory);

    let mut reached = here.rdma_peers();
    reached.sort();
    let mut expected = vec![both.name().to_string(), rdma.name().to_string()];
    expected.sort();
    assert_eq!(reached, expected);
    let nic = &here.links()["local_nics"][0];
    assert_eq!((&nic["device"], &nic["gid_index"]), (&"sim0".into(), &3.into()));
    assert!(nic["speed_gbps"].as_u64().unwrap() > 0, "{nic}");
    assert!(here.links().get("fallbacks").is_none());
    assert_eq!(here.engine.nics()[0].inflight_bytes, 0);

    // Without RDMA here, the one with both is reached over TCP and the other not at all.
    let plain = Node::new("", true);
    plain.run(&[plain.request(WRITE, &both)]).unwrap();
    assert_eq!(plain.run(&[plain.request(WRITE, &rdma)]).unwrap_err().code(), Code::DeviceNotFound);
    // And without TCP here, the one with TCP only.
    let fast = Node::new("sim0", false);
    fast.run(&[fast.request(WRITE, &both)]).unwrap();
    assert_eq!(fast.run(&[fast.request(WRITE, &tcp)]).unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn memory_that_a_nic_cannot_register_is_registered_nowhere() {
    let environment = [("SIMVERBS_PIN", "1"), ("SIMVERBS_SHM", "te-pin")];
    if in_simverbs("memory_that_a_nic_cannot_register_is_registered_nowhere", &environment) {
        return;
    }
    // The first page of the address space is never mapped.
    let unmapped = [Range { addr: 4096, len: 4096 }];
    let node = Node::new("sim0", true);
    let error = node.engine.register(&unmapped, "cpu:0", true).unwrap_err();
    assert_eq!((error.code(), error.kind()), (Code::Context, Class::Device), "{error}");
    let error = node.engine.unregister(std::iter::once(4096)).unwrap_err();
    assert_eq!(error.code(), Code::AddressNotRegistered);
    assert_eq!(length(&node.descriptor()["buffers"]), 1);

    // Over TCP it can be registered; then RDMA cannot be installed, and nothing of it stays.
    let node = Node::bare();
    node.engine.install_transport("tcp", None).unwrap();
    node.engine.register(&unmapped, "cpu:0", true).unwrap();
    let before = (node.engine.local().descriptor().unwrap().unwrap(), node.engine.show_links(true));
    let error = node.engine.install_transport("rdma", Some(&matrix("sim0"))).unwrap_err();
    assert_eq!(error.code(), Code::Context, "{error}");
    assert_eq!((node.engine.local().descriptor().unwrap().unwrap(), node.engine.show_links(true)), before);
    node.engine.unregister(std::iter::once(4096)).unwrap();
    node.engine.install_transport("rdma", Some(&matrix("sim0"))).unwrap();
    assert_eq!(node.protocol(), "rdma");
}

#[test]
fn what_is_not_registered_may_be_a_source_over_tcp_only() {
    let environment = [("MC_TCP_ALLOW_UNREGISTERED_SOURCE", "1"), ("SIMVERBS_SHM", "te-source")];
    if in_simverbs("what_is_not_registered_may_be_a_source_over_tcp_only", &environment) {
        return;
    }
    let here = Node::bare();
    here.engine.install_transport("tcp", None).unwrap();
    here.engine.install_transport("rdma", Some(&matrix("sim0"))).unwrap();
    let (tcp, rdma) = (Node::new("", true), Node::new("sim0", false));
    here.run(&[here.request(WRITE, &tcp)]).unwrap();
    let requests = [here.request(WRITE, &tcp), here.request(WRITE, &rdma)];
    assert_eq!(here.run(&requests).unwrap_err().code(), Code::AddressNotRegistered);
}

#[test]
fn a_region_without_remote_access_is_a_source_but_no_target() {
    if in_simverbs(
        "a_region_without_remote_access_is_a_source_but_no_target",
        &[("SIMVERBS_SHM", "te-local")],
    ) {
        return;
    }
    let hidden = Node::bare();
    hidden.engine.install_transport("rdma", Some(&matrix("sim0"))).unwrap();
    hidden.engine.register(&[Range { addr: hidden.addr(), len: LEN as u64 }], "cpu:0", false).unwrap();
    assert_eq!(length(&hidden.descriptor()["buffers"]), 0);
    let open = Node::new("sim0", false);
    hidden.run(&[hidden.request(WRITE, &open)]).unwrap();
    assert_eq!(open.run(&[open.request(WRITE, &hidden)]).unwrap_err().code(), Code::AddressNotRegistered);
}

#[test]
fn unasked_rdma_is_installed_where_the_topology_names_a_nic() {
    let file = std::env::temp_dir().join(format!("te-rdma-topology-{}", std::process::id()));
    std::fs::write(&file, matrix("sim0")).unwrap();
    let environment = [
        ("MC_CUSTOM_TOPO_JSON", file.to_str().unwrap()),
        ("MC_RDMA_BIND_ADDRESS", "127.0.0.1"),
        ("SIMVERBS_SHM", "te-unasked"),
    ];
    let parent = in_simverbs("unasked_rdma_is_installed_where_the_topology_names_a_nic", &environment);
    std::fs::remove_file(&file).unwrap();
    if parent {
        return;
    }
    // The file of this process is another one, already gone; the parent's is still there.
    let engine = Engine::create("P2PHANDSHAKE", "localhost", true).unwrap();
    let node = Node { engine, memory: vec![7; LEN] };
    node.register();
    let desc = node.descriptor();
    assert_eq!((&desc["protocol"], &desc["tcp_data_port"]), (&"rdma".into(), &0.into()));
    let port = node.engine.address().port;
    assert_eq!(desc["rdma_server_name"], format!("127.0.0.1:{port}"));
    assert_ne!(desc["rdma_server_name"], node.name());
    let other = Node::new("sim0", false);
    other.run(&[other.request(READ, &node)]).unwrap();
    assert_eq!(other.memory, node.memory);
    assert_eq!(other.rdma_peers(), [format!("127.0.0.1:{port}")]);
}

/// Elements of a list.
fn length(list: &serde_json::Value) -> usize {
    list.as_array().unwrap().len()
}

/// Has the simulated library do what `lines` say, soon.
fn follow(lines: &str) {
    let file = std::env::var("SIMVERBS_CTL").unwrap();
    let fresh = format!("{file}.new");
    std::fs::write(&fresh, lines).unwrap();
    std::fs::rename(fresh, file).unwrap();
}

/// Has the simulated library do what `lines` say, and waits until the engine shows it.
fn control(lines: &str, node: &Node, state: &str) {
    follow(lines);
    let deadline = std::time::Instant::now() + FOREVER;
    while node.links()["local_nics"][0]["state"] != state {
        assert!(std::time::Instant::now() < deadline, "{}", node.engine.show_links(false));
        std::thread::yield_now();
    }
}

#[test]
fn p19_without_a_nic_that_works_tcp_is_a_fall_back_where_the_peer_has_it() {
    let file = std::env::temp_dir().join(format!("te-rdma-control-{}", std::process::id()));
    let environment = [
        ("SIMVERBS_CTL", file.to_str().unwrap()),
        ("SIMVERBS_DEVICES", "sim0,sim1"),
        ("SIMVERBS_SHM", "te-fall-back"),
    ];
    let parent =
        in_simverbs("p19_without_a_nic_that_works_tcp_is_a_fall_back_where_the_peer_has_it", &environment);
    if parent {
        let _ = std::fs::remove_file(&file);
        return;
    }
    let (here, both, rdma) = (Node::new("sim0", true), Node::new("sim1", true), Node::new("sim1", false));
    control("port sim0 down\n", &here, "down");
    assert_eq!(here.protocol(), "tcp", "peers are told");
    here.run(&[here.request(WRITE, &both)]).unwrap();
    assert_eq!(here.links()["fallbacks"]["fallback_transport"], 1);
    let unregistered = Request { source: 4096, ..here.request(WRITE, &rdma) };
    assert_eq!(here.run(&[unregistered]).unwrap_err().code(), Code::AddressNotRegistered);
    let error = here.run(&[here.request(WRITE, &rdma)]).unwrap_err();
    assert_eq!(error.code(), Code::DeviceNotFound, "{error}");
    control("port sim0 up\n", &here, "active");
    here.run(&[here.request(WRITE, &both), here.request(WRITE, &rdma)]).unwrap();
    assert_eq!(here.links()["fallbacks"]["fallback_transport"], 1);
    assert_eq!(here.protocol(), "rdma");
}

/// Runs test `name` in a process of its own whose devices follow a file that begins with `lines`; `None` in the parent.
fn controlled(name: &str, lines: &str, environment: &[(&str, &str)]) -> bool {
    let file = std::env::temp_dir().join(format!("te-{name}-{}", std::process::id()));
    std::fs::write(&file, lines).unwrap();
    let shm: String = format!("te-{}", name.chars().take(20).collect::<String>());
    let own = [
        ("SIMVERBS_CTL", file.to_str().unwrap()),
        ("SIMVERBS_DEVICES", "sim0,sim1"),
        ("SIMVERBS_SHM", shm.as_str()),
    ];
    let environment: Vec<_> = own.iter().chain(environment).copied().collect();
    let parent = in_simverbs(name, &environment);
    std::fs::remove_file(&file).unwrap();
    parent
}

/// As `follow`, and waits until the devices have read it.
fn follow_now(node: &Node, lines: &str) {
    follow(&format!("{lines}fail reg_mr 1 ENOMEM\n"));
    let more = [0u8; 4096];
    let range = [Range { addr: more.as_ptr() as u64, len: 4096 }];
    while node.engine.register(&range, "cpu:0", false).is_ok() {
        // The file was not read yet.
        node.engine.unregister(std::iter::once(range[0].addr)).unwrap();
    }
}

fn gid_of(node: &Node) -> String {
    node.descriptor()["devices"][0]["gid"].as_str().unwrap().to_string()
}

#[test]
fn either_side_tries_its_next_gid_when_the_driver_refuses_the_path() {
    // In the order of the handshake: the one that is asked goes to RTR first.
    for refused in ["sim0", "sim1"] {
        let name = "either_side_tries_its_next_gid_when_the_driver_refuses_the_path";
        let lines = format!("refuse {refused} 1 EINVAL\n");
        if controlled(name, &lines, &[("MC_NUM_QP_PER_EP", "1"), ("TE_REFUSED", refused)]) {
            continue;
        }
        let (mut here, there) = (Node::new("sim0", false), Node::new("sim1", false));
        let before = [gid_of(&here), gid_of(&there)];
        here.memory.fill(7);
        here.run(&[here.request(WRITE, &there)]).unwrap();
        assert_eq!(there.memory, here.memory);
        let moved = [gid_of(&here) != before[0], gid_of(&there) != before[1]];
        let refused = std::env::var("TE_REFUSED").unwrap();
        assert_eq!(moved, [refused == "sim0", refused == "sim1"]);
        return;
    }
}

#[test]
fn a_peer_to_which_no_gid_leads_does_not_move_the_one_that_others_use() {
    let name = "a_peer_to_which_no_gid_leads_does_not_move_the_one_that_others_use";
    // The first attempt and both that may follow.
    if controlled(name, "refuse sim1 3 EINVAL\n", &[("MC_NUM_QP_PER_EP", "1")]) {
        return;
    }
    let (here, there) = (Node::new("sim0", false), Node::new("sim1", false));
    let before = gid_of(&there);
    let error = here.failure(here.request(WRITE, &there));
    assert_eq!(error.code(), Code::RejectHandshake, "{error}");
    assert_eq!(gid_of(&there), before);
    here.run(&[here.request(WRITE, &there)]).unwrap();
    assert_eq!(gid_of(&there), before);
}

#[test]
fn an_idle_connection_makes_room_where_the_device_has_no_more_queue_pairs() {
    let name = "an_idle_connection_makes_room_where_the_device_has_no_more_queue_pairs";
    if controlled(name, "", &[]) {
        return;
    }
    let (mut here, there) = (Node::new("sim0", false), Node::new("sim1", false));
    let another = Node::new("sim1", false);
    here.memory.fill(1);
    here.run(&[here.request(WRITE, &there)]).unwrap();
    follow_now(&here, "fail create_qp 1 ENOMEM\n");
    here.memory.fill(2);
    here.run(&[here.request(WRITE, &another)]).unwrap();
    assert_eq!(another.memory, here.memory);
    assert!(there.memory.iter().all(|byte| *byte == 1), "the other peer's memory is left alone");
    let links = here.links();
    let evicted = |rail: &serde_json::Value| rail["last_error"].as_str().unwrap().starts_with("evicted");
    assert!(links["rails"].as_array().unwrap().iter().any(evicted), "{links}");
    here.run(&[here.request(WRITE, &there)]).unwrap();
}

#[test]
fn a_queue_pair_that_stops_by_itself_is_replaced() {
    let name = "a_queue_pair_that_stops_by_itself_is_replaced";
    if controlled(name, "", &[("MC_NUM_QP_PER_EP", "1")]) {
        return;
    }
    let (mut here, there) = (Node::new("sim0", false), Node::new("sim1", false));
    here.run(&[here.request(WRITE, &there)]).unwrap();
    let rail = |node: &Node| node.links()["rails"][0].clone();
    assert_eq!((&rail(&here)["failures"], &rail(&here)["state"]), (&0.into(), &"up".into()));
    // As when the peer sent a bad request: there is no completion but flushes.
    follow_now(&here, "error sim0 1 WR_FLUSH_ERR\n");
    for round in 1..=3 {
        here.memory.fill(round);
        here.run(&[here.request(WRITE, &there)]).unwrap();
        assert_eq!(there.memory, here.memory);
        let rail = rail(&here);
        assert_eq!(
            (&rail["failures"], &rail["state"]),
            (&1.into(), &"up".into()),
            "one queue pair was lost: {rail}"
        );
        assert!(rail["last_error"].as_str().unwrap().contains("a queue pair had stopped"), "{rail}");
    }
}
