//! The way to one peer: a few lanes, the choice among them, and what happens to requests
//! whose lane died. A peer that has several addresses is a matter of `several`.

mod several;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

use super::connect;
use super::fence::{self, Mark};
use super::lane::Lane;
use super::liveness::{self, Liveness};
use super::parked::{keep_trail, Parked};
use super::request::Request;
use super::shared::Shared;
use crate::error::Error;
use crate::memory::Region;
use crate::transport::host::Route;
use crate::transport::links::stopping;
use crate::transport::report::QueueReport;
use crate::transport::slice::{canceled, Slice, Trail};
use crate::transport::Link;
use several::Several;

/// Payload bytes of a submit call that go to one lane before a lane is chosen anew. Chosen: small requests of a call stay
/// together, since many of them leave in one send, and large calls spread over the lanes.
const RUN_BYTES: u64 = 256 << 10;
/// What a lane that has yet to connect counts as loaded with. Chosen: as much as a run, so that a second connection is
/// made only when the first one has more than a run to do.
const CONNECT_COST: u64 = 256 << 10;

/// Lanes of a link, unless `MC_TCP_LANES_PER_PEER` says how many. Chosen: as upstream.
const LANES: usize = 4;

/// Link to one peer; kept by its segment, and by batches with work on it.
pub(super) struct TcpLink {
    shared: Arc<Shared>,
    route: Arc<dyn Route>,
    lanes: Vec<Arc<Lane>>,
    /// How many of the lanes requests are given to, at the most; the last connection that was made says it. Relaxed: whoever reads
    /// an old number uses a lane more or less.
    spread: Arc<AtomicUsize>,
    /// A lane died or could not connect since the descriptor was last read, so the next attempt reads it again.
    stale: AtomicBool,
    /// WRITEs that wait for the peer's word.
    parked: Parked,
    liveness: Liveness,
    /// What there is beside, where `MC_TCP_NICS` names addresses of ours.
    several: Option<Several>,
}

impl TcpLink {
    /// A link without connections; the first request makes one.
    pub(super) fn new(shared: &Arc<Shared>, route: Arc<dyn Route>) -> Arc<Self> {
        let count = lanes_wanted(shared);
        let several = Several::new(shared, count);
        let lanes = several.as_ref().map_or(count, |several| several.lanes);
        Arc::new_cyclic(|me| TcpLink {
            lanes: (0..lanes)
                .map(|place| Lane::new(me.clone(), place, shared.clone(), shared.threads.next_reactor()))
                .collect(),
            spread: Arc::new(AtomicUsize::new(count)),
            shared: shared.clone(),
            route,
            stale: AtomicBool::new(false),
            parked: Parked::default(),
            liveness: Liveness::default(),
            several,
        })
    }

    /// What each lane has to do, and what waits for one.
    pub(super) fn queues(&self) -> Vec<QueueReport> {
        let report =
            |queue: String, under_way, waiting| QueueReport { peer: self.peer(), queue, under_way, waiting };
        let lanes = self.lanes.iter().map(|lane| {
            let requests = lane.published.pending();
            match lane.published.is_up() {
                true => report(lane.place.to_string(), requests, 0),
                false => report(lane.place.to_string(), 0, requests),
            }
        });
        let unassigned =
            self.of_several().into_iter().map(|several| report("any".into(), 0, several.waiting.len()));
        lanes.chain(unassigned).collect()
    }

    /// The peer, for messages.
    pub(super) fn peer(&self) -> String {
        self.route.peer().to_string()
    }

    /// Makes a connection for `lane`, on the control plane.
    pub(super) fn connect(&self, lane: Arc<Lane>) {
        let (shared, route) = (self.shared.clone(), self.route.clone());
        let (reread, spread) = (self.stale.swap(false, Relaxed), self.spread.clone());
        let rail = self.rail_of(lane.place);
        self.shared.control.spawn(async move {
            let guard = ConnectGuard(Some(lane));
            let outcome = connect::connect(&shared, &*route, reread, rail.as_ref()).await;
            let Some(lane) = guard.done() else { return };
            match outcome {
                Ok(connection) => {
                    spread.store(worth_using(&shared, &connection), Relaxed);
                    rail.iter().for_each(|rail| rail.note_connected());
                    lane.attach(connection);
                }
                Err(error) => return lane.connect_failed(error),
            }
            if !shared.config.tcp_liveness.is_zero() {
                lane.note_whether_peer_answers(&route).await;
            }
        });
    }

