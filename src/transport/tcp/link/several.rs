//! A link to a peer that publishes several addresses, where `MC_TCP_NICS` names several of ours. There is a rail for each
//! subnet that both are in, and each lane belongs to one of them. Requests wait here, for whichever rail will be through with
//! them first; a lane gets some only while it is connected. So a slow rail holds the others up as little as a dead one does.
//!
//! The last lane is a spare one: it leads to the address that everybody knows, and is used while no rail works.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::super::choice::{self, View};
use super::super::fence::Routes;
use super::super::lane::{late, Lane};
use super::super::liveness;
use super::super::offer;
use super::super::path;
use super::super::rail::Rail;
use super::super::request::Request;
use super::super::shared::Shared;
use super::super::trial;
use super::super::waiting::{Ahead, Waiting};
use super::{TcpLink, CONNECT_COST, RUN_BYTES};
use crate::error::{Class, Code, Error};
use crate::transport::report::RailReport;
use crate::transport::slice::Slice;

/// What a link has beside its lanes.
pub(super) struct Several {
    /// How many lanes the link has.
    pub lanes: usize,
    /// Requests that no rail has room for.
    pub waiting: Waiting,
    /// Guards the rails. Held briefly.
    known: Mutex<Known>,
}

/// The rails, the spare one last; none if the peer has one address.
type Rails = Arc<[Arc<Rail>]>;

#[derive(Default)]
struct Known {
    /// Of the descriptor that tells of them; `None` before it was asked.
    version: Option<u64>,
    rails: Rails,
}

impl Several {
    /// For a link that has `count` lanes to a peer with one address. `None` without addresses of ours.
    pub(super) fn new(shared: &Shared, count: usize) -> Option<Self> {
        let lasts = shared.config.tcp_pool && !shared.config.tcp_force_v1;
        let lanes = count.max(shared.nics.len()) + 1;
        (lasts && !shared.nics.is_empty()).then(|| Several {
            lanes,
            waiting: Waiting::default(),
            known: Mutex::default(),
        })
    }
}

impl TcpLink {
    /// What concerns several addresses, if the peer publishes some that fit to ours.
    pub(super) fn of_several(&self) -> Option<&Several> {
        self.several.as_ref().filter(|several| !self.rails(several).is_empty())
    }

    /// The rails to the peer as its descriptor is now.
    fn rails(&self, several: &Several) -> Rails {
        let mut known = several.known.lock();
        let version = self.route.offer().version;
        if known.version == Some(version) {
            return known.rails.clone();
        }
        let (version, theirs) = offer::addresses(&*self.route);
        known.version = Some(version);
        let paths = path::pair(&self.shared.nics, &theirs);
        let is_same = known.rails.iter().filter_map(|rail| rail.path.as_ref()).eq(&paths);
        if !is_same || known.rails.is_empty() {
            let spare = (!paths.is_empty()).then_some(None);
            known.rails =
                paths.into_iter().map(Some).chain(spare).map(|path| Arc::new(Rail::new(path))).collect();
        }
        if known.rails.is_empty()
            && !theirs.is_empty()
            && self.shared.log.admit("no common subnet", self.route.peer())
        {
            tracing::warn!(
                "no address of MC_TCP_NICS is in a subnet with one of {}; its usual address is used",
                self.route.peer()
            );
        }
        known.rails.clone()
    }

    /// The rail that the lane at `place` belongs to; `None` if the peer has one address.
    pub(super) fn rail_of(&self, place: usize) -> Option<Arc<Rail>> {
        let rails = self.rails(self.several.as_ref()?);
        let (spare, others) = rails.split_last()?;
        let rail = if place + 1 == self.lanes.len() { spare } else { others.get(place % others.len())? };
        Some(rail.clone())
    }

    /// The lanes of the rail at `place` among `rails`.
    fn lanes_of(&self, rails: &Rails, place: usize) -> impl Iterator<Item = &Arc<Lane>> + Clone {
        let spare = self.lanes.len() - 1;
        let (first, step) = if place + 1 == rails.len() { (spare, 1) } else { (place, rails.len() - 1) };
        let end = if first == spare { self.lanes.len() } else { spare };
        self.lanes[..end].iter().skip(first).step_by(step)
    }

