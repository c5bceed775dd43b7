//! Submitting: the whole call is checked first; then either every request is accepted or
//! nothing happens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use self::plan::{Plan, Remote, Target};
use super::batch::Pending;
use super::segment::Segment;
use super::segments::LOCAL_SEGMENT;
use super::way::Way;
use super::Engine;
use crate::error::{Class, Code, Error, Result};
use crate::handshake::Notification;
use crate::memory::Region;
use crate::transport::slice::Op;
use crate::transport::Takes;

mod holds;
mod plan;

/// Longest wait for a descriptor inside a submit call. Chosen: the default limit of a store's operation and of a
/// connect.
pub(super) const REFRESH_LIMIT: Duration = Duration::from_secs(5);

/// What moves bytes inside the own segment, in texts.
const OWN_SEGMENT: &str = "the copy inside the own segment";

/// One entry of a submit call.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// 0 READ, 1 WRITE; anything else is refused.
    pub opcode: i32,
    /// Local address.
    pub source: u64,
    /// Segment id.
    pub target: i32,
    /// Address at the target.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl Engine {
    /// Adds `count` tasks to the batch and starts them. `entry` gives the requests.
    pub fn submit(
        &self,
        batch_id: u64,
        count: usize,
        entry: impl Fn(usize) -> Request,
        notification: Option<Notification>,
    ) -> Result<()> {
        self.submit_over(batch_id, count, entry, notification, None)
    }

    /// As [`Engine::submit`], over the local NICs that `nics` names, separated by commas, as long as one of them works;
    /// -1 for a name that is none of them. Transports without NICs take any.
    pub fn submit_over(
        &self,
        batch_id: u64,
        count: usize,
        entry: impl Fn(usize) -> Request,
        notification: Option<Notification>,
        nics: Option<&str>,
    ) -> Result<()> {
        let batch = self.batch(batch_id)?;
        if count == 0 {
            return Ok(());
        }
        let reservation = batch.reserve(count)?;
        let mut plan = Plan::new(self, &batch, count)?;
        let outcome = plan.fill(count, &entry).and_then(|()| {
            plan.remotes().try_for_each(Remote::ready)?;
            if let Some(nics) = nics {
                plan.remotes().try_for_each(|remote| remote.way.link.check_nics(nics))?;
            }
            let mut ways = SmallVec::<[_; 1]>::new();
            ways.try_reserve_exact(plan.remotes().count()).map_err(|_| Error::out_of_memory("targets"))?;
            ways.extend(plan.remotes().map(|remote| (remote.way.link.clone(), remote.segment.clone())));
            plan.name_targets()?;
            plan.work.set_deadline(self.deadline(plan.remotes(), plan.bytes));
            let pending = notification.map(|notification| Pending { target: entry(0).target, notification });
            reservation.commit(&plan.work, plan.running, &ways, pending)?;
            Ok(ways)
        });
        let ways = match outcome {
            Ok(ways) => ways,
            Err(error) => {
                plan.discard();
                return Err(error);
            }
        };
        plan.start(nics);
        if batch.is_watched() {
            ways.iter().for_each(|(link, _)| link.rely_on_threads());
        }
        Ok(())
    }

    fn remote(&self, segment: Arc<Segment>) -> Result<Remote> {
        let known = segment.known();
        let way = self.way(&segment, &known)?;
        Ok(Remote { segment, known, way })
    }

    fn takes_any_source(&self, way: &Way) -> bool {
        self.transports().get(way.row).is_some_and(|transport| transport.takes_any_source())
    }

    /// When the tasks of a call that moves `bytes` become FAILED, whatever their transports do.
    #[inline]
    fn deadline<'a>(&self, remotes: impl Iterator<Item = &'a Remote>, bytes: u64) -> Option<Instant> {
        let limits = remotes.filter_map(|remote| self.transports().get(remote.way.row)?.task_limit(bytes));
        let limit = self.config.slice_timeout.or_else(|| limits.max());
        limit.and_then(|limit| Instant::now().checked_add(limit))
    }

    fn target(&self, id: i32) -> Result<Target> {
        if id == LOCAL_SEGMENT {
            if self.transports().is_empty() {
                return Err(Error::invalid("no transport is installed; call installTransport first"));
            }
            return Ok(Target::new(id, None, self.transports().take_any_source()));
        }
        let segment = self.segment(id)?;
        if self.config.disable_metacache {
            // If it cannot be read, the cached one has to do.
            let _ = self.refresh_within(&segment, REFRESH_LIMIT);
        }
        let remote = self.remote(segment)?;
        let any_source = self.takes_any_source(&remote.way);
        Ok(Target::new(id, Some(remote), any_source))
    }

    /// What is known of a segment by now, because `remote` does not cover a request. `ERR_ADDRESS_NOT_REGISTERED` if that does
    /// not cover it either.
    fn read_for(&self, remote: &Remote, request: &Request) -> Result<Remote> {
        let segment = &remote.segment;
        // The store, or another call, may have brought it meanwhile.
        if self.remote(segment.clone())?.covering(request).is_none() {
            // If it cannot be read, the range stays missing.
            segment.read_again(|| drop(self.refresh_within(segment, REFRESH_LIMIT)));
        }
        // The peer may have come back with another transport.
        let remote = self.remote(segment.clone())?;
        if remote.covering(request).is_none() {
            segment.note_fruitless();
            return Err(remote.not_published(request));
        }
        Ok(remote)
    }
}

fn op(opcode: i32) -> Result<Op> {
    match opcode {
        0 => Ok(Op::Read),
        1 => Ok(Op::Write),
        other => {
            Err(Error::invalid(format!("opcode {other} is neither OPCODE_READ (0) nor OPCODE_WRITE (1)")))
        }
    }
}

fn not_registered(what: &str, addr: u64, len: u64) -> Error {
    let text =
        format!("{what} {addr:#x} ({len} bytes) is not in registered memory; call registerLocalMemory first");
    Error::new(Code::AddressNotRegistered, text)
}

/// Refuses memory of a kind that `mover` does not move.
fn check_taken(side: &str, region: &Region, takes: Takes, mover: &str) -> Result<()> {
    if takes != Takes::No {
        return Ok(());
    }
    let text = format!(
        "{side} memory at {:#x} is {}, which {mover} does not move; copy it to registered host memory first",
        region.addr, region.kind
    );
    Err(Error::invalid(text).permanent(Class::Unsupported))
}

#[cfg(test)]
mod tests;
