//! A host with little memory: what a peer's text or a caller's text would unfold into is refused, and the host lives.

#![allow(unsafe_code)]

mod common;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpListener;

use common::in_child;
use transfer_engine::engine::Engine;
use transfer_engine::error::{Code, Error};
use transfer_engine::handshake::{wire, Notification};
use transfer_engine::json;
use transfer_engine::segment_desc::SegmentDesc;
use transfer_engine::topology::Matrix;

const MIB: usize = 1 << 20;
/// A text of 10 MiB, which unfolds into 200.
const BUFFERS: usize = 250_000;
/// Much more than any of this needs.
const PLENTY: usize = 4096 * MIB;

/// Gives this process `room` bytes of address space beside what it has, while `act` runs.
fn with_room<T>(room: usize, act: impl FnOnce() -> T) -> T {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let taken = text.split(' ').next().unwrap().parse::<usize>().unwrap() * 4096;
    let set = |most: u64| {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: a valid argument.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
    };
    set((taken + room) as u64);
    let done = act();
    set(libc::RLIM_INFINITY);
    done
}

/// A descriptor of `count` buffers as a peer may send it.
fn descriptor(count: usize) -> String {
    let mut text =
        String::from(r#"{"name":"peer","protocol":"tcp","tcp_data_port":1,"priority_matrix":{},"buffers":["#);
    for i in 0..count {
        let _ = write!(text, r#"{{"name":"p","addr":{},"length":1}},"#, 4096 * (i + 1));
    }
    text.pop();
    text + "]}"
}

/// Runs `act` with plenty of room, where it has to succeed, and with each of `rooms_mib`, where it may say that memory is
/// missing; in the last one it has to.
fn squeeze(rooms_mib: &[usize], act: impl Fn() -> Result<(), Error>) {
    with_room(PLENTY, &act).unwrap();
    let mut last = None;
    for room in rooms_mib {
        last = with_room(room * MIB, &act).err();
        let is_fine = last.as_ref().is_none_or(|error| error.code() == Code::Memory);
        assert!(is_fine, "with {room} MiB: {last:?}");
    }
    assert!(last.is_some(), "it fits into {rooms_mib:?} MiB");
}

#[test]
fn a_text_that_does_not_fit_when_it_unfolds_is_refused() {
    if in_child("a_text_that_does_not_fit_when_it_unfolds_is_refused", &[]) {
        return;
    }
    let text = descriptor(BUFFERS);
    squeeze(&[350, 250, 200, 150, 32], || json::parse(text.as_bytes()).map(drop));
}

#[test]
fn the_lists_of_a_descriptor_that_do_not_fit_are_refused() {
    if in_child("the_lists_of_a_descriptor_that_do_not_fit_are_refused", &[]) {
        return;
    }
    let desc = SegmentDesc::decode(json::parse(descriptor(BUFFERS).as_bytes()).unwrap()).unwrap();
    squeeze(&[170, 140, 32], || {
        let names = desc.list("buffers", |element| Ok(element.text("name")?.to_string()))?;
        assert_eq!(names.len(), BUFFERS);
        Ok(())
    });
}

#[test]
fn a_nic_matrix_that_does_not_fit_is_refused() {
    if in_child("a_nic_matrix_that_does_not_fit_is_refused", &[]) {
        return;
    }
    let names: Vec<_> = (0..BUFFERS).map(|i| format!("nic{i}")).collect();
    let value = serde_json::json!({"cpu:0": [names, []]});
    squeeze(&[170, 140, 16, 2], || {
        assert_eq!(Matrix::from_value(&value)?.rows()[0].preferred.len(), BUFFERS);
        Ok(())
    });
}

#[test]
fn a_frame_that_does_not_fit_is_refused() {
    if in_child("a_frame_that_does_not_fit_is_refused", &[]) {
        return;
    }
    let notification = Notification { name: "n".into(), message: "x".repeat(40 * MIB) };
    let value = notification.encode().unwrap();
    squeeze(&[80, 50, 32], || wire::encode(Some(wire::NOTIFY), &value).map(drop));
    // As it would be read from a peer.
    squeeze(&[50, 32], || Notification::decode(&value).map(drop));
}

#[test]
fn a_peer_with_a_large_descriptor_cannot_be_opened_where_it_does_not_fit() {
    let name = "a_peer_with_a_large_descriptor_cannot_be_opened_where_it_does_not_fit";
    if in_child(name, &[("MC_LOG_LEVEL", "ERROR")]) {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = listener.local_addr().unwrap().to_string();
    let body = descriptor(BUFFERS).replace("\"name\":\"peer\"", &format!("\"name\":\"{peer}\"")) + "\n";
    let reply = wire::Frame { kind: Some(wire::METADATA), body: body.into_bytes() }.encode();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&reply);
            // Until the other end has closed.
            let _ = stream.read(&mut [0; 4096]);
        }
    });
    let engine = Engine::create("P2PHANDSHAKE", "127.0.0.1", false).unwrap();
    engine.install_transport("tcp", None).unwrap();
    squeeze(&[600, 400, 300, 200, 150, 32], || {
        engine.open_segment(&peer).and_then(|_| engine.remove_segment(&peer))
    });
    engine.destroy();
}
