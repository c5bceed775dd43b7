//! The store: keys with versions and an expiry, and the doors through which engines reach it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{sleep, Instant};

use super::engine::Host;
use super::Fault;
use crate::error::Result;
use crate::metadata::backend::{unreachable, Backend, Entry, Put, Version};
use crate::runtime::BoxFuture;
use crate::sim::Choices;

/// Life of a key that nobody looks after.
pub(super) const LIFE: Duration = Duration::from_secs(30);
/// An engine that ran for so long was heard by whoever asked whether it lives.
const HEARD: Duration = Duration::from_secs(4);

/// A key.
struct Kept {
    value: Arc<[u8]>,
    /// By a request that came late.
    late: bool,
    revision: i64,
    writer: usize,
    expires: Instant,
}

/// What is there, and what was.
pub(super) struct Shelf {
    pub choices: Choices,
    /// Versions are numbers, as etcd's; else they are the values, as with Redis.
    counts: bool,
    keys: BTreeMap<String, Kept>,
    revision: i64,
    /// All that was ever written, by key.
    written: BTreeMap<String, Vec<Arc<[u8]>>>,
    /// Nothing gets through.
    pub is_down: bool,
    /// What is done now was asked for by somebody who does not wait for it any more: it may be wrong by now.
    is_late: bool,
    /// Of a thousand requests, and answers, that are lost.
    pub loses: u32,
    pub hosts: Vec<Arc<Host>>,
    pub fault: Option<Fault>,
    /// The first rule that was broken.
    pub broken: Option<String>,
}

impl Shelf {
    pub(super) fn new(mut choices: Choices, fault: Option<Fault>) -> Self {
        Shelf {
            counts: choices.chance(500),
            choices,
            keys: BTreeMap::new(),
            revision: 1,
            written: BTreeMap::new(),
            is_down: false,
            is_late: false,
            loses: 0,
            hosts: Vec::new(),
            fault,
            broken: None,
        }
    }

    pub(super) fn breaks(&mut self, text: String) {
        self.broken.get_or_insert(text);
    }

    pub(super) fn tell(&mut self, text: impl FnOnce() -> String) {
        self.choices.tell(self.revision as u64, text);
    }

    fn sweep(&mut self) {
        let now = Instant::now();
        let before = self.keys.len();
        self.keys.retain(|_, kept| kept.expires > now);
        if self.keys.len() < before {
            self.choices.reach("a key expires");
        }
    }

    fn version(&self, kept: &Kept) -> Version {
        if self.counts {
            Version::Revision(kept.revision)
        } else {
            Version::Content(kept.value.clone())
        }
    }

    /// Who has written the key that is there.
    pub(super) fn writer(&mut self, key: &str) -> Option<usize> {
        self.sweep();
        self.keys.get(key).map(|kept| kept.writer)
    }

    /// Whoever has written the key that is there did not wait for that any more.
    pub(super) fn came_late(&self, key: &str) -> bool {
        self.keys.get(key).is_some_and(|kept| kept.late)
    }

    pub(super) fn value(&self, key: &str) -> Option<Arc<[u8]>> {
        self.keys.get(key).map(|kept| kept.value.clone())
    }

    pub(super) fn was_written(&self, key: &str, value: &Arc<[u8]>) -> bool {
        self.written.get(key).is_some_and(|values| values.contains(value))
    }

    pub(super) fn empty(&mut self) {
        self.keys.clear();
        self.choices.reach("the store is emptied");
    }

    fn put(&mut self, who: usize, key: String, value: Arc<[u8]>, over: Option<&Version>) -> Put {
        self.sweep();
        let there = self.keys.get(&key).map(|kept| (self.version(kept), kept.writer));
        let fits = there.as_ref().map(|(version, _)| version) == over;
        if !fits && self.fault != Some(Fault::NoCompare) {
            return Put::Lost;
        }
        let others = there.as_ref().filter(|(_, writer)| *writer != who && !self.is_late);
        if let Some((_, writer)) = others {
            self.note_taken(&key, *writer, who);
        }
        if there.is_none() && self.was_written(&key, &value) {
            self.choices.reach("a lost key is written again");
        }
        self.revision += 1;
        let kept = Kept {
            value: value.clone(),
            late: self.is_late,
            revision: self.revision,
            writer: who,
            expires: Instant::now() + LIFE,
        };
        let version = self.version(&kept);
        self.written.entry(key.clone()).or_default().push(value);
        self.tell(|| format!("{:?} engine {who} writes {key}", Instant::now()));
        self.keys.insert(key, kept);
        Put::Done(version)
    }

