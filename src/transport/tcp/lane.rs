//! One connection to a peer, as initiator: requests are pipelined, replies come in order.
//!
//! A lane is advanced by whoever has reason to: the submitting thread sends, a polling
//! thread reads replies, the lane's reactor does both when nobody polls. The state is
//! under one lock, taken once per posted run or poll, and never held while waiting.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::connect::Made;
use super::ends::Down;
use super::link::TcpLink;
use super::reactor::{thread_failed, Reactor, Watched};
use super::request::Request;
use super::shared::Shared;
use super::stream::Stream;
use crate::error::{Class, Code, Error};
use crate::memory::Region;
use crate::transport::slice::Slice;

/// A caller that polled within this time is expected to poll again, so the reactor
/// leaves the lane to it.
const POLLED_RECENTLY: Duration = Duration::from_micros(200);

/// Where the connection stands.
enum Phase {
    /// Not connected; the next request connects.
    Idle,
    /// A task on the control plane is connecting.
    Connecting,
    /// Requests flow.
    Up(super::sock::Socket),
    /// The link is closed: requests fail with this.
    Closed(Error),
}

/// A phase as other threads see it.
#[repr(u8)]
enum Standing {
    Down,
    Connecting,
    Up,
}

struct State {
    phase: Phase,
    stream: Stream,
    /// When the request whose reply is awaited got its turn.
    turn_began: Instant,
}

/// A lane; shared by its link, its reactor and the control plane.
pub(super) struct Lane {
    /// Token in the reactor.
    pub id: u64,
    link: Weak<TcpLink>,
    shared: Arc<Shared>,
    reactor: Arc<Reactor>,
    /// Requests on the lane, for a cheap look before locking.
    pending: AtomicUsize,
    /// Payload bytes of those requests, for choosing a lane.
    load: AtomicU64,
    /// A `Standing`, for choosing a lane without locking.
    standing: AtomicU8,
    /// The reactor has it on its list of lanes to look at.
    listed: AtomicBool,
    /// Microseconds since the transport started at which a caller last polled.
    polled_at: AtomicU64,
    /// The epoll interest that is set; 0 after an event until it is set again.
    armed: AtomicU32,
    state: Mutex<State>,
}

const IN: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP) as u32;
const OUT: u32 = libc::EPOLLOUT as u32;
const ONESHOT: u32 = libc::EPOLLONESHOT as u32;

impl Lane {
    /// An unconnected lane of `link`, watched by `reactor`.
    pub(super) fn new(link: Weak<TcpLink>, shared: Arc<Shared>, reactor: Arc<Reactor>) -> Arc<Self> {
        let lane = Arc::new(Lane {
            id: shared.next_lane_id(),
            link,
            reactor,
            pending: AtomicUsize::new(0),
            load: AtomicU64::new(0),
            standing: AtomicU8::new(Standing::Down as u8),
            listed: AtomicBool::new(false),
            polled_at: AtomicU64::new(0),
            armed: AtomicU32::new(0),
            state: Mutex::new(State {
                phase: Phase::Idle,
                stream: Stream::default(),
                turn_began: Instant::now(),
            }),
            shared,
        });
        let watched: Weak<Lane> = Arc::downgrade(&lane);
        lane.reactor.adopt(lane.id, watched);
        lane
    }

    /// Payload bytes waiting or under way.
    pub(super) fn load(&self) -> u64 {
        self.load.load(Relaxed)
    }

    /// A connection is there.
    pub(super) fn is_up(&self) -> bool {
        self.standing.load(Relaxed) == Standing::Up as u8
    }

    /// A connection is there or being made.
    pub(super) fn is_rising(&self) -> bool {
        self.standing.load(Relaxed) != Standing::Down as u8
    }

    /// Anything waiting or under way.
    pub(super) fn is_busy(&self) -> bool {
        self.pending.load(Relaxed) != 0
    }

    /// Appends requests and sends what the socket takes.
    pub(super) fn push(self: &Arc<Self>, requests: impl Iterator<Item = Request>) {
        let mut state = self.state.lock();
        if state.stream.is_empty() {
            state.turn_began = Instant::now();
        }
        let mut refused = Vec::new();
        let up = matches!(state.phase, Phase::Up(_));
        let closed = match &state.phase {
            Phase::Closed(error) => Some(error.clone()),
            _ if self.reactor.is_dead() => Some(thread_failed()),
            _ => None,
        };
        for request in requests {
            // Under the lock: whoever aborts a region looks at the lanes after revoking it.
            if closed.is_some() || request.is_revoked() || up && !state.stream.suits(&request) {
                refused.push(request);
            } else {
                state.stream.push(request);
            }
        }
        if matches!(state.phase, Phase::Idle) && !state.stream.is_empty() {
            state.phase = Phase::Connecting;
            self.connect();
        }
        self.advance(state, false);
        refuse(refused, closed.as_ref());
    }

