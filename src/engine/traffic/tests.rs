use std::time::Instant;

use super::*;
use crate::engine::tally;
use crate::error::{Code, Error};
use crate::transport::slice::{Sink, Slice, Task, Work};

struct Nobody;

impl Sink for Nobody {
    fn task_ended(&self, _failed: bool) {}
}

fn nothing(peers: &Peers) -> Vec<(String, Traffic)> {
    peers.so_far(|_| {})
}

fn names(peers: &Peers) -> Vec<String> {
    nothing(peers).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn peers_keep_their_places_while_they_are_used_and_lose_them_to_others_then() {
    let peers = Peers::new(2);
    let [a, b] = ["a", "b"].map(|name| peers.enter(name).unwrap());
    assert!(Arc::ptr_eq(&a, &peers.enter("a").unwrap()), "one place per name");
    let full = peers.enter("c").unwrap();
    full.note_completed(Op::Read, 1, 10);
    assert_eq!(names(&peers), ["a", "b", "other"], "there is no place for a third one");
    a.note_completed(Op::Write, 3, 300);
    b.note_completed(Op::Read, 1, 1);
    drop(a);
    assert_eq!(nothing(&peers)[0].1.bytes, [0, 300], "a place that nobody uses is kept");
    let d = peers.enter("d").unwrap();
    assert_eq!(names(&peers), ["b", "d", "other"], "until somebody needs it");
    assert_eq!(*d.told.lock(), Traffic::default(), "who gets it begins anew");
    for number in 0..1000 {
        peers.enter(&format!("{number}"));
    }
    assert_eq!(nothing(&peers).len(), 3, "peers that come and go leave nothing");
}

#[test]
fn long_names_share_a_place_and_without_places_nothing_is_counted() {
    let peers = Peers::new(9);
    let long = "x".repeat(LONGEST_NAME);
    let first = peers.enter(&(long.clone() + "1")).unwrap();
    assert!(Arc::ptr_eq(&first, &peers.enter(&(long.clone() + "2")).unwrap()));
    assert_eq!(Peers::label(&peers.names(), &(long.clone() + "3")), long);
    assert_eq!(Peers::label(&peers.names(), "y"), OTHER);
    let none = Peers::new(0);
    assert!(none.enter("a").is_none() && nothing(&none).is_empty());
}

/// What is counted at the end of a batch is what is added up while it is there.
#[test]
fn tasks_are_counted_by_the_peer_they_go_to_and_by_their_end() {
    let segments = crate::engine::segment::tests::numbered(&[7, 9]);
    let work = Work::new((0..5).map(|_| Task::default()).collect(), Some(Instant::now()), Arc::new(Nobody));
    work.targets.set_several([7, 9, 0].into());
    for (task, place) in [(0, 0), (1, 1), (2, 1), (3, 2), (4, 1)] {
        work.tasks[task].set_place(place);
    }
    let slice = |task, op, bytes| Slice::new(&work, task, op, 0, 0, bytes, None);
    let slices = [
        slice(0, Op::Write, 100),
        slice(1, Op::Read, 20),
        slice(2, Op::Read, 3),
        slice(3, Op::Read, 4000),
        slice(4, Op::Write, 5),
    ];
    let [first, second, late, own, waits] = slices;
    first.complete(0);
    second.note_resent();
    second.complete(0);
    late.fail(Error::new(Code::Socket, "late").transient(Class::Timeout));
    own.complete(0);
    let numbers = |at: usize| segments[at].peer.as_ref().unwrap().load();
    tally::freed(|last| last(&work, &segments));
    assert_eq!((numbers(0).bytes, numbers(0).ends[1]), ([0, 100], [1, 0, 0, 0]));
    assert_eq!((numbers(1).bytes, numbers(1).ends), ([20, 0], [[1, 0, 1, 0], [0; 4]]));
    assert_eq!(numbers(1).resent, [1, 0]);
    let mut looked = Traffic::default();
    let ends = work.ended_by_target().filter(|(place, _)| *place == 1);
    ends.for_each(|(_, end)| looked.add(&end));
    assert_eq!(looked, numbers(1), "whoever looks sees what will be counted");
    tally::abandoned(|last| last(&work, &segments));
    assert_eq!(numbers(1).ends[1], [0, 0, 0, 1], "what waits when the engine ends is canceled");
    waits.discard();

    let single = Work::new(Box::from([Task::default()]), None, Arc::new(Nobody));
    single.targets.set(9);
    Slice::new(&single, 0, Op::Write, 0, 0, 64, None).complete(0);
    let before = numbers(1);
    tally::freed(|last| last(&single, &segments));
    assert_eq!((numbers(1).bytes[1], numbers(1).ends[1][0]), (before.bytes[1] + 64, before.ends[1][0] + 1));
}

#[test]
fn no_counter_of_a_peer_falls() {
    let peers = Peers::new(1);
    let peer = peers.enter("a").unwrap();
    // A batch was there the last time, and is being freed now.
    *peer.told.lock() = Traffic { bytes: [5, 0], ..Traffic::default() };
    assert_eq!(nothing(&peers)[0].1.bytes, [5, 0]);
    peer.note_completed(Op::Read, 1, 7);
    assert_eq!(nothing(&peers)[0].1.bytes, [7, 0]);
}
