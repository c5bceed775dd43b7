//! What a submit call is going to do: its requests, each checked once and cut into slices, by target.

use std::sync::Arc;

use smallvec::SmallVec;

use super::super::batch::Batch;
use super::super::known::Known;
use super::super::segment::Segment;
use super::super::way::Way;
use super::super::Engine;
use super::holds::Holds;
use super::{check_taken, not_registered, op, Request, OWN_SEGMENT};
use crate::error::{Code, Error, Result};
use crate::memory::{RegionUse, View};
use crate::transport::local;
use crate::transport::ranges::Ranges;
use crate::transport::slice::{Ends, Op, Slice, Task, Work};
use crate::transport::Seams;

/// Room made at first for the slices of a target. Chosen: 3 KiB; a list that is longer doubles.
const FIRST_ROOM: usize = 64;

/// Of no slice yet.
const NOWHERE: Seams = Seams { local: (0, 0), remote: (0, 0) };

/// Where requests of one target go.
pub(super) struct Target {
    id: i32,
    /// `None` for the own segment.
    remote: Option<Remote>,
    /// Local memory that was never registered may be used.
    any_source: bool,
    /// The peer's memory that held the last request: first byte and bytes.
    range: (u64, u64),
    /// How long its slices are meant to be; 0: its link was not asked yet.
    grain: u64,
    /// What the link said of the last slice.
    seams: Seams,
    slices: Vec<Slice>,
}

pub(super) struct Remote {
    pub segment: Arc<Segment>,
    pub known: Arc<Known>,
    pub way: Way,
}

/// A submit call before anything is posted.
pub(super) struct Plan<'a> {
    engine: &'a Engine,
    batch: &'a Arc<Batch>,
    pub work: Arc<Work>,
    /// Bytes of all requests.
    pub bytes: u64,
    /// Requests that have slices.
    pub running: usize,
    targets: SmallVec<[Target; 1]>,
    /// The target of the last request.
    last: usize,
    holds: Holds,
    /// Uses of the target regions of local copies, in the order of their slices.
    local_targets: Vec<RegionUse>,
}

impl<'a> Plan<'a> {
    /// Nothing is planned. `ERR_MEMORY` if `count` tasks do not fit.
    pub(super) fn new(engine: &'a Engine, batch: &'a Arc<Batch>, count: usize) -> Result<Self> {
        let mut tasks = Vec::new();
        tasks.try_reserve_exact(count).map_err(|_| Error::out_of_memory(&format!("{count} tasks")))?;
        tasks.resize_with(count, Task::default);
        Ok(Plan {
            engine,
            batch,
            work: Work::new(tasks.into_boxed_slice(), None, batch.clone()),
            bytes: 0,
            running: 0,
            targets: SmallVec::new(),
            last: 0,
            holds: Holds::default(),
            local_targets: Vec::new(),
        })
    }

    /// Plans all requests, or there is an error. Nothing is posted in either case.
    pub(super) fn fill(&mut self, count: usize, entry: &impl Fn(usize) -> Request) -> Result<()> {
        let mut bytes = 0u64;
        for index in 0..count {
            let request = entry(index);
            bytes = bytes.saturating_add(request.len);
            // Before anything is in use: this may wait for the store.
            if !self.is_at(request.target) {
                self.find(&request).map_err(|e| e.context(format!("request {index}")))?;
                self.last = self.targets.len().saturating_sub(1);
            }
        }
        self.bytes = bytes;
        let (mut next, mut read_for) = (0, None);
        while let Some(index) = self.cut_from(next, count, entry)? {
            let request = entry(index);
            // A peer whose descriptor has one range or the other is not asked for ever.
            if read_for.is_some_and(|last| index <= last) {
                if let Some(remote) = self.targets.get(self.last).and_then(|target| target.remote.as_ref()) {
                    return Err(remote.not_published(&request).context(format!("request {index}")));
                }
            }
            read_for = Some(index);
            // Without the registry's lock, and without uses of regions: this may ask the peer.
            let changed = self.find(&request).map_err(|e| e.context(format!("request {index}")))?;
            next = index;
            if changed {
                // What was planned was checked against another descriptor, and perhaps cut for another transport.
                let targets = std::mem::take(&mut self.targets);
                *self = Plan { targets, bytes, ..Plan::new(self.engine, self.batch, count)? };
                next = 0;
            }
        }
        Ok(())
    }

    /// Plans the requests from number `next` on; gives the number of the first one whose target has to be looked up.
    fn cut_from(
        &mut self,
        next: usize,
        count: usize,
        entry: &impl Fn(usize) -> Request,
    ) -> Result<Option<usize>> {
        let engine = self.engine;
        let mut view = engine.local.registry.view();
        for index in next..count {
            match self.cut(&mut view, index, count, &entry(index)) {
                Ok(true) => {}
                Ok(false) => return Ok(Some(index)),
                Err(error) => return Err(error.context(format!("request {index}"))),
            }
        }
        Ok(None)
    }

