//! The socket on which an engine serves others of this host, as a sequence of messages of a peer that has greeted.

use std::io::{ErrorKind, Read};
use std::sync::atomic::{AtomicU64, AtomicU8, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use transfer_engine::engine::{Engine, Wanted};
use transfer_engine::memory::Range;
use transfer_engine::transport::incarnation;
use transfer_engine::transport::shm::fuzz::{hello, rewritten, socket_name};

use super::input::Input;
use super::rig;

/// Bytes that peers may write; as many before and behind are not registered.
const AREA: usize = 8 << 10;
const OWN: [u8; incarnation::LEN] = [7; incarnation::LEN];
/// What the word of the peer's connection holds.
const NUMBER: u64 = 0x1234_5678;
/// Messages of one input.
const MOST_MESSAGES: usize = 32;
/// As the protocol has it: kinds, numbers of their entries.
const WIDTHS: [usize; 13] = [1, 8, 5, 5, 1, 3, 2, 6, 3, 1, 1, 1, 2];
const WRITE: u64 = 3;
const ASK: u64 = 5;
const ENDED: u64 = 6;
/// Far longer than any answer takes.
const FOREVER: Duration = Duration::from_secs(20);

struct Server {
    engine: Arc<Engine>,
    memory: &'static [AtomicU8],
    source: &'static [u8],
    greeting: Vec<u8>,
    address: SockAddr,
}

/// Each WRITE is answered once, answers are messages, and no byte changes that is not registered.
pub fn run(bytes: &[u8]) {
    thread_local!(static SERVER: Server = Server::start());
    SERVER.with(|server| server.serve(Input(bytes)));
}

impl Server {
    fn start() -> Self {
        let engine = Engine::create_with("P2PHANDSHAKE", "127.0.0.1", Wanted::Named("tcp,shm"), "").unwrap();
        let memory: &'static [AtomicU8] = (0..3 * AREA).map(|_| AtomicU8::new(9)).collect::<Vec<_>>().leak();
        let middle = Range { addr: memory.as_ptr() as u64 + AREA as u64, len: AREA as u64 };
        engine.register(&[middle], "*", true).unwrap();
        let own = u64::from_ne_bytes([OWN[0]; 8]);
        let board = Box::leak(Box::new([own, own, NUMBER, 0].map(AtomicU64::new)));
        let cell = board.as_ptr() as u64;
        let theirs = incarnation::unhex(rig::descriptor(&engine)["incarnation"].as_str().unwrap()).unwrap();
        let greeting = hello(&OWN, &theirs, cell, (cell, NUMBER));
        let address = SockAddr::unix(format!("\0{}", socket_name(&theirs))).unwrap();
        let source = vec![5; AREA].leak();
        Server { engine, memory, source, greeting, address }
    }

    fn serve(&self, mut input: Input<'_>) {
        let mut socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        socket.connect(&self.address).unwrap();
        socket.set_read_timeout(Some(FOREVER)).unwrap();
        socket.set_write_timeout(Some(FOREVER)).unwrap();
        if input.byte() < 0xf0 {
            while socket.send(&self.greeting).is_err_and(|error| error.kind() == ErrorKind::Interrupted) {}
        }
        let (mut is_open, mut writes) = (true, 0);
        for _ in 0..MOST_MESSAGES {
            if input.is_empty() {
                break;
            }
            let message = self.message(&mut input);
            if message.starts_with(&WRITE.to_ne_bytes()) {
                writes += message.len() / (8 * WIDTHS[WRITE as usize]);
            }
            // Each fails once the engine has ended the connection.
            is_open = is_open && socket.send_with_flags(&message, libc::MSG_NOSIGNAL).is_ok();
        }
        let last = [ASK, u64::MAX, 0, 0].map(u64::to_ne_bytes).concat();
        is_open = is_open && socket.send_with_flags(&last, libc::MSG_NOSIGNAL).is_ok();
        let mut answer = [0; 8192];
        let mut has_last = false;
        // Until all is answered, each WRITE once, or the end.
        while is_open && !(has_last && writes == 0) {
            let len = match socket.read(&mut answer).map_err(|error| error.kind()) {
                Ok(len) => len,
                Err(ErrorKind::ConnectionReset) => 0,
                // By libFuzzer's timer.
                Err(ErrorKind::Interrupted) => continue,
                Err(other) => panic!("{writes} WRITEs are not answered: {other}"),
            };
            is_open = len > 0;
            let again = rewritten(&answer[..len]).unwrap_or_default();
            assert_eq!(again, answer[..len], "an answer is no message");
            has_last |= again.chunks_exact(8).any(|number| number == u64::MAX.to_ne_bytes());
            if again.starts_with(&ENDED.to_ne_bytes()) {
                let ended = again.len() / (8 * WIDTHS[ENDED as usize]);
                assert!(ended <= writes, "{ended} WRITEs have ended, and {writes} were to");
                writes -= ended;
            }
        }
        let outside = self.memory[..AREA].iter().chain(&self.memory[2 * AREA..]);
        assert!(
            outside.map(|byte| byte.load(Relaxed)).all(|byte| byte == 9),
            "a byte is not registered and was written"
        );
        let inside = self.memory[AREA..2 * AREA].iter().map(|byte| byte.load(Relaxed));
        assert!(inside.into_iter().all(|byte| byte == 9 || byte == 5), "a byte was written that nobody sent");
        assert!(self.engine.enter().is_ok());
    }

    /// A message, mostly well-formed. WRITEs come from the source, so that what arrives is known.
    fn message(&self, input: &mut Input<'_>) -> Vec<u8> {
        let kind = match input.byte() {
            often @ 0x80..=0xf7 => {
                if often & 1 == 0 {
                    WRITE
                } else {
                    ASK
                }
            }
            other => u64::from(other % 13),
        };
        let entries = usize::from(input.byte() % 5);
        let mut numbers = vec![kind];
        for _ in 0..entries {
            for place in 0..WIDTHS[kind as usize] {
                numbers.push(match (kind, place) {
                    (WRITE, 1) => self.source.as_ptr() as u64 + u64::from(input.short()) % (AREA as u64 / 2),
                    (WRITE, 2) => self.memory.as_ptr() as u64 + u64::from(input.short()) % (3 * AREA as u64),
                    // From the source, or more than there is room for.
                    (WRITE, 3) => match (input.length(), input.byte()) {
                        (long, 255) if long > AREA as u64 => long.min(1 << 40),
                        (len, _) => len.min(AREA as u64 / 2),
                    },
                    (WRITE, 4) => u64::from(input.byte() / 128),
                    (ASK, 1) => self.memory.as_ptr() as u64 + u64::from(input.short()) % (3 * AREA as u64),
                    (_, 0) => u64::from(input.byte()),
                    _ => input.length(),
                });
            }
        }
        let mut bytes: Vec<u8> = numbers.into_iter().flat_map(u64::to_ne_bytes).collect();
        if input.byte() > 0xf8 {
            bytes.truncate(usize::from(input.byte()));
        }
        bytes
    }
}
