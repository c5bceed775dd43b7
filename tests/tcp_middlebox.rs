//! A middlebox between two engines cuts connections towards the initiator, and delivers what it holds later. No WRITE may be
//! overtaken by an older one that was sent again meanwhile.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{json, Value};
use transfer_engine::engine::submit::Request;
use transfer_engine::engine::Engine;
use transfer_engine::handshake::wire::{Frame, METADATA};
use transfer_engine::memory::Range;
use transfer_engine::transport::tcp::wire::HEADER_LEN;

const FOREVER: Duration = Duration::from_secs(60);
const LEN: usize = 64 << 10;
const COMPLETED: i32 = 4;

/// What to do with the next connection that carries requests: cut it after so many of their bytes.
struct Cut {
    after: usize,
    /// By a reset instead of an orderly end.
    reset: bool,
}

/// Held bytes, with the connection to the target that they were meant for.
struct Held {
    to_target: TcpStream,
    bytes: Vec<u8>,
}

struct Middlebox {
    cut: Arc<Mutex<Option<Cut>>>,
    held: Receiver<Held>,
    name: String,
}

impl Middlebox {
    /// Stands in front of the engine `target`: of its handshake port, and of its data port.
    fn before(target: &str) -> Self {
        let (data, handshakes) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (port, name) = (data.local_addr().unwrap().port(), handshakes.local_addr().unwrap().to_string());
        let real = exchange(target, METADATA, &json!({}))["tcp_data_port"].as_u64().unwrap();
        let target = target.to_string();
        std::thread::spawn(move || {
            for stream in handshakes.incoming() {
                let target = target.clone();
                std::thread::spawn(move || pass_handshake(stream.unwrap(), &target, port));
            }
        });
        let cut = Arc::new(Mutex::new(None));
        let (hold, held) = channel();
        let armed = cut.clone();
        std::thread::spawn(move || {
            for stream in data.incoming() {
                let to_target = TcpStream::connect(("127.0.0.1", real as u16)).unwrap();
                pass_data(stream.unwrap(), to_target, &armed, &hold);
            }
        });
        Middlebox { cut, held, name }
    }
}

fn frame_from(stream: &mut TcpStream) -> Option<(u8, Value)> {
    let mut length = [0; 8];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; u64::from_le_bytes(length) as usize];
    stream.read_exact(&mut body).ok()?;
    Some((body[0], serde_json::from_slice(&body[1..]).unwrap()))
}

fn exchange(target: &str, kind: u8, body: &Value) -> Value {
    let mut stream = TcpStream::connect(target).unwrap();
    stream.write_all(&Frame::of_json(Some(kind), body).encode()).unwrap();
    frame_from(&mut stream).unwrap().1
}

fn pass_handshake(mut stream: TcpStream, target: &str, data_port: u16) {
    let Some((kind, request)) = frame_from(&mut stream) else { return };
    let mut reply = exchange(target, kind, &request);
    if kind == METADATA {
        reply["tcp_data_port"] = data_port.into();
    }
    let _ = stream.write_all(&Frame::of_json(Some(kind), &reply).encode());
    let _ = stream.read(&mut [0]);
}

/// Passes both directions on, each on a thread.
fn pass_data(client: TcpStream, target: TcpStream, armed: &Arc<Mutex<Option<Cut>>>, hold: &Sender<Held>) {
    let (mut from_client, mut to_client) = (client.try_clone().unwrap(), client);
    let (mut from_target, mut to_target) = (target.try_clone().unwrap(), target);
    std::thread::spawn(move || {
        let mut bytes = [0; 65536];
        while let Ok(n @ 1..) = from_target.read(&mut bytes) {
            if to_client.write_all(&bytes[..n]).is_err() {
                return;
            }
        }
        let _ = to_client.shutdown(Shutdown::Write);
    });
    let (armed, hold) = (armed.clone(), hold.clone());
    std::thread::spawn(move || {
        // The proof of the incarnation passes.
        let mut proof = [0; HEADER_LEN];
        if from_client.read_exact(&mut proof).is_err() || to_target.write_all(&proof).is_err() {
            return;
        }
        let mut bytes = [0; 65536];
        while let Ok(n @ 1..) = from_client.read(&mut bytes) {
            let Some(cut) = armed.lock().unwrap().take() else {
                if to_target.write_all(&bytes[..n]).is_err() {
                    return;
                }
                continue;
            };
            let mut held = bytes[..n].to_vec();
            while held.len() < cut.after {
                let n = from_client.read(&mut bytes).unwrap();
                held.extend(&bytes[..n]);
            }
            held.truncate(cut.after);
            if cut.reset {
                socket2::SockRef::from(&from_client).set_linger(Some(Duration::ZERO)).unwrap();
            }
            let _ = from_client.shutdown(Shutdown::Both);
            hold.send(Held { to_target, bytes: held }).unwrap();
            return;
        }
    });
}

