//! An engine that transfers to a peer which answers, or does not, as the input says: late in the protocol or early, in pieces, with
//! refusals, nonsense, ends and resets of its connections.
//!
//! The first byte is the framing; the next how many requests there are, each of four bytes: opcode, place, and two of length. The rest is
//! what the peer does with one request after the other, on whichever connection they come; then it behaves.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{json, Value};
use transfer_engine::engine::submit::Request;
use transfer_engine::engine::Engine;
use transfer_engine::handshake::wire::{Frame, METADATA};
use transfer_engine::memory::Range;
use transfer_engine::transport::slice::Op;
use transfer_engine::transport::tcp::wire::{Header, HEADER_LEN, OK_FRAME, REJECTED_FRAME};

use super::input::Input;
use super::rig;

/// Requests of one input, each with a part of the memory.
const MOST_REQUESTS: usize = 16;
/// Bytes of a part, of which a request uses half at the most.
const PART: usize = 8 << 10;
/// What the peer says that it has.
const REMOTE: u64 = 0x5000_0000;
/// What is in the memory before, and around what is read.
const BEFORE: u8 = 0xa5;
/// Far longer than anything takes: nothing waits for time here.
const FOREVER: Duration = Duration::from_secs(20);
const COMPLETED: i32 = 4;

/// What the peer does.
#[derive(Default)]
struct Script {
    /// The next one is the last of the list.
    acts: Vec<u8>,
    /// Bytes that mean nothing were sent.
    is_nonsense: bool,
}

struct Scene {
    engine: Arc<Engine>,
    memory: &'static [AtomicU8],
    /// Names of the peer with the older framing, and of the one with the newer.
    peers: [String; 2],
    script: Arc<Mutex<Script>>,
}

/// Every task ends; what is COMPLETED has the peer's bytes; nothing else is written.
pub fn run(bytes: &[u8]) {
    thread_local!(static SCENE: Scene = Scene::start());
    SCENE.with(|scene| scene.play(bytes));
}

/// The byte at an address of the peer.
fn remote(addr: u64) -> u8 {
    (addr.wrapping_mul(0x9e37_79b9) >> 13) as u8
}

impl Scene {
    fn start() -> Self {
        let memory: Vec<AtomicU8> = (0..MOST_REQUESTS * PART).map(|_| AtomicU8::new(BEFORE)).collect();
        let memory: &'static [AtomicU8] = memory.leak();
        let engine = rig::engine();
        let len = memory.len() as u64;
        engine.register(&[Range { addr: memory.as_ptr() as u64, len }], "*", true).unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let peers = [1, 2].map(|version| peer(version, &script));
        Scene { engine, memory, peers, script }
    }

    fn play(&self, bytes: &[u8]) {
        let mut input = Input(bytes);
        let peer = &self.peers[usize::from(input.byte()) % 2];
        let count = usize::from(input.byte()) % MOST_REQUESTS + 1;
        let target = self.engine.open_segment(peer).unwrap();
        let requests: Vec<Request> = (0..count)
            .map(|part| {
                let (opcode, place, len) = (i32::from(input.byte() % 2), input.byte(), input.short());
                let at = part * PART + usize::from(place);
                let source = self.memory.as_ptr() as u64 + at as u64;
                let len = u64::from(len) % (PART as u64 / 2) + 1;
                Request { opcode, source, target, offset: REMOTE + at as u64, len }
            })
            .collect();
        *self.script.lock().unwrap() =
            Script { acts: input.0.iter().rev().copied().collect(), is_nonsense: false };
        self.memory.iter().for_each(|byte| byte.store(BEFORE, Relaxed));
        let batch = self.engine.allocate_batch(count).unwrap();
        let ended = self.engine.submit(batch, count, |index| requests[index], None).map(|()| {
            self.engine.wait_batch(batch, Some(FOREVER)).unwrap();
            (0..count).map(|task| self.engine.task_status(batch, task).unwrap().0).collect::<Vec<_>>()
        });
        self.engine.free_batch(batch).unwrap();
        self.engine.close_segment(target);
        let is_nonsense = self.script.lock().unwrap().is_nonsense;
        let ended = ended.unwrap_or_else(|_| vec![0; count]);
        for (part, (request, status)) in requests.iter().zip(ended).enumerate() {
            let first = (request.source - self.memory.as_ptr() as u64) as usize;
            let inside = first..first + request.len as usize;
            for at in part * PART..(part + 1) * PART {
                let byte = self.memory[at].load(Relaxed);
                let is_read = request.opcode == 0 && inside.contains(&at);
                assert!(is_read || byte == BEFORE, "byte {at} was written, which nobody asked for");
                let right = remote(REMOTE + at as u64);
                let must_be_right = is_read && status == COMPLETED && !is_nonsense;
                assert!(!must_be_right || byte == right, "byte {at} is {byte}, not {right}");
            }
        }
    }
}

