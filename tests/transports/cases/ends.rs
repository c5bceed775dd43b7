//! What goes away under traffic: memory, segments, engines, peers. Every task ends, and says why.

use crate::cases::returns::RETURN_LIMIT;

use transfer_engine::error::{Class, Code};

use crate::node::{Kind, Node, STORELESS, WRITE};
use crate::pair::{Pair, Target, HALF};
use crate::peer::{Peer, Seat};
use crate::traffic::{disturbed_by, retry, End};

pub fn p02_memory_goes_away_under_traffic(kind: Kind) {
    let pair = Pair::new(kind);
    for side in [&pair.here, &pair.there] {
        let mut marks = Vec::new();
        let end = disturbed_by(pair.target(), || {
            side.unregister();
            // From now on it is its owner's alone.
            marks = side.mark();
        });
        assert!(side.marks() == marks, "somebody wrote to memory that was taken back");
        for error in end.errors() {
            assert_eq!(error.code(), Code::AddressNotRegistered, "{error:?}");
        }
        side.register().unwrap();
        // A peer's new keys may take a reading or two.
        retry("registered again", RETURN_LIMIT, || {
            pair.here.failure(pair.request(WRITE, 0, HALF)).map_or(Ok(()), Err)
        });
        pair.check(0, HALF);
    }
}

pub fn p15_engines_go_away_under_traffic(kind: Kind) {
    let pair = Pair::new(kind);
    let mut marks = Vec::new();
    let end = disturbed_by(pair.target(), || {
        pair.here.engine.destroy();
        marks = pair.here.mark();
    });
    assert!(pair.here.marks() == marks, "somebody wrote to memory of a destroyed engine");
    for error in &end.failed {
        assert_eq!(error.kind(), Class::Canceled, "{error:?}");
    }
    // The batches of a destroyed engine are gone, too.
    if let Some(error) = &end.refused {
        assert!(matches!(error.kind(), Class::Canceled | Class::Argument), "{error:?}");
    }
}

pub fn a_segment_that_is_removed_under_traffic_ends_it(kind: Kind) {
    let pair = Pair::new(kind);
    let end = disturbed_by(pair.target(), || pair.here.engine.remove_segment(pair.there.name()).unwrap());
    // Transfers under way go on.
    assert!(end.failed.is_empty(), "{end:?}");
    let refused = end.refused.unwrap();
    assert_eq!((refused.code(), refused.kind()), (Code::InvalidArgument, Class::Argument), "{refused:?}");
    let again = Pair::of(pair.here.clone(), pair.there.clone());
    assert_ne!(again.segment, pair.segment);
    again.here.move_all(&[again.request(WRITE, 0, HALF)]);
    again.check(0, HALF);
}

pub fn a_segment_that_is_removed_at_once_lives_while_it_has_work(kind: Kind) {
    let (here, there) = (Node::new(kind, 0), Node::new(kind, 1));
    let reopened = || Pair::of(here.clone(), there.clone());
    for _ in 0..5 {
        let pair = reopened();
        // Whatever has to be set up first is under way when the segment goes.
        let batch = here.submit(&[pair.request(WRITE, 0, HALF)]).unwrap();
        here.engine.remove_segment(there.name()).unwrap();
        let end = batch.wait().unwrap().remove(0);
        assert!(end.is_none(), "transfers under way go on: {end:?}");
        pair.check(0, HALF);
        here.overwrite();
        // The peer, which was asked for a connection, has one of its own to make.
        let back = Pair::of(there.clone(), here.clone());
        there.move_all(&[back.request(WRITE, 0, HALF)]);
        back.check(0, HALF);
        here.overwrite();
    }
    let pair = reopened();
    here.move_all(&[pair.request(WRITE, 0, HALF)]);
    pair.check(0, HALF);
}

pub fn p03_a_peer_that_leaves_under_traffic_fails_its_tasks(kind: Kind) {
    let pair = Pair::new(kind);
    let end = disturbed_by(pair.target(), || pair.there.engine.destroy());
    check_lost(&end, pair.there.name());
}

pub fn p03_a_peer_that_is_killed_under_traffic_fails_its_tasks(kind: Kind) {
    let seat = Seat { name: "127.0.0.1".into(), store: STORELESS.into(), at: 0, ports: None };
    let mut there = Peer::start(kind, &seat);
    there.register();
    let here = Node::new(kind, 0);
    let segment = here.engine.open_segment(there.name()).unwrap();
    let target = Target { here: &here, segment, addr: there.addr() };
    let end = disturbed_by(target, || there.kill());
    check_lost(&end, there.name());
}

/// What was under way when the peer went away has failed, and names it.
fn check_lost(end: &End, peer: &str) {
    assert!(!end.failed.is_empty(), "nothing was under way: {end:?}");
    assert!(end.refused.is_none(), "{end:?}");
    for error in &end.failed {
        assert_eq!((error.code(), error.kind()), (Code::Socket, Class::Network), "{error:?}");
        // RDMA says which of its NICs, too.
        let named = error.peer_name().split('@').next();
        assert_eq!(named, Some(peer), "{error:?}");
    }
}