    /// Gives what waits to rails, as far as they have room. Not under a lane's lock.
    pub(in super::super) fn deal(&self) {
        let Some(several) = &self.several else { return };
        let Some(mut ahead) = several.waiting.ahead() else { return };
        let rails = self.rails(several);
        if rails.is_empty() {
            // The peer has come back with one address.
            while let Some((first, rest)) = several.waiting.take(RUN_BYTES) {
                self.choose().push(std::iter::once(first).chain(rest));
            }
            return;
        }
        self.raise(&rails);
        while let Some(lane) = self.next_lane(&rails, ahead) {
            let Some((first, rest)) = several.waiting.take(RUN_BYTES) else { return };
            lane.push(std::iter::once(first).chain(rest));
            let Some(more) = several.waiting.ahead() else { return };
            ahead = more;
        }
    }

    /// A lane for the next run of requests.
    fn next_lane(&self, rails: &Rails, ahead: Ahead) -> Option<&Arc<Lane>> {
        let spare = rails.len() - 1;
        let others_work = (0..spare).any(|place| self.is_usable(rails, place));
        let run = ahead.all.min(RUN_BYTES.max(ahead.first));
        let views = rails.iter().enumerate().map(|(place, rail)| {
            let may = self.is_usable(rails, place) && !(place == spare && others_work);
            may.then(|| View {
                has_room: rail.has_room(),
                run_ns: rail.cost_ns(run),
                all_ns: rail.meter.cost_ns(ahead.all),
            })
        });
        let place = choice::next(views)?;
        let lanes = self.lanes_of(rails, place);
        let up = lanes.clone().filter(|lane| lane.published.is_up());
        let lane = up.min_by_key(|lane| lane.published.load())?;
        // As for a peer with one address, one more connection is made when those that there are have a run to do.
        if lane.published.load() > CONNECT_COST {
            let mut down = lanes.filter(|lane| !lane.published.is_rising());
            down.next().into_iter().for_each(Lane::rise);
        }
        Some(lane)
    }

    /// The rail at `place` takes requests: a lane of it is connected, and none has failed since.
    fn is_usable(&self, rails: &Rails, place: usize) -> bool {
        !rails[place].is_failing() && self.lanes_of(rails, place).any(|lane| lane.published.is_up())
    }

    /// It does, or a lane of it connects.
    fn has_hope(&self, rails: &Rails, place: usize) -> bool {
        self.is_usable(rails, place) || self.lanes_of(rails, place).any(is_connecting)
    }

    /// Has a lane connect on each rail that has none, but for those that have failed a moment ago; on all of them if no rail
    /// works. Fails what waits if nothing comes of it.
    fn raise(&self, rails: &Rails) {
        let spare = rails.len() - 1;
        if self.lanes_of(rails, spare).any(is_connecting) {
            // All others have just failed, and this decides. If they were tried meanwhile, there would be no end to it.
            return;
        }
        let has_hope = |place| self.has_hope(rails, place);
        let none_works = !(0..=spare).any(has_hope);
        for place in 0..spare {
            if !has_hope(place) && (none_works || rails[place].may_try()) {
                let mut down = self.lanes_of(rails, place).filter(|lane| !lane.published.is_rising());
                down.next().into_iter().for_each(Lane::rise);
            }
        }
        if none_works && !(0..=spare).any(has_hope) {
            self.give_waiting_up();
        }
    }

    /// No lane connects any more.
    fn give_waiting_up(&self) {
        let text = "no connection over any address of the peer; its lanes have ended";
        let error = Error::new(Code::Socket, text).transient(Class::Network).peer(self.route.peer());
        self.several.iter().for_each(|several| several.waiting.fail_all(&error));
    }

    /// The attempt of a lane has failed. Its requests wait with the others, unless it was the last attempt that they could
    /// wait for. Gives them back if the peer has one address.
    pub(super) fn rail_failed(
        &self,
        failed: &Arc<Lane>,
        waiting: Vec<Request>,
        error: &Error,
    ) -> Option<Vec<Request>> {
        let Some((several, rail)) = self.of_several().zip(self.rail_of(failed.place)) else {
            return Some(waiting);
        };
        rail.note_failure(error);
        self.shared.stats.rails_failed.fetch_add(1, Relaxed);
        if self.shared.log.admit("rail failed", self.route.peer()) {
            tracing::warn!("a connection to {} failed over one of its addresses: {error}", self.route.peer());
        }
        several.waiting.put(waiting.into_iter());
        let rails = self.rails(several);
        let is_last = !(0..rails.len()).any(|place| self.has_hope(&rails, place));
        let may_fall_back = failed.place + 1 < self.lanes.len() && !self.shared.config.strict;
        match self.lanes.last() {
            Some(spare) if is_last && may_fall_back => spare.rise(),
            _ if is_last => several.waiting.fail_all(error),
            _ => {}
        }
        self.mind_waiting();
        None
    }

