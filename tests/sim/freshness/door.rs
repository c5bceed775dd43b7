//! The way of one segment to the store, and what is known of its readings: the rules of order and load are looked at here.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{json, Map};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout, Instant};

use super::shelf::{Kind, Shelf};
use super::Fault;
use crate::engine::known::Known;
use crate::error::{Class, Code, Error, Result};
use crate::host_port::HostPort;
use crate::metadata::{Change, Store, Watch};
use crate::runtime::BoxFuture;
use crate::segment_desc::SegmentDesc;
use crate::transport::slice::Slice;
use crate::transport::Link;

/// What an operation of a store takes at the most, as stores promise.
pub(super) const STORE_LIMIT: Duration = Duration::from_secs(5);

/// One per segment, made before it.
pub(super) struct Door {
    me: Weak<Door>,
    pub shelf: Arc<Mutex<Shelf>>,
    pub peer: usize,
    pub seen: Mutex<Seen>,
    /// Rung when a turn has ended: of openers, and of submit calls.
    pub bells: [Notify; 2],
    pub link: Arc<Wire>,
}

/// A descriptor, as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Number of the reading; news have the number of one that begins when they are heard.
    pub reading: u64,
    pub revision: i64,
    pub edition: usize,
    /// It was over when it was given.
    pub is_old: bool,
}

/// What has come through a door.
#[derive(Default)]
pub(super) struct Seen {
    pub best: Option<Answer>,
    /// The last reading whose answer was taken.
    pub taken: u64,
    /// The last reading that was answered, taken or not, and when it began.
    pub answered: Option<(u64, Instant)>,
    /// Readings from here on count: those before may be of a store that is emptied now.
    from: u64,
    /// How often the store had been emptied when this was heard last.
    pub emptied: u64,
    /// The last reading that had begun when nobody answered.
    pub suspected: u64,
    /// When a reading last failed, or was given up.
    pub failed: Option<Instant>,
    pub under_way: usize,
    /// Of these, the ones that a call waits for.
    pub awaited: usize,
}

impl Seen {
    /// The rule of order.
    pub(super) fn take(&mut self, answer: Answer) -> bool {
        // A revision of before cannot be compared with those that the store counts now.
        let is_comparable = answer.revision != 0 && answer.reading >= self.from;
        if let Some(best) = self.best {
            let is_later = match is_comparable {
                true => answer.revision >= best.revision,
                false => answer.reading >= self.taken,
            };
            if !is_later {
                return false;
            }
        }
        let revision = match (is_comparable, self.best) {
            (true, _) => answer.revision,
            (false, best) => best.map_or(0, |best| best.revision),
        };
        self.taken = self.taken.max(answer.reading);
        self.best = Some(Answer { revision, ..answer });
        true
    }
}

/// What ends a reading, also one that is given up.
struct Reading<'a> {
    door: &'a Door,
    answered: bool,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.door.seen.lock().under_way -= 1;
        self.door.shelf.lock().under_way -= 1;
        if !self.answered {
            self.door.seen.lock().failed = Some(Instant::now());
        }
    }
}

impl Door {
    pub(super) fn new(shelf: &Arc<Mutex<Shelf>>, peer: usize) -> Arc<Self> {
        let emptied = shelf.lock().emptied;
        Arc::new_cyclic(|me| Door {
            me: me.clone(),
            shelf: shelf.clone(),
            peer,
            seen: Mutex::new(Seen { emptied, ..Seen::default() }),
            bells: Default::default(),
            link: Arc::default(),
        })
    }

    /// The revisions that are known are those of a store that was emptied since.
    pub(super) fn is_outdated(&self) -> bool {
        let emptied = self.shelf.lock().emptied;
        self.seen.lock().emptied != emptied
    }

    /// Nobody answers where the owner should be.
    pub(super) fn suspect(&self) {
        let begun = self.shelf.lock().begun;
        self.seen.lock().suspected = begun;
    }

