//! Our data port against raw clients: what upstream's data port answered, and what no peer may do to it.

mod common;

use common::in_child;
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{mpsc, Arc};
use std::time::{Duration, Instant};

use serde_json::{json, Value};
use socket2::{Domain, Socket, Type};
use transfer_engine::engine::Engine;
use transfer_engine::handshake::wire::{Frame, CONNECTION, METADATA};
use transfer_engine::memory::Range;
use transfer_engine::transport::slice::Op;
use transfer_engine::transport::tcp::wire::{Header, HEADER_LEN, OK_FRAME, REJECTED_FRAME};

/// Far longer than any answer takes; a test that waits for it has failed.
const FOREVER: Duration = Duration::from_secs(20);

/// Bytes of the buffer of the recording.
const BYTES: usize = 1 << 20;

/// Where a probe reads: the last bytes, which no case changes.
const PROBE_OFFSET: usize = BYTES - 16;

/// Memory that the engine and the test both look at.
struct Memory(Vec<AtomicU8>);

impl Memory {
    fn new(bytes: usize) -> Self {
        Memory((0..bytes).map(|i| AtomicU8::new(recorded(i))).collect())
    }

    fn addr(&self) -> u64 {
        self.0.as_ptr() as u64
    }

    fn bytes(&self, at: usize, len: usize) -> Vec<u8> {
        self.0[at..at + len].iter().map(|byte| byte.load(Relaxed)).collect()
    }
}

/// What the recording's buffer held at `i`.
fn recorded(i: usize) -> u8 {
    (i % 251) as u8
}

/// An engine that serves one buffer.
struct Server {
    engine: Arc<Engine>,
    memory: Memory,
    port: u16,
    incarnation_addr: u64,
}

impl Server {
    fn start(bytes: usize) -> Self {
        let server = Self::start_without_buffer(bytes);
        server.register(0, bytes, true);
        server
    }

    fn start_without_buffer(bytes: usize) -> Self {
        let engine = Engine::create("P2PHANDSHAKE", "127.0.0.1", false).unwrap();
        engine.install_transport("tcp", None).unwrap();
        let descriptor = descriptor(engine.address().port);
        Server {
            port: descriptor["tcp_data_port"].as_u64().unwrap() as u16,
            incarnation_addr: descriptor["incarnation_addr"].as_u64().unwrap(),
            memory: Memory::new(bytes),
            engine,
        }
    }

    fn register(&self, at: usize, len: usize, remote: bool) {
        let range = Range { addr: self.memory.addr() + at as u64, len: len as u64 };
        self.engine.register(&[range], "*", remote).unwrap();
    }

    fn connect(&self) -> TcpStream {
        connect_from(1, self.port)
    }

    fn header(&self, op: Op, v2: bool, at: usize, len: usize) -> [u8; HEADER_LEN] {
        Header { size: len as u64, addr: self.memory.addr() + at as u64, op, v2 }.encode()
    }

    /// Fails unless the connection is open and nothing but the answer to this request arrives.
    fn probe(&self, stream: &mut TcpStream, case: &str) {
        stream.write_all(&self.header(Op::Read, true, PROBE_OFFSET, 16)).unwrap();
        let mut reply = [0; 24];
        stream.read_exact(&mut reply).unwrap_or_else(|e| panic!("{case}: the connection is not served: {e}"));
        let expected = [&OK_FRAME[..], &self.memory.bytes(PROBE_OFFSET, 16)].concat();
        assert_eq!(reply[..], expected, "{case}: bytes that are not the next answer");
    }

    fn probe_anew(&self, case: &str) {
        self.probe(&mut self.connect(), case);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.engine.destroy();
    }
}

/// A connection to `port` from 127.0.0.`host`.
fn connect_from(host: u8, port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, host], 0)).into()).unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(FOREVER)).unwrap();
    stream.set_write_timeout(Some(FOREVER)).unwrap();
    stream
}

/// The descriptor that the handshake daemon on `port` gives.
fn descriptor(port: u16) -> Value {
    ask(port, METADATA, &json!({}))
}

/// What the handshake port answers.
fn ask(port: u16, kind: u8, body: &Value) -> Value {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(FOREVER)).unwrap();
    stream.write_all(&Frame::of_json(Some(kind), body).encode()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    assert_eq!(reply[8], kind);
    serde_json::from_slice(&reply[9..]).unwrap()
}

