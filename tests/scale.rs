//! Very many requests, queue pairs, peers and segments: what each costs does not grow with their number. The numbers here are
//! small; with `SCALE=full` (`make bench-scale`) they are those of a large cluster, and what was measured is appended to
//! `target/scale.txt`.

#![cfg(feature = "rdma")]
#![allow(unsafe_code)]

mod common;
mod rdma_node;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdma_node::{apart, soon, Node, FOREVER, GID};
use serde_json::json;
use transfer_engine::engine::submit::Request;
use transfer_engine::engine::Engine;
use transfer_engine::memory::Range;

const WRITE: i32 = 1;
const STATUS_COMPLETED: i32 = 4;

/// Bytes that the library and the tests have allocated now, and the most so far. C libraries are not counted.
static LIVE: AtomicIsize = AtomicIsize::new(0);
static MOST: AtomicIsize = AtomicIsize::new(0);

struct Counting;

fn count(change: isize) {
    let live = LIVE.fetch_add(change, Relaxed) + change;
    MOST.fetch_max(live, Relaxed);
}

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn live() -> isize {
    LIVE.load(Relaxed)
}

fn is_full() -> bool {
    std::env::var("SCALE").is_ok_and(|scale| scale == "full")
}

/// The number that a test takes.
fn number(small: usize, full: usize) -> usize {
    if is_full() {
        full
    } else {
        small
    }
}

/// Keeps what was measured; in a small run nobody reads it.
fn tell(text: &str) {
    println!("{text}");
    if is_full() {
        let file = common::top().join("target/scale.txt");
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
        writeln!(file, "{text}").unwrap();
    }
}

/// User and system time of this process, seconds.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    [11, 12].iter().map(|at| fields[*at].parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// What the process does while nothing is asked of it, as part of a core. Only a full run takes the time.
fn tell_idle(what: &str) {
    if is_full() {
        std::thread::sleep(Duration::from_secs(12)); // what follows a connection
        let before = processor_seconds();
        std::thread::sleep(Duration::from_secs(10));
        tell(&format!("  idle with {what}: {:.2} % of a core", (processor_seconds() - before) * 10.0));
    }
}

/// Connects so many strange NICs, each with two queue pairs, and says that they are ready.
fn strangers(node: &Node, numbers: std::ops::Range<usize>) {
    for at in numbers {
        let host = format!("10.{}.{}.{}", at >> 16 & 255, at >> 8 & 255, at & 255);
        let request = json!({
            "local_nic_path": format!("{host}:15000@mlx5_0"), "peer_nic_path": node.path("sim0"), "local_lid": 0,
            "local_gid": GID, "qp_num": [1, 2], "reply_msg": "", "payload": "",
        });
        assert_eq!(node.connect(&request).unwrap()["reply_msg"], "");
    }
}

#[test]
fn a_rail_costs_the_same_however_many_there_are() {
    let name = "a_rail_costs_the_same_however_many_there_are";
    let log = std::env::temp_dir().join(format!("te-scale-{}", std::process::id()));
    // To write 10^5 lines takes longer than to destroy as many queue pairs.
    let settings = [("SIMVERBS_QP_LOG", log.to_str().unwrap())];
    if apart(name, if is_full() { &[] } else { &settings }) {
        let _ = std::fs::remove_file(&log);
        return;
    }
    let node = Node::new("sim0");
    let rails = number(400, 50_000);
    strangers(&node, 0..rails / 10);
    let (first, before, start) = (live(), processor_seconds(), Instant::now());
    strangers(&node, rails / 10..rails);
    let added = rails - rails / 10;
    let each = (live() - first) / added as isize;
    let took = start.elapsed();
    tell(&format!(
        "{rails} rails of 2 queue pairs: {each} bytes each, {:.0} us of processor to be connected ({took:?})",
        (processor_seconds() - before) * 1e6 / added as f64
    ));
    // Measured: 1500. Rings are made when something is posted.
    assert!(each < 4096, "{each} bytes");
    tell_idle(&format!("{} queue pairs", 2 * rails));
    let start = Instant::now();
    node.engine.destroy();
    let took = start.elapsed();
    tell(&format!("  the end of the engine took {took:?}"));
    assert!(took < FOREVER / 2, "{took:?}");
    let destroyed = |log: &str| std::fs::read_to_string(log).unwrap_or_default().lines().count();
    if let Ok(log) = std::env::var("SIMVERBS_QP_LOG") {
        soon("queue pairs stay", || destroyed(&log) == 2 * rails);
    }
}

