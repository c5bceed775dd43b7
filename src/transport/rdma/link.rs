//! The way to one segment: cuts requests, chooses a rail for each slice, hands the slices over in chains.

mod choose;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::affinity::Affinity;
use super::errors::destroyed;
use super::fence::Fence;
use super::flight::{fail_all, Flight};
use super::peer::Target;
use super::rail::Rail;
use super::route::Route;
use super::shared::Shared;
use crate::error::{Class, Code, Error, Result};
use crate::memory::Region;
use crate::transport::slice::Slice;
use crate::transport::Link;

/// Longest work request: its length is 32 bits, and devices take 2^31.
const LONGEST_SLICE: u64 = 1 << 30;

/// Lists of flights longer than this are not kept for the thread's next call.
const SPARE_FLIGHTS: usize = 4096;

/// Link to one segment; kept by the segment, and by batches with work on it.
pub struct RdmaLink {
    /// The transport.
    pub shared: Arc<Shared>,
    /// Leads to the peer.
    pub route: Arc<dyn Route>,
    /// Number among the links of the transport.
    pub number: u32,
    me: Weak<RdmaLink>,
    target: ArcSwap<Target>,
    affinity: Affinity,
    block: u64,
    fragment: u64,
    /// Guards flights that wait to be placed anew on the control plane, and what has to happen first.
    returned: Mutex<Returned>,
    /// A task on the control plane works on `returned`.
    pub placing: AtomicBool,
    closed: AtomicBool,
}

/// What came back.
#[derive(Default)]
struct Returned {
    flights: Vec<Flight>,
    /// To be raised before any of the flights is placed.
    fences: Vec<Fence>,
}

/// Slices of one submit call by rail; kept per thread so that a call allocates nothing.
#[derive(Default)]
struct Buckets {
    rails: Vec<Bucket>,
    spare: Vec<VecDeque<Flight>>,
}

struct Bucket {
    /// Number of the pair in the target.
    number: usize,
    rail: Arc<Rail>,
    flights: VecDeque<Flight>,
    bytes: u64,
}

thread_local! {
    /// For MC_PATH_ROUNDROBIN.
    static TURN: Cell<usize> = const { Cell::new(0) };
    static BUCKETS: RefCell<Buckets> = RefCell::default();
}

impl RdmaLink {
    /// A link over the descriptor that `route` has now.
    pub fn new(shared: &Arc<Shared>, route: Arc<dyn Route>, number: u32, affinity: Affinity) -> Arc<Self> {
        let (desc, version) = route.desc().unwrap_or_default();
        let target = Target::new(shared, desc, version, &affinity);
        let config = &shared.config;
        let block = config.slice_bytes.min(LONGEST_SLICE);
        let fragment = config.fragment_ratio.map_or(16384, |ratio| block / ratio);
        Arc::new_cyclic(|me| RdmaLink {
            shared: shared.clone(),
            route,
            number,
            me: me.clone(),
            target: ArcSwap::from_pointee(target),
            affinity,
            block,
            fragment,
            returned: Mutex::default(),
            placing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        })
    }

    /// The descriptor in use, brought up to date if the route has read a newer one.
    pub fn target(&self) -> Arc<Target> {
        let current = self.target.load_full();
        match self.route.desc() {
            Ok((desc, version)) if version != current.version => {
                let fresh = Arc::new(Target::new(&self.shared, desc, version, &self.affinity));
                self.target.store(fresh.clone());
                fresh
            }
            _ => current,
        }
    }

    /// This link, for rails.
    pub fn weak(&self) -> Weak<RdmaLink> {
        self.me.clone()
    }

    /// Puts one flight that came back on a rail.
    pub fn place(&self, mut flight: Flight) {
        let Some(slice) = &flight.slice else { return };
        let (local, remote) = (slice.local, slice.remote);
        let target = self.target();
        if flight.incarnation != 0 && target.incarnation != 0 && flight.incarnation != target.incarnation {
            return fail_all([flight], &self.restarted());
        }
        let chosen = {
            let mut view = self.shared.memory.view();
            let keys = view.at(local);
            keys.ok_or_else(|| not_registered(local)).and_then(|keys| {
                // It was published when the request was submitted: the peer has taken it back since.
                let withdrawn = || self.not_published(remote).class(Class::Rejected, false);
                let window = target.window(remote, &mut 0);
                let window =
                    window.filter(|window| window.holds(remote, flight.len())).ok_or_else(withdrawn)?;
                let rows = (keys.row(local), target.row(window, remote));
                let choice = target.choice(&self.shared, rows.0, rows.1);
                let len = flight.len();
                let pair = self.choose(&target, window, choice, flight.avoid, len, &|_| 0);
                let pair = pair.ok_or_else(|| self.no_rail(&target))?;
                flight.lkey = keys.lkey(pair.local, local);
                flight.rkey = window.rkey.get(pair.remote).copied().unwrap_or(0);
                Ok(pair)
            })
        };
        match chosen {
            Ok(pair) => {
                let Some(rail) = target.rail(&self.shared, pair) else { return };
                rail.submit(&mut VecDeque::from([flight]), &self.me, self.shared.now_ns());
            }
            Err(error) => fail_all([flight], &error),
        }
    }

