//! Engines with RDMA that meet peers made of a socket, whose descriptors and replies are wrong: the segment or the task
//! fails with a reason, nothing is left behind, and nobody else is disturbed.

#![cfg(feature = "rdma")]

mod common;
mod rdma_node;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdma_node::{apart, descriptors, soon, with, Node, Traffic, FOREVER, GID, WRITE};
use serde_json::{json, Value};
use transfer_engine::engine::submit::Request;
use transfer_engine::error::{Class, Code};
use transfer_engine::handshake::wire::{Frame, METADATA};

/// A peer of one socket: it publishes a descriptor and answers connection messages, as it is told.
struct Fake {
    name: String,
    /// What it publishes from now on.
    descriptor: Arc<Mutex<Value>>,
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// `reply` gets the request; `None` closes without an answer.
    fn start(
        descriptor: impl Fn(&str) -> Value,
        reply: impl Fn(&Value) -> Option<Value> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let descriptor = Arc::new(Mutex::new(descriptor(&name)));
        let published = descriptor.clone();
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (stopped, counter) = (stop.clone(), asked.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Relaxed) {
                    return;
                }
                let now = published.lock().unwrap().clone();
                let _ = answer(stream.unwrap(), &now, &reply, &counter);
            }
        });
        Fake { name, descriptor, stop, asked, thread: Some(thread) }
    }
}

fn answer(
    mut stream: TcpStream,
    descriptor: &Value,
    reply: &impl Fn(&Value) -> Option<Value>,
    asked: &AtomicU32,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(FOREVER))?;
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let len = u64::from_le_bytes(head[..8].try_into().unwrap()) as usize - 1;
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    let answer = match head[8] {
        METADATA => Some(descriptor.clone()),
        _ => {
            asked.fetch_add(1, Relaxed);
            reply(&serde_json::from_slice(&body)?)
        }
    };
    if let Some(answer) = answer {
        stream.write_all(&Frame::of_json(Some(head[8]), &answer).encode())?;
    }
    Ok(())
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let _ = TcpStream::connect(&self.name);
        let _ = self.thread.take().unwrap().join();
    }
}

/// How long an engine waits for the answer to a connection request.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
const FAKE_BASE: u64 = 0x7f00_0000_0000;

/// Two NICs and one buffer.
fn published(name: &str) -> Value {
    json!({
        "name": name, "protocol": "rdma", "tcp_data_port": 0, "tcp_proto_version": 1,
        "devices": [{"name": "mlx5_0", "lid": 0, "gid": GID}, {"name": "mlx5_1", "lid": 0, "gid": GID}],
        "buffers": [{"name": "cpu:0", "addr": FAKE_BASE, "length": 1 << 20, "rkey": [1, 2], "lkey": [1, 2]}],
        "priority_matrix": {"cpu:0": [["mlx5_0", "mlx5_1"], []]},
    })
}

/// What an obliging peer answers.
fn accepted(request: &Value) -> Value {
    json!({
        "local_nic_path": request["peer_nic_path"], "peer_nic_path": request["local_nic_path"], "local_lid": 0,
        "local_gid": GID, "qp_num": [4097, 4098], "reply_msg": "", "payload": "",
    })
}