    /// Reads replies and sends, if no other thread is at it. `false`: nothing moved.
    pub(super) fn poll(self: &Arc<Self>) -> bool {
        self.polled_at.store(self.shared.now_us(), Relaxed);
        match self.state.try_lock() {
            Some(state) => self.advance(state, true),
            None => false,
        }
    }

    /// Sets the epoll interest, so that the reactor goes on by itself.
    pub(super) fn rely_on_reactor(&self) {
        self.polled_at.store(0, Relaxed);
        let state = self.state.lock();
        self.arm(&state);
    }

    /// A connection for the waiting requests.
    pub(super) fn attach(self: &Arc<Self>, made: Made) {
        let Made { socket, v2, reusable, incarnation } = made;
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Connecting) {
            return;
        }
        // First the note, then the interest: the event may come before this function ends.
        self.armed.store(IN | OUT, Relaxed);
        if let Err(error) = self.reactor.watch(socket.fd(), self.id, IN | OUT | ONESHOT) {
            drop(state);
            self.connect_failed(Error::io(Code::Socket, "cannot watch a data connection", &error));
            return;
        }
        let strangers = state.stream.open(v2, reusable, incarnation);
        state.turn_began = Instant::now();
        state.phase = Phase::Up(socket);
        self.publish(&state);
        drop(state);
        refuse(strangers, None);
    }

    /// No connection can be had.
    pub(super) fn connect_failed(self: &Arc<Self>, error: Error) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Connecting) {
            state.phase = Phase::Idle;
        }
        let waiting = state.stream.take_all();
        self.publish(&state);
        drop(state);
        match self.link.upgrade() {
            Some(link) => link.connect_failed(self, waiting, error),
            None => waiting.into_iter().for_each(|request| request.fail(error.clone())),
        }
    }

    /// Fails everything and refuses more.
    pub(super) fn close(&self, error: &Error) {
        let mut state = self.state.lock();
        let waiting = state.stream.take_all();
        self.unwatch(&state);
        state.phase = Phase::Closed(error.clone());
        self.publish(&state);
        drop(state);
        self.reactor.forget(self.id);
        waiting.into_iter().for_each(|request| request.fail(error.clone()));
    }

    /// Ends every use of a revoked region; the connection survives where it can.
    pub(super) fn abort(self: &Arc<Self>, region: &Region) {
        let text = format!("the region at {:#x} was unregistered while a request was running", region.addr);
        let why = Error::new(Code::AddressNotRegistered, text).permanent(Class::Canceled);
        self.abandon(|slice| slice.is_in(region), &why);
    }

    fn timeout(&self, text: &str) -> Error {
        let peer = self.link.upgrade().map(|link| link.peer()).unwrap_or_default();
        Error::new(Code::Socket, text).transient(Class::Timeout).peer(peer)
    }

    /// Fails the slices that `which` picks without touching the others, if possible.
    fn abandon(self: &Arc<Self>, which: impl Fn(&Slice) -> bool, why: &Error) {
        let mut state = self.state.lock();
        let (ended, stuck) = state.stream.abandon(which);
        self.publish(&state);
        if stuck {
            // Half of a body is sent: the rest can only come from the buffer, so give up
            // the connection.
            self.take_down(state, Down::Dropped(why.clone()));
        } else {
            drop(state);
        }
        ended.into_iter().for_each(|slice| slice.fail(why.clone()));
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

    /// Moves what can be moved; ends the connection if it is dead.
    fn advance(self: &Arc<Self>, mut state: MutexGuard<'_, State>, read: bool) -> bool {
        let State { phase, stream, turn_began } = &mut *state;
        let Phase::Up(socket) = phase else {
            self.publish(&state);
            return false;
        };
        let moved = stream.advance(socket, read, &self.shared.stats);
        match moved {
            Ok(moved) => {
                if moved.replies {
                    *turn_began = Instant::now();
                }
                if stream.spent() {
                    // One request per connection: the next needs a fresh one.
                    let more = !stream.is_empty();
                    self.reactor.unwatch(socket.fd());
                    *phase = if more { Phase::Connecting } else { Phase::Idle };
                    if more {
                        self.connect();
                    }
                } else if moved.blocked && !self.listed.load(Relaxed) {
                    self.arm(&state);
                }
                self.publish(&state);
                moved.replies || moved.bytes
            }
            Err(down) => {
                self.take_down(state, down);
                true
            }
        }
    }

    /// Closes the connection and hands on what may be sent again.
    fn take_down(self: &Arc<Self>, mut state: MutexGuard<'_, State>, down: Down) {
        self.unwatch(&state);
        state.phase = Phase::Idle;
        let peer = self.link.upgrade();
        let label = peer.as_ref().map(|link| link.peer()).unwrap_or_default();
        let idle = state.stream.is_empty();
        let ends = state.stream.tear_down(&down, &label);
        self.publish(&state);
        drop(state);
        if !idle {
            self.shared.stats.lanes_lost.fetch_add(1, Relaxed);
        }
        for (request, error) in ends.failed {
            request.fail(error);
        }
        match peer {
            Some(link) => link.send_again(ends.again),
            None => ends.again.into_iter().for_each(|request| request.fail(closed())),
        }
    }

    fn publish(&self, state: &State) {
        self.pending.store(state.stream.len(), Relaxed);
        self.load.store(state.stream.load_bytes(), Relaxed);
        let standing = match state.phase {
            Phase::Up(_) => Standing::Up,
            Phase::Connecting => Standing::Connecting,
            Phase::Idle | Phase::Closed(_) => Standing::Down,
        };
        self.standing.store(standing as u8, Relaxed);
    }

    /// Before the socket is closed: a copy of it in a child would keep the events coming.
    fn unwatch(&self, state: &State) {
        if let Phase::Up(socket) = &state.phase {
            self.reactor.unwatch(socket.fd());
        }
    }

    fn arm(&self, state: &State) {
        let Phase::Up(socket) = &state.phase else { return };
        let want = if state.stream.wants_to_send() { IN | OUT } else { IN };
        if self.armed.swap(want, Relaxed) != want {
            self.reactor.rewatch(socket.fd(), self.id, want | ONESHOT);
        }
    }

    fn polled_recently(&self) -> bool {
        let polled = self.polled_at.load(Relaxed);
        polled != 0 && self.shared.now_us().saturating_sub(polled) < POLLED_RECENTLY.as_micros() as u64
    }
}

