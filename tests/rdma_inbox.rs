//! Notifications over queue pairs, as upstream 0.3.14 sends them, from a peer made of verbs: what is well-formed arrives, what
//! is not harms nobody, and peers get no more than the limits say.

#![cfg(feature = "rdma")]
#![allow(unsafe_code)]

mod common;
mod rdma_node;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use rdma_node::{apart, soon, with, Node, Traffic, FOREVER, GID};
use serde_json::{json, Value};
use transfer_engine::transport::rdma::verbs::{wc, Access, Caps, Channel, Context, Cq, Mr, Path, Pd, Qp, Wc};

/// RoCE v2 in simverbs.
const GID_INDEX: u8 = 3;

/// What such a peer asks; its data queue pairs do not exist.
fn request(node: &Node, peer: &str, number: u32, notify: Value) -> Value {
    json!({
        "local_nic_path": peer, "peer_nic_path": node.path("sim0"), "local_lid": 0, "local_gid": GID,
        "qp_num": [number, number + 1], "ready_ack": false, "reply_msg": "", "payload": "",
        "notify_qp_num": notify, "notify_rq_depth": 0, "ctrl_channel": false,
    })
}

fn offered(reply: &Value) -> Option<u32> {
    assert_eq!(reply["reply_msg"], "", "{reply}");
    reply["notify_qp_num"].as_u64().map(|number| number as u32)
}

/// The end of a peer that sends.
struct Sender {
    qp: Qp,
    cq: Arc<Cq>,
    mr: Mr,
    message: Vec<u8>,
    gid: [u8; 16],
}

impl Sender {
    fn new() -> Self {
        let context = Context::open("sim1").unwrap();
        let channel = Channel::create(&context).unwrap();
        let cq = Cq::create(&context, 64, &channel, 0).unwrap();
        let pd = Pd::alloc(&context).unwrap();
        let qp = Qp::create(&pd, &cq, &Caps { max_wr: 16, max_sge: 1, max_inline: 0 }).unwrap();
        qp.init(1, 0).unwrap();
        let mut message = vec![0; 1 << 17];
        let (start, len) = (message.as_mut_ptr() as u64, message.len() as u64);
        // SAFETY: the buffer lives as long as the region.
        let mr = unsafe { Mr::register(&pd, start, len, Access::default()) }.unwrap();
        let gid = context.gid(1, GID_INDEX.into()).unwrap().unwrap().gid;
        Sender { qp, cq, mr, message, gid }
    }

    /// Asks the node for a connection, and connects to the queue pair that it offers.
    fn meet(node: &Node, peer: &str, number: u32) -> Self {
        let sender = Self::new();
        let gid: Vec<String> = sender.gid.iter().map(|byte| format!("{byte:02x}")).collect();
        let asked = request(node, peer, number, sender.qp.number().into());
        let reply = node.connect(&with(asked, "local_gid", gid.join(":").into())).unwrap();
        let qp_number = offered(&reply).expect("a queue pair");
        let own: Vec<u8> = reply["local_gid"]
            .as_str()
            .unwrap()
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        let path = Path {
            port: 1,
            mtu: 4096,
            gid: own.try_into().unwrap(),
            sgid_index: GID_INDEX,
            hop_limit: 255,
            traffic_class: 0,
            service_level: 0,
            lid: 0,
            qp_number,
            rd_atomic: 1,
        };
        sender.qp.receive_ready(&path).unwrap();
        sender.qp.send_ready(1).unwrap();
        sender
    }

    /// The status with which the message completed.
    fn send(&mut self, message: &[u8]) -> u32 {
        self.message[..message.len()].copy_from_slice(message);
        let at = self.message.as_ptr() as u64;
        // SAFETY: the buffer and its region live longer than the queue pair is used.
        unsafe { self.qp.post_message(1, at, message.len() as u32, self.mr.lkey()) }.unwrap();
        let (mut found, begun) = ([Wc::default()], Instant::now());
        while self.cq.poll(&mut found).unwrap() == 0 {
            assert!(begun.elapsed() < FOREVER, "no completion");
            std::thread::yield_now();
        }
        found[0].status
    }
}

fn encoded(name: &[u8], message: &[u8]) -> Vec<u8> {
    let part = |text: &[u8]| [&(text.len() as u32).to_le_bytes(), text].concat();
    [part(name), part(message)].concat()
}

/// Waits until `count` have arrived; their names.
fn names(node: &Node, count: usize) -> Vec<String> {
    let (mut names, begun) = (Vec::new(), Instant::now());
    while names.len() < count {
        names.extend(node.engine.local().notifications.take().into_iter().map(|one| one.name));
        assert!(begun.elapsed() < FOREVER, "{names:?} of {count}");
        std::thread::yield_now();
    }
    names
}

