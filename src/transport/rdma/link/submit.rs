//! The data path of a link: cuts requests, chooses a rail for each slice, hands the slices over in chains.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use super::super::flight::Flight;
use super::super::origin::Origin;
use super::super::peer::{Choice, Pair, Target, Window};
use super::super::rail::Rail;
use super::super::reap;
use super::super::share;
use super::named::Named;
use super::{grain, not_registered, RdmaLink, LONGEST_SLICE};
use crate::error::{Class, Code, Error, Result};
use crate::memory::Region;
use crate::topology::select::RowId;
use crate::transport::slice::Slice;
use crate::transport::{Link, Seams};

/// Lists of flights longer than this are not kept for the thread's next call. Chosen: a list of so many takes 320 KiB.
const SPARE_FLIGHTS: usize = 4096;

/// Slices of a call for one rail are handed over when they have so many bytes; so a large call keeps its rails busy from its
/// first slices on. Chosen: a chain has no more, so there are not more chains for it.
const HAND_OVER: u64 = share::PORTION;

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
    /// Not handed over yet, and their bytes.
    flights: VecDeque<Flight>,
    bytes: u64,
    /// They would only wait at the rail: they are handed over when all are there.
    kept: bool,
}

thread_local! {
    static BUCKETS: RefCell<Buckets> = RefCell::default();
}

impl Link for RdmaLink {
    fn ready(&self) -> Result<()> {
        if self.shared.nics.iter().any(|nic| nic.is_active()) {
            return Ok(());
        }
        let text = format!("no local NIC is active: {}; see showLinks and `ibv_devinfo`", self.own_nics());
        Err(Error::new(Code::DeviceNotFound, text).transient(Class::Device).peer(self.route.peer()))
    }

    fn grain(&self, bytes: u64, source: u64, remote: u64) -> u64 {
        let config = &self.shared.config;
        let grain = match config.path_roundrobin {
            // Rails are taken in turn, not by load: equal slices make equal shares.
            true => config.slice_bytes.unwrap_or(grain::USUAL),
            // Not cut, whichever rails there are: the usual case of a single small request.
            false if bytes <= grain::LEAST => config.slice_bytes.unwrap_or(grain::LEAST),
            false => suits_rails(self, bytes, source, remote),
        };
        grain.min(LONGEST_SLICE)
    }

    fn seams(&self, region: Option<&Region>, source: u64, remote: u64) -> Seams {
        let none = Seams::default();
        let target = self.target();
        Seams {
            local: region.map_or(none.local, |region| self.shared.memory.piece(region, source)),
            // Where the peer's descriptor has changed meanwhile, the slice is refused later.
            remote: target.window(remote, &mut 0).map_or(none.remote, |window| (window.addr, window.len)),
        }
    }

    fn cut(&self, left: u64, grain: u64) -> u64 {
        let config = &self.shared.config;
        // 16384 is upstream's default.
        let rest = config.fragment_ratio.map_or(16384, |ratio| grain / ratio);
        let most = match left <= grain.saturating_add(rest) {
            true => left,
            // As upstream does it: what is set is the length of all but the last.
            false if config.slice_bytes == Some(grain) => grain,
            false => grain::even(left, grain),
        };
        most.min(LONGEST_SLICE)
    }

    fn submit(&self, slices: Vec<Slice>, incarnation: u64) {
        submit_by(self, slices, incarnation, &ByTopology(self));
    }

    fn check_nics(&self, nics: &str) -> Result<()> {
        Named::parse(&self.shared, nics).map(drop)
    }

    fn submit_over(&self, slices: Vec<Slice>, incarnation: u64, nics: &str) {
        match Named::parse(&self.shared, nics) {
            Ok(named) => submit_by(self, slices, incarnation, &ByName { link: self, named }),
            // It was checked before.
            Err(error) => slices.into_iter().for_each(|slice| slice.fail(error.clone())),
        }
    }

    fn poll(&self) -> bool {
        let mut moved = false;
        for nic in self.shared.nics.iter().filter(|nic| nic.outstanding() > 0) {
            nic.polled.store(true, Ordering::Relaxed);
            moved |= reap::poll(&self.shared, nic);
        }
        moved
    }

    /// A poll looks at all NICs.
    fn poller(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }

