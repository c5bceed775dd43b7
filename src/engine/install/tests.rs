//! Installing, and the choice among transports.

use super::*;
use crate::metadata::segment_desc::Device;

fn engine() -> Arc<Engine> {
    Engine::create("P2PHANDSHAKE", "127.0.0.1", false).unwrap()
}

/// No machine has this NIC.
#[cfg(feature = "rdma")]
const NOBODYS: &str = r#"{"cpu:0":[["no-such-nic"],[]]}"#;

#[test]
fn names_are_told_apart() {
    let engine = engine();
    for (name, code) in
        [("efa", Code::NotImplemented), ("nvmeof", Code::NotImplemented), ("warp", Code::InvalidArgument)]
    {
        let error = engine.install_transport(name, None).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.text().contains("tcp"), "{error}");
    }
    assert_eq!(engine.install_transport("tcp", Some("{")).unwrap_err().code(), Code::MalformedJson);
    assert!(engine.transports().is_empty() && engine.local.descriptor().is_none());
    let first = engine.install_transport("tcp", None).unwrap();
    assert_eq!(engine.install_transport("tcp", None).unwrap().as_ptr(), first.as_ptr());
    assert_eq!(engine.transports().all().len(), 1);
    engine.destroy();
}

#[test]
#[cfg(feature = "rdma")]
fn a_failed_installation_leaves_the_engine_as_it_was() {
    let engine = engine();
    engine.install_transport("tcp", Some(r#"{"cpu:0":[[],[]]}"#)).unwrap();
    let before = (engine.local.descriptor().unwrap(), engine.topology());
    let error = engine.install_transport("rdma", Some(NOBODYS)).unwrap_err();
    assert_eq!(error.code(), Code::DeviceNotFound, "{error}");
    assert!(error.text().contains("no-such-nic") && error.text().contains("args[0]"), "{error}");
    assert_eq!((engine.local.descriptor().unwrap(), engine.topology()), before);
    assert_eq!(engine.transports().all().len(), 1);
    engine.destroy();
}

#[test]
#[cfg(not(feature = "rdma"))]
fn a_build_without_rdma_says_so() {
    let engine = engine();
    let error = engine.install_transport("rdma", None).unwrap_err();
    assert_eq!(error.code(), Code::NotImplemented, "{error}");
    engine.destroy();
}

#[test]
fn a_peer_is_offered_by_what_its_descriptor_says() {
    let device = || Device { name: "n".into(), lid: 0, gid: "0".into() };
    let desc = |protocol: &str, port, devices| SegmentDesc {
        protocol: protocol.into(),
        tcp_data_port: port,
        devices,
        ..SegmentDesc::default()
    };
    for (desc, expected) in [
        (desc("tcp", 1, vec![]), &["tcp"][..]),
        (desc("tcp", 0, vec![]), &[]),
        (desc("tcp", 1, vec![device()]), &["tcp"]),
        (desc("rdma", 0, vec![device()]), &["rdma"]),
        (desc("rdma", 0, vec![]), &[]),
        (desc("rdma", 1, vec![device()]), &["rdma", "tcp"]),
        (desc("rdma", 1, vec![]), &["tcp"]),
        (desc("efa", 0, vec![]), &[]),
    ] {
        let offered = PROTOCOLS.iter().filter(|protocol| protocol.is_offered(&desc));
        let names: Vec<_> = offered.map(|protocol| protocol.name()).collect();
        let built = expected.iter().filter(|name| cfg!(feature = "rdma") || **name != "rdma");
        assert_eq!(names, built.copied().collect::<Vec<_>>(), "{} {}", desc.protocol, desc.tcp_data_port);
    }
}

#[test]
fn connections_are_refused_with_a_reason_where_there_is_no_rdma() {
    let engine = engine();
    let ask = || {
        let local = engine.local.clone();
        engine.control.block(async move { Ok(local.transports.accept(ConnectionMessage::default()).await) })
    };
    assert_eq!(ask().unwrap(), None);
    engine.install_transport("tcp", None).unwrap();
    assert_eq!(ask().unwrap().unwrap().reply_msg, "no RDMA transport on this node");
    engine.destroy();
}
