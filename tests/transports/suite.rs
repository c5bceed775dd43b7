//! The cases. Each makes its own engines, so none depends on another.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

use transfer_engine::engine::submit::Request;
use transfer_engine::engine::Engine;
use transfer_engine::error::{Class, Code, Error, Result};
use transfer_engine::handshake::Notification;
use transfer_engine::memory::Range;

/// Far longer than anything here takes; a case that waits for it has failed.
const FOREVER: Duration = Duration::from_secs(60);
const READ: i32 = 0;
const WRITE: i32 = 1;
const COMPLETED: i32 = 4;
const FAILED: i32 = 6;
/// Bytes of a node's memory.
const LEN: usize = 8 << 20;

/// What moves the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Between two engines over loopback.
    Tcp,
    /// Between two engines over simulated NICs.
    #[cfg_attr(not(feature = "rdma"), allow(dead_code))]
    Rdma,
    /// Inside one engine.
    Own,
    /// Between two engines, by copying.
    Echo,
}

/// A name and what is done.
type Case = (&'static str, fn(Kind));

/// Every case.
pub const CASES: &[Case] = &[
    ("every_size_arrives_in_both_directions", every_size_arrives_in_both_directions),
    ("p01_many_requests_of_many_batches_arrive", p01_many_requests_of_many_batches_arrive),
    ("two_threads_do_not_disturb_each_other", two_threads_do_not_disturb_each_other),
    ("p37_addresses_that_nobody_registered_are_refused", p37_addresses_that_nobody_registered_are_refused),
    ("p02_memory_goes_away_under_traffic", p02_memory_goes_away_under_traffic),
    ("p03_a_peer_that_is_gone_fails_its_tasks", p03_a_peer_that_is_gone_fails_its_tasks),
    ("p04_a_peer_that_comes_back_is_reached", p04_a_peer_that_comes_back_is_reached),
    ("a_notification_follows_its_batch", a_notification_follows_its_batch),
    ("p15_engines_go_away_under_traffic", p15_engines_go_away_under_traffic),
];

/// An engine with registered memory; destroyed when it is dropped.
struct Node {
    engine: Arc<Engine>,
    memory: Vec<AtomicU8>,
}

impl Node {
    /// `nic` is the one of the two simulated NICs.
    fn new(kind: Kind, nic: usize) -> Arc<Self> {
        let engine = Engine::create("P2PHANDSHAKE", "127.0.0.1", false).unwrap();
        let memory = (0..LEN).map(|index| AtomicU8::new((index * 31 + nic) as u8)).collect();
        let node = Node { engine, memory };
        let (name, matrix) = match kind {
            Kind::Tcp | Kind::Own => ("tcp", None),
            Kind::Rdma => ("rdma", Some(format!(r#"{{"cpu:0":[["sim{nic}"],[]]}}"#))),
            Kind::Echo => ("echo", None),
        };
        assert_eq!(node.engine.install_transport(name, matrix.as_deref()).unwrap(), name);
        node.register().unwrap();
        Arc::new(node)
    }

    fn register(&self) -> Result<()> {
        self.engine.register(&[Range { addr: self.addr(), len: LEN as u64 }], "*", true)
    }

    fn addr(&self) -> u64 {
        self.memory.as_ptr() as u64
    }

    /// The bytes at `offset`, as they are now.
    fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        self.memory[offset..offset + len].iter().map(|byte| byte.load(Relaxed)).collect()
    }

    fn name(&self) -> &str {
        &self.engine.local().name
    }

    /// Submits, waits, and gives what became of each task. Enters the engine as every call of the C API does: an engine
    /// that is destroyed refuses whoever enters.
    fn run(&self, requests: &[Request]) -> Result<Vec<Option<Error>>> {
        let _inside = self.engine.enter()?;
        let batch = self.engine.allocate_batch(requests.len())?;
        let outcome =
            self.engine.submit(batch, requests.len(), |index| requests[index], None).and_then(|()| {
                self.engine.wait_batch(batch, Some(FOREVER))?;
                (0..requests.len())
                    .map(|task| {
                        let error = self.engine.task_error(batch, task)?;
                        let (status, bytes) = self.engine.task_status(batch, task)?;
                        assert_eq!(status, if error.is_none() { COMPLETED } else { FAILED });
                        assert!(error.is_some() || bytes == requests[task].len);
                        Ok(error)
                    })
                    .collect()
            });
        self.engine.free_batch(batch)?;
        outcome
    }

    /// As `run`; everything is expected to arrive.
    fn move_all(&self, requests: &[Request]) {
        let ends = self.run(requests).unwrap();
        assert!(ends.iter().all(Option::is_none), "{ends:?}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.engine.destroy();
    }
}

/// The node that submits, the node that it reaches, and the id of the latter's segment. With the own segment both are
/// one engine, and the second half of its memory stands for the peer's.
struct Pair {
    here: Arc<Node>,
    there: Arc<Node>,
    segment: i32,
}

impl Pair {
    fn new(kind: Kind) -> Self {
        let here = Node::new(kind, 0);
        let there = if kind == Kind::Own { here.clone() } else { Node::new(kind, 1) };
        let segment = here.engine.open_segment(there.name()).unwrap();
        assert_eq!(segment == 0, kind == Kind::Own);
        Pair { here, there, segment }
    }

    /// `at`: offset on both sides, below half the memory.
    fn request(&self, opcode: i32, at: usize, len: usize) -> Request {
        assert!(at + len <= LEN / 2);
        let (source, offset) = (self.here.addr() + at as u64, self.there.addr() + (LEN / 2 + at) as u64);
        Request { opcode, source, target: self.segment, offset, len: len as u64 }
    }

    fn check(&self, at: usize, len: usize) {
        assert!(
            self.here.bytes(at, len) == self.there.bytes(LEN / 2 + at, len),
            "{len} bytes at {at} differ"
        );
    }
}

fn every_size_arrives_in_both_directions(kind: Kind) {
    for opcode in [WRITE, READ] {
        let pair = Pair::new(kind);
        let mut at = 0;
        for len in [1, 7, 64, 4095, 4096, 65_536, 65_537, 1 << 20, (1 << 20) + 3] {
            // Odd beginnings.
            at += 1;
            let (before, after) =
                (pair.there.bytes(LEN / 2 + at - 1, 1), pair.there.bytes(LEN / 2 + at + len, 1));
            let untouched = (pair.here.bytes(at - 1, 1), pair.here.bytes(at + len, 1));
            pair.here.move_all(&[pair.request(opcode, at, len)]);
            pair.check(at, len);
            assert_eq!(
                (pair.there.bytes(LEN / 2 + at - 1, 1), pair.there.bytes(LEN / 2 + at + len, 1)),
                (before, after)
            );
            assert_eq!((pair.here.bytes(at - 1, 1), pair.here.bytes(at + len, 1)), untouched);
            at += len;
        }
        pair.here.move_all(&[pair.request(opcode, 0, LEN / 2)]);
        pair.check(0, LEN / 2);
    }
}

fn p01_many_requests_of_many_batches_arrive(kind: Kind) {
    let pair = Pair::new(kind);
    const COUNT: usize = 256;
    const SIZE: usize = 4096;
    for round in 0..20 {
        let opcode = if round % 2 == 0 { WRITE } else { READ };
        let requests: Vec<_> = (0..COUNT).map(|index| pair.request(opcode, index * SIZE, SIZE)).collect();
        pair.here.move_all(&requests);
        pair.check(0, COUNT * SIZE);
    }
}

fn two_threads_do_not_disturb_each_other(kind: Kind) {
    let pair = Pair::new(kind);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let pair = &pair;
            scope.spawn(move || {
                for round in 0..50 {
                    let at = thread * (1 << 20) + round * 4096;
                    pair.here.move_all(&[pair.request(WRITE, at, 4096), pair.request(WRITE, at + 4096, 100)]);
                    pair.check(at, 4196);
                }
            });
        }
    });
}

fn p37_addresses_that_nobody_registered_are_refused(kind: Kind) {
    let pair = Pair::new(kind);
    let good = pair.request(WRITE, 0, 100);
    for bad in [
        Request { offset: 8, ..good },
        Request { offset: pair.there.addr() + LEN as u64 - 99, ..good },
        Request { offset: u64::MAX, ..good },
        Request { source: 8, ..good },
        Request { source: pair.here.addr() + LEN as u64 - 99, ..good },
    ] {
        // One bad request refuses the call: the good one is not begun.
        let before = pair.there.bytes(LEN / 2, 100);
        let error = pair.here.run(&[good, bad]).unwrap_err();
        assert_eq!(error.code(), Code::AddressNotRegistered, "{bad:?}: {error}");
        assert_eq!(pair.there.bytes(LEN / 2, 100), before);
    }
    pair.here.move_all(&[good]);
}

fn p02_memory_goes_away_under_traffic(kind: Kind) {
    let pair = Pair::new(kind);
    for target in [&pair.here, &pair.there] {
        std::thread::scope(|scope| {
            let traffic = scope.spawn(|| loop {
                // Until it is refused or fails because the memory is gone.
                match pair.here.run(&[pair.request(WRITE, 0, LEN / 2)]) {
                    Err(error) => return error,
                    Ok(ends) => match ends.into_iter().flatten().next() {
                        Some(error) => return error,
                        None => continue,
                    },
                }
            });
            target.engine.unregister([target.addr()].into_iter()).unwrap();
            let error = traffic.join().unwrap();
            let expected = [Code::AddressNotRegistered, Code::Socket, Code::Endpoint];
            assert!(expected.contains(&error.code()), "{error}");
        });
        target.register().unwrap();
        let ends = (0..100).map(|_| pair.here.run(&[pair.request(WRITE, 0, 4096)]));
        // A peer's new keys may take a reading or two.
        let arrived = ends.into_iter().any(|ends| ends.is_ok_and(|ends| ends[0].is_none()));
        assert!(arrived, "registered again, and still refused");
    }
}

fn p03_a_peer_that_is_gone_fails_its_tasks(kind: Kind) {
    if kind == Kind::Own {
        println!("  does not apply: the peer is the engine itself");
        return;
    }
    let pair = Pair::new(kind);
    pair.here.move_all(&[pair.request(WRITE, 0, 100)]);
    pair.there.engine.destroy();
    let error = match pair.here.run(&[pair.request(WRITE, 0, 100)]) {
        Ok(ends) => ends[0].clone().expect("nobody was there to take it"),
        Err(refused) => refused,
    };
    assert_ne!(error.kind(), Class::Internal, "{error}");
    assert!(
        [Code::Socket, Code::Endpoint, Code::RejectHandshake, Code::Metadata].contains(&error.code()),
        "{error}"
    );
}

fn p04_a_peer_that_comes_back_is_reached(kind: Kind) {
    if kind == Kind::Own {
        println!("  does not apply: the peer is the engine itself");
        return;
    }
    let Pair { here, there, segment } = Pair::new(kind);
    let first = Pair { here: here.clone(), there, segment };
    first.here.move_all(&[first.request(WRITE, 0, 100)]);
    drop(first);
    let there = Node::new(kind, 1);
    let segment = here.engine.open_segment(there.name()).unwrap();
    let second = Pair { here, there, segment };
    second.here.move_all(&[second.request(WRITE, 0, LEN / 2)]);
    second.check(0, LEN / 2);
}

fn a_notification_follows_its_batch(kind: Kind) {
    let pair = Pair::new(kind);
    let note = Notification { name: "kv".into(), message: "ready".into() };
    let batch = pair.here.engine.allocate_batch(1).unwrap();
    let request = pair.request(WRITE, 0, 4096);
    pair.here.engine.submit(batch, 1, |_| request, Some(note.clone())).unwrap();
    pair.here.engine.wait_batch(batch, Some(FOREVER)).unwrap();
    assert_eq!(pair.here.engine.task_status(batch, 0).unwrap().0, COMPLETED);
    assert_eq!(pair.there.engine.local().notifications.take(), [note]);
    pair.check(0, 4096);
    pair.here.engine.free_batch(batch).unwrap();
}

fn p15_engines_go_away_under_traffic(kind: Kind) {
    let pair = Pair::new(kind);
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| loop {
            match pair.here.run(&[pair.request(WRITE, 0, LEN / 2)]) {
                Ok(ends) if ends[0].is_none() => continue,
                Ok(ends) => return ends[0].clone(),
                Err(error) => return Some(error),
            }
        });
        pair.here.engine.destroy();
        let error = traffic.join().unwrap().unwrap();
        assert!(matches!(error.kind(), Class::Canceled | Class::Argument | Class::Network), "{error}");
    });
}
