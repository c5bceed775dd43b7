//! What was submitted, and the rules that hold for it whatever happens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::peer::{pattern, Kind, BASE, HALF};
use super::wire::Wire;
use crate::sim::Choices;
use crate::transport::slice::deaf::Deaf;
use crate::transport::slice::{Drained, Op, Slice, Status, Task, Work};
use crate::transport::tcp::request::Request;

/// What local memory holds that belongs to no request under way.
const FREE: u8 = 0;
/// Most requests of a schedule: each is known by a byte of its own.
pub(super) const MOST: usize = 250;
/// Local bytes of a request.
const ROOM: u64 = 64;

/// Deadline of a batch that has one (`MC_SLICE_TIMEOUT`).
const TIMEOUT_US: u64 = 3_000_000;
/// How much later its requests end at the most: a look at the deadlines, and those that wait for the peer's word.
const GRACE_US: u64 = 250_000 + 2_000_000;

/// One request as it was submitted.
pub(super) struct Told {
    pub work: Arc<Work>,
    pub task: u32,
    op: Op,
    addr: u64,
    len: u64,
    local: u64,
    /// The incarnation that the caller's descriptor is of; 0: the peer has none.
    incarnation: u64,
    /// Bytes that have come into the peer's memory, and the start of the process that took them.
    arrived: Vec<Option<u64>>,
    is_settled: bool,
    /// When it has to be terminal at the latest, if the caller has set a deadline.
    ends_by_us: Option<u64>,
}

/// The history of a schedule.
pub(super) struct Rules {
    kind: Kind,
    pub told: Vec<Told>,
    /// Local memory of all requests.
    pub local: Vec<u8>,
    unsettled: usize,
    /// What the machines take for the beginning.
    start: Instant,
}

impl Rules {
    pub(super) fn new(kind: Kind, start: Instant) -> Self {
        Rules { kind, told: Vec::new(), local: vec![FREE; MOST * ROOM as usize], unsettled: 0, start }
    }

    /// Tasks that are not terminal, as far as was looked.
    pub(super) fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// A range of the peer that no WRITE is under way to, nor may be; `None` if there is none to be found.
    fn quiet_range(&self, choices: &mut Choices, len: u64) -> Option<u64> {
        let places = HALF / ROOM;
        let first = u64::from(choices.below(places as u32));
        (0..places).map(|next| BASE + (first + next) % places * ROOM).find(|addr| {
            let overlaps =
                |told: &&Told| told.op == Op::Write && told.addr < addr + len && *addr < told.addr + told.len;
            self.told.iter().filter(overlaps).all(|told| told.work.drained(told.task) == Some(Drained::Yes))
        })
    }

    /// A batch of requests for the peer's `incarnation`, cut into requests of lanes.
    pub(super) fn submit(
        &mut self,
        choices: &mut Choices,
        now_us: u64,
        incarnation: u64,
        count: u32,
    ) -> Vec<Request> {
        let due_us = choices.chance(200).then_some(now_us + TIMEOUT_US);
        let deadline = due_us.map(|us| self.start + Duration::from_micros(us));
        let count = (count as usize).min(MOST - self.told.len());
        let tasks = (0..count).map(|_| Task::default()).collect();
        let work = Work::new(tasks, deadline, Arc::new(Deaf::default()));
        let mut requests = Vec::new();
        for task in 0..count as u32 {
            let len = choices.pick(&[8, 24, 48]);
            let is_bad = choices.chance(15);
            let quiet = if choices.chance(600) { self.quiet_range(choices, len) } else { None };
            let (op, addr) = match quiet {
                Some(addr) => (Op::Write, addr),
                None => (Op::Read, BASE + HALF + u64::from(choices.below((HALF - len) as u32))),
            };
            let addr = if is_bad { BASE + 4 * HALF + self.told.len() as u64 * ROOM } else { addr };
            let local = self.told.len() as u64 * ROOM;
            let tag = self.told.len() as u8 + 1;
            self.local[local as usize..(local + len) as usize].fill(tag);
            let parts = choices.pick(&[1, 1, 1, 2]);
            let piece = len / parts;
            requests.extend((0..parts).map(|part| {
                let at = part * piece;
                Request::new(Slice::new(&work, task, op, local + at, addr + at, piece, None), incarnation)
            }));
            let arrived = vec![None; len as usize];
            let work = work.clone();
            self.told.push(Told {
                work,
                task,
                op,
                addr,
                len,
                local,
                incarnation,
                arrived,
                is_settled: false,
                ends_by_us: due_us.map(|us| us + GRACE_US),
            });
            self.unsettled += 1;
        }
        requests
    }

    fn of_local(&self, local: u64) -> &Told {
        &self.told[(local / ROOM) as usize]
    }