    /// Whether `last` is the target of this id now: `false` if there is none.
    #[inline]
    fn is_at(&mut self, id: i32) -> bool {
        if self.targets.get(self.last).is_some_and(|target| target.id == id) {
            return true;
        }
        let place = self.targets.iter().position(|target| target.id == id);
        self.last = place.unwrap_or(self.last);
        place.is_some()
    }

    /// Plans one request of `count`; `false` if its target is not known, or not known to have the range.
    #[inline]
    fn cut(&mut self, view: &mut View<'_>, index: usize, count: usize, request: &Request) -> Result<bool> {
        let op = op(request.opcode)?;
        if !self.is_at(request.target) {
            return Ok(false);
        }
        let Plan { engine, work, bytes, targets, last, holds, local_targets, .. } = self;
        let bytes = *bytes;
        let (place, target) = (*last, &mut targets[*last]);
        if request.len == 0 {
            return Ok(true);
        }
        if !target.covers(request) {
            return Ok(false);
        }
        let before = (target.slices.len(), local_targets.len());
        let mut done = 0;
        while done < request.len {
            let left = request.len - done;
            let Some(source) = request.source.checked_add(done) else {
                return Err(not_registered("source", request.source, request.len));
            };
            // The own segment's range is looked up only now.
            let Some(offset) = request.offset.checked_add(done) else {
                return Err(not_registered("target", request.offset, request.len));
            };
            let way = target.remote.as_ref().map(|remote| &remote.way);
            let held = holds.find(view, work, (source, place), |region| match way {
                Some(way) => engine.transports().get(way.row).map_or(Ok(()), |transport| {
                    check_taken("source", region, transport.takes(&region.kind), transport.name())
                }),
                None => check_taken("source", region, local::takes(&region.kind), OWN_SEGMENT),
            })?;
            let (hold, covered) = match held {
                Some((hold, covered)) => (hold, covered.min(left)),
                None if target.any_source => (holds.bare(work), left),
                None => return Err(not_registered("source", source, left)),
            };
            let len = match way {
                Some(way) => {
                    if target.grain == 0 {
                        target.grain = way.link.grain(bytes, source, offset).max(1);
                    }
                    let (room, there) =
                        match (room(target.seams.local, source), room(target.seams.remote, offset)) {
                            (Some(room), Some(there)) => (room, there),
                            _ => {
                                target.seams =
                                    way.link.seams(hold.region().map(|region| &**region), source, offset);
                                let rooms =
                                    (room(target.seams.local, source), room(target.seams.remote, offset));
                                (rooms.0.unwrap_or(left), rooms.1.unwrap_or(left))
                            }
                        };
                    let len = if left <= target.grain { left } else { way.link.cut(left, target.grain) };
                    len.min(covered).min(room).min(there).max(1)
                }
                None => {
                    let (used, covered_there) =
                        view.use_at(offset, left).ok_or_else(|| not_registered("target", offset, left))?;
                    check_taken("target", used.region(), local::takes(&used.region().kind), OWN_SEGMENT)?;
                    local_targets.try_reserve(1).map_err(|_| Error::out_of_memory("slices"))?;
                    local_targets.push(used);
                    covered.min(covered_there)
                }
            };
            if target.slices.len() == target.slices.capacity() {
                let more = (count - index).clamp(1, FIRST_ROOM);
                target.slices.try_reserve(more).map_err(|_| Error::out_of_memory("slices"))?;
            }
            target.slices.push(hold.slice(index as u32, op, source, offset, len));
            done += len;
        }
        let (from, to) = match op {
            Op::Read => (request.offset, request.source),
            Op::Write => (request.source, request.offset),
        };
        if target.remote.is_none() && to > from && to - from < request.len {
            // The end first, as memmove does: a slice is read before another one overwrites it.
            target.slices[before.0..].reverse();
            local_targets[before.1..].reverse();
        }
        if place != 0 {
            self.work.tasks[index].set_place(place);
        }
        self.running += 1;
        Ok(true)
    }

