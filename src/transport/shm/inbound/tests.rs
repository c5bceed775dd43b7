//! How much of a flood is taken at once.

use super::*;
use crate::transport::shm::connect::pair::{pair, received, send, shared};

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