    fn rely_on_threads(&self) {
        for nic in self.shared.nics.iter().filter(|nic| nic.outstanding() > 0) {
            if !nic.relied_on.swap(true, Ordering::SeqCst) && !nic.armed.load(Ordering::SeqCst) {
                nic.wakeup.set();
            }
        }
    }

    /// The NIC's thread finds what waits or is under way, as it finds what is too late.
    fn give_up(&self) {
        for nic in &self.shared.nics {
            nic.wakeup.set();
        }
    }

    fn close(&self, error: &Error) {
        self.closed.store(true, Ordering::Release);
        self.shared.destroyer.fail(self.returned.take_all().into_iter(), error);
    }
}

/// The grain that suits the rails that are usual between these places.
fn suits_rails(link: &RdmaLink, bytes: u64, source: u64, remote: u64) -> u64 {
    let (nics, set) = (&link.shared.nics, link.shared.config.slice_bytes);
    let target = link.target();
    let mut view = link.shared.memory.view();
    let (Some(keys), Some(window)) = (view.at(source), target.window(remote, &mut 0)) else {
        return grain::choose(bytes, 1, 0, set);
    };
    let choice = target.choice(&link.shared, keys.row(source), target.row(window, remote));
    let usual = choice.pairs.iter().take(choice.first_tier).filter_map(|pair| nics.get(pair.local));
    let usual = usual.filter(|nic| nic.is_active());
    let (rails, rate) =
        usual.fold((0, u64::MAX), |(count, rate), nic| (count + 1, rate.min(nic.meter.port_rate())));
    grain::choose(bytes, rails, rate, set)
}

/// Hands the slices to the rails that `picker` chooses.
fn submit_by(link: &RdmaLink, slices: Vec<Slice>, incarnation: u64, picker: &impl Picker) {
    let target = link.target();
    let meant = incarnation == 0 || target.incarnation == 0 || incarnation == target.incarnation;
    let fit = link.check_open().and_then(|()| if meant { Ok(()) } else { Err(link.restarted()) });
    if let Err(error) = fit {
        slices.into_iter().for_each(|slice| slice.fail(error.clone()));
        return;
    }
    // Taken out: a slice that fails may call back into the library.
    let mut buckets = BUCKETS.take();
    let refused = sort(link, &target, slices, incarnation, picker, &mut buckets);
    let Buckets { rails, spare } = &mut buckets;
    for mut bucket in rails.drain(..) {
        if !bucket.flights.is_empty() {
            bucket.hand_over(link);
        }
        if bucket.flights.capacity() <= SPARE_FLIGHTS {
            spare.push(bucket.flights);
        }
    }
    BUCKETS.set(buckets);
    refused.into_iter().for_each(|(slice, error)| slice.fail(error));
    if !link.returned.is_empty() {
        link.place_later(false);
    }
}

/// Chooses the pair of NICs for a slice in a submit call.
trait Picker {
    /// The NICs are the caller's choice.
    const NAMED: bool;

    /// `None` if there is none now. `extra` gives the bytes of this call that wait for the pair of a number.
    fn pick(
        &self,
        target: &Target,
        window: &Window,
        choice: &Choice,
        len: u64,
        extra: &dyn Fn(usize) -> u64,
    ) -> Option<Pair>;
}

/// By where the memory lies, on both sides.
struct ByTopology<'a>(&'a RdmaLink);

impl Picker for ByTopology<'_> {
    const NAMED: bool = false;

    #[inline]
    fn pick(
        &self,
        target: &Target,
        window: &Window,
        choice: &Choice,
        len: u64,
        extra: &dyn Fn(usize) -> u64,
    ) -> Option<Pair> {
        match choice.pairs.as_slice() {
            [only] if window.has_key(*only) && self.0.shared.nics[only.local].is_active() => Some(*only),
            _ => self.0.choose(target, window, choice, 0, len, extra),
        }
    }
}

/// Over local NICs that the caller has named, as long as a rail of theirs works.
struct ByName<'a> {
    link: &'a RdmaLink,
    named: Named,
}

