//! One data-plane thread (`mte-tcp-N`): an epoll loop over lanes of this engine as initiator ([`Watched`]) and over
//! connections of peers ([`Served`]). It sleeps unless something happens. A lane that a caller polls is left alone, and
//! looked at again every millisecond.

use std::collections::HashMap;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::RawFd;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Relaxed},
};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use self::due::Due;
pub(super) use self::listening::Held;
use self::listening::Listening;
use super::sock::Courier;
use crate::error::{Class, Code, Error, Result};
use crate::memory::Region;
use crate::runtime::epoll::{self, Epoll, Event};
use crate::runtime::thread;
use crate::runtime::tracked::Tracked;
use crate::runtime::wakeup::Wakeup;

mod due;
mod listening;

/// Tokens of the epoll instance: this one, those of lanes (1 and up), this one, and those of served connections, which
/// have the highest bit set.
const WAKEUP: u64 = 0;
const LISTENER: u64 = 1 << 62;
const SERVED: u64 = 1 << 63;
/// Events of one look, and connections accepted at one event. Chosen: many share the price of a call, and none of the
/// thread's other duties waits long.
const EVENTS: usize = 64;
/// How often deadlines are looked at. Chosen: they are seconds long, so a tenth of a second later does no harm, and ten
/// wake-ups a second are far below 1 % of a core.
const TICK: Duration = Duration::from_millis(100);
/// A thread that comes so much too late to its tick was stopped, with the process or the machine: peers could not be heard.
/// Chosen: a busy host does not make it so late, and no deadline is as short.
const PAUSE: Duration = Duration::from_secs(1);
/// How often lanes that a caller polls are looked at. Chosen: the shortest that epoll_wait(2) can wait; a lane whose
/// caller stops polling without a word waits no longer than that.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// An event that came within so many times `MC_TCP_BUSY_POLL_US` makes looking for the next one worth it. Chosen: it came
/// about when a thread that looks would still have been looking.
const SOON: u32 = 2;
/// By how much the time to look shrinks after each sleep that was longer. Chosen: with the default setting nothing is
/// left of it after nine such sleeps, so an idle engine does not spin.
const WANE: u32 = 4;

/// What this thread looks after together with other threads. It is known by its token, and its connection is watched for
/// one event at a time.
pub(super) trait Watched: Send + Sync {
    /// An event came. `false`: nothing was done now, look again in a millisecond.
    fn on_ready(self: Arc<Self>) -> bool;

    /// The thread looks again. `false`: still nothing was done.
    fn look(self: Arc<Self>) -> bool;

    /// Set while the thread has it on its list of what to look at again.
    fn listed(&self) -> &AtomicBool;

    /// `region` was revoked: every use of it ends.
    fn abort(self: Arc<Self>, region: &Region);

    /// Called ten times a second after [`Reactor::mind`]: what is overdue ends. `paused`: how long the thread did not run before,
    /// if that was long. `false`: it is idle, and is not called before it is to be minded again.
    fn check_deadlines(self: Arc<Self>, now: Instant, paused: Duration) -> bool;

    /// Every request fails with `error`, and so does each that comes later.
    fn close(self: Arc<Self>, error: &Error);
}

/// What only this thread touches: a connection that it owns.
pub(super) trait Served: Send {
    /// The descriptor.
    fn fd(&self) -> RawFd;

    /// Called once before it is watched, after those were closed that had to make room. `false`: it is not to be served.
    fn settle(&mut self) -> bool;

    /// Moves what can be moved.
    fn advance(&mut self, events: u32, courier: &mut Courier) -> Outcome;

    /// A request under way touches `region`.
    fn uses(&self, region: &Arc<Region>) -> bool;

    /// What its peer knows it by; 0: by nothing.
    fn mark(&self) -> u64;

    /// It has not moved for too long and is to be closed.
    fn overdue(&self, now: Instant) -> bool;
}

/// What happens next to a served connection.
pub(super) enum Outcome {
    /// Nothing changes.
    Keep,
    /// It is watched for these events.
    Watch(u32),
    /// It is closed.
    Close,
}

/// Called with each connection that a listener accepts, and with each error that keeps it from accepting. `false`: no other one
/// is accepted before this thread has looked at what it was asked for.
pub(super) type Accepted = Box<dyn FnMut(io::Result<Tracked<TcpStream>>) -> bool + Send>;

/// What other threads ask a reactor to do.
enum Command {
    Serve(Box<dyn Served>),
    Listen(Tracked<TcpListener>, Accepted),
    Abort(Arc<Region>),
    CloseMarked(Arc<[u64]>, oneshot::Sender<()>),
}

/// Handle to the thread.
pub(super) struct Reactor {
    epoll: Epoll,
    wakeup: Wakeup,
    stop: AtomicBool,
    /// Connections of peers are to be closed at once. Publishes, to the thread, what makes them overdue.
    sweep: AtomicBool,
    listening: Listening,
    /// How long the thread looks for events before it sleeps, at the most.
    busy_poll: Duration,
    /// The thread ended by a panic. No request must wait for it.
    dead: AtomicBool,
    /// Guards what the thread looks after together with others, by token.
    watched: Mutex<HashMap<u64, Weak<dyn Watched>>>,
    due: Due<dyn Watched>,
    /// Guards what other threads asked for since this one last looked.
    commands: Mutex<Vec<Command>>,
}

