//! An engine with memory, and batches of it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::time::Duration;

use transfer_engine::engine::batch::{Drained, Report, Summary};
use transfer_engine::engine::submit::Request;
use transfer_engine::engine::Engine;
use transfer_engine::error::{Code, Error, Result};
use transfer_engine::memory::Range;

use crate::common::net;
use crate::memory::{Memory, LEN};

/// Far longer than anything here takes; a case that waits for it has failed.
pub const FOREVER: Duration = Duration::from_secs(60);
pub const READ: i32 = 0;
pub const WRITE: i32 = 1;
pub const COMPLETED: i32 = 4;
const FAILED: i32 = 6;
const PAGE: usize = 4096;
/// Says what the NICs are called, but for their numbers, where they are not simulated ones.
pub const NICS: &str = "MTE_TEST_NICS";
/// The connection string of engines without a store.
pub const STORELESS: &str = "P2PHANDSHAKE";

/// What moves the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Between two engines over loopback.
    Tcp,
    /// As `Tcp`, in two network namespaces with two links between them.
    Nics,
    /// Between two engines over simulated NICs.
    #[cfg_attr(not(feature = "rdma"), allow(dead_code))]
    Rdma,
    /// As `Rdma`, with TCP installed in both engines too.
    #[cfg_attr(not(feature = "rdma"), allow(dead_code))]
    Both,
    /// Between two engines of one host, through their memory.
    Shm,
    /// As `Shm`, with TCP installed in both engines too: it carries what comes before the proof.
    SameHost,
    /// Inside one engine.
    Own,
    /// Between two engines of one process, by copying.
    Echo,
}

impl Kind {
    /// Every one.
    pub const ALL: [Self; 8] =
        [Kind::Tcp, Kind::Nics, Kind::Rdma, Kind::Both, Kind::Shm, Kind::SameHost, Kind::Own, Kind::Echo];

    /// What its engines install, in this order.
    fn transports(self) -> &'static [&'static str] {
        match self {
            Kind::Tcp | Kind::Nics | Kind::Own => &["tcp"],
            Kind::Rdma => &["rdma"],
            Kind::Both => &["tcp", "rdma"],
            Kind::Shm => &["shm"],
            Kind::SameHost => &["tcp", "shm"],
            Kind::Echo => &["echo"],
        }
    }
}

/// An engine; destroyed when it is dropped.
pub struct Node {
    pub engine: Arc<Engine>,
    pub memory: Memory,
}

impl Node {
    /// An engine without a store whose memory is registered. `nic`: number of its simulated NIC.
    pub fn new(kind: Kind, nic: u8) -> Arc<Self> {
        let node = Self::unregistered(kind, nic, STORELESS, "127.0.0.1", Memory::new(None, nic));
        node.register().unwrap();
        Arc::new(node)
    }

    /// An engine called `name` in the store `connection`.
    pub fn unregistered(kind: Kind, nic: u8, connection: &str, name: &str, memory: Memory) -> Self {
        if kind == Kind::Nics {
            let side = if nic == 0 { "a" } else { "b" };
            return net::inside(side, || Self::here(kind, nic, connection, net::address(side), memory));
        }
        Self::here(kind, nic, connection, name, memory)
    }

    fn here(kind: Kind, nic: u8, connection: &str, name: &str, memory: Memory) -> Self {
        let node = Node { engine: Engine::create(connection, name, false).unwrap(), memory };
        kind.transports().iter().for_each(|name| node.install(name, nic));
        node
    }

