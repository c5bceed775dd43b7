//! Requests that arrive, and requests that are refused.

use std::sync::Arc;
use std::time::Instant;

use transfer_engine::engine::submit::Request;
use transfer_engine::error::Code;
use transfer_engine::handshake::Notification;

use crate::memory::{Memory, LEN};
use crate::node::{Batch, Kind, Node, COMPLETED, FOREVER, READ, STORELESS, WRITE};
use crate::pair::{Pair, HALF};

pub fn every_size_arrives_in_both_directions(kind: Kind) {
    for opcode in [WRITE, READ] {
        let pair = Pair::new(kind);
        let around = |at: usize, len: usize| {
            [&pair.here.bytes(at - 1, 1), &pair.here.bytes(at + len, 1)]
                .into_iter()
                .chain([&pair.there.bytes(HALF + at - 1, 1), &pair.there.bytes(HALF + at + len, 1)])
                .flatten()
                .copied()
                .collect::<Vec<u8>>()
        };
        let mut at = 0;
        for len in [1, 7, 64, 4095, 4096, 65_536, 65_537, 1 << 20, (1 << 20) + 3] {
            // Odd beginnings.
            at += 1;
            let untouched = around(at, len);
            assert!(!pair.is_same(at, len), "nothing to be seen");
            pair.here.move_all(&[pair.request(opcode, at, len)]);
            pair.check(at, len);
            assert_eq!(around(at, len), untouched, "{len} bytes at {at}");
            at += len;
        }
        pair.here.move_all(&[pair.request(opcode, 0, HALF)]);
        pair.check(0, HALF);
    }
}

pub fn p01_many_requests_of_many_batches_arrive(kind: Kind) {
    const BATCHES: usize = 20;
    const COUNT: usize = 256;
    const SIZE: usize = 768;
    let pair = Pair::new(kind);
    let part = |batch: usize| batch * COUNT * SIZE;
    // All of them are submitted before the first is waited for.
    let submit = |batch: usize| -> Batch<'_> {
        let opcode = if batch.is_multiple_of(2) { WRITE } else { READ };
        let requests: Vec<_> =
            (0..COUNT).map(|index| pair.request(opcode, part(batch) + index * SIZE, SIZE)).collect();
        pair.here.submit(&requests).unwrap()
    };
    assert!(!(0..BATCHES).any(|batch| pair.is_same(part(batch), COUNT * SIZE)), "nothing to be seen");
    let under_way: Vec<_> = (0..BATCHES).map(submit).collect();
    for (batch, submitted) in under_way.into_iter().enumerate() {
        let ends = submitted.wait().unwrap();
        assert!(ends.iter().all(Option::is_none), "batch {batch}: {ends:?}");
        pair.check(part(batch), COUNT * SIZE);
    }
}

pub fn two_threads_do_not_disturb_each_other(kind: Kind) {
    let pair = Pair::new(kind);
    std::thread::scope(|scope| {
        for (thread, opcode) in [WRITE, READ].into_iter().enumerate() {
            let pair = &pair;
            scope.spawn(move || {
                for round in 0..50 {
                    let at = thread * (1 << 20) + round * 8192;
                    assert!(!pair.is_same(at, 4196), "nothing to be seen");
                    let requests = [pair.request(opcode, at, 4096), pair.request(opcode, at + 4096, 100)];
                    pair.here.move_all(&requests);
                    pair.check(at, 4196);
                    assert!(!pair.is_same(at + 4196, 1), "only what was asked for");
                }
            });
        }
    });
}

pub fn p37_addresses_that_nobody_registered_are_refused(kind: Kind) {
    let pair = Pair::new(kind);
    let good = pair.request(WRITE, 0, 100);
    for bad in [
        Request { offset: 8, ..good },
        Request { offset: pair.there.addr() + LEN as u64 - 99, ..good },
        Request { offset: u64::MAX, ..good },
        Request { source: 8, ..good },
        Request { source: pair.here.addr() + LEN as u64 - 99, ..good },
    ] {
        // One bad request refuses the call: the good one is not begun.
        let error = pair.here.run(&[good, bad]).unwrap_err();
        assert_eq!(error.code(), Code::AddressNotRegistered, "{bad:?}: {error}");
        assert!(!pair.is_same(0, 100), "{bad:?}");
    }
    pair.here.move_all(&[good]);
    pair.check(0, 100);
}

pub fn a_notification_follows_its_batch(kind: Kind) {
    let pair = Pair::new(kind);
    let note = Notification { name: "kv".into(), message: "ready".into() };
    let request = pair.request(WRITE, 0, HALF);
    assert!(!pair.is_same(0, HALF), "nothing to be seen");
    std::thread::scope(|scope| {
        let notified = scope.spawn(|| {
            let deadline = Instant::now() + FOREVER;
            loop {
                let notes = pair.there.engine.local().notifications.take();
                if !notes.is_empty() {
                    // Whoever is notified may look at once: here and there first, because all of it takes a while.
                    let there = |at| pair.there.bytes(HALF + at, 1);
                    let missing =
                        (0..HALF).step_by(64 << 10).find(|at| there(*at) != pair.here.bytes(*at, 1));
                    assert_eq!(missing, None, "notified before the bytes were there");
                    pair.check(0, HALF);
                    return notes;
                }
                assert!(Instant::now() < deadline, "no notification");
                std::thread::yield_now();
            }
        });
        let engine = &pair.here.engine;
        let batch = engine.allocate_batch(1).unwrap();
        engine.submit(batch, 1, |_| request, Some(note.clone())).unwrap();
        engine.wait_batch(batch, Some(FOREVER)).unwrap();
        assert_eq!(engine.task_status(batch, 0).unwrap().0, COMPLETED);
        engine.free_batch(batch).unwrap();
        assert_eq!(notified.join().unwrap(), [note]);
    });
}

/// One refusal must not stand in the way of what comes after it.
pub fn memory_that_a_peer_registers_after_a_refusal_is_reached_at_once(kind: Kind) {
    let pair = Pair::new(kind);
    let request = pair.request(WRITE, 0, 4096);
    pair.here.move_all(&[request]);
    for _ in 0..5 {
        pair.there.unregister();
        // What is known here of the peer may lag behind, so this may fail later than in the call.
        pair.here.engine.sync_segments();
        let refused = pair.here.run(&[request]).expect_err("nobody has registered it");
        assert_eq!(refused.code(), Code::AddressNotRegistered, "{refused}");
        pair.there.register().unwrap();
        pair.here.move_all(&[request]);
        pair.check(0, 4096);
    }
}

/// A peer's descriptor has one form, which is that of a transport that others know too, if it has one.
pub fn buffers_in_another_transports_form_are_reached(kind: Kind) {
    let there = Node::unregistered(kind, 1, STORELESS, "127.0.0.1", Memory::new(None, 1));
    there.install("tcp", 1);
    there.register().unwrap();
    assert_eq!(there.engine.local().descriptor().unwrap().unwrap().protocol, "tcp");
    let pair = Pair::of(Node::new(kind, 0), Arc::new(there));
    for opcode in [WRITE, READ] {
        pair.here.move_all(&[pair.request(opcode, 0, HALF)]);
        pair.check(0, HALF);
    }
    let past = pair.there.addr() + LEN as u64 - 1;
    let refused = pair.here.run(&[Request { offset: past, ..pair.request(WRITE, 0, 2) }]).unwrap_err();
    assert_eq!(refused.code(), Code::AddressNotRegistered, "{refused}");
}
