//! Throughput and latency against a segment, and a segment to measure against. A row is one load: threads that submit batch
//! after batch, each its own, until the time is over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use self::memory::{Memory, Pattern};
use self::times::Times;
use super::guest;
use crate::engine::submit::Request;
use crate::engine::{handles, Engine, Wanted};
use crate::error::{Error, Result};
use crate::metadata;

mod memory;
mod times;

/// How long the peer has for the first answer. Chosen: as `mte ping`.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// Failed batches in a row after which a thread gives its row up. Chosen: a peer that is gone refuses at once, and need not be
/// asked for seconds.
const GIVE_UP: u32 = 8;
/// The pattern that a target starts with.
const TARGET_PATTERN: Pattern = Pattern(0);

/// The direction, as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// From the peer.
    Read,
    /// To the peer.
    Write,
}

/// What one row does.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// The direction.
    pub op: Op,
    /// Bytes of one request.
    pub block: u64,
    /// Requests of one batch.
    pub batch: usize,
    /// Submitting threads.
    pub threads: usize,
    /// How long; batches that run then are waited for.
    pub time: Duration,
    /// Compares afterwards, for which the peer's memory is also written before READs.
    pub verify: bool,
}

/// What one row has found.
#[derive(Debug, Default)]
pub struct Measured {
    /// Requests that were completed.
    pub requests: u64,
    /// Requests that failed or were refused.
    pub failed: u64,
    /// Why the first of them did, or why nothing could be compared.
    pub fault: Option<Error>,
    /// The transport that moves data to and from the peer.
    pub transport: Option<&'static str>,
    /// From the first submit to the end of the last batch.
    pub took: Duration,
    /// Times of completed batches: half of them took at most this, 99 of 100 this, all of them this.
    pub times: Option<[Duration; 3]>,
    /// With [`Load::verify`]: all that was moved is as it should be, or the first byte that is not, counted from the start of
    /// the peer's buffer. `None` where nothing was compared.
    pub compared: Option<std::result::Result<(), u64>>,
}

/// A segment to measure against; destroyed when it is dropped.
pub struct Target {
    engine: Arc<Engine>,
    name: String,
    /// Its handle, once it is complete: only engines that have one are in the metrics of the process.
    handle: Option<u64>,
    /// Dropped after the engine was destroyed, which uses it.
    memory: Option<Memory>,
}

impl Target {
    /// Registers `bytes` of a known pattern under `name`.
    pub fn start(connection: &str, name: &str, bytes: u64) -> Result<Self> {
        let engine = Engine::create_with(connection, name, Wanted::Suitable, "")?;
        let is_p2p = metadata::is_peer_to_peer(connection);
        let shown = if is_p2p { engine.address().to_string() } else { name.to_string() };
        // From here on it is destroyed on failure.
        let mut target = Target { engine, name: shown, handle: None, memory: None };
        let engine = &target.engine;
        guest::add_plain(engine)?;
        let memory = target.memory.insert(Memory::new(engine, bytes, true)?);
        memory.fill(engine, bytes, TARGET_PATTERN)?;
        target.handle = Some(handles::insert(target.engine.clone())?);
        Ok(target)
    }

    /// What `mte bench run` is given.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        drop(self.handle.map(handles::remove));
        self.engine.destroy();
    }
}

/// An engine beside a segment, and memory for the loads; destroyed when it is dropped.
pub struct Bench {
    engine: Arc<Engine>,
    /// As a target's.
    handle: Option<u64>,
    id: i32,
    /// Address and bytes of the peer's first buffer.
    buffer: (u64, u64),
    memory: Option<Memory>,
    /// Rows so far; each has a pattern of its own.
    rows: u64,
}