/// Everything up to the server's close. A reset is a close too where `reset` allows it.
fn read_to_close(stream: &mut TcpStream, reset: bool, case: &str) -> Vec<u8> {
    let mut received = Vec::new();
    match stream.read_to_end(&mut received) {
        Ok(_) => {}
        Err(e) if reset && e.kind() == ErrorKind::ConnectionReset => {}
        Err(e) => panic!("{case}: the connection is not closed: {e}"),
    }
    received
}

/// Deterministic random numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

fn hex(recorded: &Value) -> Vec<u8> {
    let hex = recorded["hex"].as_str().unwrap();
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
    assert_eq!(bytes.len() as u64, recorded["len"].as_u64().unwrap(), "a truncated recording");
    bytes
}

/// `sent` with the addresses of the recorded buffer moved to ours, and the bytes that its last request lacks.
fn rebase(mut sent: Vec<u8>, recorded_base: u64, base: u64) -> (Vec<u8>, usize) {
    let mut at = 0;
    while at < sent.len() {
        let word = |from: usize| u64::from_le_bytes(sent[at + from..at + from + 8].try_into().unwrap());
        let (size, addr) = (word(0), word(8));
        let is_write = sent[at + 16] & 0x7f == 1;
        if addr >= recorded_base && addr - recorded_base <= BYTES as u64 {
            sent[at + 8..at + 16].copy_from_slice(&(addr - recorded_base + base).to_le_bytes());
        }
        at += HEADER_LEN + if is_write { size as usize } else { 0 };
    }
    let missing = at - sent.len();
    (sent, missing)
}

#[test]
fn every_recorded_request_gets_the_recorded_answer() {
    let file: Value = serde_json::from_slice(include_bytes!("vectors/tcp-data-server.json")).unwrap();
    let recorded_base = file["server_buffer_addr"].as_u64().unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 21);
    let server = Server::start(BYTES);
    for case in cases {
        let name = case["case"].as_str().unwrap();
        let expected = hex(&case["received"]);
        let (sent, missing) = rebase(hex(&case["sent"]), recorded_base, server.memory.addr());
        let mut stream = server.connect();
        if name.ends_with("three parts") {
            for part in [&sent[..29], &sent[29..33], &sent[33..]] {
                stream.write_all(part).unwrap();
            }
        } else {
            stream.write_all(&sent).unwrap();
        }
        match case["connection_after"].as_str().unwrap() {
            "eof" => assert_eq!(read_to_close(&mut stream, false, name), expected, "{name}"),
            "open" => {
                let mut received = vec![0; expected.len()];
                stream.read_exact(&mut received).unwrap_or_else(|e| panic!("{name}: {e}"));
                assert_eq!(received, expected, "{name}");
                if missing == 0 || expected.is_empty() && name.starts_with("v1") {
                    server.probe(&mut stream, name);
                } else {
                    // The server waits for the rest; with it, it answers.
                    stream.write_all(&vec![0; missing]).unwrap();
                    let len = if sent[16] & 0x7f == 1 { 8 } else { 12 };
                    let mut answer = vec![0; len];
                    stream.read_exact(&mut answer).unwrap_or_else(|e| panic!("{name}, completed: {e}"));
                    assert_eq!(answer[..8], OK_FRAME, "{name}, completed");
                    server.probe(&mut stream, name);
                }
            }
            other => panic!("{name}: unknown state {other}"),
        }
        server.probe_anew(name);
    }
}

#[test]
fn a_written_range_holds_the_bytes_when_the_answer_comes() {
    let server = Server::start(BYTES);
    let mut stream = server.connect();
    let body: Vec<u8> = (0..300_000).map(|i| (i * 7 % 256) as u8).collect();
    stream.write_all(&server.header(Op::Write, true, 1000, body.len())).unwrap();
    stream.write_all(&body).unwrap();
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, OK_FRAME);
    assert!(server.memory.bytes(1000, body.len()) == body);
    let untouched = |from: usize, to: usize| (from..to).all(|i| server.memory.bytes(i, 1) == [recorded(i)]);
    assert!(untouched(0, 1000) && untouched(1000 + body.len(), BYTES));
}

/// Many requests as one run of bytes, and the answer. READs come from the lower half, each WRITE has its own range
/// of the upper one: requests that arrive together are not ordered among each other.
fn pipeline(server: &Server, random: &mut Random) -> (Vec<u8>, Vec<u8>, HashMap<usize, Vec<u8>>) {
    let (mut sent, mut answer, mut written) = (Vec::new(), Vec::new(), HashMap::new());
    for number in 0..400 {
        let v2 = random.below(4) > 0;
        let len = 1 + random.below(1200);
        if random.below(2) == 0 {
            let at = random.below(BYTES / 2 - len);
            sent.extend(server.header(Op::Read, v2, at, len));
            answer.extend(v2.then_some(OK_FRAME).into_iter().flatten());
            answer.extend((at..at + len).map(recorded));
        } else {
            let at = BYTES / 2 + number * 1200;
            let body: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
            sent.extend(server.header(Op::Write, v2, at, len));
            sent.extend(&body);
            answer.extend(v2.then_some(OK_FRAME).into_iter().flatten());
            written.insert(at, body);
        }
    }
    (sent, answer, written)
}

