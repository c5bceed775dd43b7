//! The library inside its host: called from a tokio runtime's own threads, leaving nothing behind, idle when idle.
//!
//! What is counted is the process's, so those tests run alone, in a process of their own.

#![allow(unsafe_code)]

mod common;

use common::in_child;
use std::ffi::{c_void, CStr, CString};
use std::io::{BufRead, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use transfer_engine::ffi::engine::{
    createTransferEngine, destroyTransferEngine, getLocalIpAndPort, installTransport,
};
use transfer_engine::ffi::ext::{mte_last_error, mte_wait_batch};
use transfer_engine::ffi::memory::{registerLocalMemory, registerLocalMemoryBatch, unregisterLocalMemory};
use transfer_engine::ffi::segment::openSegment;
use transfer_engine::ffi::transfer::{allocateBatchID, freeBatchID, getTransferStatus, submitTransfer};
use transfer_engine::ffi::types::{
    buffer_entry_t, transfer_request, transfer_status, INVALID_BATCH, LOCAL_SEGMENT, OPCODE_READ,
    OPCODE_WRITE, STATUS_COMPLETED,
};

/// Far longer than anything here takes.
const FOREVER: Duration = Duration::from_secs(20);
const BYTES: usize = 64 << 10;

/// The text of this thread's last failure.
fn last_error() -> String {
    let mut text = [0; 512];
    // SAFETY: a buffer of the length that is passed.
    unsafe { mte_last_error(text.as_mut_ptr(), text.len()) };
    // SAFETY: the call ends the text with a NUL.
    unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned()
}

/// An engine of the C API with TCP installed and a registered buffer.
struct Host {
    engine: *mut c_void,
    memory: Vec<AtomicU8>,
}

impl Host {
    fn create() -> Self {
        // SAFETY: C strings; NULL is allowed for the third argument.
        let engine = unsafe {
            createTransferEngine(c"P2PHANDSHAKE".as_ptr(), c"127.0.0.1".as_ptr(), std::ptr::null(), 0, 0)
        };
        assert!(!engine.is_null(), "{}", last_error());
        // SAFETY: a C string and no arguments.
        let transport = unsafe { installTransport(engine, c"tcp".as_ptr(), std::ptr::null_mut()) };
        assert!(!transport.is_null(), "{}", last_error());
        let memory: Vec<AtomicU8> = (0..BYTES).map(|i| AtomicU8::new((i % 251) as u8)).collect();
        // SAFETY: the memory outlives the registration, see `destroy`.
        let code =
            unsafe { registerLocalMemory(engine, memory.as_ptr() as *mut c_void, BYTES, c"*".as_ptr(), 1) };
        assert_eq!(code, 0, "{}", last_error());
        Host { engine, memory }
    }

    fn name(&self) -> CString {
        let mut name = [0; 64];
        // SAFETY: a buffer of the length that is passed.
        let code = unsafe { getLocalIpAndPort(self.engine, name.as_mut_ptr(), name.len()) };
        assert_eq!(code, 0, "{}", last_error());
        // SAFETY: the call ends the text with a NUL.
        unsafe { CStr::from_ptr(name.as_ptr()) }.to_owned()
    }

    fn open(&self, peer: &Host) -> i32 {
        // SAFETY: a C string.
        let id = unsafe { openSegment(self.engine, peer.name().as_ptr()) };
        assert!(id >= 0, "{}", last_error());
        id
    }

    /// Moves the first half of the own memory to or from the upper half of `peer`'s.
    fn transfer(&self, opcode: i32, target: i32, peer: &Host) {
        let batch = self.transfer_in_batch(opcode, target, peer);
        // SAFETY: no pointers but the handle.
        assert_eq!(unsafe { freeBatchID(self.engine, batch) }, 0, "{}", last_error());
    }

    /// As `transfer`; the batch is the caller's to free.
    fn transfer_in_batch(&self, opcode: i32, target: i32, peer: &Host) -> u64 {
        // SAFETY: no pointers but the handle.
        let batch = unsafe { allocateBatchID(self.engine, 1) };
        assert_ne!(batch, INVALID_BATCH, "{}", last_error());
        let half = BYTES / 2;
        let mut request = transfer_request {
            opcode,
            source: self.memory.as_ptr() as *mut c_void,
            target_id: target,
            target_offset: peer.memory.as_ptr() as u64 + half as u64,
            length: half as u64,
        };
        // SAFETY: an array of one entry.
        let code = unsafe { submitTransfer(self.engine, batch, &mut request, 1) };
        assert_eq!(code, 0, "{}", last_error());
        // SAFETY: no pointers but the handle.
        let code = unsafe { mte_wait_batch(self.engine, batch, FOREVER.as_millis() as i64) };
        assert_eq!(code, 0, "{}", last_error());
        let mut status = transfer_status { status: 0, transferred_bytes: 0 };
        // SAFETY: a valid out-parameter.
        let code = unsafe { getTransferStatus(self.engine, batch, 0, &mut status) };
        assert_eq!((code, status.status, status.transferred_bytes), (0, STATUS_COMPLETED, half as u64));
        let same = |i: usize| self.memory[i].load(Relaxed) == peer.memory[half + i].load(Relaxed);
        assert!((0..half).all(same), "wrong bytes");
        batch
    }

    fn destroy(self) {
        // SAFETY: registered by `create`.
        let code = unsafe { unregisterLocalMemory(self.engine, self.memory.as_ptr() as *mut c_void) };
        assert_eq!(code, 0, "{}", last_error());
        // SAFETY: created by `create` and not used any more.
        unsafe { destroyTransferEngine(self.engine) };
    }
}

/// Everything that blocks: creation, a copy inside the engine, an exchange with another one, destruction.
fn whole_life() {
    let (host, peer) = (Host::create(), Host::create());
    assert_eq!(host.open(&host), LOCAL_SEGMENT);
    host.transfer(OPCODE_WRITE, LOCAL_SEGMENT, &host);
    let target = host.open(&peer);
    assert!(target > 0);
    host.transfer(OPCODE_WRITE, target, &peer);
    host.transfer(OPCODE_READ, target, &peer);
    host.destroy();
    peer.destroy();
}

/// Destroys engines, one of which still has a batch.
fn abandon_a_batch() {
    let (host, peer) = (Host::create(), Host::create());
    let target = host.open(&peer);
    host.transfer_in_batch(OPCODE_WRITE, target, &peer);
    host.destroy();
    peer.destroy();
}

/// The contexts that code inside a runtime runs in; a panic in a task shows at its `unwrap`.
fn call_from_every_context(runtime: tokio::runtime::Runtime) {
    runtime.block_on(async {
        whole_life();
        tokio::spawn(async { whole_life() }).await.unwrap();
        tokio::task::spawn_blocking(whole_life).await.unwrap();
    });
    let _entered = runtime.enter();
    whole_life();
}

#[test]
fn a_current_thread_runtime_may_call_from_its_async_context() {
    call_from_every_context(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
}

#[test]
fn a_multi_thread_runtime_may_call_from_its_async_context() {
    call_from_every_context(
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
    );
}

#[test]
fn threads_of_a_host_with_several_runtimes_may_call_at_once() {
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async { whole_life() });
            });
        }
    });
}

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Descriptors and threads of this process.
fn held() -> (usize, usize) {
    (entries("/proc/self/fd"), entries("/proc/self/task"))
}

