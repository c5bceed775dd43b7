//! READs of a lane: the peer is asked what may be pulled, and answers.

use std::time::Instant;

use super::{Down, Lane, PendingRead, UnknownRead};
use crate::transport::shm::ends::unless_unwanted;
use crate::transport::shm::errors;
use crate::transport::shm::grants::Grant;
use crate::transport::shm::wire::{Kind, Message, FEW_BYTES};

/// How often a READ is asked about again because the region's word did not hold: after that it is refused. Chosen: a region that is
/// registered anew has another word, and a peer that tells words which never hold must not have us ask for ever.
const MOST_LAPSES: u8 = 3;

impl Lane {
    /// There is room in both lists.
    pub(super) fn place_read(&mut self, read: UnknownRead) {
        match self.grants.find(read.slice.remote, read.slice.len) {
            Some(Grant { check, memory, .. }) => {
                let UnknownRead { slice, lapses } = read;
                self.reads.push_back(PendingRead { slice, check, memory, lapses })
            }
            None => self.unknown.push_back(read),
        }
    }

    /// READs whose region's word did not hold: the peer is asked again, a few times.
    pub(in crate::transport::shm) fn ask_again(&mut self, reads: Vec<PendingRead>, peer: &str) {
        let fits = self.unknown.try_reserve(reads.len()).is_ok();
        for PendingRead { slice, check, lapses, .. } in reads {
            self.grants.forget(check);
            if lapses == MOST_LAPSES {
                let error = errors::refused(&slice, peer);
                slice.fail(error);
            } else if !fits {
                slice.fail(errors::no_memory());
            } else {
                self.unknown.push_back(UnknownRead { slice, lapses: lapses + 1 });
            }
        }
    }

    /// One question at a time: its answer mostly covers what waits with it.
    pub(super) fn ask(&mut self, peer: &str) -> Result<(), Down> {
        while self.asked.is_none() && !self.is_full {
            let Some(UnknownRead { slice, lapses }) = self.unknown.pop_front() else { break };
            let Some(slice) = unless_unwanted(slice) else { continue };
            if !self.awaits() {
                self.heard = Instant::now();
            }
            self.questions += 1;
            let mut message = Message::<FEW_BYTES>::new(Kind::Ask);
            message.push(&[self.questions, slice.remote, slice.len]);
            let asked = (self.questions, slice.remote, slice.len);
            self.unknown.push_front(UnknownRead { slice, lapses });
            if self.send(&message, peer)? {
                self.asked = Some(asked);
            }
        }
        Ok(())
    }

    pub(super) fn granted(&mut self, grant: Grant) {
        if !self.grants.add(grant) || self.reads.try_reserve(self.unknown.len()).is_err() {
            return self.unknown.drain(..).for_each(|read| read.slice.fail(errors::no_memory()));
        }
        // In place of a new list, for which there may be no memory.
        for _ in 0..self.unknown.len() {
            if let Some(read) = self.unknown.pop_front() {
                self.place_read(read);
            }
        }
    }

    /// The range that was asked about must not be read.
    pub(super) fn refused(&mut self, addr: u64, len: u64, peer: &str) {
        for _ in 0..self.unknown.len() {
            match self.unknown.pop_front() {
                Some(UnknownRead { slice, .. }) if (slice.remote, slice.len) == (addr, len) => {
                    let error = errors::refused(&slice, peer);
                    slice.fail(error);
                }
                other => self.unknown.extend(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::slice::deaf::work;
    use crate::transport::slice::{Op, Slice};

    #[test]
    fn a_read_whose_word_never_holds_is_refused() {
        let work = work(1);
        let mut lane = Lane::new();
        let grant = Grant { addr: 0, len: 100, check: (1, 2), memory: 0 };
        lane.unknown
            .push_back(UnknownRead { slice: Slice::new(&work, 0, Op::Read, 1, 2, 3, None), lapses: 0 });
        let mut rounds = 0;
        while !lane.unknown.is_empty() && rounds < 100 {
            lane.granted(grant);
            let reads: Vec<_> = lane.reads.drain(..).collect();
            assert_eq!(reads.len(), 1);
            lane.ask_again(reads, "peer");
            rounds += 1;
        }
        assert_eq!((rounds, lane.waiting()), (1 + i32::from(MOST_LAPSES), 0));
    }
}
