//! Versions; and segments for other tests.

use std::sync::atomic::Ordering::SeqCst;

use serde_json::{json, Value};

use super::table::Segments;
use super::*;
use crate::error::{Class, Code, Error};
use crate::metadata::Change;
use crate::runtime::control::Control;
use crate::segment_desc::SegmentDesc;

pub(crate) struct NoStore;

#[rustfmt::skip]
impl Store for NoStore {
    fn is_peer_to_peer(&self) -> bool { true }
    fn get(&self, _: &str) -> crate::runtime::BoxFuture<'_, Result<SegmentDesc>> { unreachable!() }
    fn place(&self, _: &str) -> String { unreachable!() }
    fn put(&self, _: SegmentDesc) -> crate::runtime::BoxFuture<'_, Result<()>> { unreachable!() }
    fn remove(&self, _: &str) -> crate::runtime::BoxFuture<'_, Result<()>> { unreachable!() }
    fn rpc_address(&self, _: &str) -> crate::runtime::BoxFuture<'_, Result<HostPort>> { unreachable!() }
    fn put_rpc_address(&self, _: &str, _: &HostPort) -> crate::runtime::BoxFuture<'_, Result<()>> { unreachable!() }
    fn remove_rpc_address(&self, _: &str) -> crate::runtime::BoxFuture<'_, Result<()>> { unreachable!() }
}

/// An open segment whose descriptor nobody can read again.
pub(crate) fn open_with(desc: Value) -> (Segments, Arc<Segment>) {
    let table = Segments::default();
    let store: Arc<dyn Store> = Arc::new(NoStore);
    let segment = table.insert("peer", &store, known(desc), table.begin_reading()).unwrap();
    (table, segment)
}

/// Segments with these ids, whose tasks are counted by peer.
pub(crate) fn numbered(ids: &[i32]) -> Vec<Arc<Segment>> {
    let settings = freshness::Settings::default();
    let store: Arc<dyn Store> = Arc::new(NoStore);
    let readings = Readings::default();
    let make = |id: &i32| {
        let desc = json!({"name": format!("peer {id}"), "protocol": "tcp", "tcp_data_port": 1, "tcp_proto_version": 1});
        Segment::new(*id, "alias", &store, known(desc), readings.begin(), &settings)
    };
    ids.iter().map(make).map(Arc::new).collect()
}

/// As if the descriptor had been read again.
pub(crate) fn read_again(segment: &Segment, desc: Value) {
    segment.replace(known(desc), segment.begin_reading());
}

pub(crate) fn known(desc: Value) -> Known {
    Known::new(SegmentDesc::decode(desc).unwrap(), 0).unwrap()
}

#[test]
fn the_version_changes_with_what_the_descriptor_says() {
    let desc = |port: u16, version: u32| json!({"name": "n", "protocol": "tcp", "tcp_data_port": port, "tcp_proto_version": version});
    let (_table, segment) = open_with(desc(1, 1));
    let first = segment.known();
    read_again(&segment, desc(1, 2));
    assert_eq!(segment.known().version, first.version);
    assert!(!Arc::ptr_eq(&segment.known(), &first), "it is the new one all the same");
    read_again(&segment, desc(2, 2));
    let second = segment.known().version;
    assert_ne!(second, first.version);
    read_again(&segment, desc(1, 1));
    assert!(segment.known().version > second, "the same as before is a new version");
}

/// Two read at once, and the answer of the first one, from a process that is gone since, comes last.
#[test]
fn p07_an_answer_that_was_asked_for_earlier_does_not_replace_a_later_one() {
    let desc =
        |port: u16| json!({"name": "n", "protocol": "tcp", "tcp_data_port": port, "tcp_proto_version": 1});
    let (_table, segment) = open_with(desc(1));
    let [early, late] = [segment.begin_reading(), segment.begin_reading()];
    segment.replace(known(desc(3)), late);
    let newest = segment.known();
    segment.replace(known(desc(2)), early);
    assert!(Arc::ptr_eq(&segment.known(), &newest));
    read_again(&segment, desc(4));
    assert!(!Arc::ptr_eq(&segment.known(), &newest));
}

