//! Bad connection messages to an engine with RDMA, on the simulated libibverbs: each is refused with a reason, leaves
//! nothing behind, and disturbs nobody else. Upstream's recorded requests get replies of the recorded form.

#![cfg(feature = "rdma")]

mod common;
mod rdma_node;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdma_node::{apart, descriptors, soon, with, Node, Traffic, GID};
use serde_json::{json, Value};
use transfer_engine::handshake::wire::{Frame, CONNECTION};

const PEER: &str = "127.0.0.1:15001@mlx5_1";

/// What a peer may send, for `node`'s NIC.
fn good(node: &Node) -> Value {
    json!({
        "local_nic_path": PEER, "peer_nic_path": node.path("sim0"), "local_lid": 0, "local_gid": GID,
        "qp_num": [257, 258], "ready_ack": false, "reply_msg": "", "payload": "",
    })
}

#[test]
fn p39_bad_connection_requests_are_refused_with_a_reason_and_disturb_nobody() {
    if apart("p39_bad_connection_requests_are_refused_with_a_reason_and_disturb_nobody", &[]) {
        return;
    }
    let node = Arc::new(Node::new("sim0"));
    let traffic = Traffic::start(&node);
    traffic.goes_on();
    let (rails, fds) = (node.rails().len(), descriptors());
    let one = |member: &str, value: Value| with(good(&node), member, value);
    let path = |path: &str| one("peer_nic_path", path.into());
    let from = |path: &str| one("local_nic_path", path.into());
    let gid = |gid: &str| one("local_gid", gid.into());
    let many: Vec<u32> = (1..=10_000).collect();
    let refused: Vec<(Value, &str)> = vec![
        (path("nope"), "Invalid peer_nic_path"),
        (path("127.0.0.1:1@"), "Invalid peer_nic_path"),
        (path(""), "Invalid peer_nic_path"),
        (path(&node.path("nope")), "no NIC 'nope'"),
        (path(&node.path(&"x".repeat(100_000))), "Invalid peer_nic_path"),
        (path(&node.path(&"x".repeat(100))), "no NIC"),
        (one("incarnation", "0".repeat(100_000).into()), "at most 64 characters"),
        (one("own_incarnation", "0".repeat(100_000).into()), "at most 64 characters"),
        (with(from(&"x".repeat(100_000)), "withdraw", true.into()), "Invalid local_nic_path"),
        (from(""), "Invalid local_nic_path"),
        (from("nowhere"), "Invalid local_nic_path"),
        (from("nowhere@"), "Invalid local_nic_path"),
        (from(&format!("{}@nic", "x".repeat(100_000))), "Invalid local_nic_path"),
        (gid("00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00"), "Invalid peer GID"),
        (gid("192.168.1.20"), "Invalid peer GID"),
        (gid("00:00"), "Invalid peer GID"),
        (gid(&"00:".repeat(100_000)), "Invalid peer GID"),
        (gid("zz:00:00:00:00:00:00:00:00:00:ff:ff:c0:a8:01:14"), "Invalid peer GID"),
        (gid("00:00:00:00:00:00:00:00:00:00:ff:ff:c0:a8:01:14:00"), "Invalid peer GID"),
        (gid("-1:00:00:00:00:00:00:00:00:00:ff:ff:c0:a8:01:14"), "Invalid peer GID"),
        (
            with(
                gid("fe:80:00:00:00:00:00:00:00:00:00:00:00:00:00:01"),
                "own_incarnation",
                "00112233445566778899aabbccddeeff".into(),
            ),
            "is link-local",
        ),
        (one("qp_num", json!([])), "0 queue pairs"),
        (one("qp_num", json!(many)), "10000 queue pairs"),
        (one("incarnation", "00112233445566778899aabbccddeeff".into()), "incarnation"),
        (one("ready_ack", true.into()), "does not exist"),
        (json!({}), "Invalid peer_nic_path"),
    ];
    for (message, reason) in &refused {
        let reply = node.connect(message).expect(reason);
        let text = reply["reply_msg"].as_str().unwrap();
        assert!(text.contains(reason) && text.len() < 512, "{reason}: {text:.600}");
        assert_eq!(reply["qp_num"], json!([]), "{reason}");
        // What the asking engine acts on; the text is for people.
        let word = match *reason {
            "no NIC" | "no NIC 'nope'" => "nic",
            "is link-local" => "link_local",
            "incarnation" => "stale",
            "does not exist" => "no_connection",
            _ => "request",
        };
        assert_eq!(reply["refusal"], word, "{reason}");
    }
    let malformed = [
        one("qp_num", json!([-1])),
        one("qp_num", json!([4294967296u64])),
        one("qp_num", json!(["1"])),
        one("qp_num", json!({"0": 1})),
        one("qp_num", json!("257")),
        one("local_nic_path", json!({})),
        one("peer_nic_path", json!([1])),
        one("local_gid", json!(7)),
        one("ready_ack", json!("yes")),
        one("path_mtu", json!("big")),
        one("path_mtu", json!(-1)),
        one("incarnation", json!(1)),
        json!([]),
        json!(null),
        json!("text"),
    ];
    for message in &malformed {
        assert_eq!(node.connect(message), None, "{message}");
    }
    let broken = Frame { kind: Some(CONNECTION), body: b"{\"qp_num\":[1,".to_vec() };
    assert!(node.ask(&broken).is_none_or(|reply| reply["reply_msg"] != ""));
    // The one member whose wrong type upstream accepts.
    let odd = node.connect(&one("local_lid", json!("x"))).unwrap();
    assert_eq!(odd["reply_msg"], "");
    traffic.goes_on();
    assert_eq!(node.rails().len(), rails + 1, "only the last one made a rail");
    soon("descriptors are left behind", || descriptors() <= fds);
    traffic.stop();
}

