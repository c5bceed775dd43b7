//! A thread of the transport (`mte-shm-N`): an epoll loop over links of this engine and connections of peers. It sleeps unless
//! something happens. A link that a caller polls is left alone, and looked at again every millisecond.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::Socket;

use crate::error::{Class, Code, Error, Result};
use crate::runtime::epoll::{self, Epoll, Event};
use crate::runtime::thread;
use crate::runtime::tracked::Tracked;
use crate::runtime::wakeup::Wakeup;

/// Tokens of the thread's own; those of links and connections count up from 1.
const WAKEUP: u64 = 0;
const LISTENER: u64 = u64::MAX;
/// Events of one look. Chosen: many share the price of a call, and none of the thread's other duties waits long.
const EVENTS: usize = 64;
/// How often deadlines are looked at. Chosen: they are seconds long, and ten wake-ups a second are far below 1 % of a core.
const TICK: Duration = Duration::from_millis(100);
/// A thread that comes so much too late to its tick was stopped, with the process or the machine.
const PAUSE: Duration = Duration::from_secs(1);
/// How often what a caller polls is looked at. Chosen: the shortest that epoll_wait(2) can wait.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// An event within so many times `MC_TCP_BUSY_POLL_US` makes looking for the next one worth it.
const SOON: u32 = 2;
/// By how much the time to look shrinks after each sleep that was longer.
const WANE: u32 = 4;
/// What the thread looks at without an event, at the most. Chosen: a look at each takes some 20 ns, and a processor serves no more
/// peers that wait for it by looking.
const GLANCES: usize = 8;
/// How often it looks at them before it asks for events again, whether it finds something or not: a peer that always has more must
/// not keep it from others. Chosen: as long as that takes.
const GLANCES_PER_WAIT: usize = 16;

/// What is left to do for something that the thread looks after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing until the next event.
    Done,
    /// Nothing was done, because another thread is at it: look again in a millisecond.
    Look,
    /// There is more to pull now.
    Work,
    /// It has ended, and is forgotten.
    Close,
}

/// What a thread looks after.
pub(super) trait Watched: Send + Sync {
    /// By which it is known.
    fn token(&self) -> u64;

    /// Its socket has something to be read, takes something, or has ended.
    fn on_ready(&self) -> Next;

    /// The thread looks again.
    fn look(&self) -> Next {
        self.on_ready()
    }

    /// Pulls some bytes. Any thread may be asked to, several at once.
    fn work(&self) -> Next;

    /// Whether the thread is to look for messages by [`Watched::glance`] before it sleeps. If so, the peer tells of none until
    /// [`Watched::doze`].
    fn attend(&self) -> bool {
        false
    }

    /// Takes in what has come where no event tells of it. `None`: nothing has.
    fn glance(&self) -> Option<Next> {
        None
    }

    /// The thread sleeps. `true`: something has come that the peer may not tell of.
    fn doze(&self) -> bool {
        false
    }

    /// Called ten times a second: what is overdue ends. `paused`: how long the thread did not run before, if that was long.
    fn tick(&self, now: Instant, paused: Duration) -> Next;

    /// Everything fails, and so does what comes later: the thread has ended by a panic.
    fn abandon(&self);
}

/// Called with each connection that the listener accepts.
pub(super) type Accepted = Box<dyn FnMut(Tracked<Socket>) + Send>;

enum Command {
    Listen(Tracked<Socket>, Accepted),
    /// Looks after it until it closes.
    Serve(Arc<dyn Watched>),
    Work(Arc<dyn Watched>),
}

/// Handle to the thread.
pub(super) struct Reactor {
    epoll: Epoll,
    wakeup: Wakeup,
    stop: AtomicBool,
    busy_poll: Duration,
    /// The thread ended by a panic.
    dead: AtomicBool,
    /// Guards what the thread looks after and others own, by token.
    watched: Mutex<HashMap<u64, Weak<dyn Watched>>>,
    /// Guards what other threads asked for since this one last looked.
    commands: Mutex<Vec<Command>>,
}

impl Reactor {
    /// Makes the epoll instance; the thread is started by [`Reactor::run`].
    pub(super) fn new(busy_poll: Duration) -> Result<Arc<Self>> {
        let failed = |e: io::Error| {
            Error::io(Code::Socket, "cannot set up a thread for this host's engines (check ulimit -n)", &e)
                .transient(Class::Resource)
        };
        let epoll = Epoll::new().map_err(failed)?;
        let wakeup = Wakeup::new().map_err(failed)?;
        epoll.add(wakeup.fd(), WAKEUP, epoll::IN).map_err(failed)?;
        Ok(Arc::new(Reactor {
            epoll,
            wakeup,
            stop: AtomicBool::new(false),
            busy_poll,
            dead: AtomicBool::new(false),
            watched: Mutex::default(),
            commands: Mutex::default(),
        }))
    }