    pub fn install(&self, transport: &str, nic: u8) {
        let devices = std::env::var(NICS).unwrap_or_else(|_| "sim".into());
        let matrix = (transport == "rdma").then(|| format!(r#"{{"cpu:0":[["{devices}{nic}"],[]]}}"#));
        assert_eq!(self.engine.install_transport(transport, matrix.as_deref()).unwrap(), transport);
    }

    pub fn register(&self) -> Result<()> {
        self.engine.register(&[Range { addr: self.addr(), len: LEN as u64 }], "*", true)
    }

    pub fn unregister(&self) {
        self.engine.unregister([self.addr()].into_iter()).unwrap();
    }

    pub fn addr(&self) -> u64 {
        self.memory.addr()
    }

    /// The bytes at `offset`, as they are now.
    pub fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        self.memory[offset..offset + len].iter().map(|byte| byte.load(Relaxed)).collect()
    }

    /// Changes a byte of every page, which takes microseconds, and returns what the owner finds there from now on unless
    /// somebody else writes.
    pub fn mark(&self) -> Vec<u8> {
        self.memory.iter().step_by(PAGE).map(|byte| !byte.fetch_xor(0xff, Relaxed)).collect()
    }

    /// What is at the places of `mark`.
    pub fn marks(&self) -> Vec<u8> {
        self.memory.iter().step_by(PAGE).map(|byte| byte.load(Relaxed)).collect()
    }

    /// Writes other bytes over all of it.
    pub fn overwrite(&self) {
        self.memory.iter().for_each(|byte| byte.store(!byte.load(Relaxed), Relaxed));
    }

    pub fn name(&self) -> &str {
        &self.engine.local().name
    }

    /// One submit call of a batch of its own. Enters the engine as every call of the C API does: an engine that is
    /// destroyed refuses whoever enters.
    pub fn submit(&self, requests: &[Request]) -> Result<Batch<'_>> {
        let _inside = self.engine.enter()?;
        let id = self.engine.allocate_batch(requests.len())?;
        let batch = Batch { node: self, id, requests: requests.to_vec() };
        match self.engine.submit(id, requests.len(), |index| requests[index], None) {
            Ok(()) => Ok(batch),
            Err(refused) => {
                self.engine.free_batch(id).unwrap();
                Err(refused)
            }
        }
    }

    /// Submits, waits, and gives what became of each task.
    pub fn run(&self, requests: &[Request]) -> Result<Vec<Option<Error>>> {
        self.submit(requests)?.wait()
    }

    /// As `run`, for one request: why it was refused or failed, or `None`.
    pub fn failure(&self, request: Request) -> Option<Error> {
        self.run(&[request]).map_or_else(Some, |mut ends| ends.remove(0))
    }

    /// As `run`; everything is expected to arrive.
    pub fn move_all(&self, requests: &[Request]) {
        let ends = self.run(requests).unwrap();
        assert!(ends.iter().all(Option::is_none), "{ends:?}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.engine.destroy();
    }
}

/// A batch that was submitted.
pub struct Batch<'a> {
    node: &'a Node,
    id: u64,
    requests: Vec<Request>,
}

impl Batch<'_> {
    /// Gives up what runs of it.
    pub fn cancel(&self) {
        self.node.engine.cancel_batch(self.id).unwrap();
    }

    /// Waits until every task is terminal, and keeps the batch.
    pub fn rest(&self) {
        self.node.engine.wait_batch(self.id, Some(FOREVER)).unwrap();
    }

    pub fn drained(&self, task: usize) -> Drained {
        self.node.engine.task_drained(self.id, task).unwrap()
    }

    pub fn summary(&self) -> Summary {
        self.node.engine.batch_status(self.id, |_, _, _| ()).unwrap()
    }

    pub fn report(&self, task: usize) -> Report {
        self.node.engine.task_report(self.id, task).unwrap()
    }

    /// Waits until every task is terminal, and frees the batch: why each failed, or `None`. An error if the engine is
    /// destroyed meanwhile, which lets go of its batches.
    pub fn wait(self) -> Result<Vec<Option<Error>>> {
        let Batch { node: Node { engine, .. }, id, requests } = self;
        let _inside = engine.enter()?;
        if let Err(error) = engine.wait_batch(id, Some(FOREVER)) {
            assert_ne!(error.code(), Code::BatchBusy, "some task does not end");
            return Err(error);
        }
        let end = |(task, request): (usize, &Request)| {
            let error = engine.task_error(id, task)?;
            let (status, bytes) = engine.task_status(id, task)?;
            assert_eq!(status, if error.is_none() { COMPLETED } else { FAILED });
            assert!(error.is_some() || bytes == request.len);
            Ok(error)
        };
        let ends = requests.iter().enumerate().map(end).collect::<Result<_>>()?;
        engine.free_batch(id)?;
        Ok(ends)
    }
}
