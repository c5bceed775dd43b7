//! One connection to a peer, as initiator: requests are pipelined, replies come in order.
//!
//! Any thread that has reason to advances a lane: the submitting thread sends, a polling thread reads replies, and the
//! lane's reactor does both when nobody polls. The machine in `machine` says what comes next; this file feeds it events
//! and performs its actions. The state is under one lock, taken once per posted run or poll, and never held while
//! waiting.

mod errors;
mod events;
mod gauge;
mod interest;
mod machine;
mod published;
mod watched;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::connect::Connection;
use super::ends::{Down, Ends, Rules};
use super::exchange::Exchange;
use super::fence::Mark;
use super::link::TcpLink;
use super::liveness;
use super::pipeline::Pipeline;
use super::reactor::{thread_failed, Reactor};
use super::request::Request;
use super::shared::Shared;
use crate::error::Error;
use crate::memory::Region;
use crate::transport::host::Route;
use crate::transport::slice::{canceled, Slice};
pub(super) use errors::late;
use errors::{closed, fail_all};
use events::Why;
use gauge::Gauge;
use interest::Interest;
use machine::{Limits, Machine};
use published::Published;

type Event = events::Event<Connection, Down, Error>;
type Action = events::Action<Connection, Down, Error>;

/// A lane; shared by its link, its reactor and the control plane.
pub(super) struct Lane {
    /// Token in the reactor.
    pub id: u64,
    /// Among the lanes of the link.
    pub place: usize,
    /// Peers of the link may have several addresses.
    is_one_of_several_ways: bool,
    link: Weak<TcpLink>,
    shared: Arc<Shared>,
    reactor: Arc<Reactor>,
    /// What may be read without the lock.
    pub published: Published,
    interest: Interest,
    /// Guards the machine, the requests and the connection.
    state: Mutex<State>,
}

struct State {
    machine: Machine<Connection, Error>,
    pipeline: Pipeline,
    exchange: Exchange,
    /// The reactor looks at its deadlines.
    is_minded: bool,
    gauge: Gauge,
}

impl State {
    /// Changes whenever a byte goes either way: to the peer when its kernel has it, because ours may keep megabytes for a slow
    /// one and take no more for seconds.
    fn traffic(&self) -> u64 {
        let kept = self.machine.connection().map_or(0, |it| it.socket.unacknowledged());
        self.pipeline.traffic().wrapping_sub(kept)
    }
}

impl Lane {
    /// An unconnected lane of `link`, number `place` there, watched by `reactor`.
    pub(super) fn new(
        link: Weak<TcpLink>,
        place: usize,
        shared: Arc<Shared>,
        reactor: Arc<Reactor>,
    ) -> Arc<Self> {
        let (status_timeout, min_rate) = (shared.config.tcp_status_timeout, shared.config.tcp_min_rate);
        let limits = Limits { status_timeout, min_rate, asks: !shared.config.tcp_liveness.is_zero() };
        let lane = Arc::new(Lane {
            id: shared.threads.next_token(),
            place,
            is_one_of_several_ways: !shared.nics.is_empty(),
            link,
            reactor,
            published: Published::default(),
            interest: Interest::default(),
            state: Mutex::new(State {
                machine: Machine::new(limits),
                pipeline: Pipeline::default(),
                exchange: Exchange::default(),
                is_minded: false,
                gauge: Gauge::default(),
            }),
            shared,
        });
        lane.reactor.adopt(lane.id, Arc::<Lane>::downgrade(&lane));
        lane
    }

    /// Appends requests and sends what the socket takes.
    pub(super) fn push(self: &Arc<Self>, requests: impl Iterator<Item = Request>) {
        if self.reactor.is_dead() {
            self.close(&thread_failed());
        }
        let mut state = self.state.lock();
        let State { machine, pipeline, .. } = &mut *state;
        let first = pipeline.is_empty();
        // To fail one takes none of our locks.
        let refuse = |request: Request| self.refuse(request);
        let left = pipeline.admit(requests, machine.connection().is_some(), refuse);
        if !pipeline.is_empty() {
            self.mind_with(&mut state);
            self.feed(state, Event::Pushed { first });
        } else {
            drop(state);
        }
        if let Some((request, rest)) = left {
            std::iter::once(request).chain(rest).for_each(|request| request.fail(errors::no_memory()));
        }
    }