/// A joined thread may be listed for a moment longer, so `wanted` is waited for.
fn assert_held(wanted: (usize, usize), what: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while held() != wanted {
        assert!(
            Instant::now() < deadline,
            "{what}: (descriptors, threads) are {:?}, were {wanted:?}",
            held()
        );
        std::thread::yield_now();
    }
}

#[test]
fn p09_p14_engines_leave_no_descriptor_and_no_thread_behind() {
    if in_child("p09_p14_engines_leave_no_descriptor_and_no_thread_behind", &[("MC_LOG_LEVEL", "ERROR")]) {
        return;
    }
    whole_life();
    let before = held();
    for _ in 0..200 {
        Host::create().destroy();
    }
    assert_held(before, "after 200 engines");
    for _ in 0..20 {
        whole_life();
    }
    assert_held(before, "after 20 pairs that exchanged data");
    for _ in 0..20 {
        abandon_a_batch();
    }
    assert_held(before, "after 20 engines whose batch was never freed");
    let host = Host::create();
    assert!(held().0 > before.0 && held().1 > before.1, "the counts do not see an engine");
    host.destroy();
    assert_held(before, "in the end");
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    // SAFETY: an all-zero rusage is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a valid out-parameter.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) }, 0);
    let time =
        |t: libc::timeval| Duration::from_secs(t.tv_sec as u64) + Duration::from_micros(t.tv_usec as u64);
    time(usage.ru_utime) + time(usage.ru_stime)
}