#[test]
fn a_request_takes_the_same_memory_however_many_wait_and_all_of_it_comes_back() {
    let name = "a_request_takes_the_same_memory_however_many_wait_and_all_of_it_comes_back";
    let settings =
        [("SIMVERBS_NOCOPY", "1"), ("SIMVERBS_LAT_US", "100000"), ("MC_RDMA_STALL_TIMEOUT_MS", "600000")];
    if apart(name, &settings) {
        return;
    }
    let (from, to) = (Node::new("sim0"), Node::new("sim1"));
    assert!(from.write(to.name(), to.addr(), 64).unwrap().is_none());
    let target = from.engine.open_segment(to.name()).unwrap();
    let request =
        |_: usize| Request { opcode: WRITE, source: from.addr(), target, offset: to.addr(), len: 64 };
    let most = number(20_000, 1_000_000);
    let mut per_request = Vec::new();
    // The first round fills what threads and rails keep.
    for count in [most / 2, most / 2, most] {
        let (before, processor) = (live(), processor_seconds());
        MOST.store(before, Relaxed);
        let batch = from.engine.allocate_batch(count).unwrap();
        from.engine.submit(batch, count, request, None).unwrap();
        let submitted = processor_seconds() - processor;
        let peak = MOST.load(Relaxed) - before;
        from.engine.cancel_batch(batch).unwrap();
        from.engine.wait_batch(batch, Some(FOREVER)).unwrap();
        from.engine.free_batch(batch).unwrap();
        per_request.push(peak as f64 / count as f64);
        // What threads and rails keep for the next call. A thread of the library may be giving the last requests back.
        soon("memory of requests stays", || live() - before < 1 << 20);
        tell(&format!(
            "{count} requests in one call: {:.0} bytes each at the most, {:.0} ns of processor to submit each",
            peak as f64 / count as f64,
            submitted * 1e9 / count as f64
        ));
    }
    // Lists grow by doubling, so two sizes differ by less than a factor of two.
    assert!(per_request[2] < 2.0 * per_request[1], "{per_request:?}");
    assert!(per_request[2] < 1024.0, "{per_request:?}");
}

#[test]
fn rails_that_wait_for_credit_are_all_served() {
    let name = "rails_that_wait_for_credit_are_all_served";
    let ports = [("MC_MIN_RPC_PORT", "10000"), ("MC_MAX_RPC_PORT", "32000")];
    if apart(name, &[("MC_MAX_CQE_PER_CTX", "16"), ("SIMVERBS_NOCOPY", "1"), ports[0], ports[1]]) {
        return;
    }
    let from = Node::new("sim0");
    let peers: Vec<Node> = (0..number(12, 1000)).map(|_| Node::new("sim1")).collect();
    let targets: Vec<i32> = peers.iter().map(|to| from.engine.open_segment(to.name()).unwrap()).collect();
    // Without a line of those that starve, the look of the NIC's thread every 50 ms serves them: this takes over a minute.
    let (each, rounds, before, start) = (64, number(100, 3), processor_seconds(), Instant::now());
    for _ in 0..rounds {
        let batches: Vec<u64> = peers.iter().map(|_| from.engine.allocate_batch(each).unwrap()).collect();
        for ((batch, to), target) in batches.iter().zip(&peers).zip(&targets) {
            let request = |_: usize| Request {
                opcode: WRITE,
                source: from.addr(),
                target: *target,
                offset: to.addr(),
                len: 64,
            };
            from.engine.submit(*batch, each, request, None).unwrap();
        }
        for batch in batches {
            from.engine.wait_batch(batch, Some(FOREVER)).unwrap();
            for task in 0..each {
                assert_eq!(from.engine.task_status(batch, task).unwrap().0, STATUS_COMPLETED);
            }
            from.engine.free_batch(batch).unwrap();
        }
    }
    assert!(is_full() || start.elapsed() < FOREVER, "{:?}", start.elapsed());
    tell(&format!(
        "{} peers with traffic over RDMA, 16 work requests at a time in all: {:.1} us of processor a request",
        peers.len(),
        (processor_seconds() - before) * 1e6 / (rounds * each * peers.len()) as f64
    ));
}

#[test]
fn a_segment_that_is_opened_again_and_again_leaves_nothing_behind() {
    let name = "a_segment_that_is_opened_again_and_again_leaves_nothing_behind";
    if apart(name, &[]) {
        return;
    }
    let (from, to) = (Node::new("sim0"), Node::new("sim1"));
    let rounds = number(200, 2000);
    let around = |rounds: usize| {
        for _ in 0..rounds {
            assert!(from.write(to.name(), to.addr(), 64).unwrap().is_none());
            from.engine.remove_segment(to.name()).unwrap();
        }
    };
    around(rounds);
    let before = live();
    around(rounds);
    let each = (live() - before) / rounds as isize;
    tell(&format!("a segment that is opened, used and forgotten leaves {each} bytes"));
    // A number that is never given again.
    assert!(each <= 64, "{each} bytes");
}