/// Sends in pieces of up to `longest` bytes (0: in one), and receives `count` bytes meanwhile.
fn send_in_pieces(
    stream: &mut TcpStream,
    sent: Vec<u8>,
    longest: usize,
    mut random: Random,
    count: usize,
) -> Vec<u8> {
    let mut sender = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let mut rest = &sent[..];
        while !rest.is_empty() {
            let len = if longest == 0 { rest.len() } else { 1 + random.below(longest) };
            let (piece, more) = rest.split_at(len.min(rest.len()));
            sender.write_all(piece).unwrap();
            rest = more;
        }
    });
    let mut received = vec![0; count];
    stream.read_exact(&mut received).unwrap_or_else(|e| panic!("pieces of up to {longest} bytes: {e}"));
    sending.join().unwrap();
    received
}

#[test]
fn pipelined_requests_are_answered_in_order_however_they_are_split() {
    let server = Server::start(BYTES);
    // 0: in one piece; else the longest piece.
    for (seed, longest) in [(1, 0), (2, 1), (3, 23), (4, 25), (5, 700), (6, 9000)] {
        let mut random = Random(seed);
        let (sent, expected, written) = pipeline(&server, &mut random);
        let mut stream = server.connect();
        let received = send_in_pieces(&mut stream, sent, longest, random, expected.len());
        let differs = received.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}: first wrong byte of the answers");
        // Its answer also shows that the WRITEs without an answer are done.
        server.probe(&mut stream, "after the pipeline");
        for (at, body) in written {
            assert!(server.memory.bytes(at, body.len()) == body, "seed {seed}: WRITE at offset {at}");
        }
    }
}

/// WRITEs in rows of one size, each to its own range, with a READ here and there; and the answer.
fn rows(server: &Server, random: &mut Random) -> (Vec<u8>, Vec<u8>, HashMap<usize, Vec<u8>>) {
    let (mut sent, mut answer, mut written) = (Vec::new(), Vec::new(), HashMap::new());
    let mut at = 0;
    // Around what a header, a page and a small body have.
    for len in [1, 23, 24, 25, 700, 4096, 4096, 16 << 10, (16 << 10) + 1, 2000, 24] {
        for _ in 0..1 + random.below(80) {
            let v2 = random.below(40) > 0;
            let body: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
            sent.extend(server.header(Op::Write, v2, at, len));
            sent.extend(&body);
            answer.extend(v2.then_some(OK_FRAME).into_iter().flatten());
            written.insert(at, body);
            at += len;
        }
        if random.below(2) == 0 {
            sent.extend(server.header(Op::Read, true, ROWS - 16, 16));
            answer.extend([&OK_FRAME[..], &server.memory.bytes(ROWS - 16, 16)].concat());
        }
    }
    (sent, answer, written)
}

/// More than [`rows`] write.
const ROWS: usize = 4 << 20;

#[test]
fn writes_in_a_row_are_answered_in_order_however_they_are_split() {
    let server = Server::start(ROWS);
    // 0: in one piece; else the longest piece.
    for (seed, longest) in [(1, 0), (2, 0), (3, 50_000), (4, 4120), (5, 4119), (6, 300_000)] {
        let (sent, expected, written) = rows(&server, &mut Random(seed));
        let mut stream = server.connect();
        let received = send_in_pieces(&mut stream, sent, longest, Random(seed), expected.len());
        let differs = received.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}: first wrong byte of the answers");
        // Its answer also shows that the WRITEs without an answer are done.
        server.probe(&mut stream, "after the rows");
        for (at, body) in written {
            assert!(server.memory.bytes(at, body.len()) == body, "seed {seed}: WRITE at offset {at}");
        }
    }
}