#[test]
fn p25_an_idle_engine_takes_no_processor_time() {
    if in_child("p25_an_idle_engine_takes_no_processor_time", &[("MC_LOG_LEVEL", "ERROR")]) {
        return;
    }
    const WALL: Duration = Duration::from_secs(2);
    // Connected, and with a lane and an inbound connection that are open and idle.
    let (host, peer) = (Host::create(), Host::create());
    let target = host.open(&peer);
    host.transfer(OPCODE_WRITE, target, &peer);
    let before = cpu_time();
    let (nobody, never) = (Mutex::new(()), Condvar::new());
    let asleep = never.wait_timeout_while(nobody.lock().unwrap(), WALL, |()| true);
    assert!(asleep.unwrap().1.timed_out());
    let used = cpu_time() - before;
    assert!(used < WALL / 100, "two idle engines used {used:?} of {WALL:?}");
    host.destroy();
    peer.destroy();
}

/// The port behind the last colon of a name.
fn port_of(host: &Host) -> u16 {
    host.name().to_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap()
}

/// One request of `kind` with an empty object to a handshake port; the reply's JSON. Closes as clients do.
fn ask(port: u16, kind: u8) -> serde_json::Value {
    try_to_ask(port, kind).unwrap()
}

fn try_to_ask(port: u16, kind: u8) -> std::io::Result<serde_json::Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(FOREVER))?;
    stream.write_all(&[3, 0, 0, 0, 0, 0, 0, 0, kind, b'{', b'}'])?;
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let mut body = vec![0; u64::from_le_bytes(head[..8].try_into().unwrap()) as usize - 1];
    stream.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body).unwrap())
}

/// Tries again while a port is busy with a crowd on the other one: who gets a descriptor then is chance.
fn until_served<T>(mut attempt: impl FnMut() -> std::io::Result<T>) -> T {
    let end = std::time::Instant::now() + FOREVER;
    loop {
        match attempt() {
            Ok(served) => return served,
            Err(error) => assert!(std::time::Instant::now() < end, "{error}"),
        }
        std::thread::yield_now();
    }
}

/// The first of two free ports in a row, as far as one can know.
fn two_ports() -> u16 {
    let free = |port: u16| TcpListener::bind(("0.0.0.0", port)).is_ok();
    (21_000..30_000).step_by(2).find(|port| free(*port) && free(port + 1)).unwrap()
}

#[test]
fn an_engine_starts_again_on_the_ports_of_one_that_was_asked() {
    let name = "an_engine_starts_again_on_the_ports_of_one_that_was_asked";
    let first = two_ports();
    let (min, max) = (first.to_string(), (first + 1).to_string());
    if in_child(name, &[("MC_MIN_RPC_PORT", &min), ("MC_MAX_RPC_PORT", &max), ("MC_LOG_LEVEL", "ERROR")]) {
        return;
    }
    for _ in 0..10 {
        let host = Host::create();
        let port = port_of(&host);
        assert_eq!(ask(port, 3), serde_json::json!({"status": "success"}));
        assert!(ask(port, 1)["buffers"].is_array());
        // A client that is there when the engine goes, and one that has sent nonsense.
        let silent = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut nonsense = TcpStream::connect(("127.0.0.1", port)).unwrap();
        nonsense.write_all(&[0; 8]).unwrap();
        let _ = nonsense.read(&mut [0]);
        ask(port, 3);
        host.destroy();
        drop(silent);
    }
}