    /// Makes the target of a request known, or reads again what it offers. `true`: that has changed, and nothing is planned.
    fn find(&mut self, request: &Request) -> Result<bool> {
        let Some(target) = self.targets.iter_mut().find(|target| target.id == request.target) else {
            self.targets.try_reserve(1).map_err(|_| Error::out_of_memory("targets"))?;
            self.targets.push(self.engine.target(request.target)?);
            return Ok(false);
        };
        let Some(remote) = target.remote.as_ref().filter(|remote| remote.covering(request).is_none()) else {
            return Ok(false);
        };
        let remote =
            Remote { segment: remote.segment.clone(), known: remote.known.clone(), way: remote.way.clone() };
        self.discard();
        self.holds = Holds::default();
        self.local_targets.clear();
        let fresh = self.engine.read_for(&remote, request)?;
        let Some(target) = self.targets.iter_mut().find(|target| target.id == request.target) else {
            return Ok(true);
        };
        *target = Target::new(request.target, Some(fresh), false);
        target.any_source =
            target.remote.as_ref().is_some_and(|remote| self.engine.takes_any_source(&remote.way));
        Ok(true)
    }

    /// The segments that requests go to, but for the own one.
    pub(super) fn remotes(&self) -> impl Iterator<Item = &Remote> {
        self.targets.iter().filter_map(|target| target.remote.as_ref())
    }

    /// Tells the work which segments its tasks go to. `ERR_MEMORY` if the list of several does not fit.
    pub(super) fn name_targets(&self) -> Result<()> {
        if let [target] = &self.targets[..] {
            self.work.targets.set(target.id);
            return Ok(());
        }
        let mut ids = Vec::new();
        ids.try_reserve_exact(self.targets.len()).map_err(|_| Error::out_of_memory("targets"))?;
        ids.extend(self.targets.iter().map(|target| target.id));
        self.work.targets.set_several(ids.into_boxed_slice());
        Ok(())
    }

    /// Posts everything.
    pub(super) fn start(self, nics: Option<&str>) {
        // From here on the slices have them, so a region whose tasks have ended may be unregistered.
        drop(self.holds);
        let mut local_targets = self.local_targets.into_iter();
        for Target { remote, slices, .. } in self.targets {
            match (&remote, nics) {
                (Some(remote), Some(nics)) => remote.way.link.submit_over(slices, remote.incarnation(), nics),
                (Some(remote), None) => remote.way.link.submit(slices, remote.incarnation()),
                (None, _) => {
                    let mut ends = Ends::default();
                    let slices = slices.into_iter().zip(&mut local_targets);
                    slices.for_each(|(slice, held)| local::copy(slice, &held, &mut ends));
                }
            }
        }
    }

    /// Lets go of what was cut.
    pub(super) fn discard(&mut self) {
        self.targets.iter_mut().flat_map(|target| target.slices.drain(..)).for_each(Slice::discard);
    }
}

/// Bytes from `addr` to the end of a range, given as first byte and bytes; `None` if it lies outside.
#[inline]
fn room((first, len): (u64, u64), addr: u64) -> Option<u64> {
    let at = addr.wrapping_sub(first);
    (at < len).then(|| len - at)
}

impl Target {
    pub(super) fn new(id: i32, remote: Option<Remote>, any_source: bool) -> Self {
        Target { id, remote, any_source, range: (0, 0), grain: 0, seams: NOWHERE, slices: Vec::new() }
    }

    /// Whether the peer has the range of a request, which is not empty.
    #[inline]
    fn covers(&mut self, request: &Request) -> bool {
        let Some(remote) = &self.remote else { return true };
        if room(self.range, request.offset).is_some_and(|room| request.len <= room) {
            return true;
        }
        let found = remote.covering(request);
        self.range = found.unwrap_or_default();
        found.is_some()
    }
}

impl Remote {
    /// The way was chosen because the peer offers its transport.
    fn ranges(&self) -> Option<&Ranges> {
        self.known.offer(self.way.row).map(|offer| offer.ranges())
    }

    /// The peer's memory that holds all of a request: first byte and bytes.
    pub(super) fn covering(&self, request: &Request) -> Option<(u64, u64)> {
        let range = self.ranges()?.around(request.offset)?;
        (request.len <= range.1 - (request.offset - range.0)).then_some(range)
    }

    fn incarnation(&self) -> u64 {
        self.known.offer(self.way.row).map_or(0, |offer| offer.incarnation())
    }

    pub(super) fn not_published(&self, request: &Request) -> Error {
        let (name, rule) = (&self.known.name, self.ranges().map(Ranges::rule).unwrap_or_default());
        let text = format!(
            "target range of {} bytes at {:#x} is not inside {rule} that segment '{name}' publishes",
            request.len, request.offset
        );
        Error::new(Code::AddressNotRegistered, text).peer(name)
    }

    /// Checked last: an address that is not registered is reported even if nothing could be moved anyway.
    pub(super) fn ready(&self) -> Result<()> {
        let name = &self.known.name;
        self.way.link.ready().map_err(|e| e.context(format!("segment '{name}'")).peer(name))
    }
}

#[cfg(test)]
mod tests;
