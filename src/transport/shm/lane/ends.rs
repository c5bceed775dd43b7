//! How requests of a lane end without success: given up, or with their connection.

use std::time::{Duration, Instant};

use super::{Down, Lane, Lingering, PendingRead, Stage, UnknownRead};
use crate::error::Error;
use crate::transport::shm::awaited::Awaited;
use crate::transport::shm::connect::Connection;
use crate::transport::shm::ends::{fail_unwanted, retain};
use crate::transport::shm::wire::{Kind, Message, MOST_ENTRIES};
use crate::transport::slice::Slice;

impl Lane {
    /// Ends what `which` picks and the peer has not heard of, with `why`; withdraws what it has heard of. `Err`: the connection
    /// has ended.
    pub(in crate::transport::shm) fn abandon(
        &mut self,
        which: impl Fn(&Slice) -> bool,
        why: &Error,
        peer: &str,
    ) -> Result<(), Down> {
        let keep = |slice: &Slice| !which(slice);
        retain(&mut self.writes, |slice| slice, keep, why);
        retain(&mut self.unknown, |read| read.slice, |read: &UnknownRead| keep(&read.slice), why);
        retain(&mut self.reads, |read| read.slice, |read: &PendingRead| keep(&read.slice), why);
        retain(&mut self.pending, |(slice, _)| slice, |(slice, _): &(Slice, u64)| keep(slice), why);
        self.withdraw(which, peer)
    }

    fn withdraw(&mut self, which: impl Fn(&Slice) -> bool, peer: &str) -> Result<(), Down> {
        let picks = |awaited: &Awaited| matches!(awaited, Awaited::Write(slice) if which(slice));
        loop {
            let mut tags = [0; MOST_ENTRIES];
            let count = self.awaited.tags(picks, &mut tags);
            if count == 0 {
                return Ok(());
            }
            let mut message: Message = Message::new(Kind::Withdraw);
            tags[..count].iter().for_each(|tag| message.push(&[*tag]));
            // With a full socket it stays as it is, and is tried again.
            if !self.send(&message, peer)? {
                return Ok(());
            }
            let now = Instant::now();
            for tag in &tags[..count] {
                self.awaited.change(*tag, |awaited| match awaited {
                    Awaited::Write(slice) => Awaited::Withdrawn(slice, now),
                    other => other,
                });
            }
        }
    }

    /// Fails what `which` picks although the peer may still pull it.
    pub(in crate::transport::shm) fn disown(&mut self, which: impl Fn(&Slice) -> bool, why: &Error) {
        self.awaited.change_all(|awaited| match awaited {
            Awaited::Write(slice) | Awaited::Withdrawn(slice, _) if which(&slice) => {
                let trail = slice.leave_trail();
                slice.fail(why.clone());
                Some(Awaited::Trail(trail))
            }
            other => Some(other),
        });
    }

    /// Fails what was withdrawn longer than `limit` ago.
    pub(in crate::transport::shm) fn disown_withdrawn(&mut self, now: Instant, limit: Duration) {
        self.awaited.change_all(|awaited| match awaited {
            Awaited::Withdrawn(slice, since) if now.saturating_duration_since(since) > limit => {
                let trail = slice.leave_trail();
                fail_unwanted(slice);
                Some(Awaited::Trail(trail))
            }
            other => Some(other),
        });
    }

    /// Takes the connection away: everything fails with `why`. `may_pull`: the peer may still do so, and the connection is kept
    /// until it has said what it did.
    pub(in crate::transport::shm) fn take_down(
        &mut self,
        why: &Error,
        may_pull: bool,
        next: Stage,
    ) -> Option<Box<Connection>> {
        let mut stage = std::mem::replace(&mut self.stage, next);
        // First: what is pulled after a request has failed must not count.
        if let Stage::Up(connection) | Stage::Greeting(connection, _) = &mut stage {
            connection.retract();
        }
        self.generation += 1;
        self.grants.clear();
        self.mappings.clear();
        let told = std::mem::take(&mut self.told);
        self.asked = None;
        (self.is_full, self.is_probed) = (false, false);
        self.awaited.change_all(|awaited| match awaited {
            Awaited::Write(slice) | Awaited::Withdrawn(slice, _) => {
                let trail = may_pull.then(|| slice.leave_trail());
                slice.fail(why.clone());
                trail.map(Awaited::Trail)
            }
            Awaited::Trail(trail) if !may_pull => {
                trail.end();
                None
            }
            trail => Some(trail),
        });
        let all = |_: &Slice| false;
        retain(&mut self.writes, |slice| slice, all, why);
        retain(&mut self.unknown, |read| read.slice, |_: &UnknownRead| false, why);
        retain(&mut self.reads, |read| read.slice, |_: &PendingRead| false, why);
        retain(&mut self.pending, |(slice, _)| slice, |_: &(Slice, u64)| false, why);
        let (Stage::Up(connection) | Stage::Greeting(connection, _)) = stage else { return None };
        let awaited = std::mem::take(&mut self.awaited);
        if !may_pull || awaited.is_empty() || self.lingering.try_reserve(1).is_err() {
            return Some(connection);
        }
        self.lingering.push(Lingering { connection, awaited, told, since: Instant::now() });
        None
    }
}