#[test]
fn a_row_of_writes_ends_with_the_one_that_is_refused() {
    const LEN: usize = 4096;
    static READ_ONLY: [u8; LEN] = [7; LEN];
    let server = Server::start(BYTES);
    let addr = READ_ONLY.as_ptr() as u64;
    server.engine.register(&[Range { addr, len: LEN as u64 }], "*", true).unwrap();
    // An address that nobody registered, one of memory that cannot be written, and the same once that is known.
    for (round, wrong) in [LEN as u64, addr, addr].into_iter().enumerate() {
        for culprit in [1, 2, 30, 63, 64, 100] {
            let (mut sent, byte) = (Vec::new(), (1 + round * 110 + culprit) as u8);
            for number in 0..120 {
                let at = number * LEN;
                sent.extend(match number == culprit {
                    true => Header { size: LEN as u64, addr: wrong, op: Op::Write, v2: true }.encode(),
                    false => server.header(Op::Write, true, at, LEN),
                });
                sent.extend([byte; LEN]);
            }
            let mut stream = server.connect();
            let mut sender = stream.try_clone().unwrap();
            let sending = std::thread::spawn(move || {
                let _ = sender.write_all(&sent);
                let _ = sender.shutdown(Shutdown::Write);
            });
            let case = format!("round {round}, culprit {culprit}");
            let answer = read_to_close(&mut stream, false, &case);
            let expected = [&OK_FRAME.repeat(culprit)[..], &REJECTED_FRAME].concat();
            assert!(answer == expected, "{case}: {} bytes of answers", answer.len());
            sending.join().unwrap();
            let written = |number: usize| server.memory.bytes(number * LEN, LEN) == [byte; LEN];
            let wrong = (0..120).find(|number| written(*number) != (*number < culprit));
            assert_eq!(wrong, None, "{case}: first WRITE that should have been executed, or not");
        }
    }
    server.probe_anew("after the refusals");
}

#[test]
fn garbage_behind_a_row_of_writes_harms_nobody() {
    let server = Server::start(BYTES);
    for seed in 0..200 {
        let mut random = Random(100 + seed);
        let mut sent = Vec::new();
        let mut header = server.header(Op::Write, true, 0, 50);
        for _ in 0..1 + random.below(70) {
            sent.extend(header);
            sent.extend([0x55; 50]);
        }
        // A header with a wrong bit, or bytes that are none.
        match random.below(2) {
            0 => header[random.below(16)] ^= 1 << random.below(8),
            _ => header.iter_mut().for_each(|byte| *byte = random.next() as u8),
        }
        let wrong = Header::decode(&header);
        let offset = wrong.addr.wrapping_sub(server.memory.addr());
        if wrong.size > 0 && offset < BYTES as u64 && wrong.size <= BYTES as u64 - offset {
            continue;
        }
        sent.extend(header);
        sent.extend((0..random.below(9000)).map(|_| random.next() as u8));
        let mut stream = server.connect();
        let _ = stream.write_all(&sent);
        let _ = stream.shutdown(Shutdown::Write);
        read_to_close(&mut stream, true, "garbage");
    }
    let changed = (50..BYTES).find(|i| server.memory.bytes(*i, 1) != [recorded(*i)]);
    assert_eq!(changed, None, "garbage changed memory");
    server.probe_anew("after the garbage");
}

#[test]
fn the_address_check_is_exact() {
    let server = Server::start_without_buffer(BYTES);
    server.register(4096, 4096, true);
    server.register(8192, 4096, true);
    server.register(20480, 4096, false);
    let high = (u64::MAX - server.memory.addr()) as usize;
    for (at, len, accepted) in [
        (4096, 1, true),
        (4096, 4096, true),
        (8191, 1, true),
        (8192, 4096, true),
        (12287, 1, true),
        (4095, 1, false),
        (4095, 2, false),
        (4096, 4097, false),
        (8191, 2, false),
        (4096, 8192, false),
        (12287, 2, false),
        (12288, 1, false),
        (4096, 0, false),
        (4096, usize::MAX, false),
        (4097, high, false),
        (20480, 1, false),
        (20480, 4096, false),
    ] {
        for op in [Op::Read, Op::Write] {
            let case = format!("{op:?} of {len} at {at}");
            let mut stream = server.connect();
            stream.write_all(&server.header(op, true, at, len)).unwrap();
            if !accepted {
                assert_eq!(read_to_close(&mut stream, false, &case), REJECTED_FRAME, "{case}");
                continue;
            }
            let mut expected = OK_FRAME.to_vec();
            match op {
                Op::Write => stream.write_all(&server.memory.bytes(at, len)).unwrap(),
                Op::Read => expected.extend(server.memory.bytes(at, len)),
            }
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_close(&mut stream, false, &case), expected, "{case}");
        }
    }
    assert!((0..BYTES).all(|i| server.memory.bytes(i, 1) == [recorded(i)]), "a refused WRITE changed memory");
}

