//! Which transports a descriptor offers, when two say the same, and what is said where nothing leads.

use serde_json::{json, Value};

use super::*;

fn desc(protocol: &str, port: u16, devices: usize) -> Value {
    json!({"name": "n", "protocol": protocol, "tcp_data_port": port,
           "devices": vec![json!({"name": "mlx5_0", "gid": "00:01"}); devices]})
}

fn known(value: Value) -> Known {
    Known::new(SegmentDesc::decode(value).unwrap(), 0).unwrap()
}

#[test]
fn a_peer_is_offered_by_what_its_descriptor_says() {
    for (protocol, port, devices, expected) in [
        ("tcp", 1, 0, &["tcp"][..]),
        ("tcp", 0, 0, &[]),
        ("tcp", 1, 1, &["tcp"]),
        ("rdma", 0, 1, &["rdma"]),
        ("rdma", 0, 0, &[]),
        ("rdma", 1, 1, &["rdma", "tcp"]),
        ("rdma", 1, 0, &["tcp"]),
        ("efa", 0, 0, &[]),
        ("efa", 1, 0, &["tcp"]),
    ] {
        let known = known(desc(protocol, port, devices));
        let names: Vec<_> = known.leading().map(|row| PROTOCOLS[row].name()).collect();
        let built = expected.iter().filter(|name| cfg!(feature = "rdma") || **name != "rdma");
        assert_eq!(names, built.copied().collect::<Vec<_>>(), "{protocol} {port} {devices}");
    }
}

#[test]
fn where_nothing_leads_the_code_says_what_is_missing() {
    for (protocol, port, devices, code, word) in [
        ("rdma", 0, 1, Code::DeviceNotFound, "rdma"),
        ("rdma", 0, 0, Code::DeviceNotFound, "rdma"),
        ("tcp", 0, 0, Code::InvalidArgument, "no TCP data port"),
        ("tcp", 1, 0, Code::InvalidArgument, "installTransport(\"tcp\")"),
        ("efa", 0, 0, Code::InvalidArgument, "efa"),
        ("shm", 0, 0, Code::InvalidArgument, "MC_FORCE_SHM"),
    ] {
        let error = known(desc(protocol, port, devices)).unreachable();
        assert_eq!(error.code(), code, "{protocol} {port} {devices}");
        assert!(error.text().contains(word) && error.text().contains("'n'"), "{error}");
    }
}

#[test]
fn protocols_that_do_not_exist_and_parts_that_are_malformed_are_refused_and_named() {
    let with = |member: &str, value: Value| {
        let mut desc = desc("tcp", 1, 0);
        desc[member] = value;
        desc
    };
    for (value, named) in [
        (with("protocol", json!("warp")), "warp"),
        (with("tcp_data_port", json!(65536)), "tcp_data_port"),
        (with("buffers", json!([{"name": "n", "addr": 0, "length": 1}])), "buffers[0]"),
    ] {
        let error = Known::new(SegmentDesc::decode(value).unwrap(), 0).err().expect(named);
        assert_eq!(error.code(), Code::MalformedJson);
        assert!(error.text().contains(named), "{error}");
    }
}

#[test]
fn sameness_is_what_each_transport_says_and_of_members_that_nobody_knows() {
    let buffers = |length| json!([{"name": "n", "addr": 4096, "length": length}]);
    let with = |member: &str, value: Value| {
        let mut desc = desc("tcp", 1, 0);
        desc["buffers"] = buffers(1);
        desc[member] = value;
        known(desc)
    };
    let before = with("buffers", buffers(1));
    for (member, value, same) in [
        ("timestamp", json!("later"), true),
        ("tcp_proto_version", json!(2), true),
        ("tcp_data_port", json!(2), false),
        ("tcp_data_host", json!("h"), false),
        ("incarnation", json!("00112233445566778899aabbccddeeff"), false),
        ("buffers", buffers(2), false),
        ("name", json!("other"), false),
        ("of_the_future", json!(1), false),
    ] {
        assert_eq!(before.same_as(&with(member, value)), same, "{member}");
    }
    let two = (with("of_the_future", json!(1)), with("of_the_future", json!(1)));
    assert!(two.0.same_as(&two.1));
}

#[test]
fn the_buffers_are_shown_whatever_the_form() {
    let mut value = desc("rdma", 1, 1);
    value["buffers"] = json!([
        {"name": "cpu:0", "addr": 4096, "length": 10, "rkey": [1], "lkey": [1]},
        {"name": "cpu:1", "addr": 8192, "length": 10, "rkey": [], "lkey": []}]);
    let known_now = known(value);
    let shown: Vec<_> = known_now.buffers().unwrap().collect();
    assert_eq!(shown, [(4096, 10, "cpu:0")], "the other one is not for peers");
    assert!(known(desc("nvlink", 0, 0)).buffers().is_none());
}
