//! How much of a flood is taken at once, and when the ring is left alone.

use super::*;
use crate::transport::shm::connect::pair::{pair, received, send, shared};
use crate::transport::shm::ring::Ring;

#[test]
fn a_peer_that_never_stops_sending_leaves_the_thread_to_others() {
    const MORE: usize = 16;
    let shared = shared();
    let (connection, other) = pair(&shared);
    let reactor = Reactor::new(Duration::ZERO).unwrap();
    let inbound = Inbound::new(&shared, &reactor, other).unwrap();
    // The greeting was sent before.
    send(&connection.socket, Kind::Ask, &[1, 2, 3], kernel::MOST_MESSAGES - 1 + MORE);
    assert_eq!(inbound.on_ready(), Next::Done, "the next event tells of the rest");
    let mut answers = received(&connection.socket);
    assert_eq!((answers.remove(0), answers), (Kind::Welcome, vec![Kind::Grant; kernel::MOST_MESSAGES - 1]));
    inbound.on_ready();
    assert_eq!(received(&connection.socket), [Kind::Grant; MORE]);
}

#[test]
fn as_many_connections_are_taken_as_the_setting_says() {
    let shared = shared();
    let reactor = Reactor::new(Duration::ZERO).unwrap();
    shared.inbound.store(shared.config.tcp_max_inbound - 1, Relaxed);
    let (_last, other) = pair(&shared);
    let taken = Inbound::new(&shared, &reactor, other);
    assert!(taken.is_some());
    let (_more, other) = pair(&shared);
    assert!(Inbound::new(&shared, &reactor, other).is_none());
    assert_eq!(shared.stats.inbound_refused.load(Relaxed), 1);
}

#[test]
fn nothing_is_found_in_the_ring_while_nothing_can_be_taken_in() {
    let shared = shared();
    let (connection, other) = pair(&shared);
    let reactor = Reactor::new(Duration::ZERO).unwrap();
    let inbound = Inbound::new(&shared, &reactor, other).unwrap();
    let mut ring = Ring::new(0).unwrap();
    ring.announce(&*connection.socket).unwrap();
    inbound.on_ready();
    let mut room = [0; MOST_BYTES];
    while !ring.is_attached() {
        let (len, passed) = kernel::receive(connection.socket.as_raw_fd(), &mut room).unwrap();
        if let (Some((Kind::Ring, mut entries)), Some(fd)) = (wire::decode(&room[..len]), passed) {
            assert!(ring.attach(fd.as_raw_fd(), entries.next().unwrap()[0]));
        }
    }
    assert!(inbound.attend() && ring.takes());
    ring.put(Kind::Write, &[1, 2, 3, 4, 0]);
    inbound.state.lock().queue.resize(MOST_QUEUED, NOTHING);
    assert_eq!(inbound.glance(), None, "the queue is full");
    inbound.state.lock().queue.clear();
    inbound.state.lock().ended.push([1, 0]);
    assert_eq!(inbound.glance(), None, "the socket takes no answers");
    inbound.state.lock().ended.clear();
    assert!(inbound.glance().is_some() && inbound.glance().is_none());
}
