//! The calls of an engine. What `engine/segments.rs`, `engine/submit.rs` and `engine/route.rs` do on the thread of a caller is done here by a task.

use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{sleep, sleep_until, timeout_at, Instant};

use super::door::{edition, is_planted, name, Door, STORE_LIMIT};
use super::rules;
use super::shelf::{Kind, Shelf};
use super::Fault;
use crate::engine::segment::table::{Found, Segments};
use crate::engine::segment::turns::{Running, Step, Turns};
use crate::engine::segment::OPEN_LIMIT;
use crate::engine::segment::{read, Segment};
use crate::engine::segments::{self, REOPEN_LIMIT};
use crate::engine::submit::REFRESH_LIMIT;
use crate::error::{Class, Error, Result};
use crate::host_port::HostPort;
use crate::metadata::Store;
use crate::runtime::control::Control;
use crate::runtime::instant;

/// Age from which an open segment is read again, as by default.
pub(super) const OPEN_AGE: Duration = Duration::from_secs(1);

/// Turns of openers, and of submit calls, in [`Door::bells`].
const OPENERS: usize = 0;
const SUBMITS: usize = 1;

/// Dropped with its world.
pub(super) struct Engine {
    pub shelf: Arc<Mutex<Shelf>>,
    pub control: Arc<Control>,
    pub segments: Arc<Segments>,
    /// Every segment that there was.
    pub doors: Mutex<Vec<(Weak<Segment>, Arc<Door>)>>,
    /// The ids that names have.
    pub ids: Mutex<Vec<Option<i32>>>,
    /// How often they were opened and not closed since.
    pub opens: Mutex<Vec<usize>>,
    /// The highest id that was given.
    pub last_id: Mutex<i32>,
}

/// A reading that a call waits for.
struct Awaited<'a>(&'a Door);

impl<'a> Awaited<'a> {
    fn by(door: &'a Door) -> Self {
        door.seen.lock().awaited += 1;
        door.shelf.lock().awaited += 1;
        Awaited(door)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.seen.lock().awaited -= 1;
        self.0.shelf.lock().awaited -= 1;
    }
}

/// A turn, and the bell of those that wait for its end.
struct Turn<'a>(Option<Running<'a>>, &'a Notify, bool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.2 {
            return std::mem::forget(self.0.take());
        }
        drop(self.0.take());
        self.1.notify_waiters();
    }
}

