//! Our engine as initiator against scripted servers: the statuses that upstream's initiator reached, reuse of
//! connections, and what may be sent a second time.
//!
//! A scripted peer publishes a descriptor through a handshake daemon of its own and does on its data port what the
//! test says. The status time-out of this process is 2 s, as in the recordings.

mod common;

use common::in_child;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Once};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{json, Value};
use transfer_engine::engine::submit::Request;
use transfer_engine::engine::Engine;
use transfer_engine::error::{Class, Code, Error};
use transfer_engine::handshake::wire::{Frame, CONNECTION, METADATA, PROBE};
use transfer_engine::memory::Range;
use transfer_engine::transport::slice::Op;
use transfer_engine::transport::tcp::wire::{Header, HEADER_LEN, OK_FRAME, REJECTED_FRAME};

/// Far longer than any test takes; a test that waits for it has failed.
const FOREVER: Duration = Duration::from_secs(30);
const STATUS_TIMEOUT_SECS: f64 = 2.0;

/// Where the scripted peers say that their buffer is.
const REMOTE: u64 = 0x2000;
const REMOTE_BYTES: u64 = 64 << 20;
/// Published as well, and refused by the scripts that refuse anything.
const REFUSED: u64 = 0x1000;
/// Where peers with an incarnation say that it is; not inside a published buffer.
const CELL: u64 = 0x800;
const INCARNATION: [u8; 16] = *b"0123456789abcdef";

const WRITE: i32 = 1;
const READ: i32 = 0;
const COMPLETED: i32 = 4;
const FAILED: i32 = 6;

/// What a peer holds at `addr`.
fn remote_byte(addr: u64) -> u8 {
    (addr % 253) as u8
}

/// What the initiator's memory holds at first.
fn local_byte(at: usize) -> u8 {
    (at % 249) as u8
}

/// What the peer does after a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Serve,
    Close,
}

/// One request as the script sees it.
struct Turn<'a> {
    stream: &'a mut TcpStream,
    log: &'a Log,
    header: Header,
    /// Number of the connection, and of the request on it; both from 0.
    connection: usize,
    number: usize,
}

impl Turn<'_> {
    fn body(&mut self) -> Vec<u8> {
        let mut body = vec![0; if self.header.op == Op::Write { self.header.size as usize } else { 0 }];
        // A connection that ends here shows in what the test expects.
        if self.stream.read_exact(&mut body).is_err() {
            body.clear();
        }
        self.log.connections.lock().unwrap()[self.connection].bytes.extend(&body);
        body
    }

    fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    fn data(&self) -> Vec<u8> {
        (self.header.addr..self.header.addr + self.header.size).map(remote_byte).collect()
    }

    /// As a well-behaved server.
    fn answer(&mut self) -> Next {
        let mut answer = if self.header.v2 { OK_FRAME.to_vec() } else { Vec::new() };
        match self.header.op {
            Op::Write => drop(self.body()),
            Op::Read => answer.extend(self.data()),
        }
        self.send(&answer);
        Next::Serve
    }

    /// As a server that refuses the address: what follows is not read.
    fn reject(&mut self) -> Next {
        self.send(&REJECTED_FRAME);
        Next::Close
    }
}

