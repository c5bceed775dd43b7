//! What the data-plane threads of transports have in common: each is an epoll loop that sleeps unless something happens. A
//! transport writes the loop itself and says what its thread looks after; here are the handle by which other threads reach it,
//! when it looks at what ([`pace`], [`patience`]), and the threads of one transport ([`threads`]).

use std::collections::HashMap;
use std::io;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use self::patience::Patience;
use super::epoll::{self, Epoll, Event};
use super::thread;
use super::wakeup::Wakeup;
use crate::error::{Class, Code, Error, Result};

pub mod pace;
pub mod patience;
pub mod threads;

/// Token of the events by which other threads wake this one: there may be commands.
pub const WAKEUP: u64 = 0;
/// Events of one look. Chosen: many share the price of a call, and none of the thread's other duties waits long.
pub const EVENTS: usize = 64;

/// Handle to a thread that looks after values of type `W`, which others own, and obeys commands of type `C`.
pub struct Handle<W: ?Sized, C> {
    epoll: Epoll,
    wakeup: Wakeup,
    stop: AtomicBool,
    /// The thread ended by a panic. No request must wait for it.
    dead: AtomicBool,
    busy_poll: Duration,
    /// Guards what the thread looks after together with others, by token.
    watched: Mutex<HashMap<u64, Weak<W>>>,
    /// Guards what other threads asked for since this one last looked; `None` once it has ended.
    commands: Mutex<Option<Vec<C>>>,
}

impl<W: ?Sized, C> Handle<W, C> {
    /// Makes the epoll instance; [`start`] starts the thread, which looks for events for up to `busy_poll` before it sleeps.
    /// `failed` is the text of the error if no descriptor is left.
    pub fn new(busy_poll: Duration, failed: &'static str) -> Result<Self> {
        let failed = |e: io::Error| Error::io(Code::Socket, failed, &e).transient(Class::Resource);
        let epoll = Epoll::new().map_err(failed)?;
        let wakeup = Wakeup::new().map_err(failed)?;
        epoll.add(wakeup.fd(), WAKEUP, epoll::IN).map_err(failed)?;
        Ok(Handle {
            epoll,
            wakeup,
            stop: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            busy_poll,
            watched: Mutex::default(),
            commands: Mutex::new(Some(Vec::new())),
        })
    }