    /// An entry of one engine is replaced by another.
    fn note_taken(&mut self, key: &str, writer: usize, who: usize) {
        let owner = self.hosts[writer].clone();
        if !owner.is_alive() {
            return self.choices.reach("a dead engine's name is taken over");
        }
        if owner.has_left() {
            return;
        }
        match owner.runs_since() {
            Some(since) if since.elapsed() > HEARD && key.contains("rpc_meta") => {
                self.breaks(format!(
                    "engine {who} takes {key} from engine {writer}, which lives and answers"
                ));
            }
            Some(_) => {}
            None => self.choices.reach("a stopped engine's name is taken over"),
        }
    }

    fn delete(&mut self, who: usize, key: &str, version: &Version) -> bool {
        self.sweep();
        let Some(kept) = self.keys.get(key) else { return false };
        let fits = self.version(kept) == *version || self.fault == Some(Fault::DeletesAnything);
        if fits && kept.writer != who {
            let text = format!("engine {who} deletes {key}, which engine {} has written", kept.writer);
            self.breaks(text);
        }
        if fits {
            self.keys.remove(key);
            self.choices.reach("a key is deleted by its owner");
            self.tell(|| format!("{:?} engine {who} deletes {key}", Instant::now()));
        }
        fits
    }

    fn keep(&mut self, key: &str, value: &[u8], version: &Version) -> bool {
        self.sweep();
        let counts = self.counts;
        let Some(kept) = self.keys.get_mut(key) else { return false };
        let fits = if counts { Version::Revision(kept.revision) == *version } else { *kept.value == *value };
        if fits {
            kept.expires = Instant::now() + LIFE;
        }
        fits
    }
}

/// An engine's way to the store.
pub(super) struct Door {
    pub shelf: Arc<Mutex<Shelf>>,
    pub host: Arc<Host>,
}

impl Door {
    /// One request and its answer, each of which may be late or lost. A request that is later than whoever asks waits for it
    /// is carried out all the same.
    async fn ask<T>(&self, what: impl FnOnce(&mut Shelf) -> T + Send + 'static) -> Result<T> {
        self.host.until_it_runs().await;
        let (delay_ms, is_lost) = self.way();
        sleep(Duration::from_millis(delay_ms)).await;
        if is_lost {
            if let Some(delay_ms) = self.lateness() {
                let shelf = self.shelf.clone();
                tokio::spawn(async move {
                    sleep(Duration::from_millis(delay_ms)).await;
                    let shelf = &mut *shelf.lock();
                    shelf.choices.reach("a request comes late");
                    shelf.is_late = true;
                    what(shelf);
                    shelf.is_late = false;
                });
            }
            return Err(unreachable("the request was lost".into()));
        }
        let answer = what(&mut self.shelf.lock());
        let (delay_ms, is_lost) = self.way();
        sleep(Duration::from_millis(delay_ms)).await;
        self.host.until_it_runs().await;
        if is_lost {
            self.shelf.lock().choices.reach("an answer is lost");
            return Err(unreachable("the answer was lost".into()));
        }
        Ok(answer)
    }

    /// When a request that counts as lost arrives after all.
    fn lateness(&self) -> Option<u64> {
        let shelf = &mut *self.shelf.lock();
        let is_late = !shelf.is_down && shelf.choices.chance(300);
        is_late.then(|| shelf.choices.pick(&[100, 2_000, 9_000]))
    }

    fn way(&self) -> (u64, bool) {
        let shelf = &mut *self.shelf.lock();
        let delay_ms = shelf.choices.pick(&[1, 5, 60]);
        (delay_ms, shelf.is_down || shelf.choices.chance(shelf.loses))
    }
}

impl Backend for Door {
    fn name(&self) -> &'static str {
        "shelf"
    }

    fn get(&self, key: String, _: bool) -> BoxFuture<'_, Result<Option<Entry>>> {
        let look = move |shelf: &mut Shelf| {
            shelf.sweep();
            let kept = shelf.keys.get(&key)?;
            Some(Entry { value: kept.value.to_vec(), version: shelf.version(kept) })
        };
        Box::pin(self.ask(look))
    }

    fn put(&self, key: String, value: Arc<[u8]>, over: Option<Version>) -> BoxFuture<'_, Result<Put>> {
        let who = self.host.number;
        Box::pin(self.ask(move |shelf| match shelf.fault {
            Some(Fault::FalseWrite) if shelf.choices.chance(500) => Put::Done(Version::Content(value)),
            _ => shelf.put(who, key, value, over.as_ref()),
        }))
    }

    fn delete(&self, key: String, version: Version) -> BoxFuture<'_, Result<bool>> {
        let who = self.host.number;
        Box::pin(self.ask(move |shelf| shelf.delete(who, &key, &version)))
    }

    fn keep(&self, key: String, value: Arc<[u8]>, version: Version) -> BoxFuture<'_, Result<bool>> {
        Box::pin(self.ask(move |shelf| shelf.keep(&key, &value, &version)))
    }
}