    /// Starts the thread; it ends after [`Reactor::stop`].
    pub(super) fn run(self: &Arc<Self>, index: usize) -> Result<JoinHandle<()>> {
        let (reactor, panicked) = (self.clone(), self.clone());
        let body = move || {
            let served = HashMap::new();
            Loop {
                reactor,
                served,
                busy: Vec::new(),
                again: Vec::new(),
                attended: Vec::new(),
                listener: None,
                deaf: false,
                patience: Duration::ZERO,
                finds: 0,
            }
            .run();
        };
        let on_panic = move || {
            panicked.dead.store(true, Relaxed);
            panicked.all().into_iter().for_each(|watched| watched.abandon());
        };
        thread::spawn(&format!("mte-shm-{index}"), body, on_panic)
    }

    /// Asks the thread to end; does not wait for it.
    pub(super) fn stop(&self) {
        self.stop.store(true, Relaxed);
        self.wakeup.set();
    }

    /// The thread ended by a panic.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Relaxed)
    }

    /// Accepts connections from `listener`.
    pub(super) fn listen(&self, listener: Tracked<Socket>, accepted: Accepted) {
        self.ask(Command::Listen(listener, accepted));
    }

    /// Keeps `watched` until it closes.
    pub(super) fn serve(&self, watched: Arc<dyn Watched>) {
        self.ask(Command::Serve(watched));
    }

    /// Has the thread pull for `watched`.
    pub(super) fn work(&self, watched: Arc<dyn Watched>) {
        self.ask(Command::Work(watched));
    }

    /// From now on the thread looks after `watched`.
    pub(super) fn adopt(&self, token: u64, watched: Weak<dyn Watched>) {
        self.watched.lock().insert(token, watched);
    }

    /// The thread no longer looks after it.
    pub(super) fn forget(&self, token: u64) {
        self.watched.lock().remove(&token);
    }

    /// Watches a socket.
    pub(super) fn watch(&self, fd: RawFd, token: u64, interest: u32) -> io::Result<()> {
        self.epoll.add(fd, token, interest)
    }

    /// Changes what it is watched for.
    pub(super) fn rewatch(&self, fd: RawFd, token: u64, interest: u32) {
        self.epoll.modify(fd, token, interest);
    }

    /// Ends the watch, before the socket is closed.
    pub(super) fn unwatch(&self, fd: RawFd) {
        self.epoll.remove(fd);
    }

    /// Without memory nothing is asked; a connection is dropped, work is found by the next tick.
    fn ask(&self, command: Command) {
        let mut commands = self.commands.lock();
        if commands.try_reserve(1).is_ok() {
            commands.push(command);
            drop(commands);
            self.wakeup.set();
        }
    }

    fn find(&self, token: u64) -> Option<Arc<dyn Watched>> {
        self.watched.lock().get(&token)?.upgrade()
    }

    fn all(&self) -> Vec<Arc<dyn Watched>> {
        self.watched.lock().values().filter_map(Weak::upgrade).collect()
    }
}

struct Loop {
    reactor: Arc<Reactor>,
    /// Connections of peers, which nobody else keeps.
    served: HashMap<u64, Arc<dyn Watched>>,
    /// What there is to pull for.
    busy: Vec<Arc<dyn Watched>>,
    /// What is looked at again.
    again: Vec<Arc<dyn Watched>>,
    /// What it looks at without an event.
    attended: Vec<Arc<dyn Watched>>,
    listener: Option<(Tracked<Socket>, Accepted)>,
    /// Nothing is accepted until the next tick, because that has failed.
    deaf: bool,
    /// How long to look for events before sleeping.
    patience: Duration,
    /// How often it found something without events, since it last asked for them.
    finds: usize,
}

impl Loop {
    fn run(mut self) {
        let mut events = [Event { events: 0, u64: 0 }; EVENTS];
        let mut last_tick = Instant::now();
        let mut last_look = last_tick;
        while !self.reactor.stop.load(Relaxed) {
            let ready = self.wait(&mut events);
            for event in &events[..ready] {
                match event.u64 {
                    WAKEUP => self.obey(),
                    LISTENER => self.accept(),
                    token => {
                        let found = self.served.get(&token).cloned().or_else(|| self.reactor.find(token));
                        if let Some(watched) = found {
                            let next = watched.on_ready();
                            self.attend(&watched);
                            self.note(watched, next);
                        }
                    }
                }
            }
            self.glance();
            for watched in std::mem::take(&mut self.busy) {
                let next = watched.work();
                self.note(watched, next);
            }
            let now = Instant::now();
            if now - last_look >= LOOK_AGAIN && !self.again.is_empty() {
                last_look = now;
                for watched in std::mem::take(&mut self.again) {
                    let next = watched.look();
                    self.note(watched, next);
                }
            }
            if now - last_tick >= TICK {
                let since = now - std::mem::replace(&mut last_tick, now);
                let paused = if since > PAUSE { since } else { Duration::ZERO };
                if let Some((listener, _)) = self.listener.as_ref().filter(|_| std::mem::take(&mut self.deaf))
                {
                    self.reactor.epoll.modify(listener.as_raw_fd(), LISTENER, epoll::IN);
                }
                let all: Vec<_> = self.served.values().cloned().chain(self.reactor.all()).collect();
                for watched in all {
                    let next = watched.tick(now, paused);
                    self.note(watched, next);
                }
            }
        }
        self.reactor.commands.lock().clear();
    }