#[test]
fn bad_replies_of_peers_fail_the_task_with_a_reason_and_leave_nothing() {
    let few = [("MC_RETRY_CNT", "2"), ("SIMVERBS_RETRY_MS", "20")];
    if apart("bad_replies_of_peers_fail_the_task_with_a_reason_and_leave_nothing", &few) {
        return;
    }
    type Reply = fn(&Value) -> Option<Value>;
    let rows: [(&str, Reply, Code); 11] = [
        ("no, because", |_| Some(json!({"reply_msg": "no, because"})), Code::RejectHandshake),
        ("without a reason", |_| Some(json!({})), Code::RejectHandshake),
        ("without a reason", |_| Some(json!(null)), Code::RejectHandshake),
        (
            "speaks for",
            |request| Some(with(accepted(request), "local_nic_path", "x@y".into())),
            Code::RejectHandshake,
        ),
        (
            "0 queue pairs",
            |request| Some(with(accepted(request), "qp_num", json!([]))),
            Code::RejectHandshake,
        ),
        (
            "3 queue pairs",
            |request| Some(with(accepted(request), "qp_num", json!([1, 2, 3]))),
            Code::RejectHandshake,
        ),
        (
            "GID",
            |request| Some(with(accepted(request), "local_gid", "nonsense".into())),
            Code::RejectHandshake,
        ),
        ("qp_num", |request| Some(with(accepted(request), "qp_num", json!(["1"]))), Code::MalformedJson),
        ("", |_| Some(json!([1, 2])), Code::MalformedJson),
        ("", |_| None, Code::Socket),
        // An obliging one whose queue pairs do not exist.
        ("mlx5_", |request| Some(accepted(request)), Code::Endpoint),
    ];
    let (node, other) = (Node::new("sim0"), Arc::new(Node::new("sim0")));
    let traffic = Traffic::start(&other);
    traffic.goes_on();
    let fds = descriptors();
    for (word, reply, code) in rows {
        let fake = Fake::start(published, reply);
        let error = node.write(&fake.name, FAKE_BASE, 4096).unwrap().expect(word);
        assert!(error.text().contains(word), "{word}: {error}");
        assert_eq!(error.code(), code, "{word}: {error}");
        assert!(error.text().contains("mlx5_"), "the rail is named: {error}");
        assert!(fake.asked.load(Relaxed) > 0);
        node.engine.remove_segment(&fake.name).unwrap();
    }
    let failed = other.write(node.name(), node.addr(), 4096).unwrap();
    assert!(failed.is_none(), "{failed:?}");
    // Their rails are forgotten, but for the one that works.
    soon("rails of bad peers stay", || node.rails().len() <= 1);
    soon("descriptors are left behind", || descriptors() <= fds);
    traffic.stop();
}

/// An upstream peer that found its address useless has gone over to its link-local GID, for good.
#[test]
fn a_peer_that_moved_to_a_link_local_gid_is_met_with_one_of_ours() {
    let name = "a_peer_that_moved_to_a_link_local_gid_is_met_with_one_of_ours";
    if apart(name, &[("MC_RETRY_CNT", "2"), ("SIMVERBS_RETRY_MS", "20")]) {
        return;
    }
    let link_local = "fe:80:00:00:00:00:00:00:00:00:00:00:00:00:00:01";
    let node = Node::new("sim0");
    let gids = Arc::new(Mutex::new(Vec::new()));
    let heard = gids.clone();
    let fake = Fake::start(published, move |request| {
        heard.lock().unwrap().push(request["local_gid"].as_str().unwrap().to_string());
        Some(with(accepted(request), "local_gid", link_local.into()))
    });
    let error = node.write(&fake.name, FAKE_BASE, 4096).unwrap().expect("its queue pairs do not exist");
    assert_eq!(error.code(), Code::Endpoint, "{error}");
    let gids = gids.lock().unwrap();
    assert!(gids[0].starts_with("00:") && gids[1].starts_with("fe:80:"), "{gids:?}");
    assert!(
        gids.iter().filter(|gid| gid.starts_with("00:")).count() <= 2,
        "once per NIC of the peer: {gids:?}"
    );
}

#[test]
fn a_peer_that_refuses_on_one_nic_is_reached_over_the_other() {
    if apart("a_peer_that_refuses_on_one_nic_is_reached_over_the_other", &[("MC_RETRY_CNT", "3")]) {
        return;
    }
    let node = Node::new("sim0");
    let refuse_one = |request: &Value| {
        let first = request["peer_nic_path"].as_str().unwrap().ends_with("mlx5_0");
        Some(json!({"reply_msg": if first { "not on this NIC" } else { "nor on this one" }}))
    };
    let fake = Fake::start(published, refuse_one);
    let error = node.write(&fake.name, FAKE_BASE, 4096).unwrap().unwrap();
    assert_eq!((error.code(), error.kind()), (Code::RejectHandshake, Class::Rejected), "{error}");
    let tried: Vec<String> = node.rails().iter().map(|rail| rail["last_error"].to_string()).collect();
    assert_eq!(tried.len(), 2, "{tried:?}");
    assert!(tried.iter().all(|text| text.contains("on this")), "both were asked: {tried:?}");
}

