//! Descriptors in both directions against recorded ones.

use super::*;
use crate::transport::report::NicReport;

/// The descriptor that upstream published for two NICs.
fn recorded() -> Value {
    let file: Value =
        serde_json::from_str(include_str!("../../../../tests/vectors/rdma-connection.json")).unwrap();
    let replies = file["steps"].as_array().unwrap().iter().map(|step| &step["reply"]["decoded"]);
    replies.filter(|reply| reply["type"] == 1).map(|reply| reply["json"].clone()).next().unwrap()
}

fn small() -> Value {
    json!({"name": "nodeA", "protocol": "rdma",
           "devices": [{"name": "mlx5_0", "lid": 0, "gid": "00:01"}],
           "buffers": [{"name": "cpu:0", "addr": 4096, "length": 4096, "rkey": [305419896u32], "lkey": [7]}],
           "priority_matrix": {"cpu:0": [["mlx5_0"], []]}})
}

fn with(mut value: Value, pointer: &str, member: &str, new: Value) -> Value {
    value.pointer_mut(pointer).unwrap()[member] = new;
    value
}

fn read(value: Value) -> Result<Option<RdmaOffer>> {
    RdmaOffer::read(&SegmentDesc::decode(value)?)
}

fn offer(value: Value) -> RdmaOffer {
    read(value).unwrap().unwrap()
}

/// What would have to be published for a recorded descriptor.
fn publication(value: &Value) -> Publication {
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let keys =
        |value: &Value| value.as_array().unwrap().iter().map(|key| key.as_u64().unwrap() as u32).collect();
    let list = |member: &str| value[member].as_array().unwrap().clone();
    Publication {
        nics: list(DEVICES)
            .iter()
            .map(|d| NicReport { name: text(&d["name"]), gid: text(&d["gid"]), ..NicReport::default() })
            .collect(),
        matrix: Matrix::from_value(&value[MATRIX]).unwrap(),
        buffers: list(BUFFERS)
            .iter()
            .map(|b| PublishedBuffer {
                location: text(&b["name"]),
                addr: b["addr"].as_u64().unwrap(),
                len: b["length"].as_u64().unwrap(),
                rkey: keys(&b["rkey"]),
                lkey: keys(&b["lkey"]),
            })
            .collect(),
    }
}

fn described(is_published: impl Fn(u64) -> bool, server: Option<&str>) -> Value {
    let name = recorded()["name"].as_str().unwrap().to_string();
    let server = server.unwrap_or(&name).to_string();
    let mut ours = SegmentDesc { name, ..SegmentDesc::default() };
    assert!(list(publication(&recorded()), is_published, server, &mut ours));
    ours.protocol = NAME.into();
    ours.encode()
}

#[test]
fn our_descriptor_is_upstreams_without_the_buffers_that_nobody_may_reach() {
    let mut expected = recorded();
    // The second one has no keys.
    expected[BUFFERS].as_array_mut().unwrap().truncate(1);
    // Written where the other transport is not installed.
    for member in ["tcp_data_port", "tcp_proto_version"] {
        expected.as_object_mut().unwrap().remove(member).unwrap();
    }
    let mut found = described(|_| true, None);
    found["timestamp"] = expected["timestamp"].clone();
    assert_eq!(found, expected);
    let hidden = described(|_| false, Some("10.0.0.1:7"));
    assert_eq!((&hidden[BUFFERS], &hidden[SERVER]), (&json!([]), &json!("10.0.0.1:7")));
}

#[test]
fn with_every_nic_dead_another_transport_lists_the_buffers() {
    let mut ours = SegmentDesc { name: "n".into(), ..SegmentDesc::default() };
    assert!(!list(Publication::default(), |_| true, "n".into(), &mut ours));
    assert_eq!(ours, SegmentDesc { name: "n".into(), ..SegmentDesc::default() });
}

#[test]
fn a_peer_is_what_its_descriptor_says() {
    let peer = offer(recorded());
    assert_eq!((peer.desc.server.as_str(), &peer.server), (recorded()["name"].as_str().unwrap(), &None));
    assert_eq!(peer.desc.nics[1].name, "mlx5_1");
    assert_eq!(peer.desc.buffers.len(), 1, "the other one has no keys");
    assert_eq!(peer.desc.buffers[0].rkey, [2088961, 2088705]);
    assert_eq!(peer.desc.matrix.rows().len(), 2);
    let other = with(with(recorded(), "", SERVER, json!("s:1")), "", MATRIX, json!({"cpu:0": 1}));
    let peer = offer(other);
    assert_eq!((peer.desc.server.as_str(), &peer.desc.matrix), ("s:1", &Matrix::default()));
    let without = with(with(small(), "", DEVICES, json!([])), "", BUFFERS, json!([]));
    assert!(!offer(without).leads() && offer(small()).leads());
    assert!(read(with(small(), "", "protocol", json!("tcp"))).unwrap().is_none());
}

#[test]
fn a_request_may_cross_adjoining_buffers_and_keyless_ones_are_no_targets() {
    let entry = |addr: u64, key: Value| json!({"name": "c", "addr": addr, "length": 4096, "rkey": key.clone(), "lkey": key});
    let list = json!([
        entry(4096, json!([1])),
        entry(8192, json!([1])),
        entry(12288, json!([])),
        entry(16384, json!([1]))
    ]);
    let offer = offer(with(small(), "", BUFFERS, list));
    assert!(offer.ranges().covers(4096, 8192) && offer.ranges().covers(16384, 4096));
    assert!(!offer.ranges().covers(12288, 1) && !offer.ranges().covers(8192, 8192));
}

#[test]
fn sameness_is_of_what_the_data_path_uses() {
    assert!(offer(small()).same_as(&offer(small())));
    for (pointer, member, value) in [
        ("/devices/0", "gid", json!("00:02")),
        ("/buffers/0", "rkey", json!([1])),
        ("", MATRIX, json!({"cpu:1": [["mlx5_0"], []]})),
        ("", SERVER, json!("s")),
        ("", "incarnation", json!("x")),
    ] {
        assert!(!offer(small()).same_as(&offer(with(small(), pointer, member, value))), "{member}");
    }
}

#[test]
fn what_the_acceptance_table_drops_is_refused_and_named() {
    let keyed = |member: &str, value: Value| with(small(), "/buffers/0", member, value);
    let device = |member: &str, value: Value| with(small(), "/devices/0", member, value);
    for (value, named) in [
        (keyed("rkey", json!([1, 2])), "rkey"),
        (keyed("lkey", json!([])), "lkey"),
        (keyed("rkey", json!([1u64 << 32])), "rkey"),
        (keyed("lkey", json!(["1"])), "lkey"),
        (keyed("addr", json!(0)), "buffers[0]"),
        (device("name", json!("")), "name"),
        (device("gid", json!(null)), "gid"),
        (device("lid", json!(65536)), "lid"),
        (device("lid", json!("0")), "lid"),
        (with(small(), "", SERVER, json!(1)), SERVER),
    ] {
        let error = read(value.clone()).err().expect(named);
        assert_eq!(error.code(), Code::MalformedJson, "{value}");
        assert!(error.text().contains(named), "{error}");
    }
}