    /// Chooses rails for all slices and fills the buckets; those that cannot be moved are given back with the reason.
    fn sort(
        &self,
        target: &Target,
        slices: Vec<Slice>,
        incarnation: u64,
        buckets: &mut Buckets,
    ) -> Vec<(Slice, Error)> {
        let mut refused = Vec::new();
        let mut view = self.shared.memory.view();
        let mut hint = 0;
        for slice in slices {
            let Some(keys) = view.at(slice.local) else {
                let error = not_registered(slice.local);
                refused.push((slice, error));
                continue;
            };
            // The descriptor may have changed since the slice was cut.
            let window = target.window(slice.remote, &mut hint);
            let Some(window) = window.filter(|window| window.holds(slice.remote, slice.len)) else {
                let error = self.not_published(slice.remote);
                refused.push((slice, error));
                continue;
            };
            let choice = target.choice(&self.shared, keys.row(slice.local), target.row(window, slice.remote));
            let pair = match choice.pairs.as_slice() {
                [only] if window.has_key(*only) && self.shared.nics[only.local].is_active() => Some(*only),
                _ => {
                    let extra = |number: usize| buckets.bytes(number);
                    self.choose(target, window, choice, 0, slice.len, &extra)
                }
            };
            let Some((pair, rail)) = pair.and_then(|pair| Some((pair, target.rail(&self.shared, pair)?)))
            else {
                let mut flight = Flight::new(slice, self.number, incarnation);
                flight.tries = 1;
                self.keep([flight]);
                continue;
            };
            let mut flight = Flight::new(slice, self.number, incarnation);
            flight.lkey = keys.lkey(pair.local, flight.slice.as_ref().map_or(0, |slice| slice.local));
            flight.rkey = window.rkey.get(pair.remote).copied().unwrap_or(0);
            buckets.put(target.number(pair), rail, flight);
        }
        refused
    }

    /// Keeps flights for the control plane to place; true if there are some now. A closed link fails them.
    pub fn keep(&self, flights: impl IntoIterator<Item = Flight>) -> bool {
        let mut returned = self.returned.lock();
        returned.flights.extend(flights);
        // Under the lock: either `close` takes them, or this sees that it was there before.
        if let Err(error) = self.check_open() {
            let refused = std::mem::take(&mut returned.flights);
            drop(returned);
            fail_all(refused, &error);
            return false;
        }
        !returned.flights.is_empty()
    }

    /// As [`RdmaLink::keep`]; placed only after `fence`.
    pub fn keep_behind(&self, fence: Fence, flight: Flight) -> bool {
        {
            let mut returned = self.returned.lock();
            if !returned.fences.contains(&fence) {
                returned.fences.push(fence);
            }
        }
        self.keep([flight])
    }

    /// Takes all that may be placed; or, if there are any, the fences to raise first.
    pub fn take_placeable(&self) -> std::result::Result<Vec<Flight>, Vec<Fence>> {
        let mut returned = self.returned.lock();
        match returned.fences.is_empty() {
            true => Ok(std::mem::take(&mut returned.flights)),
            false => Err(std::mem::take(&mut returned.fences)),
        }
    }

    /// Takes those that the control plane is to place and for which `wanted` holds.
    pub fn take_returned(&self, wanted: impl Fn(&Flight) -> bool) -> Vec<Flight> {
        let mut returned = self.returned.lock();
        let (taken, left) = std::mem::take(&mut returned.flights).into_iter().partition(wanted);
        returned.flights = left;
        taken
    }

    fn not_published(&self, addr: u64) -> Error {
        let peer = self.route.peer();
        let text = format!("target {addr:#x} is in no buffer that segment '{peer}' publishes with keys");
        Error::new(Code::AddressNotRegistered, text).peer(peer)
    }

    /// The request was meant for a predecessor of the process that the descriptor speaks of now.
    fn restarted(&self) -> Error {
        let peer = self.route.peer();
        let text = format!(
            "segment '{peer}' was started anew; its memory is not what the request was checked against"
        );
        Error::new(Code::AddressNotRegistered, text).class(Class::Rejected, true).peer(peer)
    }