#[test]
fn a_link_local_gid_of_our_own_kind_is_refused() {
    if apart("a_link_local_gid_of_our_own_kind_is_refused", &[("MC_RETRY_CNT", "2")]) {
        return;
    }
    let node = Node::new("sim0");
    let gid = "fe:80:00:00:00:00:00:00:00:00:00:00:00:00:00:01";
    let fake = Fake::start(
        |name| with(published(name), "incarnation", "00112233445566778899aabbccddeeff".into()),
        move |request| Some(with(accepted(request), "local_gid", gid.into())),
    );
    let error = node.write(&fake.name, FAKE_BASE, 4096).unwrap().unwrap();
    assert!(error.text().contains("is link-local"), "{error}");
    assert_eq!(error.code(), Code::RejectHandshake, "{error}");
}

#[test]
fn a_refusal_that_passes_is_known_by_its_word_and_not_by_its_text() {
    if apart("a_refusal_that_passes_is_known_by_its_word_and_not_by_its_text", &[("MC_RETRY_CNT", "6")]) {
        return;
    }
    let text = "incarnation 5 is gone";
    for (word, passes) in [(json!(null), false), (json!("nic"), false), (json!("stale"), true)] {
        let node = Node::new("sim0");
        let refusal = word.clone();
        let fake = Fake::start(published, move |_| Some(json!({"reply_msg": text, "refusal": refusal})));
        let error = node.write(&fake.name, FAKE_BASE, 4096).unwrap().unwrap();
        let class = if passes { Class::Network } else { Class::Rejected };
        assert_eq!((error.code(), error.kind()), (Code::RejectHandshake, class), "{word}: {error}");
        assert!(error.text().contains(text), "{word}: {error}");
        // Each of its two NICs once, and again only where that may help.
        let asked = fake.asked.load(Relaxed);
        assert_eq!(asked > 2, passes, "{word}: asked {asked} times");
    }
}

#[test]
fn p07_a_request_for_the_predecessor_of_a_peer_that_restarted_fails_as_over_tcp() {
    let name = "p07_a_request_for_the_predecessor_of_a_peer_that_restarted_fails_as_over_tcp";
    if apart(name, &[]) {
        return;
    }
    let node = Node::new("sim0");
    let of_life = |name: &str, life: u8| with(published(name), "incarnation", format!("{life:032x}").into());
    let fake = Fake::start(
        |name| of_life(name, 1),
        // As an engine does that was started anew.
        |_| Some(json!({"reply_msg": "that incarnation is gone", "refusal": "stale"})),
    );
    node.engine.open_segment(&fake.name).unwrap();
    *fake.descriptor.lock().unwrap() = of_life(&fake.name, 2);
    let error = node.write(&fake.name, FAKE_BASE, 4096).unwrap().unwrap();
    assert_eq!(
        (error.code(), error.kind(), error.retryable()),
        (Code::Socket, Class::Metadata, true),
        "{error}"
    );
    assert!(error.text().contains("restarted") && error.text().contains("submit again"), "{error}");
}

#[test]
fn p02_a_write_is_posted_again_only_after_the_peer_was_asked_to_give_its_end_up() {
    let name = "p02_a_write_is_posted_again_only_after_the_peer_was_asked_to_give_its_end_up";
    if apart(name, &[("MC_RETRY_CNT", "3"), ("SIMVERBS_RETRY_MS", "20")]) {
        return;
    }
    let incarnation = "00112233445566778899aabbccddeeff";
    for ours in [true, false] {
        let node = Node::new("sim0");
        let messages = Arc::new(Mutex::new(Vec::new()));
        let heard = messages.clone();
        // Its queue pairs do not exist, so what is posted comes back.
        let reply = move |request: &Value| {
            heard.lock().unwrap().push(request.clone());
            Some(if request["withdraw"] == true { json!({}) } else { accepted(request) })
        };
        let described = move |name: &str| match ours {
            true => with(published(name), "incarnation", incarnation.into()),
            false => published(name),
        };
        let fake = Fake::start(described, reply);
        node.write(&fake.name, FAKE_BASE, 4096).unwrap().expect("it cannot arrive");
        let messages = messages.lock().unwrap();
        let mut connections = messages.iter().enumerate().filter(|(_, message)| message["withdraw"] != true);
        let (_, first) = connections.next().unwrap();
        let (second, _) = connections.next().expect("it is posted again");
        if ours {
            let asked = &messages[1];
            assert_eq!((second, &asked["withdraw"]), (2, &json!(true)), "{messages:?}");
            for member in ["qp_num", "local_nic_path", "peer_nic_path"] {
                assert_eq!(asked[member], first[member]);
            }
            assert_eq!(asked["incarnation"], incarnation);
        } else {
            assert!(
                messages.iter().all(|message| message["withdraw"].is_null()),
                "upstream does not know it"
            );
        }
    }
}

