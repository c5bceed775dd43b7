//! Installing.

use super::*;
use crate::error::Code;
use crate::handshake::ConnectionMessage;

fn engine() -> Arc<Engine> {
    Engine::create("P2PHANDSHAKE", "127.0.0.1", false).unwrap()
}

fn names(engine: &Engine) -> Vec<&'static str> {
    engine.transports().all().iter().map(|transport| transport.name()).collect()
}

/// No machine has this NIC.
#[cfg(feature = "rdma")]
const NOBODYS: &str = r#"{"cpu:0":[["no-such-nic"],[]]}"#;

#[test]
fn a_transport_is_installed_once_and_a_refusal_changes_nothing() {
    let engine = engine();
    assert_eq!(engine.install_transport("efa", None).unwrap_err().code(), Code::NotImplemented);
    assert_eq!(engine.install_transport("tcp", Some("{")).unwrap_err().code(), Code::MalformedJson);
    assert!(engine.transports().is_empty() && engine.local.descriptor().unwrap().is_none());
    let first = engine.install_transport("tcp", None).unwrap();
    assert_eq!(engine.install_transport("tcp", None).unwrap().as_ptr(), first.as_ptr());
    assert_eq!(names(&engine), ["tcp", "posix_shm"]);
    engine.destroy();
}

#[test]
#[cfg(feature = "rdma")]
fn a_failed_installation_leaves_the_engine_as_it_was() {
    let engine = engine();
    engine.install_transport("tcp", Some(r#"{"cpu:0":[[],[]]}"#)).unwrap();
    let before = (engine.local.descriptor().unwrap().unwrap(), engine.topology());
    let error = engine.install_transport("rdma", Some(NOBODYS)).unwrap_err();
    assert_eq!(error.code(), Code::DeviceNotFound, "{error}");
    assert!(error.text().contains("no-such-nic") && error.text().contains("args[0]"), "{error}");
    assert_eq!((engine.local.descriptor().unwrap().unwrap(), engine.topology()), before);
    assert_eq!(names(&engine), ["tcp", "posix_shm"]);
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
fn connections_are_refused_with_a_reason_where_there_is_no_rdma() {
    let engine = engine();
    let ask = || {
        let local = engine.local.clone();
        engine.control.block(async move { Ok(local.transports.answer(ConnectionMessage::default()).await) })
    };
    assert_eq!(ask().unwrap(), None);
    engine.install_transport("tcp", None).unwrap();
    assert_eq!(ask().unwrap().unwrap().reply_msg, "no RDMA transport on this node");
    engine.destroy();
}