    /// No NIC of ours is active, or none of the two sides' matrices fit.
    pub fn no_rail(&self, target: &Target) -> Error {
        let peer = self.route.peer();
        let text = format!(
            "no NIC pair leads to segment '{peer}': ours are {}, the peer has {} NICs; see showLinks",
            self.own_nics(),
            target.desc.nics.len()
        );
        Error::new(Code::DeviceNotFound, text).class(Class::Device, true).peer(peer)
    }

    /// Our NICs, each with its last failure.
    fn own_nics(&self) -> String {
        let nics = self.shared.nics.iter();
        let named: Vec<String> =
            nics.map(|nic| format!("{} ({})", nic.name, nic.state().last_error)).collect();
        named.join(", ")
    }

    /// An error once the link is closed.
    pub fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) || self.shared.is_stopped() {
            return Err(destroyed());
        }
        Ok(())
    }
}

impl Link for RdmaLink {
    fn ready(&self) -> Result<()> {
        if self.shared.nics.iter().any(|nic| nic.is_active()) {
            return Ok(());
        }
        let text = format!("no local NIC is active: {}; see showLinks and `ibv_devinfo`", self.own_nics());
        Err(Error::new(Code::DeviceNotFound, text).class(Class::Device, true).peer(self.route.peer()))
    }

    fn cut(&self, region: Option<&Region>, source: u64, covered: u64, remote: u64, left: u64) -> u64 {
        let most = if left <= self.block + self.fragment { left } else { self.block };
        let piece = region.map_or(covered, |region| self.shared.memory.piece_left(region, source));
        let target = self.target.load();
        let window = target.window(remote, &mut 0);
        let there = window.map_or(left, |window| window.len - (remote - window.addr));
        most.min(covered).min(piece).min(there).clamp(1, LONGEST_SLICE)
    }

    fn submit(&self, slices: Vec<Slice>, incarnation: u64) {
        let target = self.target();
        let meant = incarnation == 0 || target.incarnation == 0 || incarnation == target.incarnation;
        let fit = self.check_open().and_then(|()| if meant { Ok(()) } else { Err(self.restarted()) });
        if let Err(error) = fit {
            slices.into_iter().for_each(|slice| slice.fail(error.clone()));
            return;
        }
        // Taken out: a slice that fails may call back into the library.
        let mut buckets = BUCKETS.take();
        let refused = self.sort(&target, slices, incarnation, &mut buckets);
        let now_ns = self.shared.now_ns();
        let Buckets { rails, spare } = &mut buckets;
        for mut bucket in rails.drain(..) {
            bucket.rail.submit(&mut bucket.flights, &self.me, now_ns);
            if bucket.flights.capacity() <= SPARE_FLIGHTS {
                spare.push(bucket.flights);
            }
        }
        BUCKETS.set(buckets);
        refused.into_iter().for_each(|(slice, error)| slice.fail(error));
        if !self.returned.lock().flights.is_empty() {
            self.shared.place_later(self, false);
        }
    }

    fn poll(&self) -> bool {
        let mut moved = false;
        for nic in self.shared.nics.iter().filter(|nic| nic.outstanding() > 0) {
            nic.polled.store(true, Ordering::Relaxed);
            moved |= self.shared.poll(nic);
        }
        moved
    }

    fn rely_on_threads(&self) {
        for nic in self.shared.nics.iter().filter(|nic| nic.outstanding() > 0) {
            if !nic.relied_on.swap(true, Ordering::SeqCst) && !nic.armed.load(Ordering::SeqCst) {
                nic.wakeup.set();
            }
        }
    }

    fn close(&self, error: &Error) {
        self.closed.store(true, Ordering::Release);
        let returned = std::mem::take(&mut self.returned.lock().flights);
        fail_all(returned, error);
    }
}

impl Buckets {
    fn bytes(&self, number: usize) -> u64 {
        self.rails.iter().find(|bucket| bucket.number == number).map_or(0, |bucket| bucket.bytes)
    }

    fn put(&mut self, number: usize, rail: &Arc<Rail>, flight: Flight) {
        let bytes = flight.len();
        match self.rails.iter_mut().find(|bucket| bucket.number == number) {
            Some(bucket) => {
                bucket.bytes += bytes;
                bucket.flights.push_back(flight);
            }
            None => {
                let mut flights = self.spare.pop().unwrap_or_default();
                flights.push_back(flight);
                self.rails.push(Bucket { number, rail: rail.clone(), flights, bytes });
            }
        }
    }
}

fn not_registered(addr: u64) -> Error {
    let text = format!("local {addr:#x} is not registered with any NIC; call registerLocalMemory first");
    Error::new(Code::AddressNotRegistered, text)
}