/// A peer that gave its request up after ten seconds, and answered one of ours since: the request may lie in a socket still.
#[test]
fn p06_a_request_that_the_peers_answer_to_ours_has_overtaken_changes_nothing() {
    let name = "p06_a_request_that_the_peers_answer_to_ours_has_overtaken_changes_nothing";
    // Nothing comes back from queue pairs that do not exist while this runs.
    if apart(name, &[("SIMVERBS_RETRY_MS", "60000"), ("MC_RDMA_STALL_TIMEOUT_MS", "60000")]) {
        return;
    }
    let (node, life) = (Node::new("sim0"), "00112233445566778899aabbccddeeff");
    let paths = Arc::new(Mutex::new(None));
    let heard = paths.clone();
    let fake = Fake::start(
        |name| with(published(name), "incarnation", life.into()),
        move |request| {
            *heard.lock().unwrap() = Some(request.clone());
            Some(with(with(accepted(request), "own_incarnation", life.into()), "attempt", 5.into()))
        },
    );
    let target = node.engine.open_segment(&fake.name).unwrap();
    let request = Request { opcode: WRITE, source: node.addr(), target, offset: FAKE_BASE, len: 4096 };
    let batch = node.engine.allocate_batch(1).unwrap();
    node.engine.submit(batch, 1, |_| request, None).unwrap();
    let state = || node.rails()[0]["state"].as_str().unwrap().to_string();
    soon("it is connected", || paths.lock().unwrap().is_some() && state() == "up");
    let ours = paths.lock().unwrap().take().unwrap();
    let theirs = |attempt: u64, numbers: [u32; 2]| {
        node.connect(&json!({
            "local_nic_path": ours["peer_nic_path"], "peer_nic_path": ours["local_nic_path"], "local_lid": 0,
            "local_gid": GID, "qp_num": numbers, "ready_ack": false, "reply_msg": "", "payload": "",
            "own_incarnation": life, "attempt": attempt,
        }))
        .unwrap()
    };
    let late = theirs(5, [300, 301]);
    assert_eq!((late["refusal"].as_str(), state().as_str()), (Some("no_connection"), "up"), "{late}");
    // About the queue pairs that are connected already: both asked at once.
    let same = theirs(5, [4097, 4098]);
    assert_eq!((&same["reply_msg"], &same["qp_num"], state().as_str()), (&json!(""), &ours["qp_num"], "up"));
    assert!(same["attempt"].as_u64() >= ours["attempt"].as_u64() && ours["attempt"].is_u64(), "{same}");
    let newer = theirs(6, [400, 401]);
    assert_eq!((&newer["reply_msg"], state().as_str()), (&json!(""), "connecting"), "{newer}");
}