    /// Finds out whether the peer is alive, on the control plane, and tells the lane.
    pub(super) fn ask(&self, lane: Arc<Lane>, question: u32, limit: Duration) {
        let answers = self.answers();
        if let Some(rail) = self.rail_of(lane.place) {
            return self.try_out(lane, rail, question, limit);
        }
        let route = self.route.clone();
        self.shared.control.spawn(async move {
            lane.answer(question, !answers || liveness::is_alive(&route, limit).await);
        });
    }

    /// Silence of the peer's handshake port means something.
    pub(super) fn answers(&self) -> bool {
        self.liveness.answers() || self.route.has_answered()
    }

    /// The peer's habit of answering.
    pub(super) fn liveness(&self) -> &Liveness {
        &self.liveness
    }

    /// Moves the requests of a lane that cannot connect to one that is connected, or fails them. A lane that is still
    /// connecting gets none of them: they could be handed around for ever.
    pub(super) fn connect_failed(&self, failed: &Arc<Lane>, waiting: Vec<Request>, error: Error) {
        self.stale.store(true, Relaxed);
        let Some(waiting) = self.rail_failed(failed, waiting, &error) else { return };
        let others = self.lanes.iter().filter(|lane| !Arc::ptr_eq(lane, failed) && lane.published.is_up());
        match others.min_by_key(|lane| lane.published.load()) {
            Some(lane) => lane.push(waiting.into_iter()),
            None => self.fail_all(waiting.into_iter().map(|request| (request, error.clone()))),
        }
    }

    /// Fails requests. The other stripes of their tasks are given up: nobody needs them any more.
    pub(super) fn fail_all(&self, failed: impl Iterator<Item = (Request, Error)>) {
        let mut orphans = false;
        for (request, error) in failed {
            orphans |= request.slice().is_some_and(Slice::has_siblings);
            request.fail(error);
        }
        if orphans {
            self.give_up();
        }
    }

    /// A connection known by `mark` has ended. The peer is asked to close its end; then the requests are sent again, and the
    /// trails end.
    pub(super) fn follow(self: &Arc<Self>, mark: Mark, behind: Vec<(Request, Error)>, trails: Vec<Trail>) {
        self.stale.store(true, Relaxed);
        let ticket = match self.parked.park(behind, trails) {
            Ok(ticket) => ticket,
            Err((mut behind, _lost)) => {
                behind.iter_mut().for_each(|(request, _)| request.lose_trail());
                return self.fail_all(behind.into_iter().map(|(request, _)| (request, stopping())));
            }
        };
        // Whoever gave them up on their way here has found them nowhere.
        self.abandon_parked();
        let (link, routes) = (self.clone(), self.routes());
        self.shared.control.spawn(async move {
            let guard = ParkGuard { link, ticket };
            let mut closed = fence::raise(&routes, &mark).await;
            let trails = guard.leave(closed);
            drop(guard);
            if !closed && !trails.is_empty() {
                closed = fence::follow(&routes, &mark).await;
            }
            if closed {
                trails.into_iter().for_each(Trail::end);
            }
        });
    }

    /// Takes what waited for the peer's word out again, and returns the trails that are left.
    fn unpark(&self, ticket: u64, closed: bool) -> Vec<Trail> {
        let (behind, mut trails) = self.parked.take(ticket);
        if closed {
            self.send_again(behind.into_iter().map(|(request, _)| request));
        } else {
            let mut behind = behind;
            for (request, _) in &mut behind {
                keep_trail(&mut trails, request);
            }
            self.fail_all(behind.into_iter());
        }
        trails
    }

    /// Sends requests of a dead lane again.
    pub(super) fn send_again(&self, requests: impl Iterator<Item = Request>) {
        self.stale.store(true, Relaxed);
        let note = |request: &Request| {
            if request.was_sent {
                request.slice().into_iter().for_each(Slice::note_resent);
                self.shared.stats.requests_resent.fetch_add(1, Relaxed);
            }
        };
        let mut requests = requests.inspect(note).peekable();
        if requests.peek().is_none() {
            return;
        }
        match self.of_several() {
            Some(several) => {
                several.waiting.put(requests);
                self.deal();
                self.mind_waiting();
            }
            None => self.choose().push(requests),
        }
    }

    /// Ends every use of a revoked region.
    pub(super) fn abort(&self, region: &Region) {
        self.lanes.iter().for_each(|lane| lane.abort(region));
        self.parked.abandon(|slice| slice.is_in(region), Request::fail_revoked);
        self.abandon_waiting(|slice| slice.is_in(region), Request::fail_revoked);
    }

