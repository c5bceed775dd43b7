//! The data port of an engine, served to a connection that sends requests, good and bad, in pieces of any length.
//!
//! The first byte says how long the pieces are. Then come requests of five bytes: bytes, offset, opcode; the bodies of WRITEs
//! are made here.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

use transfer_engine::engine::Engine;
use transfer_engine::memory::Range;
use transfer_engine::transport::slice::Op;
use transfer_engine::transport::tcp::wire::{Header, HEADER_LEN, OK_FRAME, REJECTED_FRAME};

use super::input::Input;
use super::rig;

/// Bytes that are only read; then some that are not registered; then as many that are only written.
const AREA: usize = 16 << 10;
const GAP: usize = 4 << 10;
/// Requests of one input, so that what they move fits into the buffers of sockets.
const MOST_REQUESTS: usize = 48;
/// Ends the requests and cuts off the end of what they say.
const CUT: u8 = 0x55;
/// Far longer than any answer takes.
const FOREVER: Duration = Duration::from_secs(20);

struct Server {
    engine: Arc<Engine>,
    memory: &'static [AtomicU8],
    port: u16,
}

/// What the server has to answer, and what it has to write.
#[derive(Default)]
struct Expected {
    /// `None` for a byte that a WRITE may have changed.
    answer: Vec<Option<u8>>,
    /// The end of the answer may be lost with the connection.
    may_be_cut: bool,
    written: Vec<(usize, Vec<u8>)>,
}

/// The answer is what the protocol says, and the memory has what the WRITEs say, as far as they came, and nothing else.
pub fn run(bytes: &[u8]) {
    thread_local!(static SERVER: Server = Server::start());
    SERVER.with(|server| server.serve(bytes));
}

impl Server {
    fn start() -> Self {
        let memory: Vec<AtomicU8> = (0..2 * AREA + GAP).map(|at| AtomicU8::new((at % 251) as u8)).collect();
        let memory: &'static [AtomicU8] = memory.leak();
        let engine = rig::engine();
        let addr = memory.as_ptr() as u64;
        let area = |at: usize| Range { addr: addr + at as u64, len: AREA as u64 };
        engine.register(&[area(0), area(AREA + GAP)], "*", true).unwrap();
        let port = rig::descriptor(&engine)["tcp_data_port"].as_u64().unwrap() as u16;
        Server { engine, memory, port }
    }

    fn serve(&self, bytes: &[u8]) {
        let mut input = Input(bytes);
        let piece = usize::from(input.byte()) * 7 + 1;
        let stream = self.stream(&mut input);
        let expected = self.expected(&stream);
        let before: Vec<u8> = self.memory.iter().map(|byte| byte.load(Relaxed)).collect();
        let mut answer = Vec::new();
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        connection.set_nodelay(true).unwrap();
        connection.set_read_timeout(Some(FOREVER)).unwrap();
        // Fails where the server has hung up; what it said before counts.
        let _ = stream.chunks(piece).try_for_each(|piece| connection.write_all(piece));
        let _ = connection.shutdown(Shutdown::Write);
        let ended = connection.read_to_end(&mut answer);
        assert!(ended.is_ok() || expected.may_be_cut, "{ended:?}");
        let is_whole = answer.len() == expected.answer.len();
        assert!(is_whole || expected.may_be_cut, "{} bytes, not {}", answer.len(), expected.answer.len());
        for (at, (byte, right)) in answer.iter().zip(&expected.answer).enumerate() {
            assert!(
                right.is_none_or(|right| right == *byte),
                "byte {at} of the answer is {byte}, not {right:?}"
            );
        }
        self.check(before, &expected);
        assert!(self.engine.enter().is_ok());
    }

    /// The requests of the input as they go through the connection.
    fn stream(&self, input: &mut Input<'_>) -> Vec<u8> {
        let mut stream = Vec::new();
        for number in 0..MOST_REQUESTS {
            if input.is_empty() {
                break;
            }
            let (size, offset, opcode) = (input.short(), input.short(), input.byte());
            if opcode == CUT {
                stream.truncate(stream.len().saturating_sub(usize::from(size)));
                break;
            }
            let size = if size == u16::MAX { u64::MAX } else { u64::from(size) % 4096 };
            let addr = self.memory.as_ptr() as u64 + u64::from(offset);
            let mut header = Header { size, addr, op: Op::Read, v2: false }.encode();
            header[16] = opcode;
            stream.extend(header);
            if opcode & 0x7f == 1 && size < 4096 {
                stream.extend((0..size).map(|at| (at as u8).wrapping_mul(7) ^ number as u8));
            }
        }
        stream
    }

    /// The protocol once more, over requests that are all there.
    fn expected(&self, mut stream: &[u8]) -> Expected {
        let mut expected = Expected::default();
        while let Some((head, rest)) = stream.split_first_chunk::<HEADER_LEN>() {
            let Header { size, addr, op, v2 } = Header::decode(head);
            let offset = addr.wrapping_sub(self.memory.as_ptr() as u64);
            let starts = [0, AREA + GAP].map(|start| start as u64);
            let fits = |start: &u64| {
                offset >= *start && offset < start + AREA as u64 && size <= start + AREA as u64 - offset
            };
            stream = rest;
            if size == 0 || !starts.iter().any(fits) {
                expected.may_be_cut = !v2;
                if v2 {
                    expected.answer.extend(REJECTED_FRAME.map(Some));
                }
                break;
            }
            let offset = offset as usize;
            let is_read_only = offset < AREA;
            if op == Op::Read {
                let data = self.memory[offset..offset + size as usize].iter().map(|byte| byte.load(Relaxed));
                expected.answer.extend(OK_FRAME.map(Some).into_iter().filter(|_| v2));
                expected.answer.extend(data.map(|byte| is_read_only.then_some(byte)));
                continue;
            }
            let (body, rest) = stream.split_at(stream.len().min(size as usize));
            expected.written.push((offset, body.to_vec()));
            stream = rest;
            // A connection that ends inside a body is closed at once.
            expected.may_be_cut |= (body.len() as u64) < size;
            if body.len() as u64 == size && v2 {
                expected.answer.extend(OK_FRAME.map(Some));
            }
        }
        let writes_there = expected.written.iter().any(|(offset, _)| *offset < AREA);
        expected.answer.iter_mut().filter(|_| writes_there).for_each(|byte| *byte = None);
        expected
    }

    fn check(&self, mut memory: Vec<u8>, expected: &Expected) {
        for (offset, body) in &expected.written {
            memory[*offset..offset + body.len()].copy_from_slice(body);
        }
        let found: Vec<u8> = self.memory.iter().map(|byte| byte.load(Relaxed)).collect();
        let wrong = (0..memory.len()).find(|at| memory[*at] != found[*at]);
        assert_eq!(
            wrong.map(|at| (at, memory[at], found[at])),
            None,
            "a byte, what it should be, what it is"
        );
    }
}
