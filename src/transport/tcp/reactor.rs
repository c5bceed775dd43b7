//! One data-plane thread (`mte-tcp-N`): an epoll loop over lanes of this engine as initiator ([`Watched`]) and over
//! connections of peers ([`Served`]). It sleeps unless something happens. A lane that a caller polls is left alone, and
//! looked at again every millisecond.

use std::collections::HashMap;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::ops::Deref;
use std::os::fd::RawFd;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Relaxed},
};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use self::due::Due;
pub(super) use self::listening::Held;
use self::listening::Listening;
use super::sock::Courier;
use crate::error::{Class, Code, Error, Result};
use crate::memory::Region;
use crate::runtime::epoll::{self, Event};
use crate::runtime::reactor::pace::Pace;
use crate::runtime::reactor::patience::Patience;
use crate::runtime::reactor::{self, Handle, EVENTS, WAKEUP};
use crate::runtime::tracked::Tracked;

mod due;
mod listening;

/// Tokens of the epoll instance, beside that of commands: those of lanes (1 and up), this one, and those of served connections,
/// which have the highest bit set.
const LISTENER: u64 = 1 << 62;
const SERVED: u64 = 1 << 63;

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

/// What other threads ask a reactor to do. Without memory nothing is asked: a connection is closed, an abort comes again, and
/// whoever waits for a close hears that it did not happen.
pub(super) enum Command {
    Serve(Box<dyn Served>),
    Listen(Tracked<TcpListener>, Accepted),
    Abort(Arc<Region>),
    CloseMarked(Arc<[u64]>, oneshot::Sender<()>),
}

/// Handle to the thread.
pub(super) struct Reactor {
    handle: Handle<dyn Watched, Command>,
    /// Connections of peers are to be closed at once. Publishes, to the thread, what makes them overdue.
    sweep: AtomicBool,
    listening: Listening,
    due: Due<dyn Watched>,
}

impl Deref for Reactor {
    type Target = Handle<dyn Watched, Command>;

    fn deref(&self) -> &Self::Target {
        &self.handle
    }
}

impl Reactor {
    /// Makes the epoll instance; the thread is started by [`Reactor::run`].
    pub(super) fn new(busy_poll: Duration) -> Result<Arc<Self>> {
        let handle = Handle::new(busy_poll, "cannot set up a data-plane thread (check ulimit -n)")?;
        let (sweep, listening, due) = (AtomicBool::new(false), Listening::default(), Due::default());
        Ok(Arc::new(Reactor { handle, sweep, listening, due }))
    }

    /// Starts the thread; it ends after [`Handle::stop`].
    pub(super) fn run(self: &Arc<Self>, index: usize) -> Result<JoinHandle<()>> {
        let courier = Courier::new().map_err(|e| Error::io(Code::Socket, "cannot create a pipe", &e))?;
        let reactor = self.clone();
        let body =
            move || Loop { reactor, courier, served: HashMap::new(), next_id: SERVED, listener: None }.run();
        reactor::start(self, &format!("mte-tcp-{index}"), body, |watched| watched.close(&thread_failed()))
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
            self.wake();
        }
    }

    /// From now on `watched` has deadlines, until it says that it has none.
    pub(super) fn mind(&self, watched: Weak<dyn Watched>) {
        self.due.add(watched);
    }

    /// Ends the watch on a connection that is about to be closed. Always `false`: it is not to be kept.
    fn let_go(&self, peer: &dyn Served) -> bool {
        self.unwatch(peer.fd());
        false
    }
}

/// What only the thread touches.
struct Loop {
    reactor: Arc<Reactor>,
    courier: Courier,
    served: HashMap<u64, Box<dyn Served>>,
    next_id: u64,
    listener: Option<(Tracked<TcpListener>, Accepted)>,
}

impl Loop {
    fn run(mut self) {
        let mut events = [Event { events: 0, u64: 0 }; EVENTS];
        let mut look_again: Vec<Arc<dyn Watched>> = Vec::new();
        let mut patience = self.reactor.patience();
        let mut pace = Pace::new(Instant::now());
        while !self.reactor.is_stopping() {
            let ready = self.wait(&mut events, &mut patience, Pace::timeout_ms(!look_again.is_empty()));
            for event in &events[..ready] {
                let token = event.u64;
                match token {
                    WAKEUP => self.obey(),
                    LISTENER => self.accept(),
                    _ if token & SERVED != 0 => self.advance(token, event.events),
                    _ => {
                        let busy = self.reactor.find(token).filter(|it| !it.clone().on_ready());
                        look_again.extend(busy.filter(|it| !it.listed().swap(true, Relaxed)));
                    }
                }
            }
            let now = Instant::now();
            if pace.looks_again(now) {
                look_again.retain(|it| !(it.clone().look() && it.listed().swap(false, Relaxed)));
            }
            if let Some(paused) = pace.ticks(now) {
                self.tick(now, paused);
            }
        }
    }

    /// Waits for events: looks for some, then sleeps.
    fn wait(&self, events: &mut [Event], patience: &mut Patience, timeout_ms: i32) -> usize {
        let began = Instant::now();
        let look = || Some(self.reactor.wait(events, 0)).filter(|ready| *ready > 0);
        match patience.look(began, look) {
            Some(ready) => ready,
            None => patience.sleep(began, || self.reactor.wait(events, timeout_ms)),
        }
    }

    fn obey(&mut self) {
        let commands = self.reactor.take_commands();
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
                    for watched in self.reactor.all() {
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
        if self.reactor.watch(peer.fd(), id, interest).is_ok() {
            self.served.insert(id, peer);
        }
    }

    fn advance(&mut self, id: u64, events: u32) {
        let Some(peer) = self.served.get_mut(&id) else { return };
        match peer.advance(events, &mut self.courier) {
            Outcome::Keep => {}
            Outcome::Watch(interest) => {
                self.reactor.rewatch(peer.fd(), id, interest);
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
            for watched in self.reactor.all() {
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
