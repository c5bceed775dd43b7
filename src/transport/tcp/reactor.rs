//! One data-plane thread (`mte-tcp-N`): an epoll loop over lanes of this engine as
//! initiator and connections of peers. It sleeps unless something happens; a lane that a
//! caller polls is left alone and looked at again every millisecond.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::inbound::{Inbound, Outcome};
use super::lane::Lane;
use super::sock::{Courier, Epoll, Event, Socket};
use super::Shared;
use crate::error::{Class, Code, Error, Result};
use crate::memory::Region;
use crate::runtime::fork::Tracked;
use crate::runtime::thread;
use crate::runtime::wakeup::Wakeup;

const WAKEUP: u64 = 0;
const LISTENER: u64 = 1 << 62;
const INBOUND: u64 = 1 << 63;
const EVENTS: usize = 64;
const TICK: Duration = Duration::from_millis(100);
/// How often lanes that a caller polls are looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What other threads ask a reactor to do.
enum Command {
    Serve(Socket),
    Listen(Tracked<TcpListener>),
    Abort(Arc<Region>),
}

/// Handle to the thread.
pub struct Reactor {
    epoll: Epoll,
    wakeup: Wakeup,
    stop: AtomicBool,
    /// The thread ended by a panic; lanes must not wait for it.
    dead: AtomicBool,
    /// Guards the lanes that the thread looks after.
    lanes: Mutex<HashMap<u64, Weak<Lane>>>,
    /// Guards what was asked for since the thread last looked.
    commands: Mutex<Vec<Command>>,
}

impl Reactor {
    /// Makes the epoll instance; the thread is started by [`Reactor::run`].
    pub fn new() -> Result<Arc<Self>> {
        let failed = |e: io::Error| {
            Error::io(Code::Socket, "cannot set up a data-plane thread (check ulimit -n)", &e)
                .class(Class::Resource, true)
        };
        let epoll = Epoll::new().map_err(failed)?;
        let wakeup = Wakeup::new().map_err(failed)?;
        epoll.add(wakeup.fd(), WAKEUP, libc::EPOLLIN as u32).map_err(failed)?;
        Ok(Arc::new(Reactor {
            epoll,
            wakeup,
            stop: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            lanes: Mutex::default(),
            commands: Mutex::default(),
        }))
    }

    /// Starts the thread; it ends after [`Reactor::stop`].
    pub fn run(self: &Arc<Self>, index: usize, shared: Arc<Shared>) -> Result<JoinHandle<()>> {
        let courier = Courier::new().map_err(|e| Error::io(Code::Socket, "cannot create a pipe", &e))?;
        let (reactor, panicked) = (self.clone(), self.clone());
        let body = move || {
            Loop {
                reactor,
                shared,
                courier,
                inbound: HashMap::new(),
                next_id: INBOUND,
                listener: None,
                patience: Duration::ZERO,
            }
            .run()
        };
        let on_panic = move || {
            panicked.dead.store(true, Relaxed);
            let lanes = panicked.all_lanes();
            lanes.iter().for_each(|lane| lane.close(&super::thread_failed()));
        };
        thread::spawn(&format!("mte-tcp-{index}"), body, on_panic)
    }

    /// Lets the thread end.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
        self.wakeup.set();
    }

    /// Serves a connection of a peer.
    pub fn serve(&self, socket: Socket) {
        self.ask(Command::Serve(socket));
    }

    /// Accepts connections from `listener`.
    pub fn listen(&self, listener: Tracked<TcpListener>) {
        self.ask(Command::Listen(listener));
    }

    /// Drops the connections of peers that use `region`, and the own uses.
    pub fn abort(&self, region: &Arc<Region>) {
        self.ask(Command::Abort(region.clone()));
    }

    /// Looks after a lane from now on.
    pub fn adopt(&self, lane: &Arc<Lane>) {
        self.lanes.lock().insert(lane.id, Arc::downgrade(lane));
    }

    /// No longer does.
    pub fn forget(&self, lane_id: u64) {
        self.lanes.lock().remove(&lane_id);
    }

    /// Watches a lane's new connection.
    pub fn watch(&self, fd: RawFd, lane_id: u64, interest: u32) -> io::Result<()> {
        self.epoll.add(fd, lane_id, interest)
    }

    /// Before a watched descriptor is closed.
    pub fn unwatch(&self, fd: RawFd) {
        self.epoll.remove(fd);
    }

    /// The thread ended by a panic.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Relaxed)
    }

    /// Changes what a lane's connection is watched for.
    pub fn rewatch(&self, fd: RawFd, lane_id: u64, interest: u32) {
        // Fails only for a descriptor that is not watched, which `watch` excludes.
        let _ = self.epoll.modify(fd, lane_id, interest);
    }

    fn ask(&self, command: Command) {
        self.commands.lock().push(command);
        self.wakeup.set();
    }

    /// Ends the watch on a connection that is about to be closed; never keeps it.
    fn let_go(&self, peer: &Inbound) -> bool {
        self.epoll.remove(peer.fd());
        false
    }

    fn lane(&self, id: u64) -> Option<Arc<Lane>> {
        self.lanes.lock().get(&id)?.upgrade()
    }

    fn all_lanes(&self) -> Vec<Arc<Lane>> {
        self.lanes.lock().values().filter_map(Weak::upgrade).collect()
    }
}

