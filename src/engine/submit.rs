//! Submitting: the whole call is checked first; then either every request is accepted or
//! nothing happens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::Pending;
use super::known::Known;
use super::segment::Segment;
use super::segments::LOCAL_SEGMENT;
use super::transports::Transports;
use super::way::Way;
use super::Engine;
use crate::error::{Class, Code, Error, Result};
use crate::handshake::Notification;
use crate::memory::{Region, RegionUse, View};
use crate::transport::local;
use crate::transport::ranges::Ranges;
use crate::transport::slice::{Op, Slice, Task, Work};
use crate::transport::Takes;

/// Longest wait for a descriptor inside a submit call. Chosen: the default limit of a store's operation and of a
/// connect.
const REFRESH_LIMIT: Duration = Duration::from_secs(5);

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

/// Where requests of one target go.
struct Target {
    id: i32,
    /// `None` for the own segment.
    remote: Option<Remote>,
    /// Local memory that was never registered may be used.
    any_source: bool,
    /// How long its slices are meant to be; 0: its link was not asked yet.
    grain: u64,
    slices: Vec<Slice>,
}

struct Remote {
    segment: Arc<Segment>,
    known: Arc<Known>,
    way: Way,
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
        let mut tasks = Vec::new();
        tasks.try_reserve_exact(count).map_err(|_| Error::out_of_memory(&format!("{count} tasks")))?;
        let mut targets: Vec<Target> = Vec::new();
        let mut bytes = 0u64;
        for index in 0..count {
            let request = entry(index);
            self.check_target(&request, &mut targets).map_err(|e| e.context(format!("request {index}")))?;
            tasks.push(Task::default());
            bytes = bytes.saturating_add(request.len);
        }
        let deadline = self.deadline(&targets, bytes);
        let work = Work::new(tasks.into_boxed_slice(), deadline, batch.clone());
        let view = self.local.registry.view();
        let mut cutter = Cutter { view, transports: self.transports(), bytes, local_targets: Vec::new() };
        let mut outcome = Ok(());
        for index in 0..count {
            let request = entry(index);
            outcome = cutter.cut(&work, index as u32, &request, &mut targets);
            if let Err(error) = outcome {
                outcome = Err(error.context(format!("request {index}")));
                break;
            }
        }
        let Cutter { view, local_targets, .. } = cutter;
        drop(view);
        let pending = notification.map(|notification| Pending { target: entry(0).target, notification });
        let remotes = || targets.iter().filter_map(|target| target.remote.as_ref());
        let mut ways = Vec::new();
        let outcome = outcome
            .and_then(|()| ways.try_reserve_exact(targets.len()).map_err(|_| Error::out_of_memory("targets")))
            .and_then(|()| remotes().try_for_each(Remote::ready))
            .and_then(|()| match nics {
                Some(nics) => remotes().try_for_each(|remote| remote.way.link.check_nics(nics)),
                None => Ok(()),
            })
            .and_then(|()| {
                ways.extend(remotes().map(|remote| (remote.way.link.clone(), remote.segment.clone())));
                reservation.commit(&work, &ways, pending)
            });
        if let Err(error) = outcome {
            targets.into_iter().flat_map(|target| target.slices).for_each(Slice::discard);
            return Err(error);
        }
        for target in targets {
            match &target.remote {
                Some(remote) => {
                    let incarnation = remote.incarnation();
                    match nics {
                        Some(nics) => remote.way.link.submit_over(target.slices, incarnation, nics),
                        None => remote.way.link.submit(target.slices, incarnation),
                    }
                }
                None => {
                    target.slices.into_iter().zip(&local_targets).for_each(|(s, held)| local::copy(s, held))
                }
            }
        }
        if batch.is_watched() {
            ways.iter().for_each(|(link, _)| link.rely_on_threads());
        }
        Ok(())
    }

    /// Checks opcode and target of a request, and makes the target's entry.
    #[inline]
    fn check_target(&self, request: &Request, targets: &mut Vec<Target>) -> Result<()> {
        op(request.opcode)?;
        let index = match targets.iter().rposition(|target| target.id == request.target) {
            Some(index) => index,
            None => {
                targets.try_reserve(1).map_err(|_| Error::out_of_memory("targets"))?;
                targets.push(self.target(request.target)?);
                targets.len() - 1
            }
        };
        let target = &mut targets[index];
        let Some(remote) = &mut target.remote else { return Ok(()) };
        if request.len == 0 || remote.covers(request) {
            return Ok(());
        }
        // The store, or another call, may have brought it meanwhile.
        let covered = self.remote(remote.segment.clone())?.covers(request);
        if !covered {
            let segment = &remote.segment;
            // If it cannot be read, the range stays missing.
            segment.read_again(|| drop(self.refresh_within(segment, REFRESH_LIMIT)));
        }
        // The peer may have come back with another transport.
        *remote = self.remote(remote.segment.clone())?;
        target.any_source = self.takes_any_source(&remote.way);
        if remote.covers(request) {
            return Ok(());
        }
        remote.segment.note_fruitless();
        Err(remote.not_published(request))
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
    fn deadline(&self, targets: &[Target], bytes: u64) -> Option<Instant> {
        let remotes = targets.iter().filter_map(|target| target.remote.as_ref());
        let limits = remotes.filter_map(|remote| self.transports().get(remote.way.row)?.task_limit(bytes));
        let limit = self.config.slice_timeout.or_else(|| limits.max());
        limit.and_then(|limit| Instant::now().checked_add(limit))
    }

    fn target(&self, id: i32) -> Result<Target> {
        if id == LOCAL_SEGMENT {
            if self.transports().is_empty() {
                return Err(Error::invalid("no transport is installed; call installTransport first"));
            }
            let any_source = self.transports().take_any_source();
            return Ok(Target { id, remote: None, any_source, grain: 0, slices: Vec::new() });
        }
        let segment = self.segment(id)?;
        if self.config.disable_metacache {
            // If it cannot be read, the cached one has to do.
            let _ = self.refresh_within(&segment, REFRESH_LIMIT);
        }
        let remote = self.remote(segment)?;
        let any_source = self.takes_any_source(&remote.way);
        Ok(Target { id, remote: Some(remote), any_source, grain: 0, slices: Vec::new() })
    }
}

