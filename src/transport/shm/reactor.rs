//! A thread of the transport (`mte-shm-N`): an epoll loop over links of this engine and connections of peers. It sleeps unless
//! something happens. A link that a caller polls is left alone, and looked at again every millisecond.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::error::Result;
use crate::runtime::epoll::{self, Event};
use crate::runtime::reactor::pace::Pace;
use crate::runtime::reactor::patience::Patience;
use crate::runtime::reactor::{self, Handle, EVENTS, WAKEUP};
use crate::runtime::tracked::Tracked;

/// Token of the listener; those of links and connections count up from 1.
const LISTENER: u64 = u64::MAX;
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

/// What other threads ask a reactor to do. Without memory nothing is asked: a connection is dropped, work is found by the next
/// tick.
pub(super) enum Command {
    Listen(Tracked<Socket>, Accepted),
    /// Looks after it until it closes.
    Serve(Arc<dyn Watched>),
    Work(Arc<dyn Watched>),
}

/// Handle to the thread.
pub(super) struct Reactor(Handle<dyn Watched, Command>);

impl Deref for Reactor {
    type Target = Handle<dyn Watched, Command>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Reactor {
    /// Makes the epoll instance; the thread is started by [`Reactor::run`].
    pub(super) fn new(busy_poll: Duration) -> Result<Arc<Self>> {
        let failed = "cannot set up a thread for this host's engines (check ulimit -n)";
        Ok(Arc::new(Reactor(Handle::new(busy_poll, failed)?)))
    }

    /// Starts the thread; it ends after [`Handle::stop`].
    pub(super) fn run(self: &Arc<Self>, index: usize) -> Result<JoinHandle<()>> {
        let reactor = self.clone();
        let body = move || {
            Loop {
                reactor,
                served: HashMap::new(),
                busy: Vec::new(),
                again: Vec::new(),
                attended: Vec::new(),
                listener: None,
                deaf: false,
                finds: 0,
            }
            .run();
        };
        reactor::start(self, &format!("mte-shm-{index}"), body, |watched| watched.abandon())
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
    /// How often it found something without events, since it last asked for them.
    finds: usize,
}

impl Loop {
    fn run(mut self) {
        let mut events = [Event { events: 0, u64: 0 }; EVENTS];
        let mut patience = self.reactor.patience();
        let mut pace = Pace::new(Instant::now());
        while !self.reactor.is_stopping() {
            let ready = self.wait(&mut events, &mut patience);
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
            if !self.again.is_empty() && pace.looks_again(now) {
                for watched in std::mem::take(&mut self.again) {
                    let next = watched.look();
                    self.note(watched, next);
                }
            }
            if let Some(paused) = pace.ticks(now) {
                if let Some((listener, _)) = self.listener.as_ref().filter(|_| std::mem::take(&mut self.deaf))
                {
                    self.reactor.rewatch(listener.as_raw_fd(), LISTENER, epoll::IN);
                }
                let all: Vec<_> = self.served.values().cloned().chain(self.reactor.all()).collect();
                for watched in all {
                    let next = watched.tick(now, paused);
                    self.note(watched, next);
                }
            }
        }
    }

    fn attend(&mut self, watched: &Arc<dyn Watched>) {
        let is_listed = |listed: &Arc<dyn Watched>| listed.token() == watched.token();
        let has_room = self.reactor.may_look() && self.attended.len() < GLANCES;
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

    /// Waits for events: looks for some, and at what it attends to, then sleeps.
    fn wait(&mut self, events: &mut [Event], patience: &mut Patience) -> usize {
        if !self.busy.is_empty() || self.finds >= GLANCES_PER_WAIT {
            self.finds = 0;
            return self.reactor.wait(events, 0);
        }
        let began = Instant::now();
        let glances = if self.attended.is_empty() { 0 } else { GLANCES_PER_WAIT };
        let look = || {
            for _ in 0..glances {
                if self.glance() {
                    self.finds += 1;
                    return Some(0);
                }
                std::hint::spin_loop();
            }
            Some(self.reactor.wait(events, 0)).filter(|ready| *ready > 0)
        };
        if let Some(ready) = patience.look(began, look) {
            return ready;
        }
        let awake = std::mem::take(&mut self.attended);
        for watched in awake.into_iter().filter(|watched| watched.doze()) {
            let next = watched.on_ready();
            self.note(watched, next);
        }
        if !self.busy.is_empty() {
            return 0;
        }
        let timeout_ms = Pace::timeout_ms(!self.again.is_empty());
        patience.sleep(began, || self.reactor.wait(events, timeout_ms))
    }

    fn obey(&mut self) {
        for command in self.reactor.take_commands() {
            match command {
                Command::Listen(listener, accepted) => {
                    match self.reactor.watch(listener.as_raw_fd(), LISTENER, epoll::IN) {
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
                    return self.reactor.rewatch(listener.as_raw_fd(), LISTENER, 0);
                }
            }
        }
    }
}
