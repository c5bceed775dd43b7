//! TCP over several NICs. Two network namespaces have two links between them, and this process an engine in each: threads that
//! an engine starts stay in the namespace of the thread that made it. The conformance suite runs so as well (`transports`).
//!
//! Needs root and `ip`, and for one test `tc` with tbf; where they do not work it skips visibly.

mod common;

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::in_child;
use common::net::{address, inside, ip, run, Net, BOTH};
use serde_json::Value;
use transfer_engine::engine::submit::Request;
use transfer_engine::engine::Engine;
use transfer_engine::error::Code;
use transfer_engine::memory::Range;

/// Far longer than anything here takes.
const FOREVER: Duration = Duration::from_secs(60);
const BLOCK: usize = 1 << 20;
const BLOCKS: usize = 32;
const LEN: usize = BLOCK * BLOCKS;
const WORDS: usize = LEN / 8;
const WRITE: i32 = 1;
const READ: i32 = 0;
const COMPLETED: i32 = 4;
/// So many bytes on a link are more than handshakes take.
const TRAFFIC: u64 = 4 << 20;

/// An engine with memory.
struct Node {
    engine: Arc<Engine>,
    memory: Vec<AtomicU64>,
}

impl Node {
    fn new(host: &str) -> Self {
        let engine = Engine::create("P2PHANDSHAKE", host, false).unwrap();
        engine.install_transport("tcp", None).unwrap();
        let memory: Vec<AtomicU64> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        let range = Range { addr: memory.as_ptr() as u64, len: LEN as u64 };
        engine.register(&[range], "*", true).unwrap();
        Node { engine, memory }
    }

    fn fill(&self, seed: usize) {
        self.memory.iter().enumerate().for_each(|(i, word)| word.store(pattern(seed, i), Relaxed));
    }

    fn holds(&self, seed: usize) -> bool {
        self.memory.iter().enumerate().all(|(i, word)| word.load(Relaxed) == pattern(seed, i))
    }

    /// Moves all memory in a batch of many tasks, which have to complete.
    fn moves(&self, opcode: i32, segment: i32, there: &Node) {
        self.moves_part(opcode, segment, there, 0..LEN, BLOCK);
    }

    /// The same for a part of it, by so many bytes in each task.
    fn moves_part(&self, opcode: i32, segment: i32, there: &Node, part: std::ops::Range<usize>, len: usize) {
        let count = part.len() / len;
        let batch = self.engine.allocate_batch(count).unwrap();
        let (source, offset) = (self.memory.as_ptr() as u64, there.memory.as_ptr() as u64);
        let at = |i: usize| (part.start + i * len) as u64;
        let request = |i| Request {
            opcode,
            source: source + at(i),
            target: segment,
            offset: offset + at(i),
            len: len as u64,
        };
        self.engine.submit(batch, count, request, None).unwrap();
        self.engine.wait_batch(batch, Some(FOREVER)).unwrap();
        for task in 0..count {
            let status = self.engine.task_status(batch, task).unwrap().0;
            let why = self.engine.task_error(batch, task).unwrap();
            assert_eq!(status, COMPLETED, "task {task}: {why:?}\n{}", self.engine.show_links(false));
        }
        self.engine.free_batch(batch).unwrap();
    }

    /// Writes what `seed` says to the peer, and reads it back.
    fn round(&self, seed: usize, segment: i32, there: &Node) {
        self.fill(seed);
        self.moves(WRITE, segment, there);
        assert!(there.holds(seed), "round {seed}: COMPLETED without its bytes");
        self.fill(0);
        self.moves(READ, segment, there);
        assert!(self.holds(seed), "round {seed}: read something else");
    }

    fn links(&self) -> Value {
        serde_json::from_str(&self.engine.show_links(true)).unwrap()
    }

    /// State of the rail that begins at `device`.
    fn state(&self, device: &str) -> Value {
        let links = self.links();
        let rail = links["rails"].as_array().unwrap().iter().find(|rail| rail["device"] == device);
        rail.unwrap_or_else(|| panic!("{links}"))["state"].clone()
    }
}