impl Reactor {
    /// Makes the epoll instance; the thread is started by [`Reactor::run`].
    pub(super) fn new(busy_poll: Duration) -> Result<Arc<Self>> {
        let failed = |e: io::Error| {
            Error::io(Code::Socket, "cannot set up a data-plane thread (check ulimit -n)", &e)
                .transient(Class::Resource)
        };
        let epoll = Epoll::new().map_err(failed)?;
        let wakeup = Wakeup::new().map_err(failed)?;
        epoll.add(wakeup.fd(), WAKEUP, epoll::IN).map_err(failed)?;
        Ok(Arc::new(Reactor {
            epoll,
            wakeup,
            stop: AtomicBool::new(false),
            sweep: AtomicBool::new(false),
            listening: Listening::default(),
            busy_poll,
            dead: AtomicBool::new(false),
            watched: Mutex::default(),
            due: Due::default(),
            commands: Mutex::default(),
        }))
    }

    /// Starts the thread; it ends after [`Reactor::stop`].
    pub(super) fn run(self: &Arc<Self>, index: usize) -> Result<JoinHandle<()>> {
        let courier = Courier::new().map_err(|e| Error::io(Code::Socket, "cannot create a pipe", &e))?;
        let (reactor, panicked) = (self.clone(), self.clone());
        let body = move || {
            Loop {
                reactor,
                courier,
                served: HashMap::new(),
                next_id: SERVED,
                listener: None,
                patience: Duration::ZERO,
            }
            .run()
        };
        let on_panic = move || {
            panicked.dead.store(true, Relaxed);
            panicked.all_watched().into_iter().for_each(|watched| watched.close(&thread_failed()));
        };
        thread::spawn(&format!("mte-tcp-{index}"), body, on_panic)
    }

    /// Asks the thread to end; does not wait for it.
    pub(super) fn stop(&self) {
        self.stop.store(true, Relaxed);
        self.wakeup.set();
    }

    /// Serves a connection of a peer.
    pub(super) fn serve(&self, peer: Box<dyn Served>) {
        self.ask(Command::Serve(peer));
    }

    /// Accepts connections from `listener`.
    pub(super) fn listen(&self, listener: Tracked<TcpListener>, accepted: Accepted) {
        self.ask(Command::Listen(listener, accepted));
    }

    /// Drops the connections of peers that use `region`, and ends the uses by lanes.
    pub(super) fn abort(&self, region: &Arc<Region>) {
        self.ask(Command::Abort(region.clone()));
    }

    /// Closes the connections of peers with these marks. The receiver hears when no byte of them is taken any more.
    pub(super) fn close_marked(&self, marks: Arc<[u64]>) -> oneshot::Receiver<()> {
        let (done, closed) = oneshot::channel();
        // A thread that ended by a panic has closed all of its connections.
        match self.is_dead() {
            true => drop(done.send(())),
            false => self.ask(Command::CloseMarked(marks, done)),
        }
        closed
    }

    /// Has connections of peers that are overdue closed now, instead of at the next tick.
    pub(super) fn sweep(&self) {
        if !self.sweep.swap(true, AcqRel) {
            self.wakeup.set();
        }
    }

    /// From now on the thread looks after `watched`, whose token is `id`.
    pub(super) fn adopt(&self, id: u64, watched: Weak<dyn Watched>) {
        self.watched.lock().insert(id, watched);
    }

    /// From now on `watched` has deadlines, until it says that it has none.
    pub(super) fn mind(&self, watched: Weak<dyn Watched>) {
        self.due.add(watched);
    }

    /// The thread no longer looks after what has the token `id`.
    pub(super) fn forget(&self, id: u64) {
        self.watched.lock().remove(&id);
    }

    /// Watches a new connection that belongs to what has the token `id`.
    pub(super) fn watch(&self, fd: RawFd, id: u64, interest: u32) -> io::Result<()> {
        self.epoll.add(fd, id, interest)
    }

    /// Ends the watch on a descriptor. Has to come before it is closed.
    pub(super) fn unwatch(&self, fd: RawFd) {
        self.epoll.remove(fd);
    }

    /// The thread ended by a panic.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Relaxed)
    }

    /// Changes what a connection is watched for.
    pub(super) fn rewatch(&self, fd: RawFd, id: u64, interest: u32) {
        self.epoll.modify(fd, id, interest);
    }

    /// Without memory nothing is asked: a connection is closed, an abort comes again, and whoever waits for a close hears that
    /// it did not happen.
    fn ask(&self, command: Command) {
        let mut commands = self.commands.lock();
        if commands.try_reserve(1).is_ok() {
            commands.push(command);
            drop(commands);
            self.wakeup.set();
        }
    }

    /// Ends the watch on a connection that is about to be closed. Always `false`: it is not to be kept.
    fn let_go(&self, peer: &dyn Served) -> bool {
        self.epoll.remove(peer.fd());
        false
    }

    fn watched(&self, id: u64) -> Option<Arc<dyn Watched>> {
        self.watched.lock().get(&id)?.upgrade()
    }

    fn all_watched(&self) -> Vec<Arc<dyn Watched>> {
        self.watched.lock().values().filter_map(Weak::upgrade).collect()
    }
}

