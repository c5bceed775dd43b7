//! The listener of a thread: accepts connections, and waits while descriptors are scarce.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Release, SeqCst},
};
use std::sync::Arc;

use super::{Accepted, Loop, Reactor, LISTENER};
use crate::runtime::epoll;
use crate::runtime::reactor::EVENTS;
use crate::runtime::tracked::Tracked;

/// What other threads tell the one that listens.
#[derive(Default)]
pub(super) struct Listening {
    /// Connections that have to find their place before another one is accepted.
    held: AtomicUsize,
    /// All of them have.
    pub is_due: AtomicBool,
}

/// Keeps a listener from accepting. Given with a connection to the thread that closes another one for it: until that is done,
/// each more that was accepted would take one more descriptor.
pub(in crate::transport::tcp) struct Held(Arc<Reactor>);

impl Reactor {
    /// The listener of this thread accepts nothing until what is returned is dropped.
    pub(in crate::transport::tcp) fn hold(self: &Arc<Self>) -> Held {
        self.listening.held.fetch_add(1, SeqCst);
        Held(self.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Held(reactor) = self;
        if reactor.listening.held.fetch_sub(1, SeqCst) == 1 {
            reactor.listening.is_due.store(true, Release);
            reactor.wake();
        }
    }
}

impl Loop {
    pub(super) fn listen(&mut self, listener: Tracked<TcpListener>, accepted: Accepted) {
        let interest = epoll::IN;
        match self.reactor.watch(listener.as_raw_fd(), LISTENER, interest) {
            Ok(()) => self.listener = Some((listener, accepted)),
            Err(e) => tracing::error!("cannot accept data connections: {e}"),
        }
    }

    pub(super) fn accept(&mut self) {
        if self.reactor.listening.held.load(SeqCst) > 0 {
            return self.hear(0);
        }
        // Not more at a time: a flood of connections must not starve those that are there.
        for _ in 0..EVENTS {
            let Some((listener, accepted)) = &mut self.listener else { return };
            match Tracked::open(|| listener.accept().map(|(stream, _)| stream)) {
                Ok(stream) => {
                    if !accepted(Ok(stream)) {
                        return;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // Only this connection is gone already; the next one may be good.
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
                Err(e) => {
                    // Mostly no descriptor is left. The listener stays ready, so waiting for the tick is what keeps
                    // this thread from spinning.
                    accepted(Err(e));
                    return self.hear(0);
                }
            }
        }
    }

    /// What the listener is watched for.
    pub(super) fn hear(&self, interest: u32) {
        if let Some((listener, _)) = &self.listener {
            self.reactor.rewatch(listener.as_raw_fd(), LISTENER, interest);
        }
    }
}