    /// Has the reactor look at its deadlines until there are none.
    pub(super) fn mind(self: &Arc<Self>) {
        self.mind_with(&mut self.state.lock());
    }

    fn mind_with(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.is_minded, true) {
            self.reactor.mind(Arc::<Lane>::downgrade(self));
        }
    }

    /// Reads replies and sends, if no other thread is at it. `false`: nothing moved.
    pub(super) fn poll(self: &Arc<Self>) -> bool {
        self.interest.note_poll(self.shared.threads.now_us());
        match self.state.try_lock() {
            Some(state) => self.advance(state, true),
            None => false,
        }
    }

    /// Sets the epoll interest, so that the reactor goes on by itself.
    pub(super) fn rely_on_reactor(&self) {
        self.interest.note_sleep();
        self.arm(&self.state.lock());
    }

    /// Connects, unless there is a connection or an attempt.
    pub(super) fn rise(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let action = state.machine.on(Event::Wanted, Instant::now);
        self.perform(state, action);
    }

    /// The attempt to connect has succeeded.
    pub(super) fn attach(self: &Arc<Self>, connection: Connection) {
        self.feed(self.state.lock(), Event::Attached(connection));
    }

    /// The attempt to connect has failed.
    pub(super) fn connect_failed(self: &Arc<Self>, error: Error) {
        self.feed(self.state.lock(), Event::ConnectFailed(error));
    }

    /// Fails everything and refuses more.
    pub(super) fn close(self: &Arc<Self>, error: &Error) {
        self.feed(self.state.lock(), Event::Closed(error.clone()));
    }

    /// Ends every use of a revoked region; the connection survives where it can.
    pub(super) fn abort(self: &Arc<Self>, region: &Region) {
        self.abandon(|slice| slice.is_in(region), &errors::unregistered(region));
    }

    /// Slices were given up: see [`Slice::is_given_up`]. Takes the lock even if the lane looks idle: a thread that has just
    /// admitted some, and publishes that only when it has sent them, is to be found too.
    pub(super) fn give_up(self: &Arc<Self>) {
        self.abandon(Slice::is_given_up, &canceled());
    }

    /// Whether the peer is alive, as it was asked.
    pub(super) fn answer(self: &Arc<Self>, question: u32, alive: bool) {
        if alive {
            return self.feed(self.state.lock(), Event::Alive(question));
        }
        // What has come and nobody has read yet is a sign of life too.
        self.advance(self.state.lock(), true);
        let state = self.state.lock();
        let traffic = state.traffic();
        self.feed(state, Event::Silent { question, traffic });
    }

    /// The peer cannot be reached where the connection leads, as was found out.
    pub(super) fn note_unreachable(self: &Arc<Self>, question: u32, error: Error) {
        self.advance(self.state.lock(), true);
        let state = self.state.lock();
        let traffic = state.traffic();
        self.feed(state, Event::Unreachable { question, traffic, down: Down::Dropped(error) });
    }

    /// Finds out, once for all lanes, whether the peer answers on its handshake port.
    pub(super) async fn note_whether_peer_answers(&self, route: &Arc<dyn Route>) {
        let is_unknown = |link: Arc<TcpLink>| link.liveness().is_unknown();
        if self.link.upgrade().is_some_and(is_unknown) {
            let answers = route.probe().await.is_ok();
            self.link.upgrade().into_iter().for_each(|link| link.liveness().note(answers));
        }
    }

    /// Fails the slices that `which` picks without touching the others, if possible.
    fn abandon(self: &Arc<Self>, which: impl Fn(&Slice) -> bool, why: &Error) {
        let mut state = self.state.lock();
        let taken = state.pipeline.abandon(which);
        let stuck = taken.stuck.then(|| why.clone());
        self.feed(state, Event::Abandoned { next: taken.next, stuck });
        taken.slices.into_iter().for_each(|slice| slice.fail(why.clone()));
    }

    /// Moves what can be moved. `false`: nothing moved.
    fn advance(self: &Arc<Self>, mut state: MutexGuard<'_, State>, read: bool) -> bool {
        let State { machine, pipeline, exchange, gauge, .. } = &mut *state;
        let Some(connection) = machine.connection() else { return false };
        gauge.follow(pipeline);
        match exchange.advance(pipeline, &connection.socket, read, &self.shared.stats) {
            Ok(moved) => {
                gauge.note_replies(pipeline, read);
                let (spent, more) = (pipeline.is_spent(), !pipeline.is_empty());
                let calls = moved.blocked || connection.socket.has_more();
                if calls && !self.interest.listed.load(Relaxed) {
                    self.arm(&state);
                }
                match moved.replies {
                    true => self.feed(state, Event::Replied { spent, more }),
                    false => self.publish(&mut state),
                }
                moved.replies || moved.bytes
            }
            Err(down) => {
                self.feed(state, Event::Down(down));
                true
            }
        }
    }

    /// One step of the machine.
    fn feed(self: &Arc<Self>, state: MutexGuard<'_, State>, event: Event) {
        self.feed_at(state, event, Instant::now);
    }

    fn feed_at(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        event: Event,
        now: impl FnOnce() -> Instant,
    ) {
        let may_make_room = self.is_one_of_several_ways && !matches!(event, Event::Pushed { .. });
        let action = state.machine.on(event, now);
        self.perform(state, action);
        if may_make_room {
            self.link.upgrade().into_iter().for_each(|link| link.deal());
        }
    }

    /// Connections are watched, left and asked for under the lock; requests end and go elsewhere without it.
    fn perform(self: &Arc<Self>, mut state: MutexGuard<'_, State>, action: Option<Action>) {
        let Some(action) = action else { return self.publish(&mut state) };
        match action {
            Action::Connect => {
                self.connect();
                self.publish(&mut state);
            }
            Action::Send => {
                self.advance(state, false);
            }
            Action::Begin => self.begin(state),
            Action::Ask(question) => {
                self.publish(&mut state);
                let limit = self.silence_limit(&state);
                drop(state);
                self.link.upgrade().into_iter().for_each(|link| link.ask(self.clone(), question, limit));
            }
            // Closes it.
            Action::Discard(_) => {}
            Action::Retire { connection, connect } => {
                self.leave(connection);
                if connect {
                    self.connect();
                }
                self.publish(&mut state);
            }
            Action::TakeDown(connection, why) => {
                let (mark, rail) = (connection.mark.clone(), connection.socket.ends());
                self.leave(connection);
                self.take_down(state, why, mark, &rail);
            }
            Action::HandBack { unwatched, error } => {
                drop(unwatched);
                let waiting = self.empty(state);
                match self.link.upgrade() {
                    Some(link) => link.connect_failed(self, waiting, error),
                    None => fail_all(waiting, &error),
                }
            }
            Action::Close(connection, error) => {
                connection.into_iter().for_each(|connection| self.leave(connection));
                let waiting = self.empty(state);
                self.reactor.forget(self.id);
                fail_all(waiting, &error);
            }
            Action::Refuse(error) => fail_all(self.empty(state), &error),
        }
    }

    /// How long the peer has to answer elsewhere.
    fn silence_limit(&self, state: &State) -> Duration {
        let is_foreign = state.machine.connection().is_none_or(|connection| connection.mark.is_none());
        liveness::limit_for(self.shared.config.tcp_liveness, is_foreign)
    }

    fn connect(self: &Arc<Self>) {
        match self.link.upgrade() {
            Some(link) => link.connect(self.clone()),
            None => {
                let lane = self.clone();
                self.shared.control.spawn(async move {
                    lane.connect_failed(closed());
                });
            }
        }
    }

    fn begin(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let State { machine, pipeline, gauge, .. } = &mut *state;
        let Some(Connection { socket, terms, rail, .. }) = machine.connection() else { return };
        if let Err(error) = self.interest.watch(&self.reactor, socket.fd(), self.id) {
            return self.feed(state, Event::AttachRefused(errors::unwatchable(&error)));
        }
        gauge.go_over(rail);
        let strangers = pipeline.open(*terms);
        self.publish(&mut state);
        drop(state);
        strangers.into_iter().for_each(|request| self.refuse(request));
    }

    /// Closes a connection. Before that the watch on it ends: a copy of it in a child would keep the events coming.
    fn leave(&self, connection: Connection) {
        self.reactor.unwatch(connection.socket.fd());
    }

    /// Hands on what may be sent again.
    fn take_down(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        why: Why<Down, Error>,
        mark: Option<Mark>,
        rail: &str,
    ) {
        let link = self.link.upgrade();
        let peer = link.as_ref().map(|link| link.peer()).unwrap_or_default();
        let config = &self.shared.config;
        let down = match why {
            Why::Down(down) => down,
            Why::Stuck(error) => Down::Stuck(error),
            Why::Silent => {
                let limit = liveness::limit_for(config.tcp_liveness, mark.is_none());
                Down::Canceled(errors::silent(limit, peer.clone()))
            }
            Why::Overdue { bytes, allowed } => {
                Down::Canceled(errors::unanswered(bytes, allowed, peer.clone()))
            }
        };
        let idle = state.pipeline.is_empty();
        let fenced = mark.is_some() && link.is_some();
        let rules = Rules { peer: &peer, rail, fenced, resend_writes: config.tcp_resend_writes };
        let Ends { failed, again, behind, trails } = state.pipeline.tear_down(&down, &rules);
        self.publish(&mut state);
        let rail = state.gauge.rail().cloned();
        drop(state);
        if let (Down::Dropped(error), Some(rail)) = (&down, rail) {
            rail.note_failure(error);
            self.shared.stats.rails_failed.fetch_add(1, Relaxed);
        }
        if !idle {
            self.shared.stats.lanes_lost.fetch_add(1, Relaxed);
        }
        let Some(link) = link else {
            fail_all(again, &closed());
            return failed.into_iter().for_each(|(request, error)| request.fail(error));
        };
        match mark {
            Some(mark) if !(behind.is_empty() && trails.is_empty()) => link.follow(mark, behind, trails),
            // Nobody can be asked, so nobody will know.
            _ => drop(trails),
        }
        link.fail_all(failed.into_iter());
        link.send_again(again.into_iter());
    }

    /// Fails a request that cannot go over this connection.
    fn refuse(&self, request: Request) {
        match (request.is_revoked(), request.is_given_up()) {
            (true, _) => request.fail_revoked(),
            (_, true) => request.fail(canceled()),
            _ => request.fail(errors::restarted(self.peer())),
        }
    }

    fn peer(&self) -> String {
        self.link.upgrade().map(|link| link.peer()).unwrap_or_default()
    }

    /// Takes every request off the lane and lets go of the lock.
    fn empty(&self, mut state: MutexGuard<'_, State>) -> Vec<Request> {
        let requests = state.pipeline.close();
        self.publish(&mut state);
        requests
    }

    fn publish(&self, state: &mut State) {
        state.gauge.follow(&state.pipeline);
        self.published.update(state.machine.stage(), &state.pipeline);
    }

    fn arm(&self, state: &State) {
        if let Some(connection) = state.machine.connection() {
            let wants_to_send = state.pipeline.wants_to_send() || connection.socket.has_more();
            self.interest.arm(&self.reactor, connection.socket.fd(), self.id, wants_to_send);
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.reactor.forget(self.id);
    }
}