fn pattern(seed: usize, i: usize) -> u64 {
    ((seed as u64) << 32 | i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn node(side: &str) -> Node {
    inside(side, || Node::new(address(side)))
}

/// Two engines, and the segment of the second one as the first knows it.
struct Pair {
    here: Arc<Node>,
    there: Arc<Node>,
    segment: i32,
}

impl Pair {
    fn new() -> Self {
        Pair::of(node("a"), node("b"))
    }

    fn of(here: Node, there: Node) -> Self {
        let segment = here.engine.open_segment(&there.engine.address().to_string()).unwrap();
        Pair { here: Arc::new(here), there: Arc::new(there), segment }
    }

    /// Nothing is counted as under way once everything has ended. A task may end a moment before that.
    fn end(self) {
        let start = Instant::now();
        let is_idle = |rail: &Value| rail["inflight_bytes"] == 0 && rail["waiting"] == 0;
        while !self.here.links()["rails"].as_array().into_iter().flatten().all(is_idle) {
            assert!(start.elapsed() < FOREVER, "{}", self.here.engine.show_links(false));
            std::thread::yield_now();
        }
        self.here.engine.destroy();
        self.there.engine.destroy();
    }
}

/// Rounds that go on until they are stopped, on a thread.
struct Traffic {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<()>,
}

impl Traffic {
    fn start(pair: &Pair) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (here, there, segment) = (pair.here.clone(), pair.there.clone(), pair.segment);
        let (stopped, counter) = (stop.clone(), rounds.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Relaxed) {
                here.round(counter.fetch_add(1, Relaxed) + 1, segment, &there);
            }
        });
        Traffic { stop, rounds, thread }
    }

    /// Waits until `condition` holds.
    fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(!self.thread.is_finished(), "{what}: a round failed");
            assert!(start.elapsed() < FOREVER, "{what}");
            std::thread::yield_now();
        }
    }

    fn goes_on(&self, what: &str, more: usize) {
        let before = self.rounds.load(Relaxed);
        self.until(what, || self.rounds.load(Relaxed) >= before + more);
    }

    fn stop(self) {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap();
    }
}

#[test]
fn bytes_go_over_both_links() {
    let name = "bytes_go_over_both_links";
    if in_child(name, &[BOTH]) {
        return;
    }
    let Some(net) = Net::new(name) else { return };
    let pair = Pair::new();
    let descriptor = pair.here.engine.segment_descriptor(pair.segment).unwrap();
    let descriptor: Value = serde_json::from_str(&descriptor).unwrap();
    assert_eq!(descriptor["tcp_data_addresses"], serde_json::json!(["10.77.1.2", "10.77.2.2"]));
    for seed in 1..6 {
        pair.here.round(seed, pair.segment, &pair.there);
    }
    let [one, two] = net.both();
    assert!(one.min(two) > (one + two) / 8, "{one} and {two} bytes\n{}", pair.here.engine.show_links(false));
    for device in ["eth1", "eth2"] {
        assert_eq!(pair.here.state(device), "up");
    }
    assert_eq!(pair.here.state("any"), "idle", "the usual address is not needed");
    pair.end();
}

/// Whichever end takes it down, and also if handshakes go over it.
fn a_link_goes_down(name: &str, side: &str, device: &str, other: &str) {
    if in_child(name, &[BOTH]) {
        return;
    }
    let Some(net) = Net::new(name) else { return };
    let pair = Pair::new();
    let traffic = Traffic::start(&pair);
    traffic.until("both links carry", || net.both().into_iter().all(|bytes| bytes > TRAFFIC));
    net.set(side, device, "down");
    traffic.goes_on("rounds without the link", 3);
    assert_eq!(pair.here.state(other), "up");
    assert_ne!(pair.here.state(device), "up");
    let before = net.bytes(device);
    net.set(side, device, "up");
    traffic.until("the link carries again", || net.bytes(device) > before + TRAFFIC);
    assert_eq!(pair.here.state(device), "up");
    traffic.stop();
    let failed = pair.here.links()["rails"][usize::from(device == "eth2")]["failures"].clone();
    assert!(failed.as_u64().unwrap() > 0, "{failed}");
    pair.end();
}

#[test]
fn a_link_that_this_end_takes_down_fails_nothing() {
    a_link_goes_down("a_link_that_this_end_takes_down_fails_nothing", "a", "eth2", "eth1");
}

#[test]
fn a_link_that_the_other_end_takes_down_fails_nothing() {
    a_link_goes_down("a_link_that_the_other_end_takes_down_fails_nothing", "b", "eth2", "eth1");
}

#[test]
fn the_link_of_the_usual_address_may_go_down_too() {
    a_link_goes_down("the_link_of_the_usual_address_may_go_down_too", "b", "eth1", "eth2");
}

