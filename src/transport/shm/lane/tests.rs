//! How much of a flood is taken at once, and the ring beside the socket.

use std::sync::Arc;

use parking_lot::Mutex;
use socket2::Socket;

use super::*;
use crate::transport::shm::connect::pair::{pair, received, send, shared};
use crate::transport::shm::ring::Ring;
use crate::transport::shm::wire::Hello;
use crate::transport::slice::deaf::work;
use crate::transport::slice::{Sink, Task, Work};

/// A lane with one WRITE of `work` and rings, the other end of its socket, the peer's ring, and the number of the connection. Both
/// sides look.
pub(in crate::transport::shm) fn with_rings(work: &Arc<Work>) -> (Lane, Tracked<Socket>, Ring, u64) {
    let (connection, other) = pair(&shared());
    let mut lane = Lane::new();
    lane.stage = Stage::Up(Box::new(connection));
    write(&mut lane, work, 1);
    let (mut ring, mut number, mut room) = (Ring::new(0).unwrap(), 0, [0; MOST_BYTES]);
    while let Ok((len, passed)) = kernel::receive(other.as_raw_fd(), &mut room) {
        let (kind, mut entries) = wire::decode(&room[..len]).unwrap();
        match (kind, entries.next().unwrap(), passed) {
            (Kind::Hello, entry, _) => number = Hello::decode(&entry).unwrap().word.1,
            (Kind::Ring, [len, ..], Some(fd)) => assert!(ring.attach(fd.as_raw_fd(), len)),
            _ => assert_eq!(kind, Kind::Write),
        }
    }
    assert!(ring.is_attached() && ring.announce(&*other).is_ok());
    ring.wake();
    lane.receive("peer").unwrap();
    lane.receive_polled(1, "peer").unwrap();
    (lane, other, ring, number)
}

fn write(lane: &mut Lane, work: &Arc<Work>, count: usize) {
    (0..count).for_each(|_| lane.writes.push_back(Slice::new(work, 0, Op::Write, 1, 2, 3, None)));
    lane.flush("peer").unwrap();
}

#[test]
fn what_was_meant_for_another_start_of_the_peer_fails_once_there_is_a_connection() {
    let work = work(4);
    let mut lane = Lane::new();
    let slice = |task: u32, op| Slice::new(&work, task, op, 1, 2, 3, None);
    let (connection, _other) = pair(&shared());
    let key = connection.key;
    let meant = [(Op::Write, 0), (Op::Write, key), (Op::Read, key), (Op::Write, key ^ 1)];
    lane.pending.extend((0..).zip(meant).map(|(task, (op, meant))| (slice(task, op), meant)));
    lane.sort("peer");
    assert_eq!(lane.pending.len(), 4, "there is no connection yet");
    lane.stage = Stage::Up(Box::new(connection));
    lane.sort("peer");
    assert_eq!((lane.pending.len(), lane.writes.len(), lane.unknown.len()), (0, 2, 1));
    assert_eq!(work.tasks[3].error().unwrap().text(), errors::restarted("peer").text());
}

#[test]
fn a_full_socket_is_tried_again_after_an_answer_in_the_ring() {
    let work = work(100_000);
    let (mut lane, other, mut ring, _) = with_rings(&work);
    while !lane.is_full {
        write(&mut lane, &work, MOST_ENTRIES);
    }
    let waiting = lane.writes.len();
    assert!(waiting > 0);
    received(&other);
    assert!(ring.takes());
    ring.put(Kind::Ended, &[0, End::Applied as u64]);
    assert!(lane.receive_by_ring("peer").unwrap());
    lane.flush("peer").unwrap();
    assert_eq!(lane.writes.len(), 0);
    assert!(received(&other).contains(&Kind::Write));
}

#[test]
fn the_socket_is_read_also_while_the_ring_never_runs_dry() {
    let (mut lane, other, mut ring, _) = with_rings(&work(1));
    send(&other, Kind::Ended, &[u64::MAX, End::Applied as u64], 1);
    for round in 1..=3 {
        assert!(ring.takes());
        ring.put(Kind::Ended, &[u64::MAX, End::Applied as u64]);
        lane.receive_polled(1000 * round, "peer").unwrap();
    }
    assert_eq!(lane.written, 4);
}

#[test]
fn what_was_answered_before_the_peer_left_counts() {
    let (mut lane, other, mut ring, _) = with_rings(&work(1));
    ring.put(Kind::Ended, &[0, End::Applied as u64]);
    drop((ring, other));
    assert!(lane.receive_from_socket("peer").is_err());
    assert_eq!((lane.written, lane.awaited.is_empty()), (1, true));
}

/// Whether the peer's page said that the connection is there when the task ended.
#[derive(Default)]
struct Watcher(Mutex<Option<(Ring, u64)>>, Mutex<Vec<bool>>);

impl Sink for Watcher {
    fn task_ended(&self, _: bool) {
        let held = self.0.lock().as_ref().is_some_and(|(ring, number)| ring.peer_has(*number));
        self.1.lock().push(held);
    }
}

#[test]
fn a_connection_is_given_up_before_its_requests_end() {
    for may_pull in [true, false] {
        let watcher = Arc::new(Watcher::default());
        let work = Work::new(Box::from([Task::default()]), None, watcher.clone());
        let (mut lane, _other, ring, number) = with_rings(&work);
        assert!(ring.peer_has(number));
        *watcher.0.lock() = Some((ring, number));
        lane.take_down(&errors::hung_up("peer"), may_pull, Stage::Idle);
        assert_eq!(*watcher.1.lock(), [false]);
    }
}

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