/// A connection as the peer saw it.
#[derive(Clone, Debug, Default)]
struct Connection {
    headers: Vec<[u8; HEADER_LEN]>,
    /// Headers and the bodies that the script read.
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Log {
    connections: Mutex<Vec<Connection>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
    descriptors_read: AtomicUsize,
    /// Marks of the connections that the initiator asked to close.
    withdrawn: Mutex<Vec<u64>>,
    /// The connection that ends the peer. Those before it may still wait to be accepted, with requests that are
    /// COMPLETED already. Locked until it is known.
    last: Mutex<Option<SocketAddr>>,
}

type Script = dyn Fn(&mut Turn) -> Next + Send + Sync;

/// A peer that does what a script says.
struct Peer {
    name: String,
    data_port: u16,
    daemon_port: u16,
    log: Arc<Log>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Peer {
    /// `extra` are the descriptors' additional members: of the first one read, the second and so on; the last stays.
    fn start(extra: &[Value], script: impl Fn(&mut Turn) -> Next + Send + Sync + 'static) -> Self {
        let daemon = TcpListener::bind("127.0.0.1:0").unwrap();
        let data = TcpListener::bind("127.0.0.1:0").unwrap();
        let (daemon_port, data_port) =
            (daemon.local_addr().unwrap().port(), data.local_addr().unwrap().port());
        let name = format!("127.0.0.1:{daemon_port}");
        let descriptors: Vec<Value> = extra.iter().map(|extra| descriptor(&name, data_port, extra)).collect();
        let (log, stop) = (Arc::new(Log::default()), Arc::new(AtomicBool::new(false)));
        let serve_daemon = {
            let (log, stop) = (log.clone(), stop.clone());
            move || serve_descriptors(&daemon, &descriptors, &log, &stop)
        };
        let serve_data = {
            let log = log.clone();
            move || accept_data(&data, &log, &(Arc::new(script) as Arc<Script>))
        };
        let threads = vec![std::thread::spawn(serve_daemon), std::thread::spawn(serve_data)];
        Peer { name, data_port, daemon_port, log, stop, threads }
    }

    /// Ends the peer once the initiator has closed its connections, and tells what it saw.
    fn finish(self) -> Vec<Connection> {
        self.stop.store(true, SeqCst);
        TcpStream::connect(("127.0.0.1", self.daemon_port)).unwrap();
        {
            let mut last = self.log.last.lock().unwrap();
            let stream = TcpStream::connect(("127.0.0.1", self.data_port)).unwrap();
            *last = Some(stream.local_addr().unwrap());
        }
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        let connections = self.log.connections.lock().unwrap();
        connections.clone()
    }
}

fn descriptor(name: &str, port: u16, extra: &Value) -> Value {
    let mut descriptor = json!({
        "name": name,
        "protocol": "tcp",
        "tcp_data_port": port,
        "timestamp": "2026-01-01 00:00:00.000000",
        "buffers": [
            {"name": name, "addr": REFUSED, "length": 0x800},
            {"name": name, "addr": REMOTE, "length": REMOTE_BYTES},
        ],
    });
    let members = descriptor.as_object_mut().unwrap();
    members.extend(extra.as_object().unwrap().clone());
    descriptor
}

fn serve_descriptors(listener: &TcpListener, descriptors: &[Value], log: &Log, stop: &AtomicBool) {
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        if stop.load(SeqCst) {
            return;
        }
        let mut length = [0; 8];
        // An engine that is destroyed hangs up on its questions.
        if stream.read_exact(&mut length).is_err() {
            continue;
        }
        let mut request = vec![0; u64::from_le_bytes(length) as usize];
        if stream.read_exact(&mut request).is_err() {
            continue;
        }
        let current =
            || descriptors[log.descriptors_read.load(SeqCst).clamp(1, descriptors.len()) - 1].clone();
        let reply = match request[0] {
            METADATA => {
                log.descriptors_read.fetch_add(1, SeqCst);
                current()
            }
            PROBE => json!({"status": "success"}),
            CONNECTION => {
                let asked: Value = serde_json::from_slice(&request[1..]).unwrap();
                assert_eq!(asked["withdraw"], true, "{asked}");
                let marks =
                    asked["connections"].as_array().unwrap().iter().map(|mark| mark.as_u64().unwrap());
                log.withdrawn.lock().unwrap().extend(marks);
                // Its connections end by themselves before that.
                json!({"withdraw": true, "own_incarnation": current()["incarnation"]})
            }
            other => panic!("a request of type {other}"),
        };
        let _ = stream.write_all(&Frame::of_json(Some(request[0]), &reply).encode());
        let _ = stream.read(&mut length);
    }
}

fn accept_data(listener: &TcpListener, log: &Arc<Log>, script: &Arc<Script>) {
    let mut threads = Vec::new();
    loop {
        let (stream, from) = listener.accept().unwrap();
        if *log.last.lock().unwrap() == Some(from) {
            break;
        }
        let number = {
            let mut connections = log.connections.lock().unwrap();
            connections.push(Connection::default());
            connections.len() - 1
        };
        let open = log.open.fetch_add(1, SeqCst) + 1;
        log.most_open.fetch_max(open, SeqCst);
        let (log, script) = (log.clone(), script.clone());
        threads.push(std::thread::spawn(move || {
            serve_data(stream, number, &log, &*script);
            log.open.fetch_sub(1, SeqCst);
        }));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn serve_data(mut stream: TcpStream, connection: usize, log: &Log, script: &Script) {
    stream.set_nodelay(true).unwrap();
    for number in 0.. {
        let mut bytes = [0; HEADER_LEN];
        if stream.read_exact(&mut bytes).is_err() {
            return;
        }
        {
            let mut connections = log.connections.lock().unwrap();
            connections[connection].headers.push(bytes);
            connections[connection].bytes.extend(bytes);
        }
        let header = Header::decode(&bytes);
        if script(&mut Turn { stream: &mut stream, log, header, connection, number }) == Next::Close {
            return;
        }
    }
}

/// What a task came to.
#[derive(Debug)]
struct End {
    status: i32,
    bytes: u64,
    error: Option<Error>,
}

/// An initiator with one registered buffer, and a peer that it has opened.
struct Scene {
    engine: Arc<Engine>,
    memory: Vec<AtomicU8>,
    target: i32,
    peer: Peer,
}

impl Scene {
    fn new(extra: &[Value], script: impl Fn(&mut Turn) -> Next + Send + Sync + 'static) -> Self {
        static ENVIRONMENT: Once = Once::new();
        ENVIRONMENT.call_once(|| {
            std::env::set_var("MC_TCP_STATUS_TIMEOUT_SEC", STATUS_TIMEOUT_SECS.to_string());
            std::env::set_var("MC_LOG_LEVEL", "ERROR");
        });
        let peer = Peer::start(extra, script);
        let engine = Engine::create("P2PHANDSHAKE", "127.0.0.1", false).unwrap();
        engine.install_transport("tcp", None).unwrap();
        let memory: Vec<AtomicU8> = (0..8 << 20).map(|at| AtomicU8::new(local_byte(at))).collect();
        let range = Range { addr: memory.as_ptr() as u64, len: memory.len() as u64 };
        engine.register(&[range], "*", true).unwrap();
        let target = engine.open_segment(&peer.name).unwrap();
        Scene { engine, memory, target, peer }
    }

    /// A peer that keeps connections and sends status frames.
    fn v2(script: impl Fn(&mut Turn) -> Next + Send + Sync + 'static) -> Self {
        Self::new(&[json!({"tcp_proto_version": 2})], script)
    }

    fn request(&self, opcode: i32, local: usize, remote: u64, len: u64) -> Request {
        let source = self.memory.as_ptr() as u64 + local as u64;
        Request { opcode, source, target: self.target, offset: remote, len }
    }

    /// Submits in one call and waits for all.
    fn run(&self, requests: &[Request]) -> Vec<End> {
        let engine = &self.engine;
        let batch = engine.allocate_batch(requests.len()).unwrap();
        engine.submit(batch, requests.len(), |index| requests[index], None).unwrap();
        engine.wait_batch(batch, Some(FOREVER)).unwrap();
        let end = |index| {
            let (status, bytes) = engine.task_status(batch, index).unwrap();
            End { status, bytes, error: engine.task_error(batch, index).unwrap() }
        };
        let ends = (0..requests.len()).map(end).collect();
        engine.free_batch(batch).unwrap();
        ends
    }

    fn completes(&self, what: &str, requests: &[Request]) {
        for (index, end) in self.run(requests).into_iter().enumerate() {
            assert_eq!(end.status, COMPLETED, "{what}: request {index}: {end:?}");
            assert_eq!(end.bytes, requests[index].len, "{what}: request {index}");
        }
    }

    /// The peer's bytes arrived at `local`.
    fn has_read(&self, local: usize, remote: u64, len: u64) -> bool {
        (0..len).all(|i| self.memory[local + i as usize].load(Relaxed) == remote_byte(remote + i))
    }

    fn finish(self) -> Vec<Connection> {
        self.engine.destroy();
        self.peer.finish()
    }
}

/// The headers of all connections.
fn headers(connections: &[Connection]) -> Vec<Header> {
    connections.iter().flat_map(|connection| &connection.headers).map(Header::decode).collect()
}

fn hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// What the recorded server of a case did, and how often our engine may ask it: a request whose connection dies
/// without an answer is sent once more on a fresh one, and once more alone.
fn script_of(case: &str) -> (Box<Script>, usize) {
    let thrice = 3;
    match case {
        "v2 WRITE, OK after body"
        | "v2 READ, status then data"
        | "v1 descriptor (member missing) READ"
        | "version 3 descriptor READ (treated as v2)"
        | "version 0 descriptor READ (treated as v1)" => (Box::new(|turn| turn.answer()), 1),
        "v2 WRITE, OK before the body was read (small)" => {
            let script = |turn: &mut Turn| {
                turn.send(&OK_FRAME);
                turn.body();
                Next::Serve
            };
            (Box::new(script), 1)
        }
        "v2 WRITE, peer closes without status" => {
            let script = |turn: &mut Turn| {
                turn.body();
                Next::Close
            };
            (Box::new(script), thrice)
        }
        "v2 WRITE, wrong magic" => (Box::new(|turn| odd_status(turn, *b"\0\0\0\0VTCN")), 1),
        "v2 WRITE, status code 2" => (Box::new(|turn| odd_status(turn, *b"\x02\0\0\0VTCM")), 1),
        "v2 WRITE, status never sent (deadline 2 s)" | "v2 READ, status never sent (deadline 2 s)" => {
            let script = |turn: &mut Turn| {
                turn.body();
                Next::Serve
            };
            (Box::new(script), 1)
        }
        "v2 WRITE 1 MiB, rejected early, body not read" => (Box::new(|turn| turn.reject()), thrice),
        "v2 READ, short data then close" => {
            let script = |turn: &mut Turn| {
                let half = &turn.data()[..4];
                turn.send(&[&OK_FRAME, half].concat());
                Next::Close
            };
            (Box::new(script), thrice)
        }
        "v2 READ, status split in two segments" => {
            let script = |turn: &mut Turn| {
                turn.send(&OK_FRAME[..3]);
                turn.send(&[&OK_FRAME[3..], &turn.data()].concat());
                Next::Serve
            };
            (Box::new(script), 1)
        }
        "v1 descriptor WRITE, peer reads nothing and closes" => (Box::new(|_| Next::Close), 1),
        other => panic!("unknown case {other}"),
    }
}

fn odd_status(turn: &mut Turn, status: [u8; 8]) -> Next {
    turn.body();
    turn.send(&status);
    Next::Serve
}

#[test]
fn every_recorded_server_leads_to_the_recorded_status() {
    let file: Value = serde_json::from_slice(include_bytes!("vectors/tcp-data-client.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 15);
    for case in cases {
        let name = case["case"].as_str().unwrap();
        let (script, most) = script_of(name);
        let version = &case["descriptor_tcp_proto_version"];
        let extra = if version.is_null() { json!({}) } else { json!({"tcp_proto_version": version}) };
        let scene = Scene::new(&[extra], script);
        let (opcode, len) = (case["opcode"].as_i64().unwrap() as i32, case["length"].as_u64().unwrap());
        let began = Instant::now();
        let end = scene.run(&[scene.request(opcode, 0, REMOTE, len)]).remove(0);
        let seconds = began.elapsed().as_secs_f64();
        assert_eq!(end.status as i64, case["task_status"].as_i64().unwrap(), "{name}: {end:?}");
        assert_eq!(end.bytes, case["transferred"].as_u64().unwrap(), "{name}");
        assert_eq!(end.error.is_some(), end.status == FAILED, "{name}: {end:?}");
        if name.contains("deadline") {
            assert!(
                (STATUS_TIMEOUT_SECS * 0.95..STATUS_TIMEOUT_SECS * 3.0).contains(&seconds),
                "{name}: {seconds} s"
            );
            assert_eq!(end.error.unwrap().kind(), Class::Timeout, "{name}");
        } else {
            assert!(seconds < STATUS_TIMEOUT_SECS * 0.95, "{name}: waited for a deadline, {seconds} s");
        }
        if opcode == READ && end.status == COMPLETED {
            assert!(scene.has_read(0, REMOTE, len), "{name}: wrong bytes");
        }
        let connections = scene.finish();
        let seen: Vec<_> = connections.iter().flat_map(|connection| &connection.headers).collect();
        assert!((1..=most).contains(&seen.len()), "{name}: {} headers", seen.len());
        let recorded = hex(&case["headers_seen"][0]);
        for header in seen {
            assert_eq!(header[..17], recorded[..17], "{name}");
            assert_eq!(header[17..], [0; 7], "{name}: padding");
        }
        for connection in connections.iter().filter(|connection| connection.bytes.len() > HEADER_LEN) {
            let sent = (0..len as usize).map(local_byte);
            assert!(connection.bytes[HEADER_LEN..].iter().copied().eq(sent), "{name}: wrong body");
        }
    }
}

#[test]
fn pooled_connections_carry_the_recorded_bytes() {
    let file: Value = serde_json::from_slice(include_bytes!("vectors/tcp-pooled.json")).unwrap();
    let recorded = hex(&file["then_rejected_write"]["connections"][0]["client_to_server"]["hex"]);
    let recorded_addr = u64::from_le_bytes(recorded[8..16].try_into().unwrap());
    let buffer = json!([
        {"name": "recorded", "addr": recorded_addr, "length": 4096},
        {"name": "refused", "addr": REFUSED, "length": 4096},
    ]);
    let extra = json!({"tcp_proto_version": 2, "buffers": buffer});
    let scene = Scene::new(&[extra], move |turn| {
        if turn.header.addr == REFUSED {
            turn.body();
            turn.reject()
        } else {
            turn.answer()
        }
    });
    // The recorded bodies are 0, 1, 2 … 7, as our memory begins.
    for opcode in [WRITE, READ, WRITE] {
        let local = if opcode == READ { 4096 } else { 0 };
        scene.completes("sequential", &[scene.request(opcode, local, recorded_addr, 8)]);
    }
    assert!(scene.has_read(4096, recorded_addr, 8));
    let end = scene.run(&[scene.request(WRITE, 0, REFUSED, 16)]).remove(0);
    assert_eq!((end.status, end.bytes), (FAILED, 0));
    let error = end.error.unwrap();
    assert_eq!((error.code(), error.kind()), (Code::AddressNotRegistered, Class::Rejected), "{error}");

    let many: Vec<_> =
        (0..40).map(|i| scene.request(WRITE, i * 8, recorded_addr + i as u64 * 8, 8)).collect();
    scene.completes("after the rejection", &many);
    let connections = scene.finish();
    // 16 bytes refused where the recording has 8: only the bytes before are compared in full.
    let same = 3 * HEADER_LEN + 16;
    assert_eq!(connections[0].bytes[..same], recorded[..same], "three requests on one connection");
    assert_eq!(connections[0].headers.len(), 4, "and the rejected one");
    assert!((2..=5).contains(&connections.len()), "{} connections", connections.len());
    assert_eq!(headers(&connections[1..]).len(), 40);
}

#[test]
fn forty_requests_use_at_most_four_connections() {
    let scene = Scene::v2(|turn| turn.answer());
    let request = |i: u64| scene.request((i % 2) as i32, i as usize * 70_000, REMOTE + i * 70_000, 70_000);
    let together: Vec<_> = (0..40).map(request).collect();
    scene.completes("in one call", &together);
    for i in 0..40 {
        scene.completes("one by one", &[request(i)]);
    }
    std::thread::scope(|threads| {
        for thread in 0..8 {
            let (scene, request) = (&scene, &request);
            threads.spawn(move || {
                (0..5).for_each(|i| scene.completes("from threads", &[request(thread * 5 + i)]))
            });
        }
    });
    let connections = scene.finish();
    assert!(connections.len() <= 4, "{} connections", connections.len());
    assert_eq!(headers(&connections).len(), 120);
}

#[test]
fn within_the_host_there_are_no_more_connections_in_use_than_threads() {
    let name = "within_the_host_there_are_no_more_connections_in_use_than_threads";
    if in_child(name, &[("MC_TCP_THREADS", "1")]) {
        return;
    }
    let scene = Scene::v2(|turn| turn.answer());
    scene.completes("the first", &[scene.request(WRITE, 0, REMOTE, 64)]);
    for opcode in [WRITE, READ] {
        scene.completes("a large one", &[scene.request(opcode, 0, REMOTE, 8 << 20)]);
    }
    assert_eq!(scene.finish().len(), 1);
}

#[test]
fn a_large_request_is_cut_into_pieces_that_cover_it_exactly_once() {
    const BYTES: u64 = (5 << 20) + 12345;
    for opcode in [WRITE, READ] {
        let scene = Scene::v2(|turn| turn.answer());
        scene.completes("large", &[scene.request(opcode, 100, REMOTE, BYTES)]);
        assert!(opcode == WRITE || scene.has_read(100, REMOTE, BYTES));
        let connections = scene.finish();
        assert!(connections.len() <= 4, "{} connections", connections.len());
        let mut pieces: Vec<_> = headers(&connections).iter().map(|h| (h.addr, h.size)).collect();
        pieces.sort_unstable();
        let mut next = REMOTE;
        for (addr, size) in pieces {
            assert_eq!(addr, next, "a gap or an overlap");
            assert!(size <= 1 << 20, "a piece of {size}");
            next = addr + size;
        }
        assert_eq!(next, REMOTE + BYTES);
    }
}

#[test]
fn the_first_final_failure_of_a_piece_ends_the_whole_request() {
    const BYTES: u64 = 8 << 20;
    // One piece gets an answer that is none, the others get none at all, so only time would end them.
    let scene = Scene::v2(|turn| {
        turn.body();
        if turn.header.addr == REMOTE {
            turn.send(&[0; 8]);
        }
        Next::Serve
    });
    let began = Instant::now();
    let end = scene.run(&[Request { len: BYTES, ..scene.request(WRITE, 0, REMOTE, 0) }]).remove(0);
    assert!(began.elapsed().as_secs_f64() < STATUS_TIMEOUT_SECS * 0.95, "waited for a deadline");
    assert_eq!(end.status, FAILED);
    let error = end.error.unwrap();
    assert_eq!(error.kind(), Class::Protocol, "{error}");
    let mut sent: Vec<u64> = headers(&scene.finish()).iter().map(|header| header.addr).collect();
    let count = sent.len();
    sent.sort_unstable();
    sent.dedup();
    assert_eq!(sent.len(), count, "a piece was sent again");
}

#[test]
fn requests_behind_a_rejected_one_are_sent_again_and_succeed() {
    const REQUESTS: usize = 6;
    for (rejected, orderly) in [(0, true), (0, false), (2, false), (5, false), (2, true)] {
        let case = format!("number {rejected} of {REQUESTS} rejected, orderly: {orderly}");
        let scene = Scene::v2(move |turn| {
            if turn.header.addr != REFUSED {
                return turn.answer();
            }
            if orderly {
                // Reads what is behind it, so that the close is no reset.
                turn.body();
                let mut rest = vec![0; (REQUESTS - 1 - rejected) * (HEADER_LEN + 64)];
                let _ = turn.stream.read_exact(&mut rest);
            }
            turn.reject()
        });
        let request = |i: usize| {
            let remote = if i == rejected { REFUSED } else { REMOTE + i as u64 * 64 };
            scene.request(WRITE, i * 64, remote, 64)
        };
        let ends = scene.run(&(0..REQUESTS).map(request).collect::<Vec<_>>());
        for (index, end) in ends.iter().enumerate() {
            let expected = if index == rejected { (FAILED, 0) } else { (COMPLETED, 64) };
            assert_eq!((end.status, end.bytes), expected, "{case}: request {index}: {end:?}");
        }
        let error = ends[rejected].error.as_ref().unwrap();
        assert_eq!(
            (error.code(), error.kind()),
            (Code::AddressNotRegistered, Class::Rejected),
            "{case}: {error}"
        );
        scene.completes("afterwards", &[request(if rejected == 0 { 1 } else { 0 })]);
        let connections = scene.finish();
        let addrs: Vec<u64> = headers(&connections).iter().map(|header| header.addr).collect();
        let times = |addr| addrs.iter().filter(|seen| **seen == addr).count();
        assert_eq!(times(REFUSED), 1, "{case}: the rejected request was sent again");
        for i in (0..REQUESTS).filter(|i| *i != rejected) {
            let again = usize::from(i == if rejected == 0 { 1 } else { 0 });
            assert_eq!(times(REMOTE + i as u64 * 64), 1 + again, "{case}: executions of request {i}");
        }
    }
}

#[test]
fn a_connection_that_died_idle_is_replaced_without_a_failed_task() {
    const ROUNDS: usize = 100;
    // The peer hangs up after each answer: our engine may have noticed when the next request comes, or not yet.
    let scene = Scene::new(&[with_incarnation(INCARNATION)], |turn| match serve_incarnation(turn) {
        Next::Serve if turn.number == 0 => Next::Serve,
        _ => Next::Close,
    });
    for round in 0..ROUNDS {
        let opcode = (round % 2) as i32;
        scene.completes("hung up after the answer", &[scene.request(opcode, 0, REMOTE + round as u64, 1)]);
    }
    let connections = scene.finish();
    let addrs: Vec<u64> = headers(&connections).iter().map(|h| h.addr).filter(|addr| *addr != CELL).collect();
    assert_eq!(addrs, (0..ROUNDS as u64).map(|round| REMOTE + round).collect::<Vec<_>>());
}

#[test]
fn p02_a_connection_that_dies_at_the_next_request_is_replaced_behind_the_peers_word() {
    for opcode in [WRITE, READ] {
        // The peer sees the second request of each connection, after its proof, and hangs up.
        let scene = Scene::new(&[with_incarnation(INCARNATION)], |turn| match turn.number {
            0 | 1 => serve_incarnation(turn),
            _ => Next::Close,
        });
        for round in 0..50 {
            scene.completes("hung up before the answer", &[scene.request(opcode, 0, REMOTE + round, 1)]);
        }
        let log = scene.peer.log.clone();
        let connections = scene.finish();
        let marks = connections.iter().map(|connection| Header::mark(&connection.headers[0]));
        let seen = headers(&connections).iter().filter(|header| header.addr != CELL).count();
        assert_eq!(seen, 99, "opcode {opcode}: each request but the first was sent twice");
        // All but the last connection ended with a request on it.
        let asked: Vec<u64> = marks.take(if opcode == WRITE { connections.len() - 1 } else { 0 }).collect();
        assert_eq!(
            *log.withdrawn.lock().unwrap(),
            asked,
            "opcode {opcode}: which the peer was asked to close"
        );
    }
}

#[test]
fn p02_a_write_that_an_upstream_peer_hung_up_on_is_sent_once_and_fails() {
    let scene = Scene::v2(|turn| if turn.number == 0 { turn.answer() } else { Next::Close });
    for round in 0..10 {
        scene.completes("a connection's first", &[scene.request(WRITE, 0, REMOTE + 2 * round, 1)]);
        let end = scene.run(&[scene.request(WRITE, 0, REMOTE + 2 * round + 1, 1)]).remove(0);
        let error = end.error.expect("COMPLETED though the peer hung up");
        assert_eq!((error.code(), error.kind()), (Code::Socket, Class::Network), "{error}");
        assert!(error.retryable() && error.text().contains("not sent again"), "{error}");
    }
    let addrs: Vec<u64> = headers(&scene.finish()).iter().map(|header| header.addr).collect();
    assert_eq!(addrs, (0..20).map(|round| REMOTE + round).collect::<Vec<_>>(), "each exactly once");
}

#[test]
fn a_setting_lets_writes_that_an_upstream_peer_hung_up_on_be_sent_again() {
    let name = "a_setting_lets_writes_that_an_upstream_peer_hung_up_on_be_sent_again";
    if in_child(name, &[("MC_TCP_RESEND_WRITES", "1")]) {
        return;
    }
    let scene = Scene::v2(|turn| if turn.number == 0 { turn.answer() } else { Next::Close });
    for round in 0..50 {
        scene.completes("hung up before the answer", &[scene.request(WRITE, 0, REMOTE + round, 1)]);
    }
    let seen = headers(&scene.finish()).len();
    assert_eq!(seen, 99, "each request but the first was sent twice");
}

#[test]
fn a_request_that_makes_the_peer_hang_up_fails_alone() {
    const CULPRIT: u64 = REMOTE + 3 * 64;
    // Like upstream's server where it refuses v1: no frame, just a close.
    let scene = Scene::v2(|turn| if turn.header.addr == CULPRIT { Next::Close } else { turn.answer() });
    let requests: Vec<_> = (0..8).map(|i| scene.request(READ, i * 64, REMOTE + i as u64 * 64, 64)).collect();
    for (index, end) in scene.run(&requests).iter().enumerate() {
        let expected = if index == 3 { FAILED } else { COMPLETED };
        assert_eq!(end.status, expected, "request {index}: {end:?}");
    }
    let addrs: Vec<u64> = headers(&scene.finish()).iter().map(|header| header.addr).collect();
    let times = addrs.iter().filter(|addr| **addr == CULPRIT).count();
    assert!((1..=3).contains(&times), "the culprit was sent {times} times");
}

#[test]
fn a_write_is_never_sent_again_after_our_own_time_out() {
    let scene = Scene::v2(|turn| {
        turn.body();
        Next::Serve
    });
    let requests: Vec<_> = (0..5).map(|i| scene.request(WRITE, i * 64, REMOTE + i as u64 * 64, 64)).collect();
    for end in scene.run(&requests) {
        assert_eq!((end.status, end.bytes), (FAILED, 0));
        let error = end.error.unwrap();
        assert_eq!(error.kind(), Class::Timeout, "{error}");
    }
    let mut addrs: Vec<u64> = headers(&scene.finish()).iter().map(|header| header.addr).collect();
    addrs.sort_unstable();
    assert_eq!(addrs, (0..5).map(|i| REMOTE + i * 64).collect::<Vec<_>>(), "each exactly once");
}

#[test]
fn after_a_time_out_the_next_requests_use_another_connection() {
    let scene = Scene::v2(|turn| {
        if turn.connection == 0 {
            turn.body();
            return Next::Serve;
        }
        turn.answer()
    });
    assert_eq!(scene.run(&[scene.request(READ, 0, REMOTE, 64)])[0].status, FAILED);
    // The first answer never comes, or comes too late: it must not be taken for the second one.
    scene.completes("after the time-out", &[scene.request(READ, 64, REMOTE + 64, 64)]);
    assert!(scene.has_read(64, REMOTE + 64, 64));
    assert_eq!(scene.finish().len(), 2);
}

#[test]
fn answers_may_come_in_single_bytes() {
    let scene = Scene::v2(|turn| {
        let mut answer = OK_FRAME.to_vec();
        match turn.header.op {
            Op::Write => drop(turn.body()),
            Op::Read => answer.extend(turn.data()),
        }
        answer.iter().for_each(|byte| turn.send(&[*byte]));
        Next::Serve
    });
    let request = |i: u64| scene.request(i.is_multiple_of(3) as i32, i as usize * 50, REMOTE + i * 50, 1 + i);
    scene.completes("single bytes", &(0..40).map(request).collect::<Vec<_>>());
    assert!(
        (0..40_u64).all(|i| i.is_multiple_of(3) || scene.has_read(i as usize * 50, REMOTE + i * 50, 1 + i))
    );
    scene.finish();
}

#[test]
fn a_server_that_streams_instead_of_reading_fails_the_write_at_once() {
    // A v1-only server takes the v2 WRITE for a READ: both ends would block with full buffers.
    let scene = Scene::v2(|turn| {
        let payload = vec![0x55; turn.header.size as usize];
        turn.send(&payload);
        turn.body();
        Next::Close
    });
    let began = Instant::now();
    for round in 0..3 {
        let end = scene.run(&[scene.request(WRITE, 0, REMOTE, 1 << 20)]).remove(0);
        assert_eq!(end.status, FAILED);
        let error = end.error.unwrap();
        assert_eq!(error.kind(), Class::Protocol, "round {round}: {error}");
    }
    assert!(began.elapsed().as_secs_f64() < STATUS_TIMEOUT_SECS, "{:?}", began.elapsed());
    scene.finish();
}

#[test]
fn a_peer_without_a_protocol_version_gets_a_connection_per_request() {
    let scene = Scene::new(&[json!({})], |turn| turn.answer());
    for i in 0..6 {
        scene.completes("v1", &[scene.request(i % 2, i as usize * 64, REMOTE + i as u64 * 64, 64)]);
    }
    let together: Vec<_> =
        (6..14).map(|i| scene.request(i % 2, i as usize * 64, REMOTE + i as u64 * 64, 64)).collect();
    scene.completes("v1, in one call", &together);
    assert!((0..14).all(|i| i % 2 == 1 || scene.has_read(i as usize * 64, REMOTE + i * 64, 64)));
    let connections = scene.finish();
    let per_connection: Vec<usize> = connections.iter().map(|connection| connection.headers.len()).collect();
    assert_eq!(per_connection, [1; 14], "requests on each connection");
    assert!(headers(&connections).iter().all(|header| !header.v2));
}

#[test]
fn a_server_that_closes_after_one_request_gets_every_write() {
    // Upstream up to v0.3.9. A v1 WRITE has no answer, so one sent to a closed connection would be lost in silence.
    let scene = Scene::new(&[json!({})], |turn| {
        turn.answer();
        Next::Close
    });
    let writes: Vec<_> = (0..12).map(|i| scene.request(WRITE, i * 64, REMOTE + i as u64 * 64, 64)).collect();
    scene.completes("v1 WRITEs", &writes);
    let mut written: Vec<u64> = headers(&scene.finish()).iter().map(|header| header.addr).collect();
    written.sort_unstable();
    assert_eq!(
        written,
        (0..12).map(|i| REMOTE + i * 64).collect::<Vec<_>>(),
        "COMPLETED, but never received"
    );
}

#[test]
fn without_a_pool_each_request_has_its_own_connection() {
    let name = "without_a_pool_each_request_has_its_own_connection";
    if in_child(name, &[("MC_TCP_ENABLE_CONNECTION_POOL", "0")]) {
        return;
    }
    let scene = Scene::v2(|turn| turn.answer());
    let requests: Vec<_> =
        (0..12).map(|i| scene.request(i % 2, i as usize * 64, REMOTE + i as u64 * 64, 64)).collect();
    scene.completes("no pool", &requests);
    let connections = scene.finish();
    let per_connection: Vec<usize> = connections.iter().map(|connection| connection.headers.len()).collect();
    assert_eq!(per_connection, [1; 12], "requests on each connection");
    assert!(headers(&connections).iter().all(|header| header.v2));
}

fn with_incarnation(id: [u8; 16]) -> Value {
    let text: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({"tcp_proto_version": 2, "incarnation": text, "incarnation_addr": CELL})
}

/// A server of the engine start `INCARNATION`.
fn serve_incarnation(turn: &mut Turn) -> Next {
    if turn.header.addr == CELL {
        assert_eq!((turn.header.op, turn.header.size, turn.header.v2), (Op::Read, 16, true));
        turn.send(&[&OK_FRAME[..], &INCARNATION].concat());
        return Next::Serve;
    }
    turn.answer()
}

#[test]
fn each_connection_begins_with_the_proof_of_the_incarnation() {
    let scene = Scene::new(&[with_incarnation(INCARNATION)], serve_incarnation);
    let requests: Vec<_> = (0..20).map(|i| scene.request(WRITE, 0, REMOTE + i, 200_000)).collect();
    scene.completes("right incarnation", &requests);
    let connections = scene.finish();
    for connection in connections {
        let cells: Vec<bool> = connection.headers.iter().map(|h| Header::decode(h).addr == CELL).collect();
        assert!(cells[0] && !cells[1..].contains(&true), "{cells:?}");
    }
}

#[test]
fn p07_no_request_reaches_another_incarnation() {
    type Answer = fn(&mut Turn) -> Next;
    let answers: [(&str, Answer, Class); 4] = [
        ("another id", serve_incarnation, Class::Metadata),
        ("refused", |turn| turn.reject(), Class::Metadata),
        // Says nothing about who it is.
        ("closed", |_| Next::Close, Class::Network),
        (
            "not a frame",
            |turn| {
                turn.send(&[0; 24]);
                Next::Serve
            },
            Class::Metadata,
        ),
    ];
    for (case, answer, class) in answers {
        let mut other = INCARNATION;
        other[15] ^= 1;
        let scene = Scene::new(&[with_incarnation(other)], answer);
        for opcode in [WRITE, READ] {
            let end = scene.run(&[scene.request(opcode, 0, REMOTE, 64)]).remove(0);
            assert_eq!((end.status, end.bytes), (FAILED, 0), "{case}: {end:?}");
            let error = end.error.unwrap();
            assert_eq!(error.kind(), class, "{case}: {error}");
        }
        let seen = headers(&scene.finish());
        assert!(!seen.is_empty() && seen.iter().all(|header| header.addr == CELL), "{case}: {seen:?}");
    }
}

#[test]
fn p07_a_peer_that_restarted_gets_no_request_meant_for_its_predecessor_and_then_serves() {
    let mut before = INCARNATION;
    before[0] ^= 1;
    let scene = Scene::new(&[with_incarnation(before), with_incarnation(INCARNATION)], serve_incarnation);
    // Its address was checked against what the predecessor published.
    let end = scene.run(&[scene.request(READ, 0, REMOTE, 64)]).remove(0);
    assert_eq!((end.status, end.bytes), (FAILED, 0), "{end:?}");
    let error = end.error.unwrap();
    assert_eq!((error.kind(), error.retryable()), (Class::Metadata, true));
    assert!(!error.peer_name().is_empty() && error.text().contains("submit again"), "{error:?}");
    // The descriptor was read again meanwhile.
    scene.completes("restarted", &[scene.request(READ, 64, REMOTE + 64, 64)]);
    assert!(scene.has_read(64, REMOTE + 64, 64));
    let seen: Vec<u64> = headers(&scene.finish()).iter().map(|header| header.addr).collect();
    assert!(seen.iter().all(|addr| [CELL, REMOTE + 64].contains(addr)), "{seen:x?}");
}