#[test]
fn an_attempt_that_the_rail_has_abandoned_says_nothing_more_to_the_peer() {
    let name = "an_attempt_that_the_rail_has_abandoned_says_nothing_more_to_the_peer";
    let control = std::env::temp_dir().join(format!("te-abandoned-{}", std::process::id()));
    if apart(name, &[("MC_RETRY_CNT", "2"), ("SIMVERBS_CTL", control.to_str().unwrap())]) {
        let _ = std::fs::remove_file(&control);
        return;
    }
    let node = Arc::new(Node::new("sim0"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = listener.local_addr().unwrap().to_string();
    let (descriptor, from, to) = (published(&peer), node.clone(), peer.clone());
    let write = std::thread::spawn(move || from.write(&to, FAKE_BASE, 4096));
    let (nobody, never) = (AtomicU32::new(0), |_: &Value| -> Option<Value> { unreachable!() });
    let mut stream = loop {
        let (stream, _) = listener.accept().unwrap();
        // Its ninth byte says what a frame is.
        let mut head = [0; 9];
        while stream.peek(&mut head).unwrap() < head.len() {}
        if head[8] != METADATA {
            break stream;
        }
        answer(stream, &descriptor, &never, &nobody).unwrap();
    };
    let (start, file) = (Instant::now(), std::env::var("SIMVERBS_CTL").unwrap());
    std::fs::write(format!("{file}.new"), "port sim0 down\n").unwrap();
    std::fs::rename(format!("{file}.new"), file).unwrap();
    // It hangs up instead of waiting for the answer.
    stream.set_read_timeout(Some(FOREVER)).unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
    assert!(start.elapsed() < HANDSHAKE_LIMIT / 2, "given up after {:?}", start.elapsed());
    // Nobody answers any more.
    drop((stream, listener));
    assert!(write.join().unwrap().unwrap().is_some());
}

#[test]
fn bad_descriptors_of_peers_are_refused_or_harmless() {
    if apart("bad_descriptors_of_peers_are_refused_or_harmless", &[("MC_RETRY_CNT", "2")]) {
        return;
    }
    let buffer = |member: &'static str, value: Value| {
        move |name: &str| {
            let mut desc = published(name);
            desc["buffers"][0][member] = value.clone();
            desc
        }
    };
    // The empty matrix makes all of them equally good.
    let devices = |names: [&'static str; 2]| {
        move |name: &str| {
            let nics = names.map(|nic| json!({"name": nic, "lid": 0, "gid": GID}));
            with(with(published(name), "devices", json!(nics)), "priority_matrix", json!({}))
        }
    };
    let member =
        |member: &'static str, value: Value| move |name: &str| with(published(name), member, value.clone());
    let huge: Vec<u32> = (0..100_000).collect();
    type Descriptor<'a> = Box<dyn Fn(&str) -> Value + 'a>;
    let refused: Vec<(&str, Descriptor, &str)> = vec![
        ("fewer rkeys than devices", Box::new(buffer("rkey", json!([1]))), "1 rkey, 2 lkey and 2 devices"),
        ("fewer lkeys than rkeys", Box::new(buffer("lkey", json!([1]))), "2 rkey, 1 lkey and 2 devices"),
        ("100 000 rkeys", Box::new(buffer("rkey", json!(huge))), "100000 rkey, 2 lkey and 2 devices"),
        (
            "an rkey of 33 bits",
            Box::new(buffer("rkey", json!([1, 4294967296u64]))),
            "'rkey' is 4294967296, which needs more than 32 bits",
        ),
        ("a negative rkey", Box::new(buffer("rkey", json!([1, -1]))), "'rkey' holds another number"),
        ("rkeys that are text", Box::new(buffer("rkey", json!("12"))), "'rkey' holds a string, not an array"),
        ("a length that wraps", Box::new(buffer("length", json!(u64::MAX))), "passes 2^64"),
        ("a length of nothing", Box::new(buffer("length", json!(0))), "'length' is missing or 0"),
        ("a negative length", Box::new(buffer("length", json!(-5))), "'length' holds another number"),
        ("an address of nothing", Box::new(buffer("addr", json!(0))), "'addr' is missing or 0"),
        ("an address that is text", Box::new(buffer("addr", json!("0x7f"))), "'addr' holds a string"),
        (
            "buffers that are none",
            Box::new(member("buffers", json!([7]))),
            "buffers[0]: element is another number, not an object",
        ),
        (
            "devices that are none",
            Box::new(member("devices", json!([7, 8]))),
            "devices[0]: element is another number, not an object",
        ),
        (
            "a device without a GID",
            Box::new(member("devices", json!([{"name": "a", "gid": ""}]))),
            "devices[0]: member 'gid' is missing or empty",
        ),
        (
            "a device without a name",
            Box::new(member("devices", json!([{"name": "", "gid": GID}]))),
            "devices[0]: member 'name' is missing or empty",
        ),
        (
            "devices that are an object",
            Box::new(member("devices", json!({"a": 1}))),
            "'devices' holds an object, not an array",
        ),
        ("an unknown protocol", Box::new(member("protocol", json!("warp"))), "protocol 'warp' is unknown"),
        ("no protocol", Box::new(member("protocol", json!(""))), "'protocol' is missing or empty"),
    ];
    let node = Node::new("sim0");
    for (what, descriptor, reason) in &refused {
        let fake = Fake::start(descriptor, |_| None);
        let error = node.engine.open_segment(&fake.name).expect_err(what);
        assert_eq!(error.code(), Code::MalformedJson, "{what}: {error}");
        assert!(error.text().contains(reason), "{what}: {error}");
        assert_eq!(fake.asked.load(Relaxed), 0, "{what}");
    }
    let fails: Vec<(&str, Descriptor, Code)> = vec![
        (
            "no devices",
            Box::new(|name| with(with(published(name), "devices", json!([])), "buffers", json!([]))),
            Code::DeviceNotFound,
        ),
        (
            "no rkeys",
            Box::new(|name| {
                let mut desc = published(name);
                (desc["buffers"][0]["rkey"], desc["buffers"][0]["lkey"]) = (json!([]), json!([]));
                desc
            }),
            Code::AddressNotRegistered,
        ),
        ("a matrix that is none", Box::new(member("priority_matrix", json!("x"))), Code::Socket),
        (
            "a matrix with wrong rows",
            Box::new(member("priority_matrix", json!({"cpu:0": [1, 2, 3]}))),
            Code::Socket,
        ),
        (
            "a matrix with other NICs",
            Box::new(member("priority_matrix", json!({"cpu:0": [["a", "b"], ["c"]]}))),
            Code::DeviceNotFound,
        ),
        ("an odd location", Box::new(buffer("name", json!("segments:x:y:z"))), Code::Socket),
        ("an incarnation that is none", Box::new(member("incarnation", json!("???"))), Code::Socket),
        ("a NIC with two @", Box::new(devices(["a@b", "c"])), Code::Socket),
        ("two NICs of one name", Box::new(devices(["c", "c"])), Code::Socket),
        (
            "buffers over each other",
            Box::new(|name| {
                let mut desc = published(name);
                let mut more = desc["buffers"][0].clone();
                more["addr"] = json!(FAKE_BASE + 10);
                desc["buffers"].as_array_mut().unwrap().push(more);
                desc
            }),
            Code::Socket,
        ),
    ];
    for (what, descriptor, code) in &fails {
        let fake = Fake::start(descriptor, |_| None);
        let error = match node.write(&fake.name, FAKE_BASE, 4096) {
            Ok(task) => task.expect(what),
            Err(error) => error,
        };
        println!("{what}: {error}");
        assert!(!error.text().is_empty(), "{what}");
        assert_eq!(error.code(), *code, "{what}: {error}");
        let _ = node.engine.remove_segment(&fake.name);
    }
    // A thousand NICs are many, but not malformed.
    let crowd = |name: &str| {
        let names: Vec<String> = (0..1000).map(|i| format!("nic{i}")).collect();
        let devices: Vec<Value> =
            names.iter().map(|nic| json!({"name": nic, "lid": 0, "gid": GID})).collect();
        let keys: Vec<u32> = (0..1000).collect();
        let buffer =
            json!({"name": "cpu:0", "addr": FAKE_BASE, "length": 1 << 20, "rkey": keys, "lkey": keys});
        let desc = with(with(published(name), "devices", json!(devices)), "buffers", json!([buffer]));
        with(desc, "priority_matrix", json!({"cpu:0": [names, []]}))
    };
    let fake = Fake::start(crowd, |_| Some(json!({"reply_msg": "too many of us"})));
    let error = node.write(&fake.name, FAKE_BASE, 1 << 20).unwrap().unwrap();
    assert_eq!(error.code(), Code::RejectHandshake, "{error}");
}
