//! An engine of a test with a buffer of its own, and what tests do with it.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

use transfer_engine::engine::submit::Request;
use transfer_engine::engine::Engine;
use transfer_engine::error::Result;
use transfer_engine::memory::Range;

/// Far longer than anything here takes; a test that waits for it has failed.
pub const FOREVER: Duration = Duration::from_secs(20);
/// Bytes of a node's buffer.
pub const BYTES: usize = 64 << 10;
/// Opcode.
pub const WRITE: i32 = 1;
/// Opcode.
pub const READ: i32 = 0;
const COMPLETED: i32 = 4;

/// An engine with TCP installed and a registered buffer; destroyed when it is dropped.
pub struct Node {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Its buffer.
    pub memory: Vec<AtomicU8>,
}

impl Node {
    /// A node that peers can open.
    pub fn start(url: &str, name: &str) -> Self {
        Self::try_start(url, name).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The same, or why not.
    pub fn try_start(url: &str, name: &str) -> Result<Self> {
        let node = Self::create(url, name)?;
        node.engine.install_transport("tcp", None)?;
        node.engine.register(&[node.range(0)], "*", true)?;
        Ok(node)
    }

    /// An engine without a transport.
    pub fn create(url: &str, name: &str) -> Result<Self> {
        let memory = (0..2 * BYTES).map(|_| AtomicU8::new(0)).collect();
        Ok(Node { engine: Engine::create(url, name, false)?, memory })
    }

    /// One of two halves of the buffer; the first one is registered.
    pub fn range(&self, half: usize) -> Range {
        Range { addr: self.memory.as_ptr() as u64 + (half * BYTES) as u64, len: BYTES as u64 }
    }

    /// Address of the buffer.
    pub fn addr(&self) -> u64 {
        self.range(0).addr
    }

    /// The result of a submit call, then of the task.
    pub fn transfer(
        &self,
        opcode: i32,
        target: i32,
        remote: u64,
        len: usize,
    ) -> std::result::Result<(), String> {
        let request = Request { opcode, source: self.addr(), target, offset: remote, len: len as u64 };
        let batch = self.engine.allocate_batch(1).unwrap();
        let outcome =
            self.engine.submit(batch, 1, |_| request, None).map_err(|e| e.to_string()).and_then(|()| {
                self.engine.wait_batch(batch, Some(FOREVER)).unwrap();
                match self.engine.task_status(batch, 0).unwrap() {
                    (COMPLETED, _) => Ok(()),
                    (status, _) => Err(format!("status {status}: {:?}", self.engine.task_error(batch, 0))),
                }
            });
        self.engine.free_batch(batch).unwrap();
        outcome
    }

    /// Writes a fresh pattern to the peer's buffer, reads it back and compares both.
    pub fn exchange_with(&self, peer: &Node, target: i32, seed: u8) -> std::result::Result<(), String> {
        let pattern = |at: usize| (at % 251) as u8 ^ seed;
        let fill = |value: &dyn Fn(usize) -> u8| {
            self.memory[..BYTES].iter().enumerate().for_each(|(at, byte)| byte.store(value(at), Relaxed));
        };
        let same = |memory: &[AtomicU8]| {
            memory[..BYTES].iter().enumerate().all(|(at, b)| b.load(Relaxed) == pattern(at))
        };
        fill(&pattern);
        self.transfer(WRITE, target, peer.addr(), BYTES)?;
        if !same(&peer.memory) {
            return Err("the bytes written differ".into());
        }
        fill(&|_| 0);
        self.transfer(READ, target, peer.addr(), BYTES)?;
        if !same(&self.memory) {
            return Err("the bytes read differ".into());
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.engine.destroy();
    }
}

/// Asks until `condition` holds; fails with `what` when it never does.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + FOREVER;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        // Only paces the questions: the other side offers no event.
        std::thread::sleep(Duration::from_millis(10));
    }
}