#[test]
fn threads_that_share_the_links_lose_nothing_while_one_comes_and_goes() {
    let name = "threads_that_share_the_links_lose_nothing_while_one_comes_and_goes";
    if in_child(name, &[BOTH]) {
        return;
    }
    let Some(net) = Net::new(name) else { return };
    let pair = Pair::new();
    let (Pair { here, there, segment }, stop) = (&pair, AtomicBool::new(false));
    let rounds = [const { AtomicUsize::new(0) }; 4];
    std::thread::scope(|scope| {
        for (thread, len) in [512, 4096, 65_536, 3 << 20].into_iter().enumerate() {
            let (count, stop) = (&rounds[thread], &stop);
            // Each thread has a part of the memory. Few tasks: some are on a dead link when it goes down.
            let part = thread * LEN / 4..thread * LEN / 4 + len * (2 << 20).max(len) / len.max(16_384);
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    here.moves_part(WRITE, *segment, there, part.clone(), len);
                    here.moves_part(READ, *segment, there, part.clone(), len);
                    count.fetch_add(1, Relaxed);
                }
            });
        }
        let all_go_on = |what: &str| {
            let before = rounds.each_ref().map(|count| count.load(Relaxed));
            let start = Instant::now();
            while rounds.iter().zip(before).any(|(count, before)| count.load(Relaxed) < before + 2) {
                assert!(start.elapsed() < FOREVER, "{what}: {rounds:?}\n{}", here.engine.show_links(false));
                std::thread::yield_now();
            }
        };
        for (side, device) in [("a", "eth2"), ("b", "eth2"), ("b", "eth1"), ("a", "eth2")] {
            all_go_on("both links");
            net.set(side, device, "down");
            all_go_on("one link");
            net.set(side, device, "up");
        }
        all_go_on("at the end");
        stop.store(true, Relaxed);
    });
    pair.end();
}

#[test]
fn a_link_that_is_down_from_the_beginning_is_left_out() {
    let name = "a_link_that_is_down_from_the_beginning_is_left_out";
    if in_child(name, &[BOTH]) {
        return;
    }
    let Some(net) = Net::new(name) else { return };
    net.set("b", "eth2", "down");
    let pair = Pair::new();
    pair.here.round(1, pair.segment, &pair.there);
    pair.here.round(2, pair.segment, &pair.there);
    assert_eq!(pair.here.state("eth1"), "up");
    assert_ne!(pair.here.state("eth2"), "up");
    pair.end();
}

#[test]
fn a_slow_link_gets_its_share_and_does_not_hold_the_other() {
    let name = "a_slow_link_gets_its_share_and_does_not_hold_the_other";
    if in_child(name, &[BOTH]) {
        return;
    }
    let Some(net) = Net::new(name) else { return };
    for (device, rate) in [("eth1", "1gbit"), ("eth2", "100mbit")] {
        for side in ["a", "b"] {
            let place = ["-n", &net.space(side), "qdisc", "add", "dev", device, "root"];
            let shape = ["tbf", "rate", rate, "burst", "256kb", "latency", "20ms"];
            if let Err(why) = run("tc", &[&place[..], &shape].concat()) {
                return println!("SKIP {name}: links cannot be slowed down here: {why}");
            }
        }
    }
    let pair = Pair::new();
    // Until the rates are known.
    (1..3).for_each(|seed| pair.here.round(seed, pair.segment, &pair.there));
    let share = |what: &dyn Fn()| {
        let before = net.both();
        what();
        let now = net.both();
        let [fast, slow] = [0, 1].map(|i| (now[i] - before[i]) as f64);
        println!("{fast} and {slow} bytes\n{}", pair.here.engine.show_links(false));
        slow / (fast + slow)
    };
    // A part in 11 is what it moves meanwhile; a half would hold the other up.
    let of_many = share(&|| (3..9).for_each(|seed| pair.here.round(seed, pair.segment, &pair.there)));
    assert!((0.02..0.2).contains(&of_many), "{of_many}");
    // Of few blocks each takes longer on it than all of them on the other one.
    let few = || pair.here.moves_part(WRITE, pair.segment, &pair.there, 0..6 * BLOCK, BLOCK);
    let of_few = share(&|| (0..30).for_each(|_| few()));
    assert!(of_few < 0.2, "{of_few}");
    pair.end();
}

#[test]
fn connections_come_from_the_address_that_was_named() {
    let name = "connections_come_from_the_address_that_was_named";
    if in_child(name, &[]) {
        return;
    }
    let Some(net) = Net::new(name) else { return };
    ip(&["-n", &net.space("a"), "address", "add", "10.77.2.3/24", "dev", "eth2"]).unwrap();
    std::env::set_var(BOTH.0, "10.77.2.3,eth1");
    let here = node("a");
    std::env::set_var(BOTH.0, BOTH.1);
    let pair = Pair::of(here, node("b"));
    pair.here.round(1, pair.segment, &pair.there);
    // Of IPv4 sockets in the other namespace: those that a connection from 10.77.2.3 has, and from 10.77.2.1.
    let sockets = inside("b", || {
        ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"]
            .map(|path| std::fs::read_to_string(path).unwrap())
    });
    let from = |address: &str| sockets.iter().any(|text| text.contains(address));
    assert!(from("03024D0A:") && from("01014D0A:") && !from("01024D0A:"), "{sockets:?}");
    pair.end();
}