/// Memory of this process that is in use, bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn p25_descriptors_that_nobody_reads_cost_little_and_delay_nobody() {
    let name = "p25_descriptors_that_nobody_reads_cost_little_and_delay_nobody";
    if in_child(name, &[("MC_LOG_LEVEL", "ERROR")]) {
        return;
    }
    const BUFFERS: usize = 20_000;
    let host = Host::create();
    let memory = vec![0u64; BUFFERS];
    let mut entries: Vec<_> = memory
        .iter()
        .map(|word| buffer_entry_t { addr: std::ptr::from_ref(word) as *mut c_void, length: 8 })
        .collect();
    // SAFETY: an array of that many entries, whose memory outlives the engine.
    let code =
        unsafe { registerLocalMemoryBatch(host.engine, entries.as_mut_ptr(), entries.len(), c"*".as_ptr()) };
    assert_eq!(code, 0, "{}", last_error());
    let port = port_of(&host);
    assert_eq!(ask(port, 1)["buffers"].as_array().unwrap().len(), BUFFERS + 1);
    let before = resident();
    let unread: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(&[3, 0, 0, 0, 0, 0, 0, 0, 1, b'{', b'}']).unwrap();
            stream
        })
        .collect();
    let begun = Instant::now();
    ask(port, 3);
    let took = begun.elapsed();
    // Each has its turn: the beginning of every reply is there.
    for mut stream in &unread {
        stream.read_exact(&mut [0; 9]).unwrap();
    }
    let more = resident().saturating_sub(before);
    assert!(more < 16 << 20, "100 replies that nobody reads take {more} bytes");
    assert!(took < Duration::from_secs(1), "a probe took {took:?}");
    // A change is seen at once.
    // SAFETY: no pointers but the handle and an address that is registered.
    assert_eq!(unsafe { unregisterLocalMemory(host.engine, entries[0].addr) }, 0);
    assert_eq!(ask(port, 1)["buffers"].as_array().unwrap().len(), BUFFERS);
    host.destroy();
}

/// The port to connect to, how often, and whether to ask something after every second, in a process that does nothing but stay connected.
const STAY: &str = "TRANSFER_ENGINE_TEST_STAY";
const CROWD: usize = 1010;

#[test]
fn stays_connected_for_another_test() {
    let Some(numbers) = std::env::var(STAY).ok() else { return };
    let numbers: Vec<usize> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
    let (port, count, asks) = (numbers[0] as u16, numbers[1], numbers[2] == 1);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let crowd: Vec<_> = (0..count)
        .map_while(|index| {
            let stream = TcpStream::connect_timeout(&address, FOREVER / 4).ok();
            if asks && index % 2 == 1 {
                ask(port, 3);
            }
            stream
        })
        .collect();
    println!("\nCONNECTED");
    let _ = std::io::stdin().read(&mut [0]);
    drop(crowd);
}

/// Another process with silent connections, killed when it is dropped.
struct Crowd(std::process::Child);

impl Crowd {
    /// Connects to `port`, as often as it gets through.
    fn to(port: u16) -> Self {
        Self::start(CROWD, port, false)
    }

    /// Connects to the handshake port `port` `count` times, and probes it after every second time, so that the port is
    /// done with those before it sees the next.
    fn two_by_two(count: usize, port: u16) -> Self {
        Self::start(count, port, true)
    }

    fn start(count: usize, port: u16, asks: bool) -> Self {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "ulimit -n 2048; exec \"$0\" --exact stays_connected_for_another_test --nocapture"])
            .arg(std::env::current_exe().unwrap())
            .env(STAY, format!("{port} {count} {}", u8::from(asks)))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "CONNECTED"));
        Crowd(child)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sets the limit of descriptors of this process.