impl Engine {
    pub(super) fn door(&self, segment: &Arc<Segment>) -> Arc<Door> {
        let doors = self.doors.lock();
        let found = doors.iter().find(|(of, _)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(segment)));
        found.expect("every segment has a door").1.clone()
    }

    /// A segment was made, or found; `door` is the one that its descriptor came through just now.
    fn adopt(&self, segment: &Arc<Segment>, door: &Arc<Door>) -> Arc<Door> {
        let is_known = {
            let doors = self.doors.lock();
            doors.iter().any(|(of, _)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(segment)))
        };
        if !is_known {
            let link = door.link.clone();
            if let Some(row) = segment.known().leading().next() {
                drop(segment.link(row, || link));
            }
            self.doors.lock().push((Arc::downgrade(segment), door.clone()));
            return door.clone();
        }
        // Another call was faster; what this one has read counts all the same.
        let known = self.door(segment);
        if !Arc::ptr_eq(&known, door) {
            let best = door.seen.lock().best;
            if let Some(answer) = best {
                known.seen.lock().take(answer);
            }
        }
        known
    }

    /// As [`Turns::take`].
    async fn take(&self, turns: &Turns, door: &Door, bell: usize, read: impl Future<Output = ()>) {
        let asked = match is_planted(&self.shelf, Fault::SharesOlder) {
            true => instant::now() - Duration::from_secs(60),
            false => instant::now(),
        };
        loop {
            let rung = door.bells[bell].notified();
            let step = turns.last.lock().step(asked, instant::now());
            match step {
                Step::Read => break,
                Step::Wait => rung.await,
                Step::WaitUntil(due) => drop(timeout_at(due.into(), rung).await),
                Step::GoOn => return self.shelf.lock().choices.reach("a call shares a reading"),
            }
        }
        let keeps = is_planted(&self.shelf, Fault::KeepsTurn);
        let mut turn = Turn(Some(Running(turns)), &door.bells[bell], keeps);
        read.await;
        turn.2 = false;
    }

    /// As `Engine::refresh_within`.
    async fn refresh_within(&self, segment: &Arc<Segment>, door: &Door, limit: Duration) -> Result<()> {
        let _awaited = Awaited::by(door);
        if is_planted(&self.shelf, Fault::AnyOrder) {
            let read = segments::limited(limit, read(&*segment.store, &segment.opened_as)).await;
            segment.replace(read?, segment.begin_reading());
            return Ok(());
        }
        let limit = if is_planted(&self.shelf, Fault::NoLimit) { STORE_LIMIT } else { limit };
        segments::limited(limit, segment.refresh()).await
    }

    /// Opens a segment for a caller that keeps its id.
    pub(super) async fn opened(&self, peer: usize, is_fresh: bool) -> Option<Arc<Segment>> {
        let done = if is_fresh { self.open_fresh(peer).await } else { self.open(peer).await };
        let segment = done.ok()?;
        rules::note_id(self, peer, segment.id);
        Some(segment)
    }

    fn count(&self, peer: usize) {
        self.opens.lock()[peer] += 1;
    }

    /// As `Engine::open_segment`.
    pub(super) async fn open(&self, peer: usize) -> Result<Arc<Segment>> {
        let asked = Instant::now();
        if let Some(segment) = self.segments.open(&name(peer)) {
            self.count(peer);
            let door = self.door(&segment);
            let suspicion = rules::suspicion(&door);
            if segment.may_have_restarted(OPEN_AGE) && !is_planted(&self.shelf, Fault::OpensBlindly) {
                let opening = &segment.opening;
                let reading = async {
                    let began = instant::now();
                    if opening.rests(began) {
                        return;
                    }
                    self.shelf.lock().choices.reach("an opener reads");
                    let read = self.refresh_within(&segment, &door, OPEN_LIMIT).await;
                    if read.is_err_and(|error| error.kind() == Class::Timeout) {
                        self.shelf.lock().choices.reach("an opener's reading takes too long");
                        opening.note_unanswered(began, instant::now());
                    }
                };
                self.take(&opening.turns, &door, OPENERS, reading).await;
            } else {
                self.shelf.lock().choices.reach("an opener does without");
                self.revalidate(&segment);
            }
            rules::check_opened(&segment, &door, asked, suspicion);
            return Ok(segment);
        }
        let door = Door::new(&self.shelf, peer);
        let store: Arc<dyn Store> = door.clone();
        let reading = self.segments.begin_reading();
        let known = {
            let _awaited = Awaited::by(&door);
            read(&*store, &name(peer)).await?
        };
        // The calling thread has to wake up first.
        let wakes_ms = self.shelf.lock().choices.pick(&[0, 0, 1, 60]);
        if wakes_ms > 0 {
            sleep(Duration::from_millis(wakes_ms)).await;
        }
        let segment = self.segments.insert(&name(peer), &store, known, reading)?;
        self.count(peer);
        let own = self.adopt(&segment, &door);
        if !Arc::ptr_eq(&own, &door) {
            self.shelf.lock().choices.reach("two open at once");
        }
        segment.start_watch(&self.control);
        rules::check_asked(&segment, &own, asked, "openSegment");
        Ok(segment)
    }

    /// As `Engine::open_segment_fresh`.
    pub(super) async fn open_fresh(&self, peer: usize) -> Result<Arc<Segment>> {
        let asked = Instant::now();
        if let Some(segment) = self.segments.by_name(&name(peer)) {
            let door = self.door(&segment);
            {
                let _awaited = Awaited::by(&door);
                segment.refresh().await?;
            }
            if let Some(segment) = self.segments.open(&segment.opened_as) {
                self.count(peer);
                let door = self.door(&segment);
                rules::check_asked(&segment, &door, asked, "open_segment_fresh");
                return Ok(segment);
            }
        }
        self.open(peer).await
    }

    fn revalidate(&self, segment: &Arc<Segment>) {
        if !is_planted(&self.shelf, Fault::NoRevalidation) {
            segment.revalidate(&self.control);
        }
    }

    /// As `Engine::segment`.
    pub(super) async fn segment(&self, id: i32) -> Result<Arc<Segment>> {
        let segment = match self.segments.find(id).ok_or_else(|| Error::invalid("removed"))? {
            Found::Open(segment) => segment,
            Found::Closed(closed) => {
                self.shelf.lock().choices.reach("a closed id is used");
                let asked = Instant::now();
                let peer = self.peer_of(id).ok_or_else(|| Error::invalid("removed"))?;
                let door = Door::new(&self.shelf, peer);
                let store: Arc<dyn Store> = door.clone();
                let (segments, control) = (self.segments.clone(), Arc::downgrade(&self.control));
                let reopened = {
                    let _awaited = Awaited::by(&door);
                    segments::limited(REOPEN_LIMIT, segments::reopened(segments, closed, store, control))
                        .await
                };
                let segment = reopened?;
                let own = self.adopt(&segment, &door);
                let was_read = door.seen.lock().best.is_some();
                if was_read {
                    rules::check_asked(&segment, &own, asked, "use of a closed id");
                }
                segment
            }
        };
        self.revalidate(&segment);
        Ok(segment)
    }

    /// The peer whose name has this id.
    pub(super) fn peer_of(&self, id: i32) -> Option<usize> {
        self.ids.lock().iter().position(|known| *known == Some(id))
    }

    /// As a submit call whose range the descriptor lacks, or may lack.
    pub(super) async fn submit(&self, id: i32) -> Result<()> {
        let segment = self.segment(id).await?;
        let door = self.door(&segment);
        let asked = Instant::now();
        let wanted = self.shelf.lock().peers[door.peer].edition;
        if edition(&segment.known()) == wanted {
            return Ok(());
        }
        self.shelf.lock().choices.reach("a range is missing");
        let reading = async { drop(self.refresh_within(&segment, &door, REFRESH_LIMIT).await) };
        self.take(&segment.turns, &door, SUBMITS, reading).await;
        rules::check_asked_unless_failed(&segment, &door, asked, "a submit call");
        if edition(&segment.known()) != wanted {
            segment.note_fruitless();
        }
        Ok(())
    }

    /// As `Engine::delivery`: a notification, first to where the peer was.
    pub(super) async fn notify(&self, id: i32) -> Result<usize> {
        let segment = self.segment(id).await?;
        let door = self.door(&segment);
        let address = segment.rpc_address().await?;
        if let Some(process) = self.answered(&door, &address).await {
            return Ok(process);
        }
        self.shelf.lock().choices.reach("nobody answers a notification");
        segment.forget_rpc_address();
        door.suspect();
        if !is_planted(&self.shelf, Fault::NoSuspicion) {
            segment.suspect();
        }
        let other = segment.rpc_address().await?;
        let answered = if other == address { None } else { self.answered(&door, &other).await };
        answered.ok_or_else(|| Error::invalid("nobody answers"))
    }

    /// The process that answers there.
    async fn answered(&self, door: &Door, address: &HostPort) -> Option<usize> {
        sleep(Duration::from_millis(1)).await;
        let shelf = self.shelf.lock();
        let there = shelf.answers(door.peer)?;
        (shelf.kind == Kind::Peers || address.host == there.to_string()).then_some(there)
    }

    /// As a link over TCP that has work and no connection.
    pub(super) async fn connect(&self, id: i32) -> Result<()> {
        let segment = self.segment(id).await?;
        let door = self.door(&segment);
        if door.link.leads_to().is_some() {
            return Ok(());
        }
        if door.link.begin() {
            let _awaited = Awaited::by(&door);
            let _ = segments::limited(Duration::from_secs(5), segment.refresh()).await;
        }
        let delay_ms = self.shelf.lock().choices.pick(&[1, 40]);
        sleep(Duration::from_millis(delay_ms)).await;
        let shelf = &mut *self.shelf.lock();
        let process = shelf.editions[edition(&segment.known())].process;
        if shelf.answers(door.peer) == Some(process) {
            shelf.choices.reach("a connection is up");
            door.link.up(process);
        } else {
            door.link.end();
        }
        Ok(())
    }

    /// As `Engine::sync_segments`.
    pub(super) async fn sync(&self) {
        let mut all = self.segments.all().unwrap_or_default();
        // Otherwise they came in the order of a table that differs from run to run.
        all.sort_by_key(|segment| segment.id);
        let stored = self.shelf.lock().kind != Kind::Peers;
        let _sync = Sync::begin(&self.shelf);
        segments::read_all(all, stored, Arc::default()).await;
    }

    /// As `Engine::close_segment`.
    pub(super) fn close(&self, id: i32) {
        if !is_planted(&self.shelf, Fault::KeepsOpen) {
            segments::close(&self.segments, id, &self.control);
        }
    }

    /// As `Engine::remove_segment`.
    pub(super) fn remove(&self, peer: usize) {
        self.shelf.lock().choices.reach("a handle is removed");
        self.segments.remove(&name(peer));
        self.ids.lock()[peer] = None;
        self.opens.lock()[peer] = 0;
    }
}

