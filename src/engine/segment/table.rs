//! The segments of an engine, by id and by name. One that is closed keeps its id, which goes on to work: it is read again
//! when the id is used.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use super::{freshness, read, Reading, Segment};
use crate::config::Config;
use crate::engine::known::Known;
use crate::engine::traffic::Peers;
use crate::error::{Code, Error, Result};
use crate::metadata::Store;

/// How long a closed segment keeps what it has. Chosen: a program that opens and closes a segment for each request need
/// not read the descriptor and connect each time.
pub(crate) const LINGER: Duration = Duration::from_secs(10);
/// Closed segments that keep what they have. Chosen: they bound the memory that a program's closed segments take, since one
/// with thousands of buffers takes hundreds of kilobytes.
const LINGERING: usize = 16;

/// All segments of an engine.
#[derive(Default)]
pub(crate) struct Segments {
    /// Guards the maps; never held across I/O, nor while a segment is dropped.
    maps: RwLock<Maps>,
    settings: freshness::Settings,
}

#[derive(Default)]
struct Maps {
    by_id: HashMap<i32, Found>,
    by_name: HashMap<String, i32>,
    last_id: i32,
    /// Open segments that their last user has closed, the oldest first, and since when.
    lingering: VecDeque<(i32, Instant)>,
    /// Somebody calls [`Segments::sweep`] from time to time.
    is_swept: bool,
}

/// What an id stands for.
#[derive(Clone)]
pub(crate) enum Found {
    /// A segment that can be used.
    Open(Arc<Segment>),
    /// One that is to be read again first.
    Closed(Arc<Closed>),
}

/// What is left of a segment that was closed.
pub(crate) struct Closed {
    /// Its id.
    id: i32,
    /// The name it was opened by.
    name: String,
    /// Held by whoever reads the descriptor again; the others then find the segment open, in the order in which they came.
    turn: tokio::sync::Mutex<()>,
}

/// What is to be done after segments were closed.
#[derive(Default)]
pub(crate) struct Left {
    /// To be dropped, which ends watches and connections.
    pub gone: Vec<Arc<Segment>>,
    /// Nobody sweeps yet, but somebody has to.
    pub sweep: bool,
}

impl Segments {
    /// No segment is open.
    pub(crate) fn new(config: &Config) -> Self {
        Segments { maps: RwLock::default(), settings: freshness::Settings::new(config) }
    }

    /// The segment opened by `name`, if it is open; not counted as opened once more.
    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<Segment>> {
        self.maps.read().open(name).cloned()
    }

    /// Where tasks are counted by peer.
    pub(crate) fn peers(&self) -> &Peers {
        &self.settings.peers
    }

    /// Opens the segment called `name` once more, if it is open.
    pub(crate) fn open(&self, name: &str) -> Option<Arc<Segment>> {
        let segment = {
            let maps = self.maps.read();
            let segment = maps.open(name)?.clone();
            // Counted under the lock: `close` looks at the count while it has the maps to itself.
            segment.opens.fetch_add(1, SeqCst);
            segment
        };
        self.keep(&segment);
        Some(segment)
    }

    /// What `id` stands for, to be used: then a closed segment counts as open until it is closed again.
    pub(crate) fn find(&self, id: i32) -> Option<Found> {
        let found = self.maps.read().by_id.get(&id).cloned()?;
        if let Found::Open(segment) = &found {
            self.keep(segment);
        }
        Some(found)
    }

    /// How many are open, or linger.
    pub(crate) fn count(&self) -> usize {
        self.maps.read().by_id.values().filter(|found| matches!(found, Found::Open(_))).count()
    }

    /// The name under which the segment with this id was opened, open or closed; not a use of it.
    pub(crate) fn name_of(&self, id: i32) -> Option<String> {
        self.maps.read().by_id.get(&id).map(|found| match found {
            Found::Open(segment) => segment.opened_as.clone(),
            Found::Closed(closed) => closed.name.clone(),
        })
    }

    /// The segment lingers no more.
    fn keep(&self, segment: &Arc<Segment>) {
        if segment.lingers.load(SeqCst) {
            let mut maps = self.maps.write();
            segment.lingers.store(false, SeqCst);
            maps.lingering.retain(|(id, _)| *id != segment.id);
        }
    }

    /// A reading begins, for [`Segments::insert`].
    pub(crate) fn begin_reading(&self) -> Reading {
        self.settings.readings.begin()
    }

    /// Opens a segment whose descriptor was read; if another thread was faster, its segment stays, with the newer of both
    /// descriptors. One that had an id has it again.
    pub(crate) fn insert(
        &self,
        name: &str,
        store: &Arc<dyn Store>,
        known: Known,
        reading: Reading,
    ) -> Result<Arc<Segment>> {
        let mut maps = self.maps.write();
        if let Some(segment) = maps.open(name).cloned() {
            segment.opens.fetch_add(1, SeqCst);
            drop(maps);
            self.keep(&segment);
            segment.replace(known, reading);
            return Ok(segment);
        }
        let id = match maps.by_name.get(name) {
            Some(id) => *id,
            None => maps.new_id(name)?,
        };
        let segment = Arc::new(Segment::new(id, name, store, known, reading, &self.settings));
        segment.opens.store(1, SeqCst);
        maps.by_id.insert(id, Found::Open(segment.clone()));
        Ok(segment)
    }