/// What only the thread touches.
struct Loop {
    reactor: Arc<Reactor>,
    courier: Courier,
    served: HashMap<u64, Box<dyn Served>>,
    next_id: u64,
    listener: Option<(Tracked<TcpListener>, Accepted)>,
    /// How long to look for events before sleeping. Shrinks while looking finds none.
    patience: Duration,
}

impl Loop {
    fn run(mut self) {
        let mut events = [Event { events: 0, u64: 0 }; EVENTS];
        let mut look_again: Vec<Arc<dyn Watched>> = Vec::new();
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
                    _ if token & SERVED != 0 => self.advance(token, event.events),
                    _ => {
                        let busy = self.reactor.watched(token).filter(|it| !it.clone().on_ready());
                        look_again.extend(busy.filter(|it| !it.listed().swap(true, Relaxed)));
                    }
                }
            }
            let now = Instant::now();
            if now - last_look >= LOOK_AGAIN {
                last_look = now;
                look_again.retain(|it| !(it.clone().look() && it.listed().swap(false, Relaxed)));
            }
            if now - last_tick >= TICK {
                let since = now - std::mem::replace(&mut last_tick, now);
                self.tick(now, if since > PAUSE { since } else { Duration::ZERO });
            }
        }
        self.reactor.commands.lock().clear();
    }

    /// Waits for events. In a stream of requests the next one comes within microseconds, and waking a sleeping thread
    /// costs more than that. So this looks for a while before it sleeps, as long as that was worth it lately.
    fn wait(&mut self, events: &mut [Event], timeout_ms: i32) -> usize {
        let most = self.reactor.busy_poll;
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
        let soon = ready > 0 && began.elapsed() < SOON * most;
        self.patience = if soon { most } else { self.patience / WANE };
        ready
    }

    fn obey(&mut self) {
        self.reactor.wakeup.clear();
        let commands = std::mem::take(&mut *self.reactor.commands.lock());
        // After the commands were taken and before they are obeyed: those that are to be served may have displaced others.
        if self.reactor.sweep.swap(false, AcqRel) {
            self.sweep(Instant::now());
        }
        if self.reactor.listening.is_due.swap(false, AcqRel) {
            self.hear(epoll::IN);
        }
        for command in commands {
            match command {
                Command::Serve(peer) => self.serve(peer),
                Command::Listen(listener, accepted) => self.listen(listener, accepted),
                Command::CloseMarked(marks, done) => {
                    let reactor = &self.reactor;
                    self.served.retain(|_, peer| {
                        let marked = peer.mark() != 0 && marks.contains(&peer.mark());
                        !marked || reactor.let_go(&**peer)
                    });
                    let _ = done.send(());
                }
                Command::Abort(region) => {
                    let reactor = &self.reactor;
                    self.served.retain(|_, peer| !peer.uses(&region) || reactor.let_go(&**peer));
                    for watched in self.reactor.all_watched() {
                        watched.abort(&region);
                    }
                }
            }
        }
    }

    fn serve(&mut self, mut peer: Box<dyn Served>) {
        if self.served.try_reserve(1).is_err() || !peer.settle() {
            return;
        }
        self.next_id += 1;
        let id = self.next_id;
        let interest = epoll::IN;
        if self.reactor.epoll.add(peer.fd(), id, interest).is_ok() {
            self.served.insert(id, peer);
        }
    }

    fn advance(&mut self, id: u64, events: u32) {
        let Some(peer) = self.served.get_mut(&id) else { return };
        match peer.advance(events, &mut self.courier) {
            Outcome::Keep => {}
            Outcome::Watch(interest) => {
                self.reactor.epoll.modify(peer.fd(), id, interest);
            }
            Outcome::Close => {
                self.reactor.let_go(&**peer);
                self.served.remove(&id);
            }
        }
    }

    fn tick(&mut self, now: Instant, paused: Duration) {
        self.hear(epoll::IN);
        self.sweep(now);
        self.reactor.due.pass(|watched| watched.check_deadlines(now, paused));
        if self.reactor.due.is_lost() {
            for watched in self.reactor.all_watched() {
                watched.check_deadlines(now, paused);
            }
        }
    }

    fn sweep(&mut self, now: Instant) {
        let reactor = &self.reactor;
        self.served.retain(|_, peer| !peer.overdue(now) || reactor.let_go(&**peer));
    }
}

/// What requests fail with whose thread has ended by a panic.
pub(super) fn thread_failed() -> Error {
    let text = "a data-plane thread of the engine failed; destroy the engine and report this";
    Error::new(Code::Socket, text).permanent(Class::Internal)
}