/// All segments are being read.
struct Sync(Arc<Mutex<Shelf>>);

impl Sync {
    fn begin(shelf: &Arc<Mutex<Shelf>>) -> Self {
        shelf.lock().syncs += 1;
        Sync(shelf.clone())
    }
}

impl Drop for Sync {
    fn drop(&mut self) {
        // The tasks that read are ended one after the other, when their turn comes.
        let (Ok(here), shelf) = (Handle::try_current(), self.0.clone()) else { return };
        drop(here.spawn(async move {
            sleep(Duration::from_millis(2)).await;
            shelf.lock().syncs -= 1;
        }));
    }
}

/// The store's stream of news, for as long as the world lasts.
pub(super) async fn stream(shelf: Arc<Mutex<Shelf>>) {
    loop {
        let pause_ms = {
            let shelf = &mut *shelf.lock();
            let pauses: &[u64] = if shelf.is_broken() { &[50, 500, 2_000] } else { &[20, 20, 300] };
            shelf.choices.pick(pauses)
        };
        sleep(Duration::from_millis(pause_ms)).await;
        let news = {
            let shelf = &mut *shelf.lock();
            if shelf.is_down || shelf.watches() == 0 {
                continue;
            }
            shelf.news()
        };
        for told in news {
            if !shelf.lock().is_watched(&told) {
                continue;
            }
            let change = told.door.hear(told.edition, told.revision);
            (told.changed)(change);
        }
    }
}

/// Owners look after their keys.
pub(super) async fn upkeep(shelf: Arc<Mutex<Shelf>>) {
    loop {
        sleep_until(Instant::now() + Duration::from_secs(3)).await;
        shelf.lock().look_after();
    }
}