/// A peer with this version of the framing; its name.
fn peer(version: u8, script: &Arc<Mutex<Script>>) -> String {
    let data = TcpListener::bind("127.0.0.1:0").unwrap();
    let handshakes = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = handshakes.local_addr().unwrap().to_string();
    let descriptor = json!({
        "name": name, "protocol": "tcp", "tcp_data_port": data.local_addr().unwrap().port(),
        "tcp_proto_version": version, "devices": [], "priority_matrix": {},
        "buffers": [{"name": "cpu:0", "addr": REMOTE, "length": MOST_REQUESTS * PART, "rkey": [], "lkey": []}],
    });
    std::thread::spawn(move || {
        for stream in handshakes.incoming() {
            let _ = describe(stream.unwrap(), &descriptor);
        }
    });
    let script = script.clone();
    std::thread::spawn(move || {
        for stream in data.incoming() {
            let script = script.clone();
            std::thread::spawn(move || serve(&mut stream.unwrap(), &script));
        }
    });
    name
}

fn describe(mut stream: TcpStream, descriptor: &Value) -> std::io::Result<()> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let mut body = vec![0; u64::from_le_bytes(head[..8].try_into().unwrap()) as usize - 1];
    stream.read_exact(&mut body)?;
    let answer = if head[8] == METADATA { descriptor.clone() } else { json!({}) };
    stream.write_all(&Frame::of_json(Some(head[8]), &answer).encode())
}

/// Serves a connection until its end, or the script's for it.
fn serve(stream: &mut TcpStream, script: &Mutex<Script>) {
    let _ = stream.set_nodelay(true);
    let mut head = [0; HEADER_LEN];
    while stream.read_exact(&mut head).is_ok() {
        let Header { size, addr, op, v2 } = Header::decode(&head);
        let act = script.lock().unwrap().acts.pop().unwrap_or(0);
        let frame = if v2 { &OK_FRAME[..] } else { &[] };
        let data: Vec<u8> = match op {
            Op::Read => (addr..addr + size).map(remote).collect(),
            Op::Write => Vec::new(),
        };
        let answer = [frame, &data].concat();
        let mut body = vec![0; if op == Op::Write { size as usize } else { 0 }];
        // What is not read is reset by the kernel.
        if act % 8 != 1 && stream.read_exact(&mut body).is_err() {
            return;
        }
        let part = answer.len() * usize::from(act) / 256;
        let goes_on = match act % 8 {
            // As it should be.
            0 | 7 => stream.write_all(&answer).is_ok(),
            1 => false,
            2 => {
                let _ = stream.write_all(&REJECTED_FRAME[..if v2 { REJECTED_FRAME.len() } else { 0 }]);
                false
            }
            // Cut off, orderly.
            3 => {
                let _ = stream.write_all(&answer[..part]);
                let _ = stream.shutdown(Shutdown::Write);
                false
            }
            // In two pieces, and on.
            4 => stream.write_all(&answer[..part]).and_then(|()| stream.write_all(&answer[part..])).is_ok(),
            // Nonsense instead of it, or behind it.
            5 | 6 => {
                script.lock().unwrap().is_nonsense = true;
                let nonsense: Vec<u8> = (0..act).map(|at| at.wrapping_mul(act)).collect();
                let first = if act % 8 == 5 { &[][..] } else { &answer };
                // With less than was asked for, both would wait for each other.
                let is_enough = act > 128 && first.len() + nonsense.len() >= answer.len();
                stream.write_all(first).and_then(|()| stream.write_all(&nonsense)).is_ok() && is_enough
            }
            _ => unreachable!(),
        };
        if !goes_on {
            return;
        }
    }
}
