//! What the tests of bad input over RDMA share: engines on the simulated libibverbs, raw messages, traffic that must not
//! be disturbed.

// Each binary uses a part of it.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use transfer_engine::engine::submit::Request;
use transfer_engine::engine::Engine;
use transfer_engine::error::Error;
use transfer_engine::handshake::wire::{Frame, CONNECTION};
use transfer_engine::memory::Range;

use crate::common::in_simverbs;

/// Far longer than anything here takes.
pub const FOREVER: Duration = Duration::from_secs(30);
/// The GID of a peer that is not there.
pub const GID: &str = "00:00:00:00:00:00:00:00:00:00:ff:ff:c0:a8:01:14";
const LEN: usize = 1 << 20;
pub const WRITE: i32 = 1;
const STATUS_COMPLETED: i32 = 4;
const STATUS_FAILED: i32 = 6;

/// Runs the test in a process of its own; `false` there.
pub fn apart(name: &str, more: &[(&str, &str)]) -> bool {
    let registry = format!("te-{name:.24}-{}", std::process::id());
    let mut environment =
        vec![("SIMVERBS_DEVICES", "sim0,sim1"), ("SIMVERBS_QUIET", "1"), ("SIMVERBS_SHM", registry.as_str())];
    environment.extend_from_slice(more);
    let parent = in_simverbs(name, &environment);
    if parent {
        for entry in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(&registry) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
    parent
}

/// An engine with registered memory.
pub struct Node {
    pub engine: Arc<Engine>,
    memory: Vec<u8>,
}

impl Node {
    pub fn new(nic: &str) -> Self {
        Self::over(&format!(r#"{{"cpu:0":[["{nic}"],[]]}}"#))
    }

    /// An engine with the NICs of a priority matrix.
    pub fn over(matrix: &str) -> Self {
        let node = Node {
            engine: Engine::create("P2PHANDSHAKE", "127.0.0.1", false).unwrap(),
            memory: vec![1; LEN],
        };
        node.engine.install_transport("rdma", Some(matrix)).unwrap();
        node.engine.register(&[Range { addr: node.addr(), len: LEN as u64 }], "cpu:0", true).unwrap();
        node
    }

    pub fn addr(&self) -> u64 {
        self.memory.as_ptr() as u64
    }

    pub fn name(&self) -> &str {
        &self.engine.local().name
    }

    pub fn path(&self, nic: &str) -> String {
        format!("{}@{nic}", self.name())
    }

    pub fn links(&self) -> Value {
        serde_json::from_str(&self.engine.show_links(true)).unwrap()
    }

    pub fn rails(&self) -> Vec<Value> {
        self.links()["rails"].as_array().cloned().unwrap_or_default()
    }

    /// Rails that hold queue pairs.
    pub fn connected(&self) -> usize {
        self.rails().iter().filter(|rail| rail["state"] == "up" || rail["state"] == "connecting").count()
    }

    /// Submits one write; why it failed, or `None`. An error if submit refused it.
    pub fn write(&self, name: &str, offset: u64, len: u64) -> Result<Option<Error>, Error> {
        let target = self.engine.open_segment(name)?;
        let request = Request { opcode: WRITE, source: self.addr(), target, offset, len };
        let batch = self.engine.allocate_batch(1)?;
        let outcome = self.engine.submit(batch, 1, |_| request, None).and_then(|()| {
            self.engine.wait_batch(batch, Some(FOREVER))?;
            let status = self.engine.task_status(batch, 0)?.0;
            assert!(matches!(status, STATUS_COMPLETED | STATUS_FAILED), "{status}");
            self.engine.task_error(batch, 0)
        });
        self.engine.free_batch(batch)?;
        outcome
    }

    /// The reply to one frame; `None` if the connection was closed without one.
    pub fn ask(&self, frame: &Frame) -> Option<Value> {
        let mut stream = TcpStream::connect(self.name()).unwrap();
        stream.set_read_timeout(Some(FOREVER)).unwrap();
        stream.write_all(&frame.encode()).unwrap();
        // The server waits for its clients to close.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut reply = Vec::new();
        match stream.read_to_end(&mut reply) {
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
            outcome => outcome.unwrap(),
        };
        (!reply.is_empty()).then(|| serde_json::from_slice(&reply[9..]).unwrap())
    }

    pub fn connect(&self, message: &Value) -> Option<Value> {
        self.ask(&Frame::of_json(Some(CONNECTION), message))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.engine.destroy();
    }
}

/// Transfers between two engines that go on all the time.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    pub fn start(to: &Arc<Node>) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (to, stopped, counter) = (to.clone(), stop.clone(), rounds.clone());
        let thread = std::thread::spawn(move || {
            let from = Node::new("sim1");
            while !stopped.load(Relaxed) {
                let failed = from.write(to.name(), to.addr(), 65536).unwrap();
                assert!(failed.is_none(), "{failed:?}");
                counter.fetch_add(1, Relaxed);
            }
            let attempts: u64 = from.rails().iter().map(|rail| rail["failures"].as_u64().unwrap()).sum();
            assert_eq!(attempts, 0, "{}", from.engine.show_links(false));
        });
        Traffic { stop, rounds, thread: Some(thread) }
    }

    /// Waits for more of it.
    pub fn goes_on(&self) {
        let (before, start) = (self.rounds.load(Relaxed), Instant::now());
        while self.rounds.load(Relaxed) < before + 10 {
            assert!(start.elapsed() < FOREVER, "the traffic stands still");
            std::thread::yield_now();
        }
    }

    pub fn stop(mut self) {
        self.goes_on();
        self.stop.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until `condition` holds.
pub fn soon(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < FOREVER, "{what}");
        std::thread::yield_now();
    }
}

/// The message with another value of one member.
pub fn with(mut message: Value, member: &str, value: Value) -> Value {
    message[member] = value;
    message
}