    fn attend(&mut self, watched: &Arc<dyn Watched>) {
        let is_listed = |listed: &Arc<dyn Watched>| listed.token() == watched.token();
        let has_room = !self.reactor.busy_poll.is_zero() && self.attended.len() < GLANCES;
        if has_room && !self.attended.iter().any(is_listed) && watched.attend() {
            self.attended.push(watched.clone());
        }
    }

    /// `true`: something had come.
    fn glance(&mut self) -> bool {
        let (mut found, mut index) = (false, 0);
        while let Some(watched) = self.attended.get(index) {
            if let Some(next) = watched.glance() {
                found = true;
                let watched = watched.clone();
                self.note(watched, next);
            }
            index += 1;
        }
        found
    }

    fn note(&mut self, watched: Arc<dyn Watched>, next: Next) {
        let list = match next {
            Next::Done => return,
            Next::Work => &mut self.busy,
            Next::Look => &mut self.again,
            Next::Close => {
                self.served.remove(&watched.token());
                self.attended.retain(|listed| listed.token() != watched.token());
                return;
            }
        };
        if !list.iter().any(|listed| listed.token() == watched.token()) {
            list.push(watched);
        }
    }

    /// Waits for events. In a stream of requests the next one comes within microseconds, and waking a sleeping thread costs
    /// more than that. So this looks for a while before it sleeps, as long as that was worth it lately.
    fn wait(&mut self, events: &mut [Event]) -> usize {
        if !self.busy.is_empty() || self.finds >= GLANCES_PER_WAIT {
            self.finds = 0;
            return self.reactor.epoll.wait(events, 0);
        }
        let most = self.reactor.busy_poll;
        let began = Instant::now();
        let glances = if self.attended.is_empty() { 0 } else { GLANCES_PER_WAIT };
        while !self.patience.is_zero() {
            for _ in 0..glances {
                if self.glance() {
                    self.patience = most;
                    self.finds += 1;
                    return 0;
                }
                std::hint::spin_loop();
            }
            match self.reactor.epoll.wait(events, 0) {
                0 if began.elapsed() > self.patience => break,
                0 => std::thread::yield_now(),
                ready => {
                    self.patience = most;
                    return ready;
                }
            }
        }
        let awake = std::mem::take(&mut self.attended);
        for watched in awake.into_iter().filter(|watched| watched.doze()) {
            let next = watched.on_ready();
            self.note(watched, next);
        }
        if !self.busy.is_empty() {
            return 0;
        }
        let timeout = if self.again.is_empty() { TICK } else { LOOK_AGAIN };
        let ready = self.reactor.epoll.wait(events, timeout.as_millis() as i32);
        let soon = ready > 0 && began.elapsed() < SOON * most;
        self.patience = if soon { most } else { self.patience / WANE };
        ready
    }

    fn obey(&mut self) {
        self.reactor.wakeup.clear();
        let commands = std::mem::take(&mut *self.reactor.commands.lock());
        for command in commands {
            match command {
                Command::Listen(listener, accepted) => {
                    match self.reactor.epoll.add(listener.as_raw_fd(), LISTENER, epoll::IN) {
                        Ok(()) => self.listener = Some((listener, accepted)),
                        Err(e) => tracing::error!("cannot accept connections of this host's engines: {e}"),
                    }
                }
                Command::Serve(watched) => {
                    let next = watched.on_ready();
                    self.served.insert(watched.token(), watched.clone());
                    self.note(watched, next);
                }
                Command::Work(watched) => self.note(watched, Next::Work),
            }
        }
    }

    fn accept(&mut self) {
        let Some((listener, accepted)) = &mut self.listener else { return };
        for _ in 0..EVENTS {
            let connection = Tracked::open(|| {
                let (connection, _) = listener.accept()?;
                connection.set_nonblocking(true)?;
                Ok(connection)
            });
            match connection {
                Ok(connection) => accepted(connection),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    // No descriptor is left: it would be tried without end.
                    self.deaf = true;
                    return self.reactor.epoll.modify(listener.as_raw_fd(), LISTENER, 0);
                }
            }
        }
    }
}