#[test]
fn the_incarnation_cell_can_be_read_whole_and_never_written() {
    let server = Server::start(BYTES);
    let ask = |op, v2, addr, size| {
        let mut stream = server.connect();
        stream.write_all(&Header { size, addr, op, v2 }.encode()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        read_to_close(&mut stream, false, "incarnation")
    };
    let cell = server.incarnation_addr;
    let id = ask(Op::Read, true, cell, 16);
    assert_eq!((id.len(), &id[..8]), (24, &OK_FRAME[..]));
    let published = descriptor(server.engine.address().port)["incarnation"].as_str().unwrap().to_string();
    let text: String = id[8..].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text, published);
    for (op, v2, addr, size) in [
        (Op::Read, true, cell, 15),
        (Op::Read, true, cell, 17),
        (Op::Read, true, cell + 1, 15),
        (Op::Write, true, cell, 16),
        (Op::Write, false, cell, 16),
    ] {
        let expected = if v2 { &REJECTED_FRAME[..] } else { &[] };
        assert_eq!(ask(op, v2, addr, size), expected, "{op:?} of {size} at the cell + {}", addr - cell);
    }
    assert_eq!(ask(Op::Read, true, cell, 16), id);
}

#[test]
fn a_refusal_survives_the_body_that_follows_it() {
    let server = Server::start(BYTES);
    let body = vec![0; 4 << 20];
    for round in 0..20 {
        let mut stream = server.connect();
        stream
            .write_all(&Header { size: body.len() as u64, addr: 4096, op: Op::Write, v2: true }.encode())
            .unwrap();
        stream.write_all(&body).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_close(&mut stream, false, "refused"), REJECTED_FRAME, "round {round}");
    }
}

#[test]
fn nothing_behind_a_refused_request_is_executed() {
    let server = Server::start(BYTES);
    let mut sent = server.header(Op::Read, true, 0, 4).to_vec();
    sent.extend(Header { size: 4, addr: 4096, op: Op::Read, v2: true }.encode());
    sent.extend(server.header(Op::Write, true, 0, 4));
    sent.extend(b"lost");
    sent.extend(server.header(Op::Read, true, 0, 4));
    let mut stream = server.connect();
    stream.write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let expected = [&OK_FRAME[..], &[0, 1, 2, 3], &REJECTED_FRAME[..]].concat();
    assert_eq!(read_to_close(&mut stream, false, "refused"), expected);
    assert_eq!(server.memory.bytes(0, 4), [0, 1, 2, 3]);
    server.probe_anew("after the refusal");
}

#[test]
fn random_bytes_harm_nobody() {
    let server = Server::start(BYTES);
    let mut random = Random(7);
    let mut left = 200_000;
    while left > 0 {
        let len = (1 + random.below(1500)).min(left);
        left -= len;
        let garbage: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        let mut stream = server.connect();
        // The server may hang up in the middle.
        let _ = stream.write_all(&garbage);
        let _ = stream.shutdown(Shutdown::Write);
        let received = read_to_close(&mut stream, true, "garbage");
        assert!(received.is_empty() || received == REJECTED_FRAME, "{received:?}");
    }
    assert!((0..BYTES).all(|i| server.memory.bytes(i, 1) == [recorded(i)]), "garbage changed memory");
    server.probe_anew("after the garbage");
}

#[test]
fn requests_with_one_wrong_byte_harm_nobody() {
    let server = Server::start(BYTES);
    let mut random = Random(8);
    for round in 0..2000 {
        let mut request =
            server.header(Op::Read, random.below(2) == 0, random.below(BYTES), 1 + random.below(64));
        // Not the opcode: a READ never becomes a WRITE.
        request[random.below(16)] ^= 1 << random.below(8);
        let mut stream = server.connect();
        stream.write_all(&request).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let header = Header::decode(&request);
        let offset = header.addr.wrapping_sub(server.memory.addr());
        let inside = header.size > 0 && offset < BYTES as u64 && header.size <= BYTES as u64 - offset;
        let mut expected = Vec::new();
        if header.v2 {
            expected.extend(if inside { OK_FRAME } else { REJECTED_FRAME });
        }
        if inside {
            expected.extend((offset..offset + header.size).map(|i| recorded(i as usize)));
        }
        let received = read_to_close(&mut stream, false, "one wrong byte");
        assert!(received == expected, "round {round}: {header:?} at offset {offset:#x}");
    }
    server.probe_anew("after the wrong bytes");
}