struct Node {
    engine: Arc<Engine>,
    memory: Vec<AtomicU8>,
}

impl Node {
    fn new() -> Self {
        let engine = Engine::create("P2PHANDSHAKE", "127.0.0.1", false).unwrap();
        engine.install_transport("tcp", None).unwrap();
        let memory: Vec<AtomicU8> = (0..LEN).map(|_| AtomicU8::new(0)).collect();
        let range = Range { addr: memory.as_ptr() as u64, len: LEN as u64 };
        engine.register(&[range], "*", true).unwrap();
        Node { engine, memory }
    }

    fn fill(&self, value: u8) {
        self.memory.iter().for_each(|byte| byte.store(value, Relaxed));
    }

    fn holds(&self, value: u8) -> bool {
        self.memory.iter().all(|byte| byte.load(Relaxed) == value)
    }

    fn write_all(&self, segment: i32, there: &Node) -> i32 {
        let batch = self.engine.allocate_batch(1).unwrap();
        let (source, offset) = (self.memory.as_ptr() as u64, there.memory.as_ptr() as u64);
        let request = Request { opcode: 1, source, target: segment, offset, len: LEN as u64 };
        self.engine.submit(batch, 1, |_| request, None).unwrap();
        self.engine.wait_batch(batch, Some(FOREVER)).unwrap();
        let status = self.engine.task_status(batch, 0).unwrap().0;
        self.engine.free_batch(batch).unwrap();
        status
    }
}

#[test]
fn p02_what_a_middlebox_delivers_late_overwrites_nothing_newer() {
    let (here, there) = (Node::new(), Node::new());
    let middlebox = Middlebox::before(&there.engine.address().to_string());
    let segment = here.engine.open_segment(&middlebox.name).unwrap();
    let mut value = 0;
    let mut next = || {
        value = (value + 1) % 251;
        value
    };
    let cuts = [1, HEADER_LEN, HEADER_LEN + 1, LEN / 2, HEADER_LEN + LEN - 1, HEADER_LEN + LEN];
    for (after, reset) in cuts.into_iter().flat_map(|after| [(after, false), (after, true)]) {
        let what = format!("cut after {after} bytes, reset: {reset}");
        here.fill(next());
        assert_eq!(here.write_all(segment, &there), COMPLETED, "{what}: before");
        *middlebox.cut.lock().unwrap() = Some(Cut { after, reset });
        here.fill(next());
        assert_eq!(here.write_all(segment, &there), COMPLETED, "{what}: sent again");
        let newest = next();
        here.fill(newest);
        assert_eq!(here.write_all(segment, &there), COMPLETED, "{what}: the newer one");
        assert!(there.holds(newest), "{what}: COMPLETED without its bytes");
        let Held { mut to_target, bytes } = middlebox.held.recv_timeout(FOREVER).unwrap();
        let _ = to_target.write_all(&bytes);
        let _ = to_target.shutdown(Shutdown::Write);
        // Until the target has read, or closed.
        while let Ok(1..) = to_target.read(&mut [0; 1024]) {}
        assert!(there.holds(newest), "{what}: an older WRITE came later");
    }
    here.engine.destroy();
    there.engine.destroy();
}
