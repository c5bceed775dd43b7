//! The tasks that have ended in this process.
//!
//! They are counted where their batch is freed, not where they end: so counting costs a transfer nothing, and one lock
//! per batch, of several that threads share out among themselves. Whoever reads adds the batches that there are.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;

use self::counts::Counter;
pub use self::counts::{Direction, Tally, SIZE_CLASSES};
use super::batch::Batch;
use super::segment::Segment;
use super::traffic::{Peer, Peers, Traffic};
use crate::error::{Class, Code, Error};
use crate::runtime::per_process::PerProcess;
use crate::transport::slice::Work;

mod counts;

/// Threads that free batches at once mostly find a lock of their own. Chosen: more are rare, and a look adds all of them up.
const SHARD_COUNT: usize = 16;

/// Tasks of batches that were freed. Each is made when it is first needed: an allocation of less than 2 KiB.
static SHARDS: [PerProcess<Mutex<Tally>>; SHARD_COUNT] =
    [const { PerProcess::new(|| Mutex::new(Tally::NONE)) }; SHARD_COUNT];

/// Whose turn it is to be a new thread's.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// What was told last: no counter ever goes back, although a batch may be freed while all are added up.
static TOLD: PerProcess<Mutex<Tally>> = PerProcess::new(|| Mutex::new(Tally::NONE));

/// Calls `free` with what counts the ended tasks of the submit calls that it is given.
pub(super) fn freed<T>(free: impl FnOnce(&mut dyn FnMut(&Work, &[Arc<Segment>])) -> T) -> T {
    free(&mut |work, segments| {
        count(|counter| match work.targets.are_several() {
            false => {
                counter.turn_to(peer_of(work, segments, 0));
                counter.add(work.ended());
            }
            true => counter.add_by_target(work.ended_by_target(), |place| peer_of(work, segments, place)),
        })
    })
}

/// Calls `abandon` with what counts all tasks of the submit calls that it is given: those that wait as canceled, since nobody
/// is told any more what becomes of them.
pub(super) fn abandoned<T>(abandon: impl FnOnce(&mut dyn FnMut(&Work, &[Arc<Segment>])) -> T) -> T {
    let canceled = canceled();
    abandon(&mut |work, segments| {
        count(|counter| {
            let of = |place| peer_of(work, segments, place);
            counter.add_by_target(work.all_by_target(&canceled), of);
        })
    })
}

/// What was moved to and from each of `peers`; `batches` as for [`so_far`].
pub fn by_peer(peers: &Peers, batches: impl FnOnce(&mut dyn FnMut(&Batch))) -> Vec<(String, Traffic)> {
    let mut look = peers.look();
    batches(&mut |batch| {
        batch.works(|work, segments| {
            for (place, end) in work.ended_by_target() {
                peer_of(work, segments, place).into_iter().for_each(|peer| look.add(peer, &end));
            }
        });
    });
    look.told()
}

/// Where the tasks of `work` are counted that go to its target number `place`: `segments` are those of its batch. `None`: they are not counted
/// by peer.
#[inline]
fn peer_of<'s>(work: &Work, segments: &'s [Arc<Segment>], place: u16) -> Option<&'s Arc<Peer>> {
    let id = work.targets.at(place)?;
    segments.iter().find(|segment| segment.id == id)?.peer.as_ref()
}

/// What tasks end with whose engine does.
fn canceled() -> Error {
    Error::new(Code::Socket, "the engine was destroyed").permanent(Class::Canceled)
}

/// Counts where this thread does.
fn count<'p>(what: impl FnOnce(&mut Counter<'_, 'p>)) {
    thread_local!(static SHARD: Cell<usize> = const { Cell::new(usize::MAX) });
    let index = SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARD_COUNT);
        }
        shard.get()
    });
    let mut tally = SHARDS[index].get().lock();
    what(&mut Counter::new(&mut tally));
}

/// The tasks that have ended so far; `batches` calls what it is given with every batch that was not freed.
pub fn so_far(batches: impl FnOnce(&mut dyn FnMut(&Batch))) -> Tally {
    let mut tally = Tally::NONE;
    // The shards first: a batch that is freed meanwhile is missing, and seen the next time, instead of counted twice.
    SHARDS.iter().for_each(|shard| tally.merge(&shard.get().lock()));
    let mut counter = Counter::new(&mut tally);
    batches(&mut |batch| batch.works(|work, _| counter.add(work.ended())));
    drop(counter);
    let mut told = TOLD.get().lock();
    tally.raise(&told);
    told.clone_from(&tally);
    tally
}

#[cfg(test)]
mod tests;
