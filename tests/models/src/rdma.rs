//! Models of what NIC threads and callers share.

use std::sync::Arc;

use loom::thread;

use super::attention::{Attention, Listed};
use super::credit::Credit;
use crate::check::each_execution;
use crate::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// What is given back can be seen by whoever gave it, unless somebody else got it: then that one's completion brings somebody here
/// again.
pub fn credit_is_never_hidden() {
    each_execution(3, || {
        let credit = Arc::new(Credit::new(2));
        assert_eq!(credit.reserve(2), 2);
        let theirs = credit.clone();
        let poster = thread::spawn(move || theirs.reserve(2));
        credit.release(1);
        let is_left = credit.is_left();
        let got = poster.join().unwrap();
        assert!(is_left || got == 1, "nobody would post what waits");
        assert_eq!(credit.outstanding(), 1 + got);
    });
}

/// Two that post at once get no more than there is, and all of it.
pub fn credit_is_lent_once() {
    each_execution(4, || {
        let credit = Arc::new(Credit::new(3));
        let posters: Vec<_> = (0..2)
            .map(|_| {
                let credit = credit.clone();
                thread::spawn(move || credit.reserve(2))
            })
            .collect();
        let got: usize = posters.into_iter().map(|poster| poster.join().unwrap()).sum();
        assert_eq!((got, credit.outstanding(), credit.is_left()), (3, 3, false));
    });
}

#[derive(Default)]
struct Thing {
    listed: Listed,
    reason: AtomicBool,
}

/// Whoever looks through the list sees the reason for which something was called, or it is listed still.
pub fn no_reason_to_look_is_lost() {
    each_execution(4, || {
        let (list, thing) =
            (Arc::new(Attention::<Thing>::new(|thing| &thing.listed)), Arc::new(Thing::default()));
        list.call(&thing);
        let (theirs, their_thing) = (list.clone(), thing.clone());
        let caller = thread::spawn(move || {
            their_thing.reason.store(true, SeqCst);
            theirs.call(&their_thing);
        });
        let mut seen = false;
        list.each(|thing| {
            seen |= thing.reason.load(SeqCst);
            false
        });
        caller.join().unwrap();
        assert!(seen || list.next().is_some());
    });
}