    async fn read(&self) -> Result<(SegmentDesc, i64)> {
        let number = {
            let shelf = &mut *self.shelf.lock();
            shelf.begun += 1;
            shelf.under_way += 1;
            shelf.begun
        };
        let began = Instant::now();
        self.seen.lock().under_way += 1;
        let mut reading = Reading { door: self, answered: false };
        self.check_load();
        let answered = timeout(STORE_LIMIT, self.answer()).await;
        let answered = answered.unwrap_or_else(|_| Err(silent("no answer")));
        let (edition, revision, is_old) = match answered {
            Ok(answer) => answer,
            Err(error) => {
                self.suspect();
                self.shelf.lock().choices.reach("a reading fails");
                return Err(error);
            }
        };
        reading.answered = true;
        let answer = Answer { reading: number, revision, edition, is_old };
        let is_taken = {
            let seen = &mut *self.seen.lock();
            seen.answered = seen.answered.max(Some((number, began)));
            seen.take(answer)
        };
        let shelf = &mut *self.shelf.lock();
        shelf.tell(|| format!("reading {number}: {edition} of peer {}, taken: {is_taken}", self.peer));
        if !is_taken {
            shelf.choices.reach("a late answer is not used");
        }
        Ok((descriptor(self.peer, edition, shelf.editions[edition].process), revision))
    }

    /// The edition, its revision, whether it is old.
    async fn answer(&self) -> Result<(usize, i64, bool)> {
        self.travel().await?;
        let is_asked_itself = self.shelf.lock().kind == Kind::Peers;
        while is_asked_itself && self.shelf.lock().peers[self.peer].is_stopped {
            sleep(Duration::from_millis(50)).await;
        }
        let (looked, is_old) = self.shelf.lock().look(self.peer);
        self.travel().await?;
        match looked {
            Some((edition, revision)) => Ok((edition, revision, is_old)),
            None if is_asked_itself => Err(silent("refused").transient(Class::Network)),
            None => Err(Error::new(Code::Metadata, "not there").transient(Class::Metadata)),
        }
    }

    /// A request or its answer is on its way.
    async fn travel(&self) -> Result<()> {
        let (delay_ms, is_lost, is_told) = {
            let shelf = &mut *self.shelf.lock();
            let delays: &[u64] = if shelf.is_slow { &[1, 60, 700, 1_500, 4_000] } else { &[1, 1, 5, 60] };
            let delay_ms = shelf.choices.pick(delays);
            let loses = shelf.loses;
            let is_lost =
                shelf.is_down && shelf.kind != Kind::Peers || loses > 0 && shelf.choices.chance(loses);
            (delay_ms, is_lost, is_lost && shelf.choices.chance(500))
        };
        sleep(Duration::from_millis(delay_ms)).await;
        match (is_lost, is_told) {
            (false, _) => Ok(()),
            (true, true) => Err(silent("lost").transient(Class::Network)),
            (true, false) => std::future::pending().await,
        }
    }

    fn check_load(&self) {
        let Seen { under_way, awaited, .. } = *self.seen.lock();
        let shelf = &mut *self.shelf.lock();
        // All are read now: one more of each.
        let most = awaited + 1 + shelf.syncs;
        if under_way > most {
            shelf.breaks(format!("{under_way} readings of peer {} at once, {awaited} for calls", self.peer));
        }
        if shelf.syncs == 0 && shelf.under_way > shelf.awaited + 8 {
            let text = format!("{} readings at once, {} for calls", shelf.under_way, shelf.awaited);
            shelf.breaks(text);
        }
    }

    /// The store tells something.
    pub(super) fn hear(&self, edition: Option<Option<usize>>, revision: i64) -> Change {
        let shelf = &mut *self.shelf.lock();
        let seen = &mut *self.seen.lock();
        shelf.tell(|| format!("news for peer {}: {edition:?}, revision {revision}", self.peer));
        match edition {
            Some(Some(edition)) => {
                shelf.choices.reach("news are heard");
                shelf.begun += 1;
                seen.answered = Some((shelf.begun, Instant::now()));
                seen.take(Answer { reading: shelf.begun, revision, edition, is_old: false });
                let process = shelf.editions[edition].process;
                Change::To(Box::new(descriptor(self.peer, edition, process)), revision)
            }
            Some(None) => {
                seen.suspected = shelf.begun;
                Change::Gone
            }
            None => {
                shelf.choices.reach("news are unknown");
                seen.from = shelf.begun + 1;
                seen.emptied = shelf.emptied;
                if let Some(best) = &mut seen.best {
                    best.revision = 0;
                }
                Change::Unknown
            }
        }
    }
}

fn silent(why: &str) -> Error {
    Error::new(Code::Socket, why).transient(Class::Timeout)
}

/// What a process says: the edition is the address of its only buffer.
fn descriptor(peer: usize, edition: usize, process: usize) -> SegmentDesc {
    let buffer = json!({"name": "cpu:0", "addr": (edition as u64 + 1) << 20, "length": 4096});
    let mut members = Map::new();
    members.insert("tcp_data_port".into(), 1.into());
    members.insert("tcp_proto_version".into(), 1.into());
    members.insert("buffers".into(), json!([buffer]));
    let incarnation = Some(format!("{process:032x}"));
    SegmentDesc { name: name(peer), protocol: "tcp".into(), incarnation, members }
}