    fn abandon_parked(&self) {
        self.parked.abandon(Slice::is_given_up, |request| request.fail(canceled()));
    }

    fn choose(&self) -> &Arc<Lane> {
        let cost = |lane: &&Arc<Lane>| {
            lane.published.load() + if lane.published.is_rising() { 0 } else { CONNECT_COST }
        };
        // A link has at least one lane, and there is at least one thread.
        self.lanes.iter().take(self.spread.load(Relaxed)).min_by_key(cost).unwrap_or(&self.lanes[0])
    }
}

impl Link for TcpLink {
    fn grain(&self, _: u64, _: u64, _: u64) -> u64 {
        self.shared.config.tcp_stripe_bytes
    }

    fn submit(&self, slices: Vec<Slice>, incarnation: u64) {
        if let Some(several) = self.of_several() {
            several.waiting.put(slices.into_iter().map(|slice| Request::new(slice, incarnation)));
            self.deal();
            return self.mind_waiting();
        }
        let mut slices = slices.into_iter().peekable();
        while slices.peek().is_some() {
            let mut run = 0;
            let requests = std::iter::from_fn(|| {
                let slice = slices.next_if(|slice| run == 0 || run + slice.len <= RUN_BYTES)?;
                run += slice.len;
                Some(Request::new(slice, incarnation))
            });
            self.choose().push(requests);
        }
    }

    fn poll(&self) -> bool {
        let busy = self.lanes.iter().filter(|lane| lane.published.is_busy());
        busy.fold(false, |moved, lane| lane.poll() | moved)
    }

    fn rely_on_threads(&self) {
        self.lanes.iter().filter(|lane| lane.published.is_busy()).for_each(|lane| lane.rely_on_reactor());
    }

    fn give_up(&self) {
        self.lanes.iter().for_each(|lane| lane.give_up());
        self.abandon_parked();
        self.abandon_waiting(Slice::is_given_up, |request| request.fail(canceled()));
    }

    fn peer_lives(&self) -> Option<bool> {
        let is_up = self.lanes.iter().any(|lane| lane.published.is_up());
        if is_up || self.stale.load(Relaxed) {
            return Some(is_up);
        }
        None
    }

    fn close(&self, error: &Error) {
        self.parked.close();
        self.several.iter().for_each(|several| several.waiting.close(error));
        self.lanes.iter().for_each(|lane| lane.close(error));
        self.parked.abandon(|_| true, |request| request.fail(error.clone()));
    }
}

/// How many lanes serve a peer best, as far as `connection` tells. A thread serves no two lanes at once. Within the host the
/// second one only costs: its socket buffers fill the caches too, and no network shares its capacity out by connections. Measured
/// on two processors with one thread at either end, 1 MiB blocks, one lane and four: 5.4 and 4.6 GB/s, 2.5 and 1.2 GB/s where
/// others used the machine too.
fn worth_using(shared: &Shared, connection: &connect::Connection) -> usize {
    let is_free = shared.config.tcp_lanes == 0;
    match is_free && connection.within_host && connection.terms.reusable {
        true => shared.threads.reactors().len().min(LANES),
        false => lanes_wanted(shared),
    }
}

/// Lanes to a peer that has one address.
fn lanes_wanted(shared: &Shared) -> usize {
    match shared.config.tcp_lanes {
        0 => LANES,
        count => count,
    }
}

/// Lets nothing wait for ever if the control plane drops the task that asks the peer, as it does when it stops.
struct ParkGuard {
    link: Arc<TcpLink>,
    ticket: u64,
}

impl ParkGuard {
    fn leave(&self, closed: bool) -> Vec<Trail> {
        self.link.unpark(self.ticket, closed)
    }
}

impl Drop for ParkGuard {
    fn drop(&mut self) {
        drop(self.leave(false));
    }
}

/// Fails the lane's requests if the control plane drops the task halfway, as it does when it stops. The task makes the
/// guard, not its caller: the caller holds the lane's lock, which the guard takes when it is dropped. A task that never
/// ran leaves no request behind, because the links are closed before the control plane stops.
struct ConnectGuard(Option<Arc<Lane>>);

impl ConnectGuard {
    fn done(mut self) -> Option<Arc<Lane>> {
        self.0.take()
    }
}

impl Drop for ConnectGuard {
    fn drop(&mut self) {
        if let Some(lane) = self.0.take() {
            lane.connect_failed(stopping());
        }
    }
}