/// An engine with TCP and registered memory.
fn tcp_engine(memory: &[u8]) -> Arc<Engine> {
    let engine = Engine::create("P2PHANDSHAKE", "127.0.0.1", false).unwrap();
    engine.install_transport("tcp", None).unwrap();
    let range = Range { addr: memory.as_ptr() as u64, len: memory.len() as u64 };
    engine.register(&[range], "cpu:0", true).unwrap();
    engine
}

fn write_over_tcp(engine: &Engine, memory: &[u8], target: i32, offset: u64) {
    let batch = engine.allocate_batch(1).unwrap();
    let request = Request { opcode: WRITE, source: memory.as_ptr() as u64, target, offset, len: 64 };
    engine.submit(batch, 1, |_| request, None).unwrap();
    engine.wait_batch(batch, Some(FOREVER)).unwrap();
    assert_eq!(engine.task_status(batch, 0).unwrap().0, STATUS_COMPLETED);
    engine.free_batch(batch).unwrap();
}

#[test]
fn an_open_segment_takes_the_same_memory_however_many_there_are() {
    let name = "an_open_segment_takes_the_same_memory_however_many_there_are";
    if common::in_child(name, &[("MC_LOG_LEVEL", "ERROR")]) {
        return;
    }
    let (here, there) = (vec![0u8; 4096], vec![0u8; 4096]);
    let (engine, target) = (tcp_engine(&here), tcp_engine(&there));
    let port = target.local().name.rsplit(':').next().unwrap().to_string();
    // Every address of 127/8 is this host: one peer with very many names.
    let open = |at: usize| {
        let name = format!("127.{}.{}.{}:{port}", 1 + (at >> 16), at >> 8 & 255, at & 255);
        engine.open_segment(&name).unwrap()
    };
    let segments = number(200, 10_000);
    (0..segments / 10).map(open).for_each(|id| assert!(id > 0));
    let (before, processor) = (live(), processor_seconds());
    let ids: Vec<i32> = (segments / 10..segments).map(open).collect();
    let each = (live() - before) / ids.len() as isize;
    tell(&format!(
        "{segments} open segments: {each} bytes each, {:.0} us of processor to open (both sides)",
        (processor_seconds() - processor) * 1e6 / ids.len() as f64
    ));
    // Measured: 1900 with one buffer.
    assert!(each < 4096, "{each} bytes");
    ids.iter().take(3).for_each(|id| write_over_tcp(&engine, &here, *id, there.as_ptr() as u64));
    tell_idle(&format!("{segments} segments"));
    engine.destroy();
    target.destroy();
}

#[test]
fn a_peer_with_traffic_takes_the_same_memory_however_many_there_are() {
    let name = "a_peer_with_traffic_takes_the_same_memory_however_many_there_are";
    let ports = [("MC_MIN_RPC_PORT", "10000"), ("MC_MAX_RPC_PORT", "32000")];
    if common::in_child(name, &[("MC_LOG_LEVEL", "ERROR"), ports[0], ports[1]]) {
        return;
    }
    let memory = vec![0u8; 4096];
    let engine = tcp_engine(&memory);
    let peers = number(20, 1000);
    // Their own memory is measured too, and taken off.
    let empty = live();
    let others: Vec<Arc<Engine>> = (0..peers).map(|_| tcp_engine(&memory)).collect();
    let (own, processor) = (live() - empty, processor_seconds());
    let before = live();
    let ids: Vec<i32> =
        others.iter().map(|other| engine.open_segment(&other.local().name).unwrap()).collect();
    let rounds = 20;
    for _ in 0..rounds {
        ids.iter().for_each(|id| write_over_tcp(&engine, &memory, *id, memory.as_ptr() as u64));
    }
    let each = (live() - before) / peers as isize;
    tell(&format!(
        "{peers} peers with traffic over TCP: {each} bytes each, both sides; an engine {} bytes; {:.0} us of processor a request",
        own / peers as isize,
        (processor_seconds() - processor) * 1e6 / (rounds * peers) as f64
    ));
    // Chosen: twice of what was measured with 20.
    assert!(each < 64 << 10, "{each} bytes");
    others.iter().for_each(|other| other.destroy());
    drop(others);
    tell_idle(&format!("{peers} segments whose peers are gone"));
    engine.destroy();
}
