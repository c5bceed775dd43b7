//! How much of a flood is taken at once.

use super::*;
use crate::transport::shm::connect::pair::{pair, send, shared};

#[test]
fn a_peer_that_never_stops_sending_leaves_the_thread_to_others() {
    const MORE: u64 = 16;
    let most = kernel::MOST_MESSAGES as u64;
    let (connection, other) = pair(&shared());
    let mut lane = Lane::new();
    lane.stage = Stage::Up(Box::new(connection));
    send(&other, Kind::Ended, &[u64::MAX, End::Applied as u64], (most + MORE) as usize);
    assert!(lane.receive("peer").unwrap());
    assert_eq!(lane.written, most);
    assert!(lane.receive("peer").unwrap());
    assert_eq!(lane.written, most + MORE);
    assert!(!lane.receive("peer").unwrap(), "nothing is left");
}