impl Remote {
    /// The way was chosen because the peer offers its transport.
    fn ranges(&self) -> Option<&Ranges> {
        self.known.offer(self.way.row).map(|offer| offer.ranges())
    }

    #[inline]
    fn covers(&self, request: &Request) -> bool {
        self.ranges().is_some_and(|ranges| ranges.covers(request.offset, request.len))
    }

    fn incarnation(&self) -> u64 {
        self.known.offer(self.way.row).map_or(0, |offer| offer.incarnation())
    }

    fn not_published(&self, request: &Request) -> Error {
        let (name, rule) = (&self.known.name, self.ranges().map(Ranges::rule).unwrap_or_default());
        let text = format!(
            "target range of {} bytes at {:#x} is not inside {rule} that segment '{name}' publishes",
            request.len, request.offset
        );
        Error::new(Code::AddressNotRegistered, text).peer(name)
    }

    /// Checked last: an address that is not registered is reported even if nothing could be moved anyway.
    fn ready(&self) -> Result<()> {
        let name = &self.known.name;
        self.way.link.ready().map_err(|e| e.context(format!("segment '{name}'")).peer(name))
    }
}

/// Cuts requests into slices: at the ends of local regions, and as their links want them.
struct Cutter<'a> {
    view: View<'a>,
    transports: &'a Transports,
    /// Of the whole call.
    bytes: u64,
    /// Uses of the target regions of local copies, in the order of their slices.
    local_targets: Vec<RegionUse>,
}

impl Cutter<'_> {
    #[inline]
    fn cut(&mut self, work: &Arc<Work>, task: u32, request: &Request, targets: &mut [Target]) -> Result<()> {
        let op = op(request.opcode)?;
        let target = targets.iter_mut().rfind(|target| target.id == request.target);
        let target = target.ok_or_else(|| Error::invalid("target vanished"))?;
        let before = (target.slices.len(), self.local_targets.len());
        let mut done = 0;
        while done < request.len {
            let left = request.len - done;
            let Some(source) = request.source.checked_add(done) else {
                return Err(not_registered("source", request.source, request.len));
            };
            // It was checked, but a caller may change its list meanwhile.
            let Some(offset) = request.offset.checked_add(done) else {
                return Err(not_registered("target", request.offset, request.len));
            };
            let (held, covered) = match self.view.use_at(source, left) {
                Some((held, covered)) => (Some(held), covered),
                None if target.any_source => (None, left),
                None => return Err(not_registered("source", source, left)),
            };
            let len = match &target.remote {
                Some(Remote { way, .. }) => {
                    let region = held.as_ref().map(|held: &RegionUse| &**held.region());
                    if let (Some(region), Some(transport)) = (region, self.transports.get(way.row)) {
                        check_taken("source", region, transport.takes(&region.kind), transport.name())?;
                    }
                    if target.grain == 0 {
                        target.grain = way.link.grain(self.bytes, source, offset).max(1);
                    }
                    let len = way.link.cut(region, source, covered, offset, left, target.grain);
                    len.clamp(1, covered.min(left))
                }
                None => {
                    let held_target = self.view.use_at(offset, left);
                    self.local_targets.try_reserve(1).map_err(|_| Error::out_of_memory("slices"))?;
                    let (held_target, covered_there) =
                        held_target.ok_or_else(|| not_registered("target", offset, left))?;
                    let sides = [("source", held.as_ref()), ("target", Some(&held_target))];
                    for (side, held) in sides.into_iter().filter_map(|(side, held)| Some((side, held?))) {
                        check_taken(side, held.region(), local::takes(&held.region().kind), OWN_SEGMENT)?;
                    }
                    self.local_targets.push(held_target);
                    covered.min(covered_there)
                }
            };
            target.slices.try_reserve(1).map_err(|_| Error::out_of_memory("slices"))?;
            target.slices.push(Slice::new(work, task, op, source, offset, len, held));
            done += len;
        }
        let (from, to) = match op {
            Op::Read => (request.offset, request.source),
            Op::Write => (request.source, request.offset),
        };
        if target.remote.is_none() && to > from && to - from < request.len {
            // The end first, as memmove does: a slice is read before another one overwrites it.
            target.slices[before.0..].reverse();
            self.local_targets[before.1..].reverse();
        }
        Ok(())
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