impl Watched for Lane {
    fn on_ready(self: Arc<Self>) -> bool {
        self.armed.store(0, Relaxed);
        self.look()
    }

    /// Nothing is done while another thread is at it, or a caller polls.
    fn look(self: Arc<Self>) -> bool {
        let Some(state) = self.state.try_lock() else {
            return false;
        };
        if self.polled_recently() {
            return false;
        }
        self.advance(state, true);
        // Locked anew: after a teardown there is nothing to arm.
        let state = self.state.lock();
        self.arm(&state);
        true
    }

    fn listed(&self) -> &AtomicBool {
        &self.listed
    }

    fn abort(self: Arc<Self>, region: &Region) {
        Lane::abort(&self, region);
    }

    fn check_deadlines(self: Arc<Self>, now: Instant) {
        if !self.is_busy() {
            return;
        }
        if self.shared.config.slice_timeout.is_some() {
            let due = |slice: &Slice| slice.work().deadline.is_some_and(|deadline| deadline <= now);
            self.abandon(due, &self.timeout("the task's deadline (MC_SLICE_TIMEOUT) passed"));
        }
        let state = self.state.lock();
        let Phase::Up(_) = state.phase else { return };
        let Some(bytes) = state.stream.awaited_bytes() else { return };
        let config = &self.shared.config;
        let allowed = config.tcp_status_timeout + Duration::from_secs(bytes / config.tcp_min_rate);
        if now.saturating_duration_since(state.turn_began) > allowed {
            let text = format!(
                "no answer to a request of {bytes} bytes within {} s (MC_TCP_STATUS_TIMEOUT_SEC, MC_TCP_MIN_RATE); \
                 the peer may be stopped or unreachable, and bytes of a WRITE may still arrive there",
                allowed.as_secs()
            );
            self.take_down(state, Down::Canceled(self.timeout(&text)));
        }
    }

    fn close(&self, error: &Error) {
        Lane::close(self, error);
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.reactor.forget(self.id);
    }
}

/// Fails requests that never got onto the lane.
fn refuse(requests: Vec<Request>, closed: Option<&Error>) {
    for request in requests {
        match closed {
            Some(error) => request.fail(error.clone()),
            None if request.is_revoked() => request.fail_revoked(),
            None => {
                let text = "the peer restarted after its descriptor was read; open the segment again";
                request.fail(Error::new(Code::Socket, text).transient(Class::Metadata));
            }
        }
    }
}

fn closed() -> Error {
    Error::new(Code::Socket, "the segment was closed").permanent(Class::Canceled)
}
