//! What closing gives back, when, and what an id does afterwards.

use std::sync::atomic::AtomicUsize;
use std::sync::Weak;

use serde_json::json;

use super::super::tests::{known, NoStore};
use super::*;
use crate::host_port::HostPort;
use crate::runtime::BoxFuture;
use crate::segment_desc::SegmentDesc;

/// A peer with many buffers.
fn descriptor(name: &str) -> serde_json::Value {
    let buffers: Vec<_> =
        (1..=2000u64).map(|n| json!({"name": name, "addr": n << 20, "length": 4096})).collect();
    json!({"name": name, "protocol": "tcp", "tcp_data_port": 1, "buffers": buffers})
}

/// Counts how often a descriptor is read.
#[derive(Default)]
struct Peers(AtomicUsize);

#[rustfmt::skip]
impl Store for Peers {
    fn is_peer_to_peer(&self) -> bool { true }
    fn get(&self, name: &str) -> BoxFuture<'_, Result<SegmentDesc>> {
        self.0.fetch_add(1, SeqCst);
        let desc = SegmentDesc::decode(descriptor(name));
        Box::pin(std::future::ready(desc))
    }
    fn place(&self, _: &str) -> String { "here".into() }
    fn put(&self, _: SegmentDesc) -> BoxFuture<'_, Result<()>> { unreachable!() }
    fn remove(&self, _: &str) -> BoxFuture<'_, Result<()>> { unreachable!() }
    fn rpc_address(&self, _: &str) -> BoxFuture<'_, Result<HostPort>> { unreachable!() }
    fn put_rpc_address(&self, _: &str, _: &HostPort) -> BoxFuture<'_, Result<()>> { unreachable!() }
    fn remove_rpc_address(&self, _: &str) -> BoxFuture<'_, Result<()>> { unreachable!() }
}

fn opened(table: &Segments, name: &str) -> (i32, Weak<Segment>) {
    let store: Arc<dyn Store> = Arc::new(NoStore);
    let segment = table.insert(name, &store, known(descriptor(name)), table.begin_reading()).unwrap();
    (segment.id, Arc::downgrade(&segment))
}

fn is_held(segment: &Weak<Segment>) -> bool {
    segment.strong_count() > 0
}

#[test]
fn peers_that_come_and_go_leave_their_names_only() {
    let (table, now) = (Segments::default(), Instant::now());
    let segments: Vec<_> = (0..200).map(|n| opened(&table, &format!("peer {n}"))).collect();
    for (id, _) in &segments {
        table.close(*id, now);
    }
    let held = || segments.iter().filter(|(_, segment)| is_held(segment)).count();
    assert_eq!(held(), LINGERING);
    assert!(is_held(&segments[199].1), "the last ones are kept for a while");
    let early = table.sweep(now + LINGER / 2);
    assert!(early.gone.is_empty() && early.sweep, "later is soon enough");
    drop(early);
    let late = table.sweep(now + LINGER);
    assert_eq!((late.gone.len(), late.sweep), (LINGERING, false));
    drop(late);
    assert_eq!((held(), table.all().unwrap().len()), (0, 0));
    assert_eq!(opened(&table, "peer 7").0, segments[7].0, "a name has one id");
}

#[test]
fn the_last_of_its_users_closes_a_segment() {
    let (table, now) = (Segments::default(), Instant::now());
    let (id, segment) = opened(&table, "peer");
    assert_eq!(opened(&table, "peer").0, id);
    table.open("peer").unwrap();
    for closed in 1..=5 {
        table.close(id, now);
        drop(table.sweep(now + LINGER));
        assert_eq!(is_held(&segment), closed < 3, "closed {closed} times");
    }
    table.close(-3, now);
    table.close(0, now);
    table.close(id + 1, now);
}