#[test]
fn a_reader_that_stops_does_not_hold_up_the_others() {
    const REPLIES: usize = 64;
    let server = Server::start(BYTES);
    let mut stopped = server.connect();
    for _ in 0..REPLIES {
        stopped.write_all(&server.header(Op::Read, true, 0, BYTES)).unwrap();
    }
    // Others stop in the middle of what they send.
    let mut half_header = server.connect();
    half_header.write_all(&server.header(Op::Read, true, 0, 8)[..11]).unwrap();
    let mut half_body = server.connect();
    half_body.write_all(&server.header(Op::Write, true, 0, 8)).unwrap();
    half_body.write_all(&[0, 1, 2]).unwrap();

    // More than one, so that some share a thread with those that stopped.
    let began = Instant::now();
    for _ in 0..8 {
        let mut stream = server.connect();
        for _ in 0..200 {
            server.probe(&mut stream, "beside a reader that stopped");
        }
    }
    assert!(began.elapsed() < FOREVER, "served, but only after {:?}", began.elapsed());

    let expected = [&OK_FRAME[..], &server.memory.bytes(0, BYTES)].concat();
    let mut received = vec![0; expected.len()];
    for number in 0..REPLIES {
        stopped.read_exact(&mut received).unwrap_or_else(|e| panic!("reply {number}: {e}"));
        assert!(received == expected, "reply {number}");
    }
    half_header.write_all(&server.header(Op::Read, true, 0, 8)[11..]).unwrap();
    half_body.write_all(&[3, 4, 5, 6, 7]).unwrap();
    let mut answer = [0; 16];
    half_header.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"\0\0\0\0VTCM\0\x01\x02\x03\x04\x05\x06\x07");
    half_body.read_exact(&mut answer[..8]).unwrap();
    assert_eq!(answer[..8], OK_FRAME);
    for mut stream in [stopped, half_header, half_body] {
        server.probe(&mut stream, "a connection that had stopped");
    }
}

#[test]
fn connections_over_the_limit_are_closed_and_the_others_stay() {
    let name = "connections_over_the_limit_are_closed_and_the_others_stay";
    if in_child(name, &[("MC_TCP_MAX_INBOUND", "3"), ("MC_LOG_LEVEL", "ERROR")]) {
        return;
    }
    let server = Server::start(BYTES);
    let mut open: Vec<TcpStream> = (0..3).map(|_| server.connect()).collect();
    open.iter_mut().for_each(|stream| server.probe(stream, "within the limit"));
    for _ in 0..20 {
        assert!(read_to_close(&mut server.connect(), true, "over the limit").is_empty());
        open.iter_mut().for_each(|stream| server.probe(stream, "while others are refused"));
    }
    // A place is free again once the server has seen the close: until then connections are refused.
    drop(open.pop());
    let deadline = Instant::now() + FOREVER;
    loop {
        let mut stream = server.connect();
        let asked = stream.write_all(&server.header(Op::Read, true, PROBE_OFFSET, 16));
        let mut reply = [0; 24];
        if asked.and_then(|()| stream.read_exact(&mut reply)).is_ok() {
            open.push(stream);
            break;
        }
        assert!(Instant::now() < deadline, "the place of a closed connection is never free again");
    }
    open.iter_mut().for_each(|stream| server.probe(stream, "in the end"));
}

