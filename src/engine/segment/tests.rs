//! Versions; and segments for other tests.

use serde_json::{json, Value};

use super::table::Segments;
use super::*;
use crate::segment_desc::SegmentDesc;

pub(crate) struct NoStore;

#[rustfmt::skip]
impl Store for NoStore {
    fn is_peer_to_peer(&self) -> bool { true }
    fn get(&self, _: &str) -> crate::runtime::BoxFuture<'_, Result<SegmentDesc>> { unreachable!() }
    fn place(&self, _: &str) -> String { unreachable!() }
    fn put(&self, _: SegmentDesc) -> crate::runtime::BoxFuture<'_, Result<()>> { unreachable!() }
    fn remove(&self, _: &str) -> crate::runtime::BoxFuture<'_, Result<()>> { unreachable!() }
    fn rpc_address(&self, _: &str) -> crate::runtime::BoxFuture<'_, Result<HostPort>> { unreachable!() }
    fn put_rpc_address(&self, _: &str, _: &HostPort) -> crate::runtime::BoxFuture<'_, Result<()>> { unreachable!() }
    fn remove_rpc_address(&self, _: &str) -> crate::runtime::BoxFuture<'_, Result<()>> { unreachable!() }
}

/// An open segment whose descriptor nobody can read again.
pub(crate) fn open_with(desc: Value) -> (Segments, Arc<Segment>) {
    let table = Segments::default();
    let store: Arc<dyn Store> = Arc::new(NoStore);
    let segment = table.insert("peer", &store, known(desc)).unwrap();
    (table, segment)
}

/// As if the descriptor had been read again.
pub(crate) fn read_again(segment: &Segment, desc: Value) {
    segment.replace(known(desc), segment.begin_reading());
}

pub(crate) fn known(desc: Value) -> Known {
    Known::new(SegmentDesc::decode(desc).unwrap(), 0).unwrap()
}

#[test]
fn the_version_changes_with_what_the_descriptor_says() {
    let desc = |port: u16, version: u32| json!({"name": "n", "protocol": "tcp", "tcp_data_port": port, "tcp_proto_version": version});
    let (_table, segment) = open_with(desc(1, 1));
    let first = segment.known();
    read_again(&segment, desc(1, 2));
    assert_eq!(segment.known().version, first.version);
    assert!(!Arc::ptr_eq(&segment.known(), &first), "it is the new one all the same");
    read_again(&segment, desc(2, 2));
    let second = segment.known().version;
    assert_ne!(second, first.version);
    read_again(&segment, desc(1, 1));
    assert!(segment.known().version > second, "the same as before is a new version");
}

/// Two read at once, and the answer of the first one, from a process that is gone since, comes last.
#[test]
fn p07_an_answer_that_was_asked_for_earlier_does_not_replace_a_later_one() {
    let desc =
        |port: u16| json!({"name": "n", "protocol": "tcp", "tcp_data_port": port, "tcp_proto_version": 1});
    let (_table, segment) = open_with(desc(1));
    let [early, late] = [segment.begin_reading(), segment.begin_reading()];
    segment.replace(known(desc(3)), late);
    let newest = segment.known();
    segment.replace(known(desc(2)), early);
    assert!(Arc::ptr_eq(&segment.known(), &newest));
    read_again(&segment, desc(4));
    assert!(!Arc::ptr_eq(&segment.known(), &newest));
}