    /// The memory of a request is read or written now.
    pub(super) fn touch(&self, local: u64) {
        let told = self.of_local(local);
        assert_eq!(
            told.work.tasks[told.task as usize].status(),
            Status::Waiting,
            "local memory is used after the end"
        );
    }

    /// The first byte of a WRITE's body leaves on connection number `on`.
    pub(super) fn begin_body(&self, wires: &[Wire], on: usize, addr: u64, len: u64) {
        let other = |(number, wire): (usize, &Wire)| number != on && wire.may_still_write(addr, len);
        let two = wires.iter().enumerate().any(other);
        assert!(!two, "a second copy of a WRITE to {addr:#x} is under way on connection {on}");
    }

    /// The peer's process number `start` has put bytes into its memory.
    pub(super) fn apply(&mut self, start: u64, addr: u64, bytes: &[u8]) {
        for (addr, byte) in (addr..).zip(bytes) {
            let request = usize::from(*byte).checked_sub(1).and_then(|number| self.told.get_mut(number));
            let told = request.unwrap_or_else(|| panic!("bytes of a request that has ended are written"));
            assert!(
                told.op == Op::Write && (told.addr..told.addr + told.len).contains(&addr),
                "bytes in a wrong place"
            );
            assert!(
                told.incarnation == 0 || told.incarnation == start,
                "bytes for incarnation {} are written into {start}",
                told.incarnation
            );
            let status = told.work.tasks[told.task as usize].status();
            let drained = told.work.drained(told.task);
            // A v1 peer does not say when it has the bytes.
            if self.kind != Kind::V1 {
                assert_ne!(status, Status::Completed, "a copy of a COMPLETED WRITE was under way");
            }
            let is_quiet = status == Status::Failed && drained == Some(Drained::Yes);
            assert!(!is_quiet, "bytes of a WRITE are written that was called drained");
            told.arrived[(addr - told.addr) as usize] = Some(start);
        }
    }

    /// Looks at what has ended since the last look.
    pub(super) fn settle(&mut self, choices: &mut Choices, now_us: u64) {
        if self.unsettled == 0 {
            return;
        }
        for told in &mut self.told {
            let status = told.work.tasks[told.task as usize].status();
            let is_late = told.ends_by_us.is_some_and(|ends_by_us| now_us > ends_by_us);
            assert!(told.is_settled || !is_late, "a task outlives its deadline");
            if told.is_settled || status == Status::Waiting {
                continue;
            }
            (told.is_settled, self.unsettled) = (true, self.unsettled - 1);
            let local = &mut self.local[told.local as usize..(told.local + told.len) as usize];
            choices.tell(told.local ^ status as u64, || {
                let error = told.work.tasks[told.task as usize].error();
                format!(
                    "      {:?} {:#x} of {} is {status:?} {}",
                    told.op,
                    told.addr,
                    told.len,
                    error.map(|e| e.to_string()).unwrap_or_default()
                )
            });
            if status == Status::Failed {
                choices.reach("a request fails");
                let error = told.work.tasks[told.task as usize].error();
                let is_internal = error.is_none_or(|error| error.kind() == crate::error::Class::Internal);
                assert!(!is_internal, "a request was lost: {error:?}");
            } else {
                choices.reach("a task is COMPLETED");
                match told.op {
                    Op::Read => {
                        let start = told.incarnation.max(1);
                        let is_right = |start: u64| {
                            (told.addr..).zip(&*local).all(|(addr, byte)| pattern(start, addr) == *byte)
                        };
                        let starts = if told.incarnation == 0 { 1..=9 } else { start..=start };
                        // Two slices may come from two upstream processes, which have no incarnation.
                        let may_mix = told.incarnation == 0;
                        assert!(may_mix || starts.clone().any(is_right), "COMPLETED without the bytes");
                        let known = |(addr, byte): (u64, &u8)| {
                            starts.clone().any(|start| pattern(start, addr) == *byte)
                        };
                        assert!((told.addr..).zip(&*local).all(known), "COMPLETED with other bytes");
                    }
                    Op::Write if self.kind != Kind::V1 => {
                        let all = told.arrived.iter().all(|start| match told.incarnation {
                            0 => start.is_some(),
                            incarnation => *start == Some(incarnation),
                        });
                        assert!(all, "COMPLETED, and the peer does not have the bytes");
                    }
                    Op::Write => {}
                }
            }
            local.fill(FREE);
        }
    }

    /// At the end of all things.
    pub(super) fn finish(&self) {
        assert_eq!(self.unsettled, 0, "a task never ends");
        for told in &self.told {
            let drained = told.work.drained(told.task);
            assert_ne!(drained, Some(Drained::No), "a trail never ends");
        }
    }
}
