//! Stores that are away or full for a while.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use transfer_engine::error::Code;

use crate::node::{until, Node};
use crate::servers::{Kind, Server};
use crate::special::elsewhere;

/// Thirty times as long as a background reading takes to give up.
const AWAY: Duration = Duration::from_secs(30);

/// Ends a store, or makes it silent: a server that is stopped keeps its connections and does not answer.
fn take_away(server: &mut Server) {
    match server.kind {
        Kind::Etcd => server.stop(),
        _ => server.signal(libc::SIGSTOP),
    }
}

fn bring_back(server: &mut Server) {
    match server.kind {
        Kind::Etcd => server.again(),
        _ => server.signal(libc::SIGCONT),
    }
}

/// Bytes go between two engines that know each other while their store is away; afterwards both are found in it again.
fn outlast(kind: Kind) {
    let mut server = Server::start(kind);
    let (a, b) = (Node::start(&server.url(), "a"), Node::start(&server.url(), "b"));
    let target = a.engine.open_segment("b").unwrap();
    a.exchange_with(&b, target, 0).unwrap();
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            while !stop.load(SeqCst) {
                let seed = rounds.fetch_add(1, SeqCst) as u8;
                a.exchange_with(&b, target, seed)?;
            }
            Ok::<(), String>(())
        });
        take_away(&mut server);
        let before = rounds.load(SeqCst);
        // The length of the outage is what is tested.
        std::thread::sleep(AWAY);
        let moved = rounds.load(SeqCst) - before;
        bring_back(&mut server);
        stop.store(true, SeqCst);
        let outcome = traffic.join().unwrap();
        assert!(outcome.is_ok(), "{kind:?}: {outcome:?} after {moved} rounds");
        assert!(moved > 100, "{kind:?}: only {moved} rounds in {AWAY:?}");
    });
    until("both are in the store again", || {
        ["ram/a", "ram/b", "rpc_meta/a", "rpc_meta/b"]
            .iter()
            .all(|key| server.get(&format!("mooncake/{key}")).is_some())
    });
    until("registrations are taken again", || b.engine.register(&[b.range(1)], "*", true).is_ok());
    let c = Node::start(&server.url(), "c");
    c.exchange_with(&b, c.engine.open_segment("b").unwrap(), 1).unwrap();
}

#[test]
fn p05_transfers_go_on_while_the_store_is_away_for_half_a_minute() {
    if elsewhere("outages::p05_transfers_go_on_while_the_store_is_away_for_half_a_minute", &[]) {
        return;
    }
    let kinds = [Kind::Etcd, Kind::Redis, Kind::Mte];
    std::thread::scope(|scope| {
        kinds.map(|kind| scope.spawn(move || outlast(kind))).map(|case| case.join().unwrap())
    });
}

#[test]
fn what_a_full_store_refused_is_published_once_it_has_room() {
    if elsewhere("outages::what_a_full_store_refused_is_published_once_it_has_room", &[]) {
        return;
    }
    let server = Server::start(Kind::Redis);
    let a = Node::start(&server.url(), "a");
    let listed =
        |addr: u64| server.get("mooncake/ram/a").is_some_and(|text| text.contains(&format!("{addr}")));
    assert!(listed(a.addr()));
    let room = |bytes: &str| drop(server.redis(&["CONFIG", "SET", "maxmemory", bytes]));
    room("1");
    let error = a.engine.unregister(std::iter::once(a.addr())).unwrap_err();
    assert_eq!(error.code(), Code::Metadata, "{error}");
    let error = a.engine.register(&[a.range(1)], "*", true).unwrap_err();
    assert!(error.code() == Code::Metadata && !error.retryable(), "{error}");
    // One of each call, and one in the background after each.
    let refusals = || {
        let stats = server.redis(&["INFO", "errorstats"]).unwrap();
        let count = stats.lines().find_map(|line| line.strip_prefix("errorstat_OOM:count="));
        count.map_or(0, |count| count.trim().parse::<u32>().unwrap())
    };
    until("the background is refused, too", || refusals() >= 4);
    room("0");
    // Without another call.
    until("the region that is gone is no longer listed", || {
        server.get("mooncake/ram/a").is_some() && !listed(a.addr())
    });
    assert!(!listed(a.range(1).addr), "nor the one that was refused");
}
