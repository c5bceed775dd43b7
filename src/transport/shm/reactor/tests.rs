//! Whom the thread listens to.

use std::io::Write;
use std::sync::mpsc::{channel, Sender};

use socket2::{Domain, Type};

use super::*;

/// Tells of its events; one that is eager always finds something at a glance.
struct Told {
    token: u64,
    is_eager: bool,
    events: Mutex<Sender<u64>>,
    socket: Socket,
}

impl Watched for Told {
    fn token(&self) -> u64 {
        self.token
    }

    fn on_ready(&self) -> Next {
        let _ = std::io::Read::read(&mut &self.socket, &mut [0]);
        let _ = self.events.lock().send(self.token);
        Next::Done
    }

    fn work(&self) -> Next {
        Next::Done
    }

    fn attend(&self) -> bool {
        self.is_eager
    }

    fn glance(&self) -> Option<Next> {
        self.is_eager.then_some(Next::Done)
    }

    fn tick(&self, _: Instant, _: Duration) -> Next {
        Next::Done
    }

    fn abandon(&self) {}
}

#[test]
fn a_peer_whose_ring_never_runs_dry_keeps_the_thread_from_nobody() {
    let reactor = Reactor::new(Duration::from_secs(10)).unwrap();
    let (events, told) = channel();
    let [(one, _kept), (two, _kept_too)] = [(1, true), (2, false)].map(|(token, is_eager)| {
        let (socket, other) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        reactor.watch(socket.as_raw_fd(), token, epoll::IN).unwrap();
        let watched = Arc::new(Told { token, is_eager, events: Mutex::new(events.clone()), socket });
        let weak: Weak<Told> = Arc::downgrade(&watched);
        reactor.adopt(token, weak);
        (other, watched)
    });
    let thread = reactor.run(0).unwrap();
    // It is late for nothing: a thread that is kept from its events never hears of them.
    let heard = |other: &Socket, token| {
        (&mut &*other).write_all(b"x").unwrap();
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(token));
    };
    heard(&one, 1);
    heard(&two, 2);
    heard(&one, 1);
    reactor.stop();
    thread.join().unwrap();
}