    /// Asks the thread to end; does not wait for it.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
        self.wake();
    }

    /// The thread was asked to end.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// The thread ended by a panic.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Relaxed)
    }

    /// The thread may look for events before it sleeps.
    pub fn may_look(&self) -> bool {
        !self.busy_poll.is_zero()
    }

    /// How long the thread looks for events before it sleeps, as it is at its start.
    pub fn patience(&self) -> Patience {
        Patience::new(self.busy_poll)
    }

    /// From now on the thread looks after `watched`, whose token is `token`.
    pub fn adopt(&self, token: u64, watched: Weak<W>) {
        self.watched.lock().insert(token, watched);
    }

    /// The thread no longer looks after what has this token.
    pub fn forget(&self, token: u64) {
        self.watched.lock().remove(&token);
    }

    /// What has this token, if it is still there.
    pub fn find(&self, token: u64) -> Option<Arc<W>> {
        self.watched.lock().get(&token)?.upgrade()
    }

    /// All that the thread looks after together with others.
    pub fn all(&self) -> Vec<Arc<W>> {
        self.watched.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Watches a descriptor, whose events come with `token`.
    pub fn watch(&self, fd: RawFd, token: u64, interest: u32) -> io::Result<()> {
        self.epoll.add(fd, token, interest)
    }

    /// Changes what a descriptor is watched for.
    pub fn rewatch(&self, fd: RawFd, token: u64, interest: u32) {
        self.epoll.modify(fd, token, interest);
    }

    /// Ends the watch on a descriptor. Has to come before it is closed.
    pub fn unwatch(&self, fd: RawFd) {
        self.epoll.remove(fd);
    }

    /// For the thread: sleeps until there are events, `timeout_ms` at the most, and says how many there are.
    pub fn wait(&self, events: &mut [Event], timeout_ms: i32) -> usize {
        self.epoll.wait(events, timeout_ms)
    }

    /// Has the thread do what is to be done at [`WAKEUP`].
    pub fn wake(&self) {
        self.wakeup.set();
    }

    /// Has the thread obey `command`. Without memory, and when the thread has ended, it is dropped and nobody hears of it.
    pub fn ask(&self, command: C) {
        let mut commands = self.commands.lock();
        // Kept, one that owns a connection and refers to this handle would keep both open for ever.
        let Some(list) = &mut *commands else { return };
        if list.try_reserve(1).is_ok() {
            list.push(command);
            drop(commands);
            self.wake();
        }
    }

    /// For the thread, at [`WAKEUP`]: what it was asked for since it last looked, in that order.
    pub fn take_commands(&self) -> Vec<C> {
        // First: what is asked for from now on wakes the thread again.
        self.wakeup.clear();
        self.commands.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The thread has ended: drops what it was asked for, and from now on whatever it is asked for.
    fn end(&self) {
        // Not under the lock: what is dropped may ask for something.
        let left = self.commands.lock().take();
        drop(left);
    }
}

/// Starts the thread `name` of `reactor`, which runs `body`. If that panics, the handle is dead from then on, and `abandon` is
/// called with all that the thread looked after together with others. However it ends, nothing that it is asked for is kept.
pub fn start<R, W, C>(
    reactor: &Arc<R>,
    name: &str,
    body: impl FnOnce() + Send + 'static,
    abandon: fn(Arc<W>),
) -> Result<JoinHandle<()>>
where
    R: Deref<Target = Handle<W, C>> + Send + Sync + 'static,
    W: ?Sized + 'static,
    C: 'static,
{
    let (ended, panicked) = (reactor.clone(), reactor.clone());
    let body = move || {
        body();
        ended.end();
    };
    let on_panic = move || {
        panicked.dead.store(true, Relaxed);
        panicked.end();
        panicked.all().into_iter().for_each(abandon);
    };
    thread::spawn(name, body, on_panic)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a thread looks after here: whether it was abandoned.
    type Told = AtomicBool;

    fn handle<C>() -> Handle<Told, C> {
        Handle::new(Duration::ZERO, "no descriptor").unwrap()
    }

    /// Tokens of the events that are there.
    fn events<C>(handle: &Handle<Told, C>) -> Vec<u64> {
        let mut events = [Event { events: 0, u64: 0 }; EVENTS];
        let ready = handle.wait(&mut events, 0);
        events[..ready].iter().map(|event| event.u64).collect()
    }

    #[test]
    fn what_is_adopted_is_found_until_it_is_forgotten_or_gone() {
        let handle = handle::<()>();
        let (one, other) = (Arc::new(Told::new(false)), Arc::new(Told::new(false)));
        handle.adopt(1, Arc::downgrade(&one));
        handle.adopt(2, Arc::downgrade(&other));
        assert!(handle.find(1).is_some_and(|found| Arc::ptr_eq(&found, &one)));
        assert_eq!((handle.all().len(), handle.find(3).is_none()), (2, true));
        drop(other);
        assert_eq!((handle.all().len(), handle.find(2).is_none()), (1, true));
        handle.forget(1);
        assert!(handle.find(1).is_none() && handle.all().is_empty());
    }

    #[test]
    fn a_command_wakes_the_thread_once_and_commands_keep_their_order() {
        let handle = handle();
        assert!(events(&handle).is_empty());
        handle.ask("first");
        handle.ask("second");
        assert_eq!(events(&handle), [WAKEUP]);
        assert_eq!(handle.take_commands(), ["first", "second"]);
        assert!(events(&handle).is_empty() && handle.take_commands().is_empty());
        handle.ask("third");
        assert_eq!((events(&handle), handle.take_commands()), (vec![WAKEUP], vec!["third"]));
    }

    #[test]
    fn a_command_is_refused_without_memory() {
        let handle = handle();
        // Commands without a size, of which no list can hold one more.
        *handle.commands.lock() = Some(Vec::from([(); usize::MAX]));
        handle.ask(());
        assert!(events(&handle).is_empty(), "the thread is not woken for nothing");
        assert_eq!(handle.take_commands().len(), usize::MAX);
        handle.ask(());
        assert_eq!((events(&handle), handle.take_commands().len()), (vec![WAKEUP], 1));
    }

    #[test]
    fn what_a_thread_that_has_ended_is_asked_for_is_not_kept() {
        let (handle, command) = (handle(), Arc::new(()));
        handle.ask(command.clone());
        handle.end();
        handle.ask(command.clone());
        assert_eq!((Arc::strong_count(&command), handle.take_commands().len()), (1, 0));
    }

    #[test]
    fn stop_wakes_the_thread() {
        let handle = handle::<()>();
        assert!(!handle.is_stopping());
        handle.stop();
        assert_eq!((handle.is_stopping(), events(&handle)), (true, vec![WAKEUP]));
    }

    /// A reactor that has nothing but its handle.
    struct Plain(Handle<Told, Arc<()>>);

    impl Deref for Plain {
        type Target = Handle<Told, Arc<()>>;

        fn deref(&self) -> &Self::Target {
            &self.0
        }
    }

    #[test]
    fn all_hear_that_their_thread_has_ended_by_a_panic_and_nobody_that_it_was_stopped() {
        for panics in [false, true] {
            let reactor = Arc::new(Plain(handle()));
            let watched: Vec<_> = (1..3).map(|_| Arc::new(Told::new(false))).collect();
            for (token, watched) in (1..).zip(&watched) {
                reactor.adopt(token, Arc::downgrade(watched));
            }
            let body = move || assert!(!panics, "on purpose");
            let abandon = |watched: Arc<Told>| watched.store(true, Relaxed);
            let command = Arc::new(());
            reactor.ask(command.clone());
            start(&reactor, "mte-test", body, abandon).unwrap().join().unwrap();
            reactor.ask(command.clone());
            assert_eq!(Arc::strong_count(&command), 1, "it is kept for a thread that has ended");
            assert_eq!(reactor.is_dead(), panics);
            assert!(watched.iter().all(|watched| watched.load(Relaxed) == panics));
        }
    }
}