impl Picker for ByName<'_> {
    const NAMED: bool = true;

    fn pick(
        &self,
        target: &Target,
        window: &Window,
        choice: &Choice,
        len: u64,
        extra: &dyn Fn(usize) -> u64,
    ) -> Option<Pair> {
        let named = self.named.pick(&self.link.shared, target, window, choice, len, extra);
        named.or_else(|| ByTopology(self.link).pick(target, window, choice, len, extra))
    }
}

/// Chooses rails for all slices, fills the buckets, and hands over those that are full; slices that cannot be moved are given
/// back with the reason, and those that find no rail are kept.
fn sort<P: Picker>(
    link: &RdmaLink,
    target: &Target,
    slices: Vec<Slice>,
    incarnation: u64,
    picker: &P,
    buckets: &mut Buckets,
) -> Vec<(Slice, Error)> {
    let (mut refused, mut kept) = (Vec::new(), Vec::new());
    let mut view = link.shared.memory.view();
    let mut hint = 0;
    let mut last: Option<Last> = None;
    for slice in slices {
        let Some(keys) = view.at(slice.local) else {
            let error = not_registered(slice.local);
            refused.push((slice, error));
            continue;
        };
        // The descriptor may have changed since the slice was cut.
        let window = target.window(slice.remote, &mut hint);
        let Some(window) = window.filter(|window| window.holds(slice.remote, slice.len)) else {
            let error = link.not_published(slice.remote);
            refused.push((slice, error));
            continue;
        };
        let rows = (keys.row(slice.local), target.row(window, slice.remote));
        let choice = match &last {
            Some(last) if last.rows == rows => last.choice,
            _ => target.choice(&link.shared, rows.0, rows.1),
        };
        let pair = picker.pick(target, window, choice, slice.len, &|number| buckets.bytes(number));
        let place = match (&last, pair) {
            (Some(last), Some(pair)) if last.pair == pair => Some(last.place),
            (_, Some(pair)) => buckets.place(link, target, pair),
            (_, None) => None,
        };
        let (Some(place), Some(pair)) = (place, pair) else {
            let mut flight = Flight::new(slice, link.number, incarnation);
            flight.tries = 1;
            kept.push(flight);
            continue;
        };
        last = Some(Last { rows, choice, pair, place });
        let lkey = keys.lkey(pair.local, slice.local);
        let rkey = window.rkey.get(pair.remote).copied().unwrap_or(0);
        let bucket = &mut buckets.rails[place];
        bucket.bytes += slice.len;
        let flight = Flight::new(slice, link.number, incarnation);
        bucket.flights.push_back(Flight { lkey, rkey, named: P::NAMED, ..flight });
        if bucket.is_due() {
            // A slice that fails may call back into the library.
            drop(view);
            bucket.hand_over(link);
            view = link.shared.memory.view();
        }
    }
    // First: where the link is closed by now they fail, and that may call back into the library.
    drop(view);
    if !kept.is_empty() {
        link.keep_all(kept);
    }
    refused
}

impl Buckets {
    fn bytes(&self, number: usize) -> u64 {
        self.rails.iter().find(|bucket| bucket.number == number).map_or(0, |bucket| bucket.bytes)
    }

    /// The place of a pair's bucket, which is made if there is none; `None` if the pair has no rail.
    fn place(&mut self, link: &RdmaLink, target: &Target, pair: Pair) -> Option<usize> {
        let number = target.number(pair);
        let known = self.rails.iter().position(|bucket| bucket.number == number);
        known.or_else(|| {
            let rail = target.rail(&link.shared, pair)?.clone();
            let flights = self.spare.pop().unwrap_or_default();
            self.rails.push(Bucket { number, rail, flights, bytes: 0, kept: false });
            Some(self.rails.len() - 1)
        })
    }
}

impl Bucket {
    /// To be handed over before the call's other slices are sorted.
    #[inline]
    fn is_due(&mut self) -> bool {
        if self.bytes < HAND_OVER || self.kept {
            return false;
        }
        self.kept = !self.rail.is_up() || self.rail.has_waiting();
        !self.kept
    }

    fn hand_over(&mut self, link: &RdmaLink) {
        self.bytes = 0;
        self.rail.submit(&mut self.flights, &link.route, link.shared.now_ns());
    }
}

/// What was chosen for the slice before: the next one is mostly its neighbour.
struct Last<'a> {
    rows: (RowId, RowId),
    choice: &'a Choice,
    pair: Pair,
    place: usize,
}