    /// Reads a closed segment again, for a use of its id. An error of the store; -1 if the segment was removed meanwhile.
    pub(crate) async fn reopen(&self, closed: &Closed, store: &Arc<dyn Store>) -> Result<Arc<Segment>> {
        let _turn = closed.turn.lock().await;
        if let Some(Found::Open(segment)) = self.find(closed.id) {
            return Ok(segment);
        }
        let reading = self.begin_reading();
        let known = read(&**store, &closed.name).await?;
        let mut maps = self.maps.write();
        match maps.by_id.get_mut(&closed.id) {
            // It was opened by its name meanwhile.
            Some(Found::Open(segment)) => {
                let segment = segment.clone();
                drop(maps);
                segment.replace(known, reading);
                Ok(segment)
            }
            Some(place) => {
                let segment =
                    Arc::new(Segment::new(closed.id, &closed.name, store, known, reading, &self.settings));
                *place = Found::Open(segment.clone());
                Ok(segment)
            }
            None => Err(Error::invalid("the segment was removed meanwhile; call openSegment first")),
        }
    }

    /// Closes `id` once. When all who opened it have closed it, it lingers, and those that linger too long or are too
    /// many are given up. Unknown ids and closed ones are ignored.
    pub(crate) fn close(&self, id: i32, now: Instant) -> Left {
        let mut maps = self.maps.write();
        let Some(Found::Open(segment)) = maps.by_id.get(&id) else { return Left::default() };
        let _ = segment.opens.fetch_update(SeqCst, SeqCst, |opens| opens.checked_sub(1));
        let segment = segment.clone();
        // Where it cannot be listed it stays open; the next close may find room.
        let closed = segment.opens.load(SeqCst) == 0 && maps.lingering.try_reserve(1).is_ok();
        if !closed || segment.lingers.swap(true, SeqCst) {
            return Left::default();
        }
        drop(segment);
        maps.lingering.push_back((id, now));
        let gone = maps.give_up(|_, lingering| lingering > LINGERING);
        let sweep = !maps.is_swept && !maps.lingering.is_empty();
        maps.is_swept |= sweep;
        Left { gone, sweep }
    }

    /// Gives up what has lingered long enough; to be called again as long as `Left::sweep` says so.
    pub(crate) fn sweep(&self, now: Instant) -> Left {
        let mut maps = self.maps.write();
        let gone = maps.give_up(|since, _| now.saturating_duration_since(since) >= LINGER);
        maps.is_swept = !maps.lingering.is_empty();
        Left { gone, sweep: maps.is_swept }
    }

    /// Forgets a segment and its id; transfers under way go on.
    pub(crate) fn remove(&self, name: &str) {
        let mut maps = self.maps.write();
        let Some(id) = maps.by_name.remove(name) else { return };
        maps.lingering.retain(|(lingering, _)| *lingering != id);
        let removed = maps.by_id.remove(&id);
        drop(maps);
        drop(removed);
    }

    /// Every open segment. `ERR_MEMORY` if the list does not fit.
    pub(crate) fn all(&self) -> Result<Vec<Arc<Segment>>> {
        let maps = self.maps.read();
        let mut all = Vec::new();
        all.try_reserve_exact(maps.by_id.len()).map_err(|_| Error::out_of_memory("a list of segments"))?;
        all.extend(maps.all().cloned());
        Ok(all)
    }

    /// The name under which a segment was opened, for the first one that satisfies `is_wanted`.
    pub(crate) fn opened_as(&self, is_wanted: impl Fn(&Segment) -> bool) -> Option<String> {
        let maps = self.maps.read();
        let found = maps.all().find(|segment| is_wanted(segment)).map(|segment| segment.opened_as.clone());
        found
    }
}

impl Maps {
    fn open(&self, name: &str) -> Option<&Arc<Segment>> {
        match self.by_id.get(self.by_name.get(name)?)? {
            Found::Open(segment) => Some(segment),
            Found::Closed(_) => None,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.by_id.values().filter_map(|found| match found {
            Found::Open(segment) => Some(segment),
            Found::Closed(_) => None,
        })
    }

    fn new_id(&mut self, name: &str) -> Result<i32> {
        let full = || Error::new(Code::Memory, "2^31 segments were opened; destroy and recreate the engine");
        let id = self.last_id.checked_add(1).ok_or_else(full)?;
        let fits = self.by_id.try_reserve(1).is_ok() && self.by_name.try_reserve(1).is_ok();
        if !fits {
            return Err(Error::out_of_memory("the table of segments"));
        }
        self.last_id = id;
        self.by_name.insert(name.to_string(), id);
        Ok(id)
    }

    /// Gives up the oldest of those that linger, while `is_due` says so of the time since when it does and of how many
    /// there are. One that a batch or a call still uses is passed over.
    fn give_up(&mut self, is_due: impl Fn(Instant, usize) -> bool) -> Vec<Arc<Segment>> {
        let mut gone = Vec::new();
        let mut place = 0;
        while let Some((id, since)) = self.lingering.get(place).copied() {
            if !is_due(since, self.lingering.len()) {
                break;
            }
            let Some(Found::Open(segment)) = self.by_id.get(&id) else {
                self.lingering.remove(place);
                continue;
            };
            // Others get it from this table only, which nobody reads now.
            if Arc::strong_count(segment) > 1 {
                place += 1;
                continue;
            }
            self.lingering.remove(place);
            let turn = tokio::sync::Mutex::default();
            let closed = Arc::new(Closed { id, name: segment.opened_as.clone(), turn });
            if let Some(Found::Open(segment)) = self.by_id.insert(id, Found::Closed(closed)) {
                gone.push(segment);
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests;