/// Opens `count` connections to `port` from 127.0.0.`host`, and opens each again that is closed. They send `dribble`, one
/// byte in a tenth of a second each; nothing at all if it is empty, and then come back at once.
struct Strangers {
    done: Arc<AtomicBool>,
    /// Told whenever each of them had its turn.
    rounds: mpsc::Receiver<()>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Strangers {
    fn start(host: u8, port: u16, count: usize, dribble: &'static [u8]) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let (seen, (round_over, rounds)) = (done.clone(), mpsc::sync_channel(0));
        let thread = std::thread::spawn(move || {
            let mut open: Vec<TcpStream> = Vec::new();
            for round in 0.. {
                open.resize_with(count, || connect_from(host, port));
                for stream in &mut open {
                    stream.set_nonblocking(true).unwrap();
                    let sent = dribble.get(round % 20).map_or(Ok(0), |byte| stream.write(&[*byte]));
                    let lost = sent.is_err()
                        || !matches!(stream.read(&mut [0]), Err(e) if e.kind() == ErrorKind::WouldBlock);
                    if lost {
                        *stream = connect_from(host, port);
                    }
                }
                let _ = round_over.try_send(());
                if seen.load(Relaxed) {
                    return;
                }
                if !dribble.is_empty() {
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        });
        let strangers = Strangers { done, rounds, thread: Some(thread) };
        strangers.wait();
        strangers
    }

    /// Waits until each had its turn since.
    fn wait(&self) {
        self.rounds.recv_timeout(FOREVER).unwrap();
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        self.done.store(true, Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn p39_strangers_that_ask_for_nothing_keep_nobody_out() {
    let name = "p39_strangers_that_ask_for_nothing_keep_nobody_out";
    if in_child(name, &[("MC_TCP_MAX_INBOUND", "8"), ("MC_LOG_LEVEL", "ERROR")]) {
        return;
    }
    for dribble in [&[][..], &[0; 20]] {
        let server = Server::start(BYTES);
        // One that was there before them, and is idle meanwhile.
        let mut idle = server.connect();
        server.probe(&mut idle, "before the strangers");
        let strangers = Strangers::start(2, server.port, 40, dribble);
        let mut random = Random(9);
        for round in 0..50 {
            let case = format!("round {round} beside strangers that send {} bytes", dribble.len());
            let body: Vec<u8> = (0..10_000).map(|_| random.next() as u8).collect();
            let mut stream = server.connect();
            stream.write_all(&server.header(Op::Write, true, 0, body.len())).unwrap();
            stream.write_all(&body).unwrap();
            stream.write_all(&server.header(Op::Read, true, 0, body.len())).unwrap();
            let mut answer = [0; 8];
            stream.read_exact(&mut answer).unwrap_or_else(|e| panic!("{case}: {e}"));
            assert_eq!(answer, OK_FRAME, "{case}");
            let mut received = vec![0; 8 + body.len()];
            stream.read_exact(&mut received).unwrap_or_else(|e| panic!("{case}: {e}"));
            assert!(received == [&OK_FRAME[..], &body].concat(), "{case}: other bytes");
            if round % 5 == 0 {
                strangers.wait();
            }
        }
        server.probe(&mut idle, "after the strangers");
        drop(strangers);
    }
}

#[test]
fn a_source_that_took_every_place_gives_some_back() {
    let name = "a_source_that_took_every_place_gives_some_back";
    if in_child(name, &[("MC_TCP_MAX_INBOUND", "8"), ("MC_LOG_LEVEL", "ERROR")]) {
        return;
    }
    let server = Server::start(BYTES);
    // Every one asked for something, and half of them do not take the answer.
    let mut open: Vec<TcpStream> = (0..8).map(|_| connect_from(2, server.port)).collect();
    open.iter_mut().for_each(|stream| server.probe(stream, "the first source"));
    for stream in &mut open[..4] {
        (0..64).for_each(|_| stream.write_all(&server.header(Op::Read, true, 0, BYTES)).unwrap());
    }
    let mut others: Vec<TcpStream> = (0..4).map(|_| connect_from(1, server.port)).collect();
    others.iter_mut().for_each(|stream| server.probe(stream, "the second source"));
    // Its half of the places is its own, and so is the other half the second source's.
    assert!(read_to_close(&mut connect_from(2, server.port), true, "over the limit").is_empty());
    others.iter_mut().for_each(|stream| server.probe(stream, "the second source, once more"));
}

#[test]
fn a_connection_without_a_request_is_closed_in_time_and_an_idle_one_is_not() {
    let name = "a_connection_without_a_request_is_closed_in_time_and_an_idle_one_is_not";
    if in_child(name, &[("MC_TCP_FIRST_REQUEST_TIMEOUT_SEC", "1")]) {
        return;
    }
    let server = Server::start(BYTES);
    let mut idle = server.connect();
    server.probe(&mut idle, "before it is idle");
    let (mut silent, mut dribbling) = (server.connect(), server.connect());
    // A byte now and then is no request: it is closed before the header is complete.
    dribbling.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let is_open = |dribbling: &mut TcpStream| {
        dribbling.write_all(&[0]).is_ok()
            && matches!(dribbling.read(&mut [0]), Err(e) if e.kind() == ErrorKind::WouldBlock)
    };
    assert!(!(1..HEADER_LEN).all(|_| is_open(&mut dribbling)), "a header may take for ever");
    assert!(read_to_close(&mut silent, true, "silent").is_empty());
    server.probe(&mut idle, "after others were dropped");
}

#[test]
fn a_peer_that_stops_inside_a_request_is_dropped_and_an_idle_one_is_not() {
    let name = "a_peer_that_stops_inside_a_request_is_dropped_and_an_idle_one_is_not";
    if in_child(name, &[("MC_TCP_BODY_TIMEOUT_SEC", "1")]) {
        return;
    }
    let server = Server::start(BYTES);
    let mut idle = server.connect();
    server.probe(&mut idle, "before it is idle");
    let mut half_header = server.connect();
    half_header.write_all(&server.header(Op::Read, true, 0, 8)[..23]).unwrap();
    let mut half_body = server.connect();
    half_body.write_all(&server.header(Op::Write, true, 0, 8)).unwrap();
    let began = Instant::now();
    for stream in [&mut half_header, &mut half_body] {
        assert!(read_to_close(stream, true, "stopped").is_empty());
    }
    let seconds = began.elapsed().as_secs_f64();
    assert!((0.5..10.0).contains(&seconds), "dropped after {seconds} s instead of 1");
    server.probe(&mut idle, "after others were dropped");
}

#[test]
fn unregistering_ends_a_request_that_is_stuck_and_nothing_is_written_afterwards() {
    let server = Server::start(BYTES);
    let mut stuck = server.connect();
    stuck.write_all(&server.header(Op::Write, true, 0, BYTES)).unwrap();
    stuck.write_all(&[0xee; 1000]).unwrap();
    // Seen in memory, so the server is inside the body.
    let deadline = Instant::now() + FOREVER;
    while server.memory.bytes(999, 1) != [0xee] {
        assert!(Instant::now() < deadline, "the body does not arrive");
        std::thread::yield_now();
    }
    let began = Instant::now();
    server.engine.unregister([server.memory.addr()].into_iter()).unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "after {:?}", began.elapsed());
    let _ = stuck.write_all(&[0xdd; 1000]);
    assert!(read_to_close(&mut stuck, true, "unregistered").is_empty());
    assert_eq!(server.memory.bytes(1000, 1), [recorded(1000)]);
    let mut late = server.connect();
    late.write_all(&server.header(Op::Read, true, 0, 1)).unwrap();
    assert_eq!(read_to_close(&mut late, false, "unregistered"), REJECTED_FRAME);
    server.register(0, BYTES, true);
    server.probe_anew("registered again");
}

#[test]
fn a_write_to_memory_that_can_only_be_read_does_not_end_the_reads_of_others() {
    static READ_ONLY: [u8; 1 << 16] = [7; 1 << 16];
    let server = Server::start(BYTES);
    let addr = READ_ONLY.as_ptr() as u64;
    server.engine.register(&[Range { addr, len: READ_ONLY.len() as u64 }], "*", true).unwrap();
    let ask = |op| {
        let mut stream = server.connect();
        stream.write_all(&Header { size: 4096, addr, op, v2: true }.encode()).unwrap();
        stream
    };
    let mut writer = ask(Op::Write);
    writer.write_all(&[1; 4096]).unwrap();
    assert_eq!(read_to_close(&mut writer, false, "the WRITE"), REJECTED_FRAME);
    let mut reply = vec![0; OK_FRAME.len() + 4096];
    ask(Op::Read).read_exact(&mut reply).expect("a READ of the same range");
    assert_eq!(reply, [&OK_FRAME[..], &READ_ONLY[..4096]].concat());
    // And the WRITE is refused at once from now on.
    assert_eq!(read_to_close(&mut ask(Op::Write), false, "another WRITE"), REJECTED_FRAME);
}

#[test]
fn p02_a_connection_is_said_to_be_closed_only_if_it_is() {
    let server = Server::start(BYTES);
    let own = descriptor(server.engine.address().port)["incarnation"].clone();
    let marked = |mark| {
        let mut stream = server.connect();
        let cell = Header { size: 16, addr: server.incarnation_addr, op: Op::Read, v2: true };
        stream.write_all(&cell.encode_marked(mark)).unwrap();
        stream.read_exact(&mut [0; 24]).unwrap();
        stream
    };
    let confirms = |connections: Vec<u64>, incarnation: &Value| {
        let question = json!({"withdraw": true, "incarnation": incarnation, "connections": connections});
        ask(server.engine.address().port, CONNECTION, &question)["withdraw"].as_bool().unwrap()
    };
    let (mut first, mut second, mut unmarked) = (marked(1), marked(2), marked(0));
    assert!(!confirms(vec![1], &json!("00")) && !confirms(vec![1], &json!(null)));
    // Too many to look at; none of them is looked at.
    assert!(!confirms((0..=1024).map(|n| 1025 - n).collect(), &own));
    server.probe(&mut first, "asked of another engine, or with too many others");
    assert!(confirms(vec![0, 1, 3], &own));
    assert!(read_to_close(&mut first, true, "closed").is_empty());
    server.probe(&mut second, "another mark");
    server.probe(&mut unmarked, "no mark");
    assert!(confirms((2..1026).collect(), &own));
    assert!(read_to_close(&mut second, true, "closed").is_empty());
}
