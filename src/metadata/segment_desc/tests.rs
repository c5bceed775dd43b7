use serde_json::json;

use super::*;
use crate::json;

fn tcp() -> Value {
    json!({"name": "10.0.0.1:15428", "protocol": "tcp", "tcp_data_port": 16001, "tcp_proto_version": 2,
           "timestamp": "2026-01-31 10:20:30.123456",
           "buffers": [{"name": "10.0.0.1:15428", "addr": 140000000000000u64, "length": 4096}]})
}

fn rdma() -> Value {
    json!({"name": "nodeA", "protocol": "rdma", "tcp_data_port": 0, "tcp_proto_version": 1, "timestamp": "",
           "devices": [{"name": "mlx5_0", "lid": 0, "gid": "00:01"}],
           "buffers": [{"name": "cpu:0", "addr": 4096, "length": 4096, "rkey": [305419896u32], "lkey": [7]}],
           "priority_matrix": {"cpu:0": [["mlx5_0"], []]}})
}

fn with(mut value: Value, pointer: &str, member: &str, new: Value) -> Value {
    value.pointer_mut(pointer).unwrap()[member] = new;
    value
}

/// The value without its time stamp, which differs at each encoding.
fn unstamped(mut value: Value) -> Value {
    value.as_object_mut().unwrap().remove("timestamp").unwrap();
    value
}

#[test]
fn recorded_descriptors_round_trip() {
    let mut seen = 0;
    for file in [
        include_str!("../../../tests/vectors/p2p-tcp-exchange.json"),
        include_str!("../../../tests/vectors/rdma-connection.json"),
    ] {
        let file = json::parse(file.as_bytes()).unwrap();
        let steps = file["steps"]
            .as_array()
            .unwrap()
            .iter()
            .chain(file["open_segment"].as_array().into_iter().flatten());
        for frame in steps.flat_map(|s| [&s["request"], &s["reply"]]).map(|f| &f["decoded"]) {
            if frame["type"] == 1 {
                seen += 1;
                let recorded = frame["json"].clone();
                let desc = SegmentDesc::decode(&recorded).unwrap();
                assert_eq!(unstamped(desc.encode()), unstamped(recorded));
            }
        }
    }
    assert!(seen >= 4, "{seen}");
}

#[test]
fn optional_members_survive_and_appear_only_when_set() {
    let desc = SegmentDesc {
        tcp_data_host: Some("h".into()),
        rdma_server_name: Some("other".into()),
        incarnation: Some("abc".into()),
        incarnation_addr: u64::MAX,
        ..SegmentDesc::decode(&rdma()).unwrap()
    };
    let text = json::write(&desc.encode());
    assert_eq!(SegmentDesc::decode(&json::parse(text.as_bytes()).unwrap()).unwrap(), desc);
    let same_server = SegmentDesc { rdma_server_name: Some(desc.name.clone()), ..desc };
    assert!(same_server.encode().get("rdma_server_name").is_none());
    let plain = unstamped(SegmentDesc::decode(&tcp()).unwrap().encode());
    assert_eq!(plain, unstamped(tcp()));
    let empty = with(with(tcp(), "", "rdma_server_name", json!("")), "", "tcp_data_host", json!(""));
    assert_eq!(SegmentDesc::decode(&empty).unwrap(), SegmentDesc::decode(&tcp()).unwrap());
}

#[test]
fn defaults_and_unknown_members() {
    let desc = SegmentDesc::decode(&json!({"name": "n", "protocol": "tcp", "x": {"y": [1]}})).unwrap();
    assert_eq!(desc, SegmentDesc { name: "n".into(), ..SegmentDesc::default() });
    assert_eq!((desc.tcp_proto_version, desc.tcp_data_port), (1, 0));
    let bad_matrix = with(rdma(), "", "priority_matrix", json!([1]));
    assert!(SegmentDesc::decode(&bad_matrix).unwrap().priority_matrix.is_null());
    let no_rkey = with(rdma(), "/buffers/0", "rkey", json!([]));
    assert!(SegmentDesc::decode(&no_rkey).unwrap().buffers[0].rkey.is_empty());
    for protocol in ["efa", "cxi", "barex", "nvlink", "nvmeof", "ascend", "cxl"] {
        let foreign = json!({"name": "n", "protocol": protocol, "buffers": [{"odd": 1}], "devices": 3});
        assert!(SegmentDesc::decode(&foreign).unwrap().buffers.is_empty(), "{protocol}");
    }
}

#[test]
fn what_the_acceptance_table_drops_is_refused_and_named() {
    let whole = |member: &str, value: Value| with(tcp(), "", member, value);
    let buffer = |member: &str, value: Value| with(tcp(), "/buffers/0", member, value);
    let keyed = |member: &str, value: Value| with(rdma(), "/buffers/0", member, value);
    let device = |member: &str, value: Value| with(rdma(), "/devices/0", member, value);
    for (value, named) in [
        (json!(null), "descriptor"),
        (json!([]), "descriptor"),
        (json!("x"), "descriptor"),
        (json!({"name": "n"}), "protocol"),
        (whole("protocol", json!("warp")), "warp"),
        (whole("protocol", json!(["tcp", "rdma"])), "protocol"),
        (whole("name", json!({})), "name"),
        (whole("tcp_data_port", json!(65536)), "tcp_data_port"),
        (whole("tcp_data_port", json!(-1)), "tcp_data_port"),
        (whole("tcp_data_port", json!("1")), "tcp_data_port"),
        (whole("tcp_proto_version", json!(1u64 << 32)), "tcp_proto_version"),
        (whole("tcp_data_host", json!(1)), "tcp_data_host"),
        (whole("incarnation_addr", json!("1")), "incarnation_addr"),
        (whole("buffers", json!({})), "buffers"),
        (whole("buffers", json!([1])), "buffers[0]"),
        (buffer("name", json!("")), "name"),
        (buffer("name", json!(1)), "name"),
        (buffer("addr", json!(0)), "addr"),
        (buffer("addr", json!(-1)), "addr"),
        (buffer("addr", json!(1.5)), "addr"),
        (buffer("length", json!(null)), "length"),
        (buffer("length", json!(u64::MAX)), "2^64"),
        (keyed("rkey", json!([1, 2])), "rkey"),
        (keyed("lkey", json!([])), "lkey"),
        (keyed("rkey", json!([1u64 << 32])), "rkey"),
        (keyed("lkey", json!(["1"])), "lkey"),
        (device("name", json!("")), "name"),
        (device("gid", json!(null)), "gid"),
        (device("lid", json!(65536)), "lid"),
        (device("lid", json!("0")), "lid"),
    ] {
        let error = SegmentDesc::decode(&value).expect_err(named);
        assert_eq!(error.code(), Code::MalformedJson, "{value}");
        assert!(error.text().contains(named), "{error}");
    }
}

#[test]
fn too_many_buffers_are_refused() {
    let one = tcp()["buffers"][0].clone();
    let many = with(tcp(), "", "buffers", Value::Array(vec![one; MAX_BUFFERS + 1]));
    assert_eq!(SegmentDesc::decode(&many).unwrap_err().code(), Code::MalformedJson);
}

#[test]
fn sameness_ignores_time_and_protocol_version() {
    let desc = SegmentDesc::decode(&tcp()).unwrap();
    let mut other = SegmentDesc { tcp_proto_version: 9, ..desc.clone() };
    assert!(desc.same_as(&other));
    other.buffers[0].length += 1;
    assert!(!desc.same_as(&other));
}