#[test]
fn nobody_uses_addresses_that_one_end_did_not_name() {
    let name = "nobody_uses_addresses_that_one_end_did_not_name";
    if in_child(name, &[]) {
        return;
    }
    let Some(net) = Net::new(name) else { return };
    for (what, here, there) in [
        ("neither", None, None),
        ("the target only", None, Some(BOTH.1)),
        ("the initiator only", Some(BOTH.1), None),
    ] {
        let with = |side: &str, setting: Option<&str>| {
            match setting {
                Some(names) => std::env::set_var(BOTH.0, names),
                None => std::env::remove_var(BOTH.0),
            }
            node(side)
        };
        let (there, here) = (with("b", there), with("a", here));
        let pair = Pair::of(here, there);
        pair.here.round(1, pair.segment, &pair.there);
        assert!(pair.here.links().get("rails").is_none(), "{what}");
        pair.end();
        assert!(net.bytes("eth2") < TRAFFIC / 16, "{what}: {} bytes", net.bytes("eth2"));
    }
}

#[test]
fn where_no_rail_works_the_usual_address_is_used_and_that_is_counted() {
    let name = "where_no_rail_works_the_usual_address_is_used_and_that_is_counted";
    // The usual address is that of the first link.
    if in_child(name, &[("MC_TCP_NICS", "eth2")]) {
        return;
    }
    let Some(net) = Net::new(name) else { return };
    net.set("b", "eth2", "down");
    let pair = Pair::new();
    pair.here.round(1, pair.segment, &pair.there);
    assert_eq!(pair.here.links()["fallbacks"]["fallback_one_address"], 1);
    assert_eq!(pair.here.state("any"), "up");
    net.set("b", "eth2", "up");
    let traffic = Traffic::start(&pair);
    traffic.until("the link carries", || net.bytes("eth2") > TRAFFIC);
    traffic.stop();
    pair.end();
}

#[test]
fn a_peer_that_is_gone_fails_what_waits_for_it() {
    let name = "a_peer_that_is_gone_fails_what_waits_for_it";
    if in_child(name, &[BOTH]) {
        return;
    }
    let Some(_net) = Net::new(name) else { return };
    let pair = Pair::new();
    let address = pair.there.engine.address().to_string();
    pair.there.engine.destroy();
    assert!(inside("a", || TcpStream::connect(&address)).is_err());
    let engine = &pair.here.engine;
    let batch = engine.allocate_batch(1).unwrap();
    let (source, offset) = (pair.here.memory.as_ptr() as u64, pair.there.memory.as_ptr() as u64);
    let request = Request { opcode: WRITE, source, target: pair.segment, offset, len: LEN as u64 };
    engine.submit(batch, 1, |_| request, None).unwrap();
    engine.wait_batch(batch, Some(FOREVER)).unwrap();
    let error = engine.task_error(batch, 0).unwrap().unwrap();
    assert!(error.text().contains("data port"), "{error}");
    engine.free_batch(batch).unwrap();
    engine.destroy();
}

#[test]
fn what_waits_while_no_lane_is_connected_has_its_deadline() {
    let name = "what_waits_while_no_lane_is_connected_has_its_deadline";
    // Shorter than an attempt to connect that nobody answers.
    if in_child(name, &[BOTH, ("MC_SLICE_TIMEOUT", "1")]) {
        return;
    }
    let Some(net) = Net::new(name) else { return };
    let pair = Pair::new();
    ["eth1", "eth2"].into_iter().for_each(|device| net.set("b", device, "down"));
    let engine = &pair.here.engine;
    let batch = engine.allocate_batch(1).unwrap();
    let (source, offset) = (pair.here.memory.as_ptr() as u64, pair.there.memory.as_ptr() as u64);
    let request = Request { opcode: WRITE, source, target: pair.segment, offset, len: BLOCK as u64 };
    engine.submit(batch, 1, |_| request, None).unwrap();
    engine.wait_batch(batch, Some(FOREVER)).unwrap();
    let error = engine.task_error(batch, 0).unwrap().unwrap();
    assert!(error.text().contains("MC_SLICE_TIMEOUT"), "{error}");
    engine.free_batch(batch).unwrap();
    pair.end();
}

#[test]
fn a_name_that_is_not_there_fails_the_installation() {
    let name = "a_name_that_is_not_there_fails_the_installation";
    if in_child(name, &[("MC_TCP_NICS", "no-such-device")]) {
        return;
    }
    let engine = Engine::create("P2PHANDSHAKE", "127.0.0.1", false).unwrap();
    let error = engine.install_transport("tcp", None).err().unwrap();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.text().contains("MC_TCP_NICS names 'no-such-device'"), "{error}");
    engine.destroy();
}