#[test]
fn whoever_opens_or_uses_a_closed_segment_in_time_has_it_back() {
    let (table, now) = (Segments::default(), Instant::now());
    let (id, segment) = opened(&table, "peer");
    let back: [&dyn Fn(); 3] =
        [&|| drop(table.open("peer").unwrap()), &|| drop(table.find(id)), &|| drop(opened(&table, "peer"))];
    for back in back {
        table.close(id, now);
        back();
        drop(table.sweep(now + 2 * LINGER));
        assert!(is_held(&segment));
    }
    table.close(id, now);
    drop(table.sweep(now + LINGER));
    assert!(!is_held(&segment));
}

#[test]
fn work_under_way_keeps_a_closed_segment() {
    let (table, now) = (Segments::default(), Instant::now());
    let (id, _) = opened(&table, "busy");
    let Some(Found::Open(work)) = table.find(id) else { panic!("it is open") };
    table.close(id, now);
    for n in 0..100 {
        let (id, _) = opened(&table, &format!("peer {n}"));
        table.close(id, now);
    }
    let swept = table.sweep(now + LINGER);
    assert!(swept.sweep && is_held(&Arc::downgrade(&work)));
    let segment = Arc::downgrade(&work);
    drop((work, swept));
    assert!(!table.sweep(now + LINGER).sweep);
    assert!(!is_held(&segment));
}

#[tokio::test]
async fn the_id_of_a_closed_segment_works_and_reads_the_descriptor_once() {
    let (table, now) = (Segments::default(), Instant::now());
    let peers = Arc::new(Peers::default());
    let store: Arc<dyn Store> = peers.clone();
    let (id, _) = opened(&table, "peer");
    for read in 1..=2 {
        table.close(id, now);
        drop(table.sweep(now + LINGER));
        let Some(Found::Closed(closed)) = table.find(id) else { panic!("it is closed") };
        let (one, two) = tokio::join!(table.reopen(&closed, &store), table.reopen(&closed, &store));
        let (one, two) = (one.unwrap(), two.unwrap());
        assert!(Arc::ptr_eq(&one, &two) && one.id == id);
        assert_eq!(peers.0.load(SeqCst), read);
        assert!(table.find(id).is_some_and(|found| matches!(found, Found::Open(_))));
        drop(table.sweep(now + 9 * LINGER));
        assert_eq!(table.all().unwrap().len(), 1, "it is used again, so it is open until it is closed again");
    }
}

#[tokio::test]
async fn a_removed_segment_is_not_opened_by_its_id() {
    let (table, now) = (Segments::default(), Instant::now());
    let store: Arc<dyn Store> = Arc::new(Peers::default());
    let (id, _) = opened(&table, "peer");
    table.close(id, now);
    drop(table.sweep(now + LINGER));
    let Some(Found::Closed(closed)) = table.find(id) else { panic!("it is closed") };
    table.remove("peer");
    assert_eq!(table.reopen(&closed, &store).await.err().unwrap().code(), Code::InvalidArgument);
    assert!(table.find(id).is_none());
    assert_ne!(opened(&table, "peer").0, id, "an id that was removed never comes back");
}

/// Two threads open a peer that is being started anew. What the slower one has read may be what the predecessor has said.
#[tokio::test]
async fn p07_of_two_that_open_at_once_the_one_that_asked_later_is_believed() {
    let (table, store): (_, Arc<dyn Store>) = (Segments::default(), Arc::new(Peers::default()));
    let says =
        |port: u16| known(json!({"name": "n", "protocol": "tcp", "tcp_data_port": port, "buffers": []}));
    let port = |segment: &Segment, port| segment.known().same_as(&says(port));
    let [first, second, third] = [(); 3].map(|()| table.begin_reading());
    let opened = table.insert("peer", &store, says(2), second).unwrap();
    assert!(port(&table.insert("peer", &store, says(1), first).unwrap(), 2), "what was asked for earlier");
    let again = table.insert("peer", &store, says(3), third).unwrap();
    assert!(Arc::ptr_eq(&again, &opened) && port(&opened, 3), "what was asked for later");
}