impl Bench {
    /// Opens the segment and takes memory for the largest load. -1 if a block of one is larger than the peer's buffer, or if
    /// there is none.
    pub fn open(connection: &str, segment: &str, loads: &[Load]) -> Result<Self> {
        let engine = guest::engine(connection, segment, "bench")?;
        // From here on it is destroyed on failure.
        let mut bench = Bench { engine, handle: None, id: 0, buffer: (0, 0), memory: None, rows: 0 };
        let engine = &bench.engine;
        guest::add_plain(engine)?;
        engine.probe_within(segment, PROBE_LIMIT)?;
        bench.id = engine.open_segment(segment)?;
        let mut first = None;
        engine.segment_buffers(bench.id, |addr, len, _| {
            first.get_or_insert((addr, len));
        })?;
        bench.buffer = first.ok_or_else(|| {
            Error::invalid(format!("{segment} has no registered buffer; start one with mte bench target"))
        })?;
        let (_, len) = bench.buffer;
        if let Some(load) = loads.iter().find(|load| load.block > len || load.block == 0) {
            let text = format!(
                "a block of {} bytes does not fit: the first buffer of {segment} has {len} bytes",
                load.block
            );
            return Err(Error::invalid(text));
        }
        let most = loads.iter().map(|load| load.block * bench.slots(load)).max().unwrap_or(1);
        bench.memory = Some(Memory::new(engine, most, false)?);
        bench.handle = Some(handles::insert(bench.engine.clone())?);
        Ok(bench)
    }

    /// Bytes of the peer's first buffer.
    pub fn buffer_bytes(&self) -> u64 {
        self.buffer.1
    }

    /// Runs one row. A batch that is not measured goes before it and makes the connections; if it fails, nothing else is tried.
    pub fn run(&mut self, load: &Load) -> Measured {
        let mut measured = Measured::default();
        self.rows += 1;
        // Neither the one that targets start with, nor one of another row.
        let (wanted, other) = (Pattern(2 * self.rows), Pattern(2 * self.rows + 1));
        if let Err(error) = self.measure(load, wanted, other, &mut measured) {
            measured.fault.get_or_insert(error);
        }
        // Asked last: what is found out by moving data is known then.
        measured.transport = self.engine.transport_to(self.id).ok();
        measured
    }

    fn measure(&self, load: &Load, wanted: Pattern, other: Pattern, measured: &mut Measured) -> Result<()> {
        let memory = self.memory.as_ref().ok_or_else(|| Error::invalid("no memory was taken"))?;
        let span = load.block * self.slots(load);
        if load.verify {
            memory.fill(&self.engine, span, wanted)?;
            if load.op == Op::Read {
                self.all(load, Op::Write, memory)?;
                memory.fill(&self.engine, span, other)?;
            }
        }
        let first = self.batch(load, memory, 0);
        if first.failed == 0 {
            self.in_threads(load, memory, measured);
        } else {
            measured.add(first);
        }
        if !load.verify || measured.failed > 0 || measured.fault.is_some() {
            return Ok(());
        }
        if load.op == Op::Write {
            memory.fill(&self.engine, span, other)?;
            self.all(load, Op::Read, memory)?;
        }
        let differs = memory.first_difference(&self.engine, span, wanted)?;
        measured.compared = Some(differs.map_or(Ok(()), Err));
        Ok(())
    }

    fn in_threads(&self, load: &Load, memory: &Memory, measured: &mut Measured) {
        let stop = &AtomicBool::new(false);
        let begun = Instant::now();
        let times = thread::scope(|scope| {
            let start = |index| {
                let work = move || self.work(load, memory, index, begun, stop);
                thread::Builder::new().name(format!("mte-bench-{index}")).spawn_scoped(scope, work)
            };
            let mut times = Times::default();
            let workers: Vec<_> = (0..load.threads).map(start).collect();
            if workers.iter().any(|worker| worker.is_err()) {
                stop.store(true, Ordering::Relaxed);
            }
            for worker in workers {
                match worker.map(|worker| worker.join()) {
                    Ok(Ok((part, own))) => {
                        measured.add(part);
                        times.merge(&own);
                    }
                    Ok(Err(_)) => drop(measured.fault.get_or_insert(Error::invalid("a thread has panicked"))),
                    Err(e) => {
                        measured
                            .fault
                            .get_or_insert(Error::invalid(format!("no thread can be started: {e}")));
                    }
                }
            }
            times
        });
        measured.took = begun.elapsed();
        measured.times = times.summary();
    }