/// A store that does not answer at first.
struct Slow {
    /// So many readings fail.
    fails: usize,
    begun: AtomicUsize,
    running: AtomicUsize,
}

#[rustfmt::skip]
impl Store for Slow {
    fn is_peer_to_peer(&self) -> bool { false }
    fn watches(&self) -> bool { true }
    fn get(&self, _: &str) -> crate::runtime::BoxFuture<'_, Result<SegmentDesc>> {
        Box::pin(async {
            assert_eq!(self.running.fetch_add(1, SeqCst), 0, "another reading runs");
            let begun = self.begun.fetch_add(1, SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.running.fetch_sub(1, SeqCst);
            if begun < self.fails {
                return Err(Error::new(Code::Socket, "no answer").transient(Class::Network));
            }
            SegmentDesc::decode(json!({"name": "n", "protocol": "tcp", "tcp_data_port": 2}))
        })
    }
    fn place(&self, _: &str) -> String { "here".into() }
    fn put(&self, _: SegmentDesc) -> crate::runtime::BoxFuture<'_, Result<()>> { unreachable!() }
    fn remove(&self, _: &str) -> crate::runtime::BoxFuture<'_, Result<()>> { unreachable!() }
    fn rpc_address(&self, _: &str) -> crate::runtime::BoxFuture<'_, Result<HostPort>> { unreachable!() }
    fn put_rpc_address(&self, _: &str, _: &HostPort) -> crate::runtime::BoxFuture<'_, Result<()>> { unreachable!() }
    fn remove_rpc_address(&self, _: &str) -> crate::runtime::BoxFuture<'_, Result<()>> { unreachable!() }
}

fn watched(fails: usize) -> (Segments, Arc<Slow>, Arc<Segment>) {
    let slow = Arc::new(Slow { fails, begun: AtomicUsize::new(0), running: AtomicUsize::new(0) });
    let (table, store): (_, Arc<dyn Store>) = (Segments::default(), slow.clone());
    let old = known(json!({"name": "n", "protocol": "tcp", "tcp_data_port": 1}));
    let segment = table.insert("peer", &store, old, table.begin_reading()).unwrap();
    (table, slow, segment)
}

/// The store cannot tell what has changed, and does not answer when it is asked.
#[tokio::test(start_paused = true)]
async fn a_change_that_nobody_could_read_is_read_when_the_store_answers() {
    let control = Control::of_this_loop();
    let (_table, slow, segment) = watched(3);
    segment.hear(Change::Unknown, &control);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let new = known(json!({"name": "n", "protocol": "tcp", "tcp_data_port": 2}));
    assert!(segment.known().same_as(&new));
    assert_eq!(slow.begun.load(SeqCst), 4, "nobody asks any more");
}

#[tokio::test(start_paused = true)]
async fn a_segment_has_one_reading_in_the_background_at_a_time() {
    let control = Control::of_this_loop();
    let (_table, slow, segment) = watched(0);
    for _ in 0..20 {
        segment.hear(Change::Unknown, &control);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(slow.begun.load(SeqCst), 2, "one that runs, and one that waits for its end");
}

/// Its pauses do not keep a segment that nobody has any more.
#[tokio::test(start_paused = true)]
async fn a_segment_that_cannot_be_read_goes_when_it_is_removed() {
    let control = Control::of_this_loop();
    let (table, slow, segment) = watched(usize::MAX);
    segment.hear(Change::Unknown, &control);
    drop(segment);
    tokio::time::sleep(Duration::from_secs(60)).await;
    table.remove("peer");
    tokio::time::sleep(Duration::from_secs(30)).await;
    let begun = slow.begun.load(SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(begun > 3 && slow.begun.load(SeqCst) == begun);
}
