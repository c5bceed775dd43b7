//! The handshake port of an engine, served to a client that sends whatever the input is.

use std::io::ErrorKind;
use std::sync::Arc;

use transfer_engine::engine::Engine;
use transfer_engine::handshake::wire::{Frame, PROBE};
use transfer_engine::json;

use super::rig;

/// The answer is nothing, or a frame of the request's type with a JSON text; afterwards the port still answers.
pub fn run(bytes: &[u8]) {
    thread_local!(static ENGINE: Arc<Engine> = rig::engine());
    ENGINE.with(|engine| {
        match rig::ask(engine, bytes) {
            Ok(reply) if reply.is_empty() => {}
            Ok(reply) => check(bytes, &reply),
            Err(error) => {
                let reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::NotConnected];
                assert!(reset.contains(&error.kind()), "{error}");
            }
        }
        let probe = Frame { kind: Some(PROBE), body: b"{}\n".to_vec() };
        assert!(!rig::ask(engine, &probe.encode()).unwrap().is_empty(), "a probe is not answered");
        drop(engine.local().notifications.take());
    });
}

fn check(bytes: &[u8], reply: &[u8]) {
    let (length, payload) = reply.split_first_chunk::<8>().unwrap();
    assert_eq!(u64::from_le_bytes(*length), payload.len() as u64);
    // The old protocol had no types.
    let body = match bytes[8] {
        kind @ 0..=PROBE => payload.strip_prefix(&[kind]).unwrap(),
        _ => payload,
    };
    json::parse(body).unwrap();
}
