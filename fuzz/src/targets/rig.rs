//! An engine of this process, and what its handshake port answers.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{json, Value};
use transfer_engine::engine::{Engine, Wanted};
use transfer_engine::handshake::wire::{Frame, METADATA};

/// Far longer than any answer takes.
const FOREVER: Duration = Duration::from_secs(20);

/// A new engine with TCP, without a store.
pub fn engine() -> Arc<Engine> {
    Engine::create_with("P2PHANDSHAKE", "127.0.0.1", Wanted::Named("tcp"), "").unwrap()
}

/// What the handshake port of the engine answers to `bytes`, until it closes. An error where it resets the connection.
pub fn ask(engine: &Engine, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", engine.address().port)).unwrap();
    stream.set_read_timeout(Some(FOREVER)).unwrap();
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    Ok(reply)
}

/// The engine's descriptor.
pub fn descriptor(engine: &Engine) -> Value {
    let reply = ask(engine, &Frame::of_json(Some(METADATA), &json!({})).encode()).unwrap();
    serde_json::from_slice(&reply[9..]).unwrap()
}
