use serde_json::{json, Value};

use super::*;
use crate::segment_desc::BUFFERS;
use crate::transport::offer::list_plain;

fn recorded() -> Value {
    json!({"name": "10.0.0.1:15428", "protocol": "tcp", "tcp_data_port": 16001, "tcp_proto_version": 2,
           "timestamp": "2026-01-31 10:20:30.123456",
           "buffers": [{"name": "10.0.0.1:15428", "addr": 140000000000000u64, "length": 4096}]})
}

fn with(mut value: Value, pointer: &str, member: &str, new: Value) -> Value {
    value.pointer_mut(pointer).unwrap()[member] = new;
    value
}

fn read(value: Value) -> Result<Option<TcpOffer>> {
    TcpOffer::read(&SegmentDesc::decode(value)?)
}

#[test]
fn what_is_described_is_read_back() {
    let mut desc =
        SegmentDesc { name: "a:1".into(), incarnation: Some("00".repeat(16)), ..SegmentDesc::default() };
    let addresses = ["10.1.0.1", "fd00::1"].map(|text| text.parse().unwrap());
    describe(&Ours { host: "h", port: 7, cell: u64::MAX, addresses: &addresses }, &mut desc);
    list_plain(&[], &mut desc).unwrap();
    desc.protocol = NAME.into();
    let json = desc.clone().encode();
    assert_eq!(
        (&json["protocol"], &json[PROTO_VERSION], &json[BUFFERS]),
        (&json!("tcp"), &json!(2), &json!([]))
    );
    assert_eq!(json[ADDRESSES], json!(["10.1.0.1", "fd00::1"]));
    let offer = TcpOffer::read(&desc).unwrap().unwrap();
    assert!(offer.leads());
    assert_eq!(offer.addresses, addresses);
    assert_eq!((offer.host.as_deref(), offer.port, offer.proto_version), (Some("h"), 7, 2));
    assert_eq!(offer.proof(), Some(([0; 16], u64::MAX)));
    assert_eq!(offer.incarnation(), incarnation::key(&[0; 16]));
}

#[test]
fn without_nics_of_its_own_it_describes_none() {
    let mut desc = SegmentDesc::default();
    describe(&Ours { host: "h", port: 7, cell: 1, addresses: &[] }, &mut desc);
    assert!(!desc.members.contains_key(ADDRESSES));
}

#[test]
fn addresses_are_compared_and_few_and_a_text_that_is_none_is_left_out() {
    let with_list = |list: Value| read(with(recorded(), "", ADDRESSES, list)).unwrap().unwrap();
    let some = with_list(json!(["10.1.0.1", "eth0", "10.2.0.1"]));
    assert_eq!(some.addresses, ["10.1.0.1", "10.2.0.1"].map(|text| text.parse::<IpAddr>().unwrap()));
    assert!(some.same_as(&with_list(json!(["10.1.0.1", "10.2.0.1"]))));
    assert!(!some.same_as(&read(recorded()).unwrap().unwrap()));
    let many: Vec<String> = (0..200).map(|i| format!("10.0.0.{i}")).collect();
    assert_eq!(with_list(json!(many)).addresses.len(), nics::MOST);
}

#[test]
fn where_it_is_not_installed_the_members_are_upstreams_defaults() {
    let mut desc = SegmentDesc::default();
    describe_absence(&mut desc);
    assert_eq!((&desc.members[PORT], &desc.members[PROTO_VERSION]), (&json!(0), &json!(1)));
}

#[test]
fn missing_members_have_defaults() {
    let offer = read(json!({"name": "n", "protocol": "tcp", "x": {"y": [1]}})).unwrap().unwrap();
    assert_eq!((offer.proto_version, offer.port, offer.leads()), (1, 0, false));
    assert!(read(with(recorded(), "", HOST, json!(""))).unwrap().unwrap().host.is_none());
    let unproven = with(recorded(), "", "incarnation", json!("00".repeat(16)));
    assert_eq!(read(unproven).unwrap().unwrap().incarnation(), 0, "there is no cell to read");
}

#[test]
fn in_its_own_form_a_request_lies_in_one_buffer_and_in_anothers_it_may_cross() {
    let buffers = json!([{"name": "n", "addr": 4096, "length": 4096, "rkey": [1]},
                         {"name": "n", "addr": 8192, "length": 4096, "rkey": [1]},
                         {"name": "n", "addr": 12288, "length": 4096, "rkey": []}]);
    let own = read(with(recorded(), "", BUFFERS, buffers.clone())).unwrap().unwrap();
    assert!(own.ranges().covers(4096, 4096) && !own.ranges().covers(4096, 8192));
    let other = with(with(recorded(), "", BUFFERS, buffers), "", "protocol", json!("rdma"));
    let other = read(other).unwrap().unwrap();
    assert!(other.ranges().covers(4096, 8192));
    assert!(!other.ranges().covers(12288, 1), "without a key it is not for peers");
    let without_port = with(with(recorded(), "", "protocol", json!("rdma")), "", PORT, json!(0));
    assert!(read(without_port).unwrap().is_none());
}

#[test]
fn what_the_acceptance_table_drops_is_refused_and_named() {
    let whole = |member: &str, value: Value| with(recorded(), "", member, value);
    let buffer = |member: &str, value: Value| with(recorded(), "/buffers/0", member, value);
    for (value, named) in [
        (whole(PORT, json!(65536)), PORT),
        (whole(PORT, json!(-1)), PORT),
        (whole(PORT, json!("1")), PORT),
        (whole(PROTO_VERSION, json!(1u64 << 32)), PROTO_VERSION),
        (whole(HOST, json!(1)), HOST),
        (whole(CELL, json!("1")), CELL),
        (whole(ADDRESSES, json!("10.1.0.1")), ADDRESSES),
        (whole(ADDRESSES, json!([1])), ADDRESSES),
        (whole(BUFFERS, json!({})), BUFFERS),
        (whole(BUFFERS, json!([1])), "buffers[0]"),
        (buffer("name", json!("")), "name"),
        (buffer("name", json!(1)), "name"),
        (buffer("addr", json!(0)), "addr"),
        (buffer("addr", json!(-1)), "addr"),
        (buffer("addr", json!(1.5)), "addr"),
        (buffer("length", json!(null)), "length"),
        (buffer("length", json!(u64::MAX)), "2^64"),
    ] {
        let error = read(value.clone()).err().expect(named);
        assert_eq!(error.code(), crate::error::Code::MalformedJson, "{value}");
        assert!(error.text().contains(named), "{error}");
    }
}