/// What only the thread touches.
struct Loop {
    reactor: Arc<Reactor>,
    shared: Arc<Shared>,
    courier: Courier,
    inbound: HashMap<u64, Inbound>,
    next_id: u64,
    listener: Option<Tracked<TcpListener>>,
    /// How long to look for events before sleeping; shrinks while that finds none.
    patience: Duration,
}

impl Loop {
    fn run(mut self) {
        let mut events = [Event { events: 0, u64: 0 }; EVENTS];
        let mut look_again: Vec<Arc<Lane>> = Vec::new();
        let mut last_tick = Instant::now();
        let mut last_look = last_tick;
        while !self.reactor.stop.load(Relaxed) {
            let timeout = if look_again.is_empty() { TICK } else { LOOK_AGAIN };
            let ready = self.wait(&mut events, timeout.as_millis() as i32);
            for event in &events[..ready] {
                let token = event.u64;
                match token {
                    WAKEUP => self.obey(),
                    LISTENER => self.accept(),
                    _ if token & INBOUND != 0 => self.advance(token, event.events),
                    _ => {
                        let lane = self.reactor.lane(token).filter(|lane| !lane.on_ready());
                        look_again.extend(lane.filter(|lane| !lane.listed.swap(true, Relaxed)));
                    }
                }
            }
            let now = Instant::now();
            if now - last_look >= LOOK_AGAIN {
                last_look = now;
                look_again.retain(|lane| !(lane.look() && lane.listed.swap(false, Relaxed)));
            }
            if now - last_tick >= TICK {
                last_tick = now;
                self.tick(now);
            }
        }
        self.reactor.commands.lock().clear();
    }

    /// Waits for events. In a stream of requests the next one comes within microseconds, and
    /// waking a sleeping thread costs more than that; so this looks a while before it sleeps,
    /// as long as that has been worth it lately.
    fn wait(&mut self, events: &mut [Event], timeout_ms: i32) -> usize {
        let most = self.shared.config.tcp_busy_poll;
        let began = Instant::now();
        while !self.patience.is_zero() {
            match self.reactor.epoll.wait(events, 0) {
                0 if began.elapsed() > self.patience => break,
                0 => std::thread::yield_now(),
                ready => {
                    self.patience = most;
                    return ready;
                }
            }
        }
        let ready = self.reactor.epoll.wait(events, timeout_ms);
        let soon = ready > 0 && began.elapsed() < 2 * most;
        self.patience = if soon { most } else { self.patience / 4 };
        ready
    }

    fn obey(&mut self) {
        self.reactor.wakeup.clear();
        let commands = std::mem::take(&mut *self.reactor.commands.lock());
        for command in commands {
            match command {
                Command::Serve(socket) => self.serve(socket),
                Command::Listen(listener) => self.listen(listener),
                Command::Abort(region) => {
                    let reactor = &self.reactor;
                    self.inbound.retain(|_, peer| !peer.uses(&region) || reactor.let_go(peer));
                    for lane in self.reactor.all_lanes() {
                        lane.abort(&region);
                    }
                }
            }
        }
    }

    fn listen(&mut self, listener: Tracked<TcpListener>) {
        let interest = libc::EPOLLIN as u32;
        match self.reactor.epoll.add(listener.as_raw_fd(), LISTENER, interest) {
            Ok(()) => self.listener = Some(listener),
            Err(e) => tracing::error!("cannot accept data connections: {e}"),
        }
    }

    fn accept(&mut self) {
        // Bounded, so that a flood of connections does not starve the others.
        for _ in 0..EVENTS {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, _)) => self.shared.distribute(stream),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // Only that connection is gone already.
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
                Err(e) => {
                    // Out of descriptors, mostly: the listener stays ready, so wait for the
                    // tick instead of spinning.
                    self.shared.note_accept_error(&e);
                    let fd = listener.as_raw_fd();
                    let _ = self.reactor.epoll.modify(fd, LISTENER, 0);
                    return;
                }
            }
        }
    }

    fn serve(&mut self, socket: Socket) {
        self.next_id += 1;
        let id = self.next_id;
        let interest = libc::EPOLLIN as u32;
        let peer = Inbound::new(socket, &self.shared);
        if self.reactor.epoll.add(peer.fd(), id, interest).is_ok() {
            self.inbound.insert(id, peer);
        }
    }

    fn advance(&mut self, id: u64, events: u32) {
        let Some(peer) = self.inbound.get_mut(&id) else { return };
        match peer.advance(events, &mut self.courier) {
            Outcome::Keep => {}
            Outcome::Watch(interest) => {
                let _ = self.reactor.epoll.modify(peer.fd(), id, interest);
            }
            Outcome::Close => {
                self.reactor.let_go(peer);
                self.inbound.remove(&id);
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        if let Some(listener) = &self.listener {
            let _ = self.reactor.epoll.modify(listener.as_raw_fd(), LISTENER, libc::EPOLLIN as u32);
        }
        let limit = self.shared.config.tcp_body_timeout;
        let reactor = &self.reactor;
        self.inbound.retain(|_, peer| !peer.overdue(now, limit) || reactor.let_go(peer));
        for lane in self.reactor.all_lanes() {
            lane.check_deadlines(now);
        }
    }
}