#[test]
fn p39_what_upstreams_peers_send_over_a_queue_pair_arrives_and_garbage_harms_nobody() {
    let name = "p39_what_upstreams_peers_send_over_a_queue_pair_arrives_and_garbage_harms_nobody";
    if apart(name, &[("MC_RDMA_NOTIFY_RECV_COUNT", "2"), ("MC_NOTIFY_QUEUE_MAX", "100")]) {
        return;
    }
    let node = Arc::new(Node::new("sim0"));
    let traffic = Traffic::start(&node);
    let peer = "127.0.0.1:15001@sim1";
    let mut sender = Sender::meet(&node, peer, 300);
    // More than there are buffers for, empty ones too.
    let sent: Vec<String> = (0..10).map(|n| format!("n{n}")).collect();
    for name in &sent {
        assert_eq!(sender.send(&encoded(name.as_bytes(), b"")), wc::SUCCESS);
    }
    assert_eq!(names(&node, 10), sent, "in order");
    for garbage in [vec![], vec![0; 3], vec![0xff; 64], encoded(b"a", b"b")[..9].to_vec(), vec![0xff; 65536]]
    {
        assert_eq!(sender.send(&garbage), wc::SUCCESS, "it is not the queue pair's business");
    }
    assert_eq!(sender.send(&encoded(b"not \xff text", &[0])), wc::SUCCESS);
    assert_eq!(sender.send(&encoded(b"after", b"garbage")), wc::SUCCESS);
    assert_eq!(names(&node, 2), ["not \u{fffd} text", "after"]);
    // The queue is bounded, and full or not, the peer goes on.
    for _ in 0..150 {
        assert_eq!(sender.send(&encoded(b"many", b"")), wc::SUCCESS);
    }
    let kept = names(&node, 100);
    assert!(kept.iter().all(|name| name == "many"), "{kept:?}");
    // One that is longer than the buffers ends the queue pair, and nothing else.
    assert_ne!(sender.send(&vec![0; 70_000]), wc::SUCCESS);
    traffic.goes_on();
    let mut again = Sender::meet(&node, peer, 400);
    node.engine.local().notifications.take();
    assert_eq!(again.send(&encoded(b"again", b"")), wc::SUCCESS);
    soon("it arrives", || node.engine.local().notifications.take().iter().any(|one| one.name == "again"));
    traffic.stop();
}

#[test]
fn queue_pairs_for_notifications_are_few_and_only_for_those_that_have_one() {
    let name = "queue_pairs_for_notifications_are_few_and_only_for_those_that_have_one";
    if apart(name, &[("MC_RDMA_NOTIFY_MAX_PEERS", "2")]) {
        return;
    }
    let node = Node::new("sim0");
    let ask = |peer: u32, number: u32, notify: Value| {
        let path = format!("127.0.0.1:{peer}@mlx5_1");
        offered(&node.connect(&request(&node, &path, number, notify)).unwrap())
    };
    for none in [json!(null), json!("x"), json!(-1), json!(0), json!(1 << 24), json!(1u64 << 40), json!([5])]
    {
        assert_eq!(ask(15001, 300, none.clone()), None, "{none}");
    }
    let first = ask(15001, 300, json!(7)).expect("the first peer's");
    assert_eq!(ask(15001, 300, json!(7)), Some(first), "the same request again");
    let second = ask(15002, 300, json!(7)).expect("the second peer's");
    assert_ne!(first, second);
    assert_eq!(ask(15003, 300, json!(7)), None, "no more than the limit");
    // The first peer's next life: the old one goes with its connection, on the thread of the NIC.
    let number = Cell::new(300);
    soon("its room is not given back", || {
        number.set(number.get() + 2);
        ask(15001, number.get(), json!(8)).is_some()
    });
    // What is over is given to others, too.
    let withdraw = |peer: u32, numbers: Value| {
        let path = format!("127.0.0.1:{peer}@mlx5_1");
        let message = request(&node, &path, 0, json!(null));
        node.connect(&with(with(message, "withdraw", true.into()), "qp_num", numbers)).unwrap();
    };
    withdraw(15002, json!([300, 301]));
    let number = Cell::new(500);
    soon("another peer gets none", || {
        number.set(number.get() + 2);
        ask(15003, number.get(), json!(9)).is_some()
    });
}

#[test]
fn a_node_without_queue_pairs_for_notifications_answers_as_older_ones_do() {
    let name = "a_node_without_queue_pairs_for_notifications_answers_as_older_ones_do";
    if apart(name, &[("MC_RDMA_NOTIFY_ENABLED", "0")]) {
        return;
    }
    let node = Node::new("sim0");
    let reply = node.connect(&request(&node, "127.0.0.1:15001@mlx5_1", 300, json!(7))).unwrap();
    assert_eq!(offered(&reply), None);
    for member in ["notify_qp_num", "notify_rq_depth", "ctrl_channel"] {
        assert!(reply.get(member).is_none(), "{reply}");
    }
    // The channel of another transport of upstream's, which never goes to a NIC.
    let control =
        with(request(&node, "127.0.0.1:15002@sim1", 300, json!(7)), "peer_nic_path", "__ctrl__".into());
    let control = with(with(control, "ctrl_channel", true.into()), "qp_num", json!([]));
    let refused = node.connect(&control).unwrap();
    assert!(refused["reply_msg"].as_str().unwrap().contains("Invalid peer_nic_path"), "{refused}");
}
