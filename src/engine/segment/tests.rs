//! Coverage, versions and the choice of a way.

use super::*;
use crate::memory::Region;
use crate::metadata::segment_desc::Buffer;
use crate::transport::slice::Slice;

fn buffer(addr: u64, length: u64, keys: usize) -> Buffer {
    Buffer { name: "cpu:0".into(), addr, length, rkey: vec![1; keys], lkey: vec![1; keys] }
}

fn known(protocol: &str, buffers: Vec<Buffer>) -> Known {
    let desc = SegmentDesc { protocol: protocol.into(), buffers, ..SegmentDesc::default() };
    Known::new(desc, String::new()).unwrap()
}

#[test]
fn a_request_may_cross_adjoining_buffers_with_rdma_only() {
    let buffers = |keys| vec![buffer(2000, 100, keys), buffer(1000, 1000, keys), buffer(5000, 10, keys)];
    let (rdma, tcp) = (known("rdma", buffers(1)), known("tcp", buffers(0)));
    for (addr, len, with_rdma, with_tcp) in [
        (1000, 1000, true, true),
        (1990, 20, true, false),
        (1000, 1100, true, false),
        (1000, 1101, false, false),
        (999, 2, false, false),
        (2050, 50, true, true),
        (2050, 51, false, false),
        (5000, 10, true, true),
        (5009, u64::MAX, false, false),
    ] {
        assert_eq!(rdma.covers(addr, len), with_rdma, "rdma {addr}+{len}");
        assert_eq!(tcp.covers(addr, len), with_tcp, "tcp {addr}+{len}");
    }
}

#[test]
fn buffers_without_keys_are_no_targets() {
    let known = known("rdma", vec![buffer(1000, 100, 1), buffer(1100, 100, 0), buffer(1200, 100, 1)]);
    assert!(known.covers(1000, 100) && known.covers(1200, 100));
    assert!(!known.covers(1100, 1) && !known.covers(1050, 200));
}

#[test]
fn buffers_at_the_end_of_the_address_space_are_joined_without_overflow() {
    let known = known("rdma", vec![buffer(u64::MAX - 20, 10, 1), buffer(u64::MAX - 10, 10, 1)]);
    assert!(known.covers(u64::MAX - 20, 20) && !known.covers(u64::MAX - 20, 21));
}

struct NoStore;

#[rustfmt::skip]
impl Store for NoStore {
    fn name(&self) -> &'static str { "none" }
    fn is_peer_to_peer(&self) -> bool { true }
    fn get(&self, _: &str) -> crate::metadata::BoxFuture<'_, Result<SegmentDesc>> { unreachable!() }
    fn put(&self, _: &SegmentDesc) -> crate::metadata::BoxFuture<'_, Result<()>> { unreachable!() }
    fn remove(&self, _: &str) -> crate::metadata::BoxFuture<'_, Result<()>> { unreachable!() }
    fn rpc_address(&self, _: &str) -> crate::metadata::BoxFuture<'_, Result<HostPort>> { unreachable!() }
    fn put_rpc_address(&self, _: &str, _: &HostPort) -> crate::metadata::BoxFuture<'_, Result<()>> { unreachable!() }
    fn remove_rpc_address(&self, _: &str) -> crate::metadata::BoxFuture<'_, Result<()>> { unreachable!() }
}

/// An open segment whose descriptor nobody can read again.
pub fn open_with(desc: SegmentDesc) -> (Table, Arc<Segment>) {
    let table = Table::default();
    let store: Arc<dyn Store> = Arc::new(NoStore);
    let id = table.insert("peer", &store, Known::new(desc, String::new()).unwrap()).unwrap();
    let segment = table.by_id(id).unwrap();
    (table, segment)
}

/// As if the descriptor had been read again.
pub fn read_again(segment: &Segment, desc: SegmentDesc) {
    segment.replace(Known::new(desc, String::new()).unwrap());
}

#[test]
fn the_version_changes_with_what_the_descriptor_says() {
    let desc = SegmentDesc { name: "n".into(), tcp_data_port: 1, ..SegmentDesc::default() };
    let (_table, segment) = open_with(desc.clone());
    let first = segment.known().version;
    read_again(&segment, SegmentDesc { tcp_proto_version: 2, ..desc.clone() });
    assert_eq!((segment.known().version, segment.known().desc.tcp_proto_version), (first, 2));
    read_again(&segment, SegmentDesc { tcp_data_port: 2, ..desc.clone() });
    assert_ne!(segment.known().version, first);
    read_again(&segment, desc);
    assert_ne!(segment.known().version, first, "the same again is a new version");
}

struct Fake(Option<Code>);

impl Link for Fake {
    fn ready(&self) -> Result<()> {
        self.0.map_or(Ok(()), |code| Err(Error::new(code, "out of order")))
    }

    fn cut(&self, _: Option<&Region>, _: u64, _: u64, _: u64, left: u64) -> u64 {
        left
    }

    fn submit(&self, _: Vec<Slice>, _: u64) {}

    fn poll(&self) -> bool {
        false
    }

    fn rely_on_threads(&self) {}

    fn close(&self, _: &Error) {}
}

#[test]
fn the_first_way_that_works_is_taken() {
    let pick = |works: &[bool]| {
        let links: Vec<Arc<dyn Link>> = works
            .iter()
            .map(|works| Arc::new(Fake((!works).then_some(Code::DeviceNotFound))) as Arc<dyn Link>)
            .collect();
        let ways = links.iter().map(|link| Way { protocol: PROTOCOLS[0], link: link.clone() });
        let place = |way: &Way| links.iter().position(|link| Arc::ptr_eq(link, &way.link)).unwrap();
        match super::pick(ways) {
            Pick::Best(way) => Some((place(&way), None)),
            Pick::InsteadOf(better, way) => Some((place(&way), Some(place(&better)))),
            Pick::None => None,
        }
    };
    assert_eq!(pick(&[true, true]), Some((0, None)));
    assert_eq!(pick(&[false, true]), Some((1, Some(0))));
    assert_eq!(pick(&[false, false, true]), Some((2, Some(0))));
    assert_eq!(pick(&[false, false]), Some((0, None)), "its error tells why");
    assert_eq!(pick(&[]), None);
}

#[test]
fn where_nothing_leads_the_code_says_what_is_missing() {
    for (protocol, port, code) in [
        ("rdma", 0, Code::DeviceNotFound),
        ("rdma", 1, Code::DeviceNotFound),
        ("tcp", 0, Code::InvalidArgument),
        ("tcp", 1, Code::InvalidArgument),
        ("efa", 0, Code::InvalidArgument),
    ] {
        let desc = SegmentDesc { protocol: protocol.into(), tcp_data_port: port, ..SegmentDesc::default() };
        assert_eq!(unreachable_by(&desc).code(), code, "{protocol} {port}");
    }
}
