//! READs: this engine pulls the bytes, on a caller's thread or on one of the transport's.

use std::sync::atomic::Ordering::Relaxed;

use super::{ShmLink, SLICE};
use parking_lot::MutexGuard;

use crate::runtime::clock;
use crate::transport::shm::ends::unless_unwanted;
use crate::transport::shm::errors;
use crate::transport::shm::lane::{Lane, PendingRead, Stage};
use crate::transport::shm::pull::{self, Check, Loss, Pull, Source, MOST_PULLS};

/// Bytes of one pull. Chosen: as a slice.
pub(super) const CHUNK: u64 = SLICE;
/// READs that are few.
const FEW: usize = 4;
/// Words of regions that one pull looks at.
const MOST_WORDS: usize = 4;

impl ShmLink {
    /// Pulls some of the READs that may be pulled, on this thread, `most` bytes at the most; says how many bytes they were.
    pub(super) fn pull_some(&self, most: u64) -> u64 {
        let lane = self.lane.lock();
        // A long list takes time to be made.
        match lane.reads.len() {
            0 => 0,
            1..=FEW => self.pull_up_to::<FEW>(lane, most),
            _ => self.pull_up_to::<MOST_PULLS>(lane, most),
        }
    }

    fn pull_up_to<const N: usize>(&self, mut lane: MutexGuard<'_, Lane>, most: u64) -> u64 {
        let Stage::Up(connection) = &lane.stage else { return 0 };
        let (source, generation) = (connection.source, lane.generation);
        let mut taken = Vec::new();
        if taken.try_reserve(lane.reads.len().min(N)).is_err() {
            return 0;
        }
        let (mut pulls, mut checks) = ([Pull { from: 0, to: 0, len: 0 }; N], [(0, 0); MOST_WORDS]);
        let (mut bytes, mut words, mut others) = (0, 0, 0);
        let mut direct = Vec::new();
        while let Some(read) = lane.reads.front() {
            let (len, check) = (read.slice.len, read.check);
            let fits = bytes + len <= most && taken.len() < N;
            let known = checks[..words].contains(&check);
            if !fits || !known && words == MOST_WORDS {
                break;
            }
            let Some(PendingRead { slice, check, memory, lapses }) = lane.reads.pop_front() else { break };
            let Some(slice) = unless_unwanted(slice) else { continue };
            if !known {
                checks[words] = check;
                words += 1;
            }
            let way = lane.mappings.way(memory, slice.remote, slice.region());
            match way.filter(|_| direct.try_reserve(1).is_ok()) {
                Some(way) => direct.push((way, slice.local, len)),
                None => {
                    pulls[others] = Pull { from: slice.remote, to: slice.local, len };
                    others += 1;
                }
            }
            taken.push(PendingRead { slice, check, memory, lapses });
            bytes += len;
        }
        drop(lane);
        if taken.is_empty() {
            return 0;
        }
        let now_ns = clock::now_ns();
        taken.iter().for_each(|read| read.slice.note_posted(now_ns));
        // The words come last, as in a pull.
        let copied = direct.into_iter().all(|(way, to, len)| way.copy(to, len));
        match pull::pull(&source, &pulls[..others], &checks[..words]) {
            Ok(()) if copied => self.complete(taken, bytes),
            _ => self.pull_each(taken, source, generation),
        }
        bytes
    }

    pub(super) fn complete(&self, reads: Vec<PendingRead>, bytes: u64) {
        let count = reads.len() as u64;
        self.read.fetch_add(count, Relaxed);
        self.shared.stats.requests.fetch_add(count, Relaxed);
        self.shared.stats.bytes_pulled.fetch_add(bytes, Relaxed);
        let now_ns = clock::now_ns();
        reads.into_iter().for_each(|read| read.slice.complete(now_ns));
    }

    /// After a pull of several that did not count.
    pub(super) fn pull_each(&self, reads: Vec<PendingRead>, source: Source, generation: u64) {
        let mut stale = Vec::new();
        let has_room = stale.try_reserve(reads.len()).is_ok();
        let mut gone = false;
        for read in reads {
            let pull = Pull { from: read.slice.remote, to: read.slice.local, len: read.slice.len };
            let checks: [Check; 1] = [read.check];
            match pull::pull(&source, &[pull], &checks) {
                Ok(()) => {
                    let len = read.slice.len;
                    self.complete(vec![read], len);
                }
                Err(Loss::Stale) if has_room => stale.push(read),
                Err(loss) => {
                    gone |= matches!(loss, Loss::Gone(_));
                    let error = errors::of_loss(loss, &read.slice, self.peer());
                    read.slice.fail(error);
                }
            }
        }
        let lane = self.lane.lock();
        if gone && lane.generation == generation {
            let error = errors::hung_up(self.peer());
            self.lose(lane, &error, false);
            return stale.into_iter().for_each(|read| read.slice.fail(error.clone()));
        }
        if !stale.is_empty() {
            self.with_locked(lane, |lane, peer| {
                lane.ask_again(stale, peer);
                Ok(true)
            });
        }
    }
}