#[test]
fn p39_long_texts_of_strangers_stay_out_of_memory_and_log() {
    let name = "p39_long_texts_of_strangers_stay_out_of_memory_and_log";
    let folder = std::env::temp_dir().join(format!("te-long-texts-{}", std::process::id()));
    if std::env::var_os("MC_LOG_DIR").is_none() {
        std::fs::create_dir_all(&folder).unwrap();
    }
    if apart(name, &[("MC_LOG_DIR", folder.to_str().unwrap()), ("MC_LOG_LEVEL", "WARNING")]) {
        let log = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap();
        let text = std::fs::read_to_string(log.path()).unwrap();
        assert!(text.contains("Invalid local_nic_path") && text.len() < 64 << 10, "{} bytes", text.len());
        std::fs::remove_dir_all(folder).unwrap();
        return;
    }
    let node = Node::new("sim0");
    let resident = || {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let long = "x".repeat(900_000);
    let ask = |n: usize| {
        let message = with(good(&node), "local_nic_path", format!("{n}{long}@nic").into());
        assert!(node.connect(&message).unwrap()["reply_msg"].as_str().unwrap().len() < 512);
    };
    (0..10).for_each(ask);
    let before = resident();
    (10..200).for_each(ask);
    let more = resident().saturating_sub(before);
    assert!(more < 32 << 20, "190 requests left {more} bytes");
}

#[test]
fn a_connection_takes_only_its_own_ready_message() {
    if apart("a_connection_takes_only_its_own_ready_message", &[]) {
        return;
    }
    let node = Node::new("sim0");
    let state = || node.rails()[0]["state"].as_str().unwrap().to_string();
    let ready = |numbers: Value| with(with(good(&node), "ready_ack", true.into()), "qp_num", numbers);
    let reason = |reply: Option<Value>| reply.unwrap()["reply_msg"].as_str().unwrap().to_string();
    let differs = |reply: Option<Value>| {
        let reply = reply.unwrap();
        assert!(reply["reply_msg"].as_str().unwrap().contains("numbers differ"));
        assert_eq!(reply["refusal"], "no_connection", "the peer may connect anew");
    };
    let first = node.connect(&good(&node)).unwrap();
    assert_eq!((first["reply_msg"].as_str(), first["ready_ack"].as_bool()), (Some(""), Some(false)));
    assert_eq!(first["qp_num"].as_array().unwrap().len(), 2);
    assert_eq!(state(), "connecting");
    for stale in [json!([258, 257]), json!([257]), json!([257, 258, 259]), json!([1, 2])] {
        differs(node.connect(&ready(stale)));
        assert_eq!(state(), "connecting");
    }
    // The same request again changes nothing.
    assert_eq!(node.connect(&good(&node)).unwrap()["qp_num"], first["qp_num"]);
    // Another one from the same path is the peer's next life: its predecessor's ready message comes too late.
    let second = node.connect(&with(good(&node), "qp_num", json!([300, 301]))).unwrap();
    assert_ne!(second["qp_num"], first["qp_num"]);
    differs(node.connect(&ready(json!([257, 258]))));
    assert_eq!(reason(node.connect(&ready(json!([300, 301])))), "");
    assert_eq!(state(), "up");
    assert_eq!(reason(node.connect(&ready(json!([300, 301])))), "", "twice is no harm");
    // As many queue pairs as the peer asks for, and any path MTU.
    for (count, mtu) in [(1, 0), (64, 1), (4, 4096), (5, 4_000_000_000u32)] {
        let numbers: Vec<u32> = (1..=count).collect();
        let message = with(with(good(&node), "qp_num", json!(numbers)), "path_mtu", mtu.into());
        let reply = node.connect(&message).unwrap();
        assert_eq!(reply["reply_msg"], "", "{count} {mtu}");
        assert_eq!(reply["qp_num"].as_array().unwrap().len(), count as usize);
        let agreed = reply["path_mtu"].as_u64().unwrap();
        assert!((256..=4096).contains(&agreed), "{agreed}");
    }
    let odd = node.connect(&with(good(&node), "path_mtu", 300.into()));
    assert!(reason(odd).contains("path_mtu 300"));
    assert_eq!(node.rails().len(), 1);
}

#[test]
fn p10_the_path_mtu_is_the_smaller_one_of_both_ends() {
    if apart("p10_the_path_mtu_is_the_smaller_one_of_both_ends", &[]) {
        return;
    }
    // The simulated NIC has 4096.
    let node = Node::new("sim0");
    for (number, (theirs, agreed)) in (1u32..).zip([(256, 256), (1024, 1024), (4096, 4096), (8192, 4096)]) {
        let message = with(with(good(&node), "qp_num", json!([number])), "path_mtu", json!(theirs));
        assert_eq!(node.connect(&message).unwrap()["path_mtu"], agreed, "the peer has {theirs}");
    }
}

/// As upstream 0.3.14 asks after two connections that carried nothing, having moved to another GID of its own.
#[test]
fn a_peer_that_names_our_gid_as_one_that_does_not_work_gets_another_one() {
    let name = "a_peer_that_names_our_gid_as_one_that_does_not_work_gets_another_one";
    if apart(name, &[("MC_AUTO_GID_MAX_RETRIES", "2")]) {
        return;
    }
    const LINK_LOCAL: &str = "fe:80:00:00:00:00:00:00:02:00:00:00:00:00:00:09";
    let node = Arc::new(Node::new("sim0"));
    let traffic = Traffic::start(&node);
    let mut number = 300;
    let mut ask = |local: &str, from: Value| {
        number += 2;
        let message = with(with(good(&node), "local_gid", local.into()), "auto_gid_reprobe_from", from);
        let reply = node.connect(&with(message, "qp_num", json!([number, number + 1]))).unwrap();
        assert_eq!(reply["reply_msg"], "", "{reply}");
        reply["local_gid"].as_str().unwrap().to_string()
    };
    let first = ask(GID, Value::Null);
    let published = || node.links()["local_nics"][0]["gid"].clone();
    assert_eq!(published(), first.as_str(), "{}", node.links());
    for other in [json!(""), json!(7), json!("nonsense"), json!(GID), json!({})] {
        assert_eq!(ask(GID, other), first, "it names none of ours");
    }
    let second = ask(GID, first.as_str().into());
    assert_ne!(second, first);
    assert!(second.starts_with("00:"), "of the peer's family: {second}");
    assert_eq!(ask(GID, first.as_str().into()), second, "that one is not used any more");
    assert_eq!(ask(GID, Value::Null), second, "the next connection has it from the beginning");
    let third = ask(LINK_LOCAL, second.as_str().into());
    assert!(third.starts_with("fe:80:"), "{third}");
    assert_eq!(ask(LINK_LOCAL, third.as_str().into()), third, "no more than MC_AUTO_GID_MAX_RETRIES");
    assert_eq!(ask(GID, Value::Null), first, "a peer that is back at an address gets the NIC's");
    // One peer's wish is no other's.
    assert_eq!(published(), first.as_str());
    let other = with(good(&node), "local_nic_path", "127.0.0.1:15002@mlx5_1".into());
    assert_eq!(node.connect(&other).unwrap()["local_gid"], first.as_str());
    // Having moved, it says so no more.
    let moved = with(
        with(good(&node), "local_nic_path", "127.0.0.1:15003@mlx5_1".into()),
        "local_gid",
        LINK_LOCAL.into(),
    );
    assert!(node.connect(&moved).unwrap()["local_gid"].as_str().unwrap().starts_with("fe:80:"));
    traffic.stop();
}

#[test]
fn a_gid_that_was_set_stays_whatever_peers_say_of_it() {
    let name = "a_gid_that_was_set_stays_whatever_peers_say_of_it";
    for setting in [("MC_GID_INDEX", "3"), ("MC_AUTO_GID_MAX_RETRIES", "0")] {
        if apart(name, &[setting]) {
            continue;
        }
        let node = Node::new("sim0");
        let first = node.connect(&good(&node)).unwrap()["local_gid"].clone();
        let again =
            with(with(good(&node), "auto_gid_reprobe_from", first.clone()), "qp_num", json!([300, 301]));
        assert_eq!(node.connect(&again).unwrap()["local_gid"], first);
        let moved = "fe:80:00:00:00:00:00:00:02:00:00:00:00:00:00:09";
        let refused = node.connect(&with(again, "local_gid", moved.into())).unwrap();
        assert_eq!(refused["refusal"], "link_local", "{refused}");
        return;
    }
}

#[test]
fn a_connection_is_given_up_when_its_own_peer_asks() {
    if apart("a_connection_is_given_up_when_its_own_peer_asks", &[]) {
        return;
    }
    let node = Node::new("sim0");
    let state = || node.rails()[0]["state"].as_str().unwrap().to_string();
    let withdraw = |numbers: Value| with(with(good(&node), "withdraw", true.into()), "qp_num", numbers);
    let quiet = |reply: Option<Value>| assert_eq!(reply.unwrap()["reply_msg"], "");
    quiet(node.connect(&good(&node)));
    quiet(node.connect(&with(good(&node), "ready_ack", true.into())));
    assert_eq!(state(), "up");
    // Of another connection, NIC or peer: nothing happens, and nothing is made.
    quiet(node.connect(&withdraw(json!([258, 257]))));
    quiet(node.connect(&with(withdraw(json!([257, 258])), "peer_nic_path", node.path("sim9").into())));
    quiet(node.connect(&with(withdraw(json!([257, 258])), "local_nic_path", "other:1@mlx5_1".into())));
    assert_eq!((state().as_str(), node.rails().len()), ("up", 1));
    quiet(node.connect(&withdraw(json!([257, 258]))));
    assert_eq!(state(), "idle");
    assert!(node.rails()[0]["last_error"].as_str().unwrap().contains("gave this connection up"));
    quiet(node.connect(&good(&node)));
    assert_eq!(state(), "connecting");
}

/// The queue pairs of a request that was overtaken are gone: to take it up would cut off those of the later one.
#[test]
fn a_request_that_a_later_one_of_the_same_engine_has_overtaken_changes_nothing() {
    let name = "a_request_that_a_later_one_of_the_same_engine_has_overtaken_changes_nothing";
    if apart(name, &[]) {
        return;
    }
    let node = Node::new("sim0");
    let request = |life: u8, attempt: Value, numbers: [u32; 2]| {
        let incarnation = format!("{life:032x}");
        let request = with(with(good(&node), "own_incarnation", incarnation.into()), "attempt", attempt);
        node.connect(&with(request, "qp_num", json!(numbers))).unwrap()
    };
    let state = || node.rails()[0]["state"].as_str().unwrap().to_string();
    assert_eq!(request(1, json!(5), [300, 301])["reply_msg"], "");
    let ready = with(with(good(&node), "ready_ack", true.into()), "qp_num", json!([300, 301]));
    assert_eq!(node.connect(&ready).unwrap()["reply_msg"], "");
    let late = request(1, json!(4), [257, 258]);
    assert_eq!(late["refusal"], "no_connection", "{late}");
    assert_eq!((state().as_str(), request(1, json!(5), [300, 301])["reply_msg"].as_str()), ("up", Some("")));
    assert_eq!(state(), "up", "the same request again");
    // The numbers of queue pairs that another engine has had there: its successor's are others.
    let ours = node.connect(&with(good(&node), "qp_num", json!([300, 301]))).unwrap()["qp_num"].clone();
    let successor = request(7, json!(1), [300, 301]);
    assert_eq!((successor["reply_msg"].as_str(), state().as_str()), (Some(""), "connecting"));
    assert_ne!(successor["qp_num"], ours);
    // Newer ones, those of another life, and those of engines that do not count.
    for (life, attempt, numbers) in
        [(1, json!(6), [400, 401]), (2, json!(1), [500, 501]), (2, Value::Null, [600, 601])]
    {
        assert_eq!(request(life, attempt, numbers)["reply_msg"], "", "{numbers:?}");
        assert_eq!(state(), "connecting");
    }
}

/// The peer posts again as soon as it has the answer: an old packet must not find a queue pair then.
#[test]
fn p02_an_end_that_another_thread_is_giving_up_is_gone_when_the_peer_is_told_so() {
    let name = "p02_an_end_that_another_thread_is_giving_up_is_gone_when_the_peer_is_told_so";
    let each = Duration::from_millis(500);
    if apart(name, &[("SIMVERBS_DESTROY_MS", "500")]) {
        return;
    }
    let node = Arc::new(Node::new("sim0"));
    let first = node.connect(&good(&node)).unwrap();
    let count = first["qp_num"].as_array().unwrap().len() as u32;
    assert_eq!(node.connect(&with(good(&node), "ready_ack", true.into())).unwrap()["reply_msg"], "");
    let start = Instant::now();
    let (other, again) = (node.clone(), with(good(&node), "qp_num", json!([300, 301])));
    let renewed = std::thread::spawn(move || other.connect(&again).unwrap());
    soon("the first connection is given up", || node.rails()[0]["state"] != "up");
    let withdraw = with(good(&node), "withdraw", true.into());
    assert_eq!(node.connect(&withdraw).unwrap()["reply_msg"], "");
    assert!(start.elapsed() >= each * count, "answered after {:?}", start.elapsed());
    assert_eq!(renewed.join().unwrap()["reply_msg"], "");
    let numbers = with(with(good(&node), "ready_ack", true.into()), "qp_num", json!([300, 301]));
    assert_eq!(node.connect(&numbers).unwrap()["reply_msg"], "", "the next connection is not touched");
    assert_eq!(node.rails()[0]["state"], "up");
}

#[test]
fn recorded_requests_of_upstream_get_replies_of_the_recorded_form() {
    if apart("recorded_requests_of_upstream_get_replies_of_the_recorded_form", &[]) {
        return;
    }
    let node = Node::new("sim0");
    let file: Value = serde_json::from_slice(include_bytes!("vectors/rdma-connection.json")).unwrap();
    let mut seen = 0;
    for step in file["steps"].as_array().unwrap() {
        let (request, reply) = (&step["request"]["decoded"], &step["reply"]["decoded"]["json"]);
        if request["type"] != CONNECTION {
            continue;
        }
        let name = step["step"].as_str().unwrap();
        let recorded_nic = request["json"]["peer_nic_path"].as_str().unwrap().split_once('@').unwrap().1;
        let nic = if recorded_nic == "mlx5_0" { "sim0" } else { recorded_nic };
        let message = with(request["json"].clone(), "peer_nic_path", node.path(nic).into());
        let got = node.connect(&message).unwrap();
        for (member, recorded) in reply.as_object().unwrap() {
            let ours = &got[member];
            match member.as_str() {
                "qp_num" => {
                    let lengths = [ours, recorded].map(|list| list.as_array().unwrap().len());
                    assert_eq!(lengths[0], lengths[1], "{name}");
                }
                "local_nic_path" if recorded != "" => assert_eq!(*ours, message["peer_nic_path"], "{name}"),
                "local_gid" | "reply_msg" => {
                    assert_eq!(ours == "", recorded == "", "{name}: {member} is {ours}");
                }
                _ => assert_eq!(ours, recorded, "{name}: {member}"),
            }
        }
        // Nothing that a strict reader would not expect, but for our extra members.
        for member in got.as_object().unwrap().keys() {
            let extra = ["own_incarnation", "path_mtu", "refusal"].contains(&member.as_str());
            assert!(extra || !reply[member].is_null(), "{name}: {member}");
        }
        seen += 1;
    }
    assert_eq!(seen, 3);
    assert_eq!(node.rails()[0]["state"], "up");
    assert_eq!(node.rails()[0]["peer"], PEER);
}

#[test]
fn p39_strangers_get_no_more_connections_than_the_limit() {
    let limit = [("MC_MAX_EP_PER_CTX", "8")];
    if apart("p39_strangers_get_no_more_connections_than_the_limit", &limit) {
        return;
    }
    let node = Arc::new(Node::new("sim0"));
    let traffic = Traffic::start(&node);
    traffic.goes_on();
    let fds = descriptors();
    for stranger in 0..200 {
        let from = format!("10.0.{}.{}:15000@mlx5_0", stranger / 100, stranger % 100);
        let message = with(good(&node), "local_nic_path", from.into());
        let message = with(message, "qp_num", json!((1..=64).collect::<Vec<u32>>()));
        let reply = node.connect(&message).unwrap();
        assert_eq!(reply["reply_msg"], "", "{stranger}");
        assert!(node.connected() <= 8 + 1, "{stranger}: {}", node.connected());
    }
    soon("rails of strangers stay", || node.rails().len() <= 8 + 1);
    soon("descriptors are left behind", || descriptors() <= fds);
    traffic.stop();
}