fn limit_descriptors(most: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid out-parameter.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    limit.rlim_cur = most;
    // SAFETY: a valid argument.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
}

#[test]
fn silent_connections_leave_the_host_its_descriptors() {
    if in_child("silent_connections_leave_the_host_its_descriptors", &[("MC_LOG_LEVEL", "ERROR")]) {
        return;
    }
    limit_descriptors(1024);
    let (host, peer) = (Host::create(), Host::create());
    let port = port_of(&host);
    let data = ask(port, 1)["tcp_data_port"].as_u64().unwrap() as u16;
    let crowds = [Crowd::to(port), Crowd::to(data)];
    // Those that were accepted last are waited for: this one comes after them.
    ask(port, 3);
    let files: Vec<_> = (0..300).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    assert!(host.open(&peer) > 0 && peer.open(&host) > 0);
    drop(files);
    drop(crowds);
    host.destroy();
    peer.destroy();
}

fn open_files(count: usize) -> Vec<std::fs::File> {
    let open = |_| std::fs::File::open("/dev/null").unwrap_or_else(|e| panic!("no descriptor: {e}"));
    (0..count).map(open).collect()
}

#[test]
fn a_host_that_needs_most_descriptors_keeps_a_reserve() {
    let name = "a_host_that_needs_most_descriptors_keeps_a_reserve";
    if !in_child(name, &[("MC_LOG_LEVEL", "ERROR")]) {
        keeps_a_reserve();
    }
}

/// As on a host with more processors: the thread that listens is not the one that closes.
#[test]
fn several_threads_keep_a_reserve_too() {
    let threads = [("MC_LOG_LEVEL", "ERROR"), ("MC_TCP_THREADS", "4")];
    if !in_child("several_threads_keep_a_reserve_too", &threads) {
        keeps_a_reserve();
    }
}

fn keeps_a_reserve() {
    limit_descriptors(1024);
    let (host, peer) = (Host::create(), Host::create());
    let port = port_of(&host);
    let described = ask(port, 1);
    let data = described["tcp_data_port"].as_u64().unwrap() as u16;
    // Fewer are left than the ports may use.
    let own = open_files(700);
    let crowds = [Crowd::to(data), Crowd::to(port)];
    // These are accepted after the crowds, and are served.
    let cell = described["incarnation_addr"].as_u64().unwrap();
    let read_of_the_cell =
        [&16u64.to_le_bytes()[..], &cell.to_le_bytes(), &[0x80, 0, 0, 0, 0, 0, 0, 0]].concat();
    let _served = until_served(|| {
        let mut stream = TcpStream::connect(("127.0.0.1", data))?;
        stream.set_read_timeout(Some(FOREVER))?;
        stream.write_all(&read_of_the_cell)?;
        stream.read_exact(&mut [0; 24])?;
        Ok(stream)
    });
    until_served(|| try_to_ask(port, 3));
    // Of the last eighth of 1024 each port has eight for its own, the crowds' pipes have some, and a few are on their way.
    let more = open_files(90);
    assert!(host.open(&peer) > 0 && peer.open(&host) > 0);
    drop((own, more, crowds));
    host.destroy();
    peer.destroy();
}

#[test]
fn handshakes_leave_a_reserve_to_a_host_that_needs_most_descriptors() {
    if in_child(
        "handshakes_leave_a_reserve_to_a_host_that_needs_most_descriptors",
        &[("MC_LOG_LEVEL", "ERROR")],
    ) {
        return;
    }
    limit_descriptors(1024);
    let host = Host::create();
    let port = port_of(&host);
    // Up to the last eighth fewer are left than handshakes of one source may use.
    let used = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let own = open_files(1024 / 8 * 7 - used - 40);
    let crowd = Crowd::two_by_two(200, port);
    ask(port, 3);
    let more = open_files(118);
    drop((own, more, crowd));
    host.destroy();
}
