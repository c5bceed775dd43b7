//! Models of the pages with messages between two processes.

use std::sync::Arc;

use loom::thread;

use super::ring::Ring;
use super::wire::Kind;
use crate::check::each_execution;
use crate::pages::last_made;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

const LEN: u64 = 8192;

/// The rings of two sides, with the numbers 7 and 8.
fn pair() -> (Ring, Ring) {
    let mut one = Ring::new(7).unwrap();
    let page_of_one = last_made();
    let mut two = Ring::new(8).unwrap();
    assert!(one.attach(last_made(), LEN) && two.attach(page_of_one, LEN));
    (one, two)
}

/// A message is seen whole: never its number without its contents.
pub fn a_message_is_whole() {
    each_execution(3, || {
        let (mut one, mut two) = pair();
        two.wake();
        let sender = thread::spawn(move || {
            assert!(one.takes());
            one.put(Kind::Write, &[3, 4]);
            one.put(Kind::Ended, &[5]);
        });
        let first = two.take();
        let second = two.take();
        if let Some(first) = first {
            assert_eq!(first, (Kind::Write as u64, [3, 4, 0, 0, 0, 0]));
        }
        if let Some(second) = second {
            assert_eq!(second.0, if first.is_some() { Kind::Ended as u64 } else { Kind::Write as u64 });
        }
        sender.join().unwrap();
    });
}

/// Whoever falls asleep sees a message that was written meanwhile, or is told of it through the socket.
pub fn whoever_sleeps_is_woken() {
    each_execution(4, || {
        let (mut one, mut two) = pair();
        two.wake();
        let sender = thread::spawn(move || {
            if !one.takes() {
                // It goes through the socket.
                return true;
            }
            one.put(Kind::Write, &[1]);
            one.must_wake()
        });
        let taken = two.take().is_some();
        let has_more = two.sleep();
        let told = sender.join().unwrap();
        assert!(taken || has_more || told, "the message lies there, and nobody looks");
    });
}

/// Whoever read memory of the peer's after that had taken its connection back, and used the memory anew, notices.
pub fn p01_what_was_read_after_a_connection_was_taken_back_is_not_believed() {
    each_execution(4, || {
        let (mut one, two) = pair();
        let memory = Arc::new(AtomicU64::new(1));
        let theirs = memory.clone();
        let owner = thread::spawn(move || {
            one.retract();
            theirs.store(2, Relaxed);
        });
        let read = memory.load(Relaxed);
        assert!(read == 1 || !two.peer_has(7));
        owner.join().unwrap();
    });
}
