//! Tasks that have ended, by direction, size, latency and kind of failure.

use std::sync::Arc;

use crate::engine::traffic::Peer;
use crate::error::Class;
use crate::observe::histogram::{Histogram, FINE_LATENCY_US, LATENCY_US, SIZE_BYTES};
use crate::transport::slice::{End, Op, Status};

/// Classes of sizes: the largest size of each but the last, and its name. Powers of 16, so that each is two buckets of [`SIZE_BYTES`].
pub const SIZE_CLASSES: [(u64, &str); 5] =
    [(4 << 10, "4KiB"), (64 << 10, "64KiB"), (1 << 20, "1MiB"), (16 << 20, "16MiB"), (u64::MAX, "more")];

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
    /// From the submit call to the end of COMPLETED tasks, microseconds, by class of size.
    pub latency: [Histogram; SIZE_CLASSES.len()],
    /// Bytes of COMPLETED tasks.
    pub size: Histogram,
}

impl Direction {
    const NONE: Direction = Direction {
        bytes: 0,
        requests: 0,
        failures: [0; Class::COUNT],
        resent: 0,
        latency: [const { Histogram::new(FINE_LATENCY_US) }; SIZE_CLASSES.len()],
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

    /// Latencies of all sizes, by upstream's bounds.
    pub fn latency_of_all(&self) -> Histogram {
        let mut all = Histogram::new(FINE_LATENCY_US);
        self.latency.iter().for_each(|of_class| all.merge(of_class));
        all.coarser(LATENCY_US)
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
        self.latency.iter_mut().zip(&other.latency).for_each(|(own, more)| histogram(own, more));
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

    fn of(&mut self, op: Op) -> &mut Direction {
        match op {
            Op::Read => &mut self.read,
            Op::Write => &mut self.write,
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

/// The longest time of each bucket of latency but the last, in units of 1024 ns: what is no more microseconds, rounded down, than
/// the bound.
const LONGEST: [u32; FINE_LATENCY_US.len()] = {
    let mut longest = [0; FINE_LATENCY_US.len()];
    let mut place = 0;
    while place < longest.len() {
        longest[place] = (((FINE_LATENCY_US[place] + 1) * 1000 - 1) / 1024) as u32;
        place += 1;
    }
    longest
};

/// The bucket of a size: its bounds are the powers of 4 from 1 KiB to 1 GiB.
fn size_bucket(bytes: u64) -> usize {
    let bits = u64::BITS - bytes.saturating_sub(1).leading_zeros();
    (bits.saturating_sub(9) / 2).min(SIZE_BYTES.len() as u32) as usize
}

/// Tasks in a row that are COMPLETED, of one direction, size and bucket of latency: most tasks of a batch are. So a task costs a
/// few comparisons, and only the first of a run a search in the bounds.
#[derive(Clone, Copy)]
struct Run {
    op: Op,
    bytes: u64,
    /// The bucket of latency, and its ends, both included, in units of 1024 ns.
    place: usize,
    least: u32,
    most: u32,
    count: u64,
    /// Sum of the times, in the same units.
    took: u64,
}

/// Counts tasks one after the other. What it has counted is in the tally once it is dropped.
pub(super) struct Counter<'a, 'p> {
    tally: &'a mut Tally,
    /// Whose tasks follow, where that is counted.
    peer: Option<&'p Peer>,
    run: Run,
}

impl<'a, 'p> Counter<'a, 'p> {
    /// Counts into `tally`.
    pub(super) fn new(tally: &'a mut Tally) -> Self {
        Counter {
            tally,
            peer: None,
            run: Run { op: Op::Read, bytes: 0, place: 0, least: 1, most: 0, count: 0, took: 0 },
        }
    }

    /// What follows are tasks of `peer`.
    #[inline]
    pub(super) fn turn_to(&mut self, peer: Option<&'p Arc<Peer>>) {
        self.flush();
        self.peer = peer.map(|peer| &**peer);
    }

    /// Counts tasks, each with the place of its target, whose peer `of` knows.
    pub(super) fn add_by_target<'e>(
        &mut self,
        ends: impl Iterator<Item = (u16, End<'e>)>,
        of: impl Fn(u16) -> Option<&'p Arc<Peer>>,
    ) {
        let mut at = None;
        for (place, end) in ends {
            if at != Some(place) {
                self.turn_to(of(place));
                at = Some(place);
            }
            self.add(std::iter::once(end));
        }
    }

    /// Counts tasks.
    #[inline]
    pub(super) fn add<'e>(&mut self, ends: impl Iterator<Item = End<'e>>) {
        // A copy, which stays in registers.
        let mut run = self.run;
        for end in ends {
            let in_bucket = (run.least..=run.most).contains(&end.took);
            let is_alike = in_bucket && end.bytes == run.bytes && end.op == run.op && end.resent == 0;
            if is_alike && end.status == Status::Completed {
                run.count += 1;
                run.took += u64::from(end.took);
            } else {
                self.run = run;
                self.add_other(end);
                run = self.run;
            }
        }
        self.run = run;
    }

    #[inline(never)]
    fn add_other(&mut self, end: End<'_>) {
        self.flush();
        let direction = self.tally.of(end.op);
        direction.resent += u64::from(end.resent);
        if let Some(peer) = self.peer.filter(|_| end.resent > 0) {
            peer.note_resent(end.op, end.resent);
        }
        if end.status == Status::Completed {
            let place = LONGEST.iter().filter(|longest| end.took > **longest).count();
            let least = place.checked_sub(1).map_or(0, |before| LONGEST[before] + 1);
            let most = LONGEST.get(place).copied().unwrap_or(u32::MAX);
            let (op, bytes, took) = (end.op, end.bytes, u64::from(end.took));
            self.run = Run { op, bytes, place, least, most, count: 1, took };
        } else {
            direction.requests += 1;
            let class = end.class();
            direction.failures[class as usize] += 1;
            self.peer.into_iter().for_each(|peer| peer.note_failed(end.op, class));
        }
    }

    fn flush(&mut self) {
        let Run { op, bytes, place, count, took, .. } = self.run;
        if count == 0 {
            return;
        }
        let direction = self.tally.of(op);
        direction.requests += count;
        direction.bytes += bytes * count;
        let bucket = size_bucket(bytes);
        direction.size.add_at(bucket, count, bytes * count);
        direction.latency[(bucket / 2).min(SIZE_CLASSES.len() - 1)].add_at(
            place,
            count,
            took.saturating_mul(1024) / 1000,
        );
        if let Some(peer) = self.peer {
            peer.note_completed(op, count, bytes * count);
        }
        self.run.count = 0;
        // An empty range: nothing is alike.
        (self.run.least, self.run.most) = (1, 0);
    }
}

impl Drop for Counter<'_, '_> {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_of_sizes_is_two_buckets() {
        for bytes in SIZE_CLASSES[..4].iter().flat_map(|(most, _)| [most - 1, *most, most + 1]).chain([0, 1])
        {
            let class = SIZE_CLASSES.iter().position(|(most, _)| bytes <= *most).unwrap();
            assert_eq!((size_bucket(bytes) / 2).min(4), class, "{bytes}");
        }
    }

    #[test]
    fn sizes_fall_below_the_next_bound() {
        let around = SIZE_BYTES.iter().flat_map(|bound| [bound - 1, *bound, bound + 1]);
        for bytes in around.chain([0, 1, 100, 3000, u64::MAX]) {
            assert_eq!(size_bucket(bytes), SIZE_BYTES.partition_point(|bound| *bound < bytes), "{bytes}");
        }
    }

    #[test]
    fn times_fall_below_the_next_bound() {
        for (longest, bound) in LONGEST.iter().zip(FINE_LATENCY_US) {
            let micros = |units: u32| u64::from(units) * 1024 / 1000;
            assert!(micros(*longest) <= *bound && micros(longest + 1) > *bound, "{bound}");
        }
    }
}
