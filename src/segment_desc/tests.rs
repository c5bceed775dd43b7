use serde_json::json;

use super::*;
use crate::json;

fn desc() -> Value {
    json!({"name": "10.0.0.1:15428", "protocol": "tcp", "tcp_data_port": 16001, "tcp_proto_version": 2,
           "timestamp": "2026-01-31 10:20:30.123456",
           "buffers": [{"name": "10.0.0.1:15428", "addr": 140000000000000u64, "length": 4096}]})
}

fn with(mut value: Value, member: &str, new: Value) -> Value {
    value[member] = new;
    value
}

/// The value without its time stamp, which differs at each encoding.
fn unstamped(mut value: Value) -> Value {
    value.as_object_mut().unwrap().remove(TIMESTAMP).unwrap();
    value
}

#[test]
fn recorded_descriptors_round_trip() {
    let mut seen = 0;
    for file in [
        include_str!("../../tests/vectors/p2p-tcp-exchange.json"),
        include_str!("../../tests/vectors/rdma-connection.json"),
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
                let desc = SegmentDesc::decode(recorded.clone()).unwrap();
                assert_eq!(unstamped(desc.encode()), unstamped(recorded));
            }
        }
    }
    assert!(seen >= 4, "{seen}");
}

#[test]
fn members_that_nobody_knows_survive_and_are_compared() {
    let unknown = with(desc(), "x", json!({"y": [1, u64::MAX]}));
    let read = SegmentDesc::decode(unknown.clone()).unwrap();
    assert_ne!(read, SegmentDesc::decode(desc()).unwrap());
    let text = json::write(&read.clone().encode());
    assert_eq!(SegmentDesc::decode(json::parse(text.as_bytes()).unwrap()).unwrap(), read);
    assert_eq!(unstamped(read.encode()), unstamped(unknown));
}

#[test]
fn the_time_stamp_is_made_anew_and_not_compared() {
    let other = with(desc(), TIMESTAMP, json!("another day"));
    let (one, two) = (SegmentDesc::decode(desc()).unwrap(), SegmentDesc::decode(other).unwrap());
    assert_eq!(one, two);
    assert_ne!(one.encode()[TIMESTAMP], desc()[TIMESTAMP]);
}

#[test]
fn the_incarnation_appears_only_when_set() {
    let plain = SegmentDesc::decode(desc()).unwrap();
    assert_eq!(plain.incarnation, None);
    let id = SegmentDesc { incarnation: Some("abc".into()), ..plain };
    assert_eq!(id.clone().encode()["incarnation"], "abc");
    assert_eq!(SegmentDesc::decode(id.clone().encode()).unwrap(), id);
    assert_eq!(SegmentDesc::decode(with(desc(), "incarnation", json!(""))).unwrap().incarnation, None);
}

#[test]
fn what_is_no_descriptor_is_refused_and_named() {
    for (value, named) in [
        (json!(null), "descriptor"),
        (json!([]), "descriptor"),
        (json!("x"), "descriptor"),
        (json!({"name": "n"}), "protocol"),
        (with(desc(), "protocol", json!(["tcp", "rdma"])), "protocol"),
        (with(desc(), "name", json!({})), "name"),
        (with(desc(), "incarnation", json!(1)), "incarnation"),
    ] {
        let error = SegmentDesc::decode(value.clone()).expect_err(named);
        assert_eq!(error.code(), Code::MalformedJson, "{value}");
        assert!(error.text().contains(named), "{error}");
    }
}

#[test]
fn the_element_that_is_refused_is_named_and_lists_are_bounded() {
    let read = |value: Value| {
        let desc = SegmentDesc::decode(with(desc(), BUFFERS, value)).unwrap();
        desc.list(BUFFERS, |members| members.filled_text("name").map(String::from))
    };
    assert_eq!(read(json!([{"name": "a"}, {"name": "b"}])).unwrap(), ["a", "b"]);
    assert!(read(json!(null)).unwrap().is_empty());
    for (value, named) in
        [(json!({}), "buffers"), (json!([{"name": "a"}, 1]), "buffers[1]"), (json!([{"name": ""}]), "name")]
    {
        let error = read(value.clone()).expect_err(named);
        assert_eq!(error.code(), Code::MalformedJson, "{value}");
        assert!(error.text().contains(named), "{error}");
    }
    let many = Value::Array(vec![json!({"name": "a"}); MAX_ELEMENTS + 1]);
    assert_eq!(read(many).unwrap_err().code(), Code::MalformedJson);
}
