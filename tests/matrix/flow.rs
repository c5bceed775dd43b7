//! Transfers that go on while something happens, each with bytes of its own, which are looked at as soon as it is COMPLETED.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use transfer_engine::error::Error;

use crate::node::{Batch, READ, WRITE};
use crate::pair::{Target, HALF};
use crate::peer::View;

/// Batches under way at a time, each with its own part of the memory.
const BATCHES: usize = 4;
/// Requests of a batch.
const REQUESTS: usize = 4;
/// Bytes of a request.
const SIZE: usize = 128 << 10;
/// What transfers move is below it, and what a caller puts into a buffer afterwards is not.
pub const MARK: u8 = 0x80;
/// So many batches that were submitted after the fault and are COMPLETED show that it fails nothing.
const ENOUGH: usize = 3 * BATCHES;

/// What transfers move, and how they are looked at.
pub struct Flow<'a> {
    pub target: Target<'a>,
    /// Whose memory is looked at.
    pub peer: &'a View,
    /// By turns.
    pub opcodes: &'a [i32],
    /// Nobody may touch the local memory, because it may not be there.
    pub blind: bool,
    pub struck: &'a Struck,
}

/// The fault: when it began to happen, and whether it has.
#[derive(Default)]
pub struct Struck {
    pub began: OnceLock<Instant>,
    pub is_done: AtomicBool,
}

/// How it ended.
#[derive(Default)]
pub struct End {
    /// The call that was refused.
    pub refused: Option<Error>,
    /// The tasks that failed.
    pub failed: Vec<Error>,
    /// Local buffers of those: their offset.
    pub left: Vec<usize>,
    /// How many tasks there were, and how many arrived.
    pub tasks: usize,
    pub arrived: usize,
    /// From the fault to the end of the last task.
    pub took: Duration,
}

impl End {
    /// Every error of it.
    pub fn errors(&self) -> impl Iterator<Item = &Error> {
        self.refused.iter().chain(&self.failed)
    }
}

/// A batch under way.
struct Going<'a> {
    batch: Batch<'a>,
    opcode: i32,
    at: usize,
    after: bool,
}

impl<'a> Flow<'a> {
    /// Until a task fails, a call is refused, or enough has come through after the fault. Tells of the first submit call, and of
    /// each batch that has ended.
    pub fn run(&self, begun: &Sender<()>, ended: &Sender<()>) -> End {
        let mut end = End::default();
        let mut going: VecDeque<Going<'a>> = VecDeque::new();
        let mut came_through = 0;
        for round in 0.. {
            if going.len() == BATCHES {
                let first = going.pop_front().unwrap();
                came_through += usize::from(first.after);
                self.look(first, &mut end);
                // Nobody may listen.
                let _ = ended.send(());
                if !end.failed.is_empty() || came_through == ENOUGH {
                    break;
                }
            }
            let opcode = self.opcodes[round % self.opcodes.len()];
            let at = round % BATCHES * REQUESTS * SIZE;
            self.prepare(opcode, at, round);
            let after = self.struck.is_done.load(Relaxed);
            let requests: Vec<_> =
                (0..REQUESTS).map(|index| self.target.request(opcode, at + index * SIZE, SIZE)).collect();
            match self.target.here.submit(&requests) {
                Ok(batch) => going.push_back(Going { batch, opcode, at, after }),
                Err(refused) => {
                    end.refused = Some(refused);
                    break;
                }
            }
            let _ = begun.send(());
        }
        going.into_iter().for_each(|one| self.look(one, &mut end));
        let began = self.struck.began.get();
        end.took =
            began.expect("a task failed, or a call was refused, before anything had happened").elapsed();
        end
    }

    /// New bytes to be sent, or bytes that have to be replaced by those that are read.
    fn prepare(&self, opcode: i32, at: usize, round: usize) {
        if self.blind {
            return;
        }
        let local = &self.target.here.memory[at..at + REQUESTS * SIZE];
        for (index, byte) in local.iter().enumerate() {
            let sent = (index.wrapping_mul(31) >> 3) + round;
            byte.store(if opcode == WRITE { sent as u8 % MARK } else { MARK - 1 }, Relaxed);
        }
    }

    /// Waits for a batch. What is COMPLETED has its bytes; what has failed is marked, since it is the caller's again.
    fn look(&self, one: Going<'a>, end: &mut End) {
        let errors = one.batch.wait().unwrap();
        for (task, error) in errors.into_iter().enumerate() {
            let at = one.at + task * SIZE;
            end.tasks += 1;
            end.arrived += usize::from(error.is_none());
            match error {
                Some(error) => {
                    end.failed.push(error);
                    if !self.blind {
                        end.left.push(at);
                        let local = &self.target.here.memory[at..at + SIZE];
                        local.iter().for_each(|byte| byte.store(MARK | byte.load(Relaxed), Relaxed));
                    }
                }
                // A WRITE that failed here before may have been sent by another slot since; only what is whole counts.
                None if self.blind => {}
                None => {
                    let what = if one.opcode == READ { "READ" } else { "WRITE" };
                    // Of a process that is gone nothing can be looked at any more.
                    let there = self.peer.bytes(HALF + at, SIZE);
                    let same = there.is_none_or(|there| there == self.target.here.bytes(at, SIZE));
                    assert!(same, "a {what} of {SIZE} bytes at {at} is COMPLETED without its bytes");
                }
            }
        }
    }
}