    /// Nothing moves on `lane`. Finds out whether the peer can be reached over its rail, and whether it lives.
    pub(super) fn try_out(&self, lane: Arc<Lane>, rail: Arc<Rail>, question: u32, limit: Duration) {
        let (route, routes) = (self.route.clone(), self.routes());
        let answers = self.answers();
        self.shared.control.spawn(async move {
            let reach = async {
                match &rail.path {
                    Some(path) => trial::try_out(&*route, path).await,
                    None => Ok(()),
                }
            };
            // The kernel of a peer that is stopped takes connections all the same.
            let live = async { !answers || liveness::is_alive_by(&routes.all, limit).await };
            match tokio::join!(reach, live) {
                (Err(error), true) => lane.note_unreachable(question, error),
                (_, is_alive) => lane.answer(question, is_alive),
            }
        });
    }

    /// The ways to the peer's handshake port: over the rails that work, by the usual address, and over the others: they may be
    /// back.
    pub(super) fn routes(&self) -> Routes {
        let rails = self.several.as_ref().map(|several| self.rails(several)).unwrap_or_default();
        let route = |works: bool, (place, rail): (usize, &Arc<Rail>)| {
            // Handshake ports are of one family.
            let path =
                rail.path.as_ref().filter(|path| path.remote.is_ipv6() == self.shared.config.use_ipv6)?;
            (self.is_usable(&rails, place) == works).then(|| self.route.by_way_of(path.remote))
        };
        let mut all: Vec<_> = rails.iter().enumerate().filter_map(|it| route(true, it)).collect();
        let usual = all.len();
        all.push(self.route.clone());
        all.extend(rails.iter().enumerate().filter_map(|it| route(false, it)));
        Routes { all, usual }
    }

    /// Ends those requests that have waited for a rail too long.
    pub(in super::super) fn tick(&self, now: Instant) {
        if let (true, Some(several)) = (self.has_deadlines(), &self.several) {
            let due = |slice: &Slice| slice.work().deadline().is_some_and(|deadline| deadline <= now);
            several.waiting.abandon(due, |request| request.fail(late(self.peer())));
            self.deal();
        }
    }

    /// Requests wait for a rail, and not for ever.
    pub(in super::super) fn has_deadlines(&self) -> bool {
        let is_waiting = |several: &Several| several.waiting.ahead().is_some();
        self.shared.config.slice_timeout.is_some() && self.several.as_ref().is_some_and(is_waiting)
    }

    /// Requests wait, and were dealt as far as that was possible. The first lane's ticks see to their deadlines.
    pub(super) fn mind_waiting(&self) {
        if self.has_deadlines() {
            self.lanes[0].mind();
        }
    }

    /// Ends those requests that wait for a rail.
    pub(super) fn abandon_waiting(&self, which: impl Fn(&Slice) -> bool, end: impl Fn(Request)) {
        if let Some(several) = &self.several {
            several.waiting.abandon(which, end);
            self.deal();
            self.mind_waiting();
        }
    }

    /// The rails as they are shown; none if the peer has one address.
    pub(in super::super) fn report(&self) -> Vec<RailReport> {
        let Some(several) = &self.several else { return Vec::new() };
        let (rails, waiting) = (self.rails(several), several.waiting.len());
        let shown = rails.iter().enumerate().map(|(place, rail)| {
            let mut lanes = self.lanes_of(&rails, place);
            let is_up = lanes.clone().any(|lane| lane.published.is_up());
            let is_connecting = lanes.any(is_connecting);
            rail.report(self.route.peer(), is_up, is_connecting, waiting)
        });
        shown.collect()
    }
}

fn is_connecting(lane: &Arc<Lane>) -> bool {
    lane.published.is_rising() && !lane.published.is_up()
}
