//! Tasks that have ended, by direction, size, latency and kind of failure.

use crate::error::Class;
use crate::observe::histogram::{Histogram, LATENCY_US, SIZE_BYTES};
use crate::transport::slice::{End, Op, Status};

/// Counts of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direction {
    /// Bytes of COMPLETED tasks.
    pub bytes: u64,
    /// Tasks that ended.
    pub requests: u64,
    /// Those that FAILED, by class.
    pub failures: [u64; Class::COUNT],
    /// How often a part of a task was sent again.
    pub resent: u64,
    /// From the submit call to the end of COMPLETED tasks, microseconds.
    pub latency: Histogram,
    /// Bytes of COMPLETED tasks.
    pub size: Histogram,
}

impl Direction {
    const NONE: Direction = Direction {
        bytes: 0,
        requests: 0,
        failures: [0; Class::COUNT],
        resent: 0,
        latency: Histogram::new(LATENCY_US),
        size: Histogram::new(SIZE_BYTES),
    };

    /// Tasks that ran out of time.
    pub fn timeouts(&self) -> u64 {
        self.failures[Class::Timeout as usize]
    }

    /// Tasks that failed of anything else, as upstream counts them.
    pub fn other_failures(&self) -> u64 {
        self.failures.iter().sum::<u64>() - self.timeouts()
    }

    fn each(
        &mut self,
        other: &Direction,
        number: impl Fn(&mut u64, u64),
        histogram: impl Fn(&mut Histogram, &Histogram),
    ) {
        number(&mut self.bytes, other.bytes);
        number(&mut self.requests, other.requests);
        number(&mut self.resent, other.resent);
        self.failures.iter_mut().zip(other.failures).for_each(|(count, more)| number(count, more));
        histogram(&mut self.latency, &other.latency);
        histogram(&mut self.size, &other.size);
    }
}

/// Counts of tasks that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Remote memory to local memory.
    pub read: Direction,
    /// Local memory to remote memory.
    pub write: Direction,
}

impl Tally {
    /// Nothing ended.
    pub const NONE: Tally = Tally { read: Direction::NONE, write: Direction::NONE };

    /// Counts a task.
    pub fn add(&mut self, end: &End<'_>) {
        let direction = match end.op {
            Op::Read => &mut self.read,
            Op::Write => &mut self.write,
        };
        direction.requests += 1;
        direction.resent += u64::from(end.resent);
        if end.status == Status::Completed {
            direction.bytes += end.bytes;
            direction.size.add(end.bytes);
            direction.latency.add(u64::from(end.latency_us));
        } else {
            let class = end.error.map_or(Class::Internal, |error| error.kind());
            direction.failures[class as usize] += 1;
        }
    }

    /// Counts what `other` has counted.
    pub fn merge(&mut self, other: &Tally) {
        self.read.each(&other.read, |count, more| *count += more, Histogram::merge);
        self.write.each(&other.write, |count, more| *count += more, Histogram::merge);
    }

    /// Takes from `other` whatever is higher there.
    pub fn raise(&mut self, other: &Tally) {
        self.read.each(&other.read, |count, old| *count = old.max(*count), Histogram::raise);
        self.write.each(&other.write, |count, old| *count = old.max(*count), Histogram::raise);
    }
}