    /// What one thread does; `stop` ends it early.
    fn work(
        &self,
        load: &Load,
        memory: &Memory,
        index: usize,
        begun: Instant,
        stop: &AtomicBool,
    ) -> (Part, Times) {
        let (mut sum, mut times, mut failed) = (Part::default(), Times::default(), 0);
        loop {
            let submitted = Instant::now();
            let part = self.batch(load, memory, index);
            let ended = Instant::now();
            if part.failed == 0 {
                times.add(ended - submitted);
                failed = 0;
            } else {
                failed += 1;
            }
            sum.add(part);
            if failed == GIVE_UP || ended - begun >= load.time || stop.load(Ordering::Relaxed) {
                return (sum, times);
            }
        }
    }

    /// One batch, polled until all of it has ended, as callers of the C functions do.
    fn batch(&self, load: &Load, memory: &Memory, thread: usize) -> Part {
        let slots = self.slots(load);
        let request = |index: usize| {
            let slot = (index * load.threads + thread) as u64 % slots;
            self.request(load.op, memory, slot * load.block, load.block)
        };
        let moved = self.engine.allocate_batch(load.batch).and_then(|batch| {
            let ended = self.ended(load, batch, request);
            // Only refused while a task runs, and none does.
            let freed = self.engine.free_batch(batch);
            ended.and_then(|part| freed.map(|()| part))
        });
        let all = load.batch as u64;
        moved.unwrap_or_else(|error| Part { requests: 0, failed: all, fault: Some(error) })
    }

    fn ended(&self, load: &Load, batch: u64, request: impl Fn(usize) -> Request) -> Result<Part> {
        self.engine.submit(batch, load.batch, request, None)?;
        let watched = self.engine.batch(batch)?;
        while !watched.is_done() {
            // Moves data along, and lets others run if it moves nothing for a while.
            self.engine.batch_status(batch, |_, _, _| {})?;
        }
        let completed = self.engine.batch_status(batch, |_, _, _| {})?.completed;
        let mut part =
            Part { requests: completed as u64, failed: (load.batch - completed) as u64, fault: None };
        if part.failed > 0 {
            let errors =
                (0..load.batch).filter_map(|task| self.engine.task_error(batch, task).ok().flatten());
            part.fault = { errors }.next();
        }
        Ok(part)
    }

    /// Moves everything that a row touches, once.
    fn all(&self, load: &Load, op: Op, memory: &Memory) -> Result<()> {
        let count = self.slots(load) as usize;
        let entry = |slot: usize| self.request(op, memory, slot as u64 * load.block, load.block);
        let moved = self.engine.transfer(count, load.batch, entry, None, None);
        moved.map_err(|e| e.context("the transfer for the comparison"))
    }

    fn request(&self, op: Op, memory: &Memory, at: u64, len: u64) -> Request {
        Request {
            opcode: op as i32,
            source: memory.addr() + at,
            target: self.id,
            offset: self.buffer.0 + at,
            len,
        }
    }

    /// Blocks that a row touches: one for each request at once, as far as the peer's buffer has room.
    fn slots(&self, load: &Load) -> u64 {
        let at_once = (load.batch as u64).saturating_mul(load.threads as u64);
        at_once.min(self.buffer.1 / load.block).max(1)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(self.handle.map(handles::remove));
        self.engine.destroy();
    }
}

/// What has become of some requests.
#[derive(Default)]
struct Part {
    requests: u64,
    failed: u64,
    fault: Option<Error>,
}

impl Part {
    fn add(&mut self, more: Part) {
        self.requests += more.requests;
        self.failed += more.failed;
        self.fault = self.fault.take().or(more.fault);
    }
}

impl Measured {
    fn add(&mut self, part: Part) {
        self.requests += part.requests;
        self.failed += part.failed;
        self.fault = self.fault.take().or(part.fault);
    }
}