/// The edition of a descriptor.
pub(super) fn edition(known: &Known) -> usize {
    let mut addresses = known.buffers().into_iter().flatten();
    let (address, ..) = addresses.next().unwrap();
    (address >> 20) as usize - 1
}

/// The name of a peer.
pub(super) fn name(peer: usize) -> String {
    format!("p{peer}")
}

#[rustfmt::skip]
impl Store for Door {
    fn is_peer_to_peer(&self) -> bool { self.shelf.lock().kind == Kind::Peers }
    fn get(&self, name: &str) -> BoxFuture<'_, Result<SegmentDesc>> {
        let got = self.get_at(name);
        Box::pin(async move { got.await.map(|(desc, _)| desc) })
    }
    fn place(&self, segment: &str) -> String { segment.into() }
    fn get_at(&self, _: &str) -> BoxFuture<'_, Result<(SegmentDesc, i64)>> { Box::pin(self.read()) }
    fn put(&self, _: SegmentDesc) -> BoxFuture<'_, Result<()>> { unreachable!() }
    fn remove(&self, _: &str) -> BoxFuture<'_, Result<()>> { unreachable!() }
    fn rpc_address(&self, _: &str) -> BoxFuture<'_, Result<HostPort>> { Box::pin(self.address()) }
    fn put_rpc_address(&self, _: &str, _: &HostPort) -> BoxFuture<'_, Result<()>> { unreachable!() }
    fn remove_rpc_address(&self, _: &str) -> BoxFuture<'_, Result<()>> { unreachable!() }
    fn watches(&self) -> bool { self.shelf.lock().kind == Kind::Telling }
    fn watch(&self, _: &str, since: i64, changed: Box<dyn Fn(Change) + Send + Sync>) -> Option<Watch> { self.start_watch(since, changed) }
}

impl Door {
    /// Where the process is that has the name.
    async fn address(&self) -> Result<HostPort> {
        if self.is_peer_to_peer() {
            return Ok(HostPort { host: name(self.peer), port: 1 });
        }
        let asked = async {
            self.travel().await?;
            let process = self.shelf.lock().peers[self.peer].process;
            self.travel().await?;
            process.ok_or_else(|| Error::new(Code::Metadata, "not there").transient(Class::Metadata))
        };
        let process = timeout(STORE_LIMIT, asked).await.unwrap_or_else(|_| Err(silent("no answer")))?;
        Ok(HostPort { host: process.to_string(), port: 1 })
    }

    fn start_watch(&self, since: i64, changed: Box<dyn Fn(Change) + Send + Sync>) -> Option<Watch> {
        if !self.watches() {
            return None;
        }
        let shelf = self.shelf.clone();
        let number = shelf.lock().add_watch(self.me.upgrade()?, since, changed);
        Some(Watch(Box::new(move || {
            let ended = shelf.lock().end_watch(number);
            drop(ended);
        })))
    }
}

/// A link over TCP, as far as opening looks at it.
#[derive(Default)]
pub(super) struct Wire {
    /// 0: never tried; 1: up; 2: over.
    state: AtomicU8,
    /// Where it leads.
    process: AtomicUsize,
}

impl Wire {
    pub(super) fn leads_to(&self) -> Option<usize> {
        (self.state.load(Relaxed) == 1).then(|| self.process.load(Relaxed))
    }

    pub(super) fn up(&self, process: usize) {
        self.process.store(process, Relaxed);
        self.state.store(1, Relaxed);
    }

    /// The next attempt reads the descriptor first if it is over.
    pub(super) fn begin(&self) -> bool {
        self.state.swap(0, Relaxed) == 2
    }

    pub(super) fn end(&self) {
        self.state.store(2, Relaxed);
    }
}

#[rustfmt::skip]
impl Link for Wire {
    fn submit(&self, _: Vec<Slice>, _: u64) {}
    fn poll(&self) -> bool { false }
    fn rely_on_threads(&self) {}
    fn give_up(&self) {}
    fn close(&self, _: &Error) {}
    fn peer_lives(&self) -> Option<bool> {
        match self.state.load(Relaxed) { 0 => None, state => Some(state == 1) }
    }
}

/// A planted fault is asked for.
pub(super) fn is_planted(shelf: &Mutex<Shelf>, fault: Fault) -> bool {
    shelf.lock().fault == Some(fault)
}
