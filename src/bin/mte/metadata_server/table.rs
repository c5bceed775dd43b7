//! Keys and values in memory, and on request a file that keeps them.

use std::collections::{HashMap, VecDeque};
use std::io::{Error, ErrorKind, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Bytes;

use super::budget::{Budget, Share};
use super::facts::Facts;
use super::journal::Journal;

/// What a key costs beside its text and its value. Chosen: more than the entry, its part of the hash table, the allocations and what
/// the page keeps of a value take.
const ENTRY_BYTES: usize = 512;

/// What became of a write.
pub(super) enum Wrote {
    /// It is there.
    Done,
    /// Another value is, and keys of this kind are not replaced.
    Exists,
}

/// Keys that expired and are remembered. Chosen: a rack of hosts that lose their power at once.
const MOST_GONE: usize = 64;
/// How long. Chosen: whoever comes back from a meeting still sees it.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// Longest key that is remembered, bytes.
const LONGEST_GONE: usize = 1024;
/// Value that is looked into when it expires, if nobody has before, bytes. Chosen: addresses and short descriptors, in microseconds.
const SMALL: usize = 4096;

struct Entry {
    value: Bytes,
    /// When it is gone unless it is written again.
    until: Option<Instant>,
    /// For how long it was asked to be kept; `None`: for ever.
    life: Option<Duration>,
    /// When it was last written, with the same value too; `None`: before this server started.
    last: Option<Instant>,
    /// When it appeared; `None`: before this server started.
    first: Option<Instant>,
    /// What the value says, once somebody has looked.
    facts: Option<Arc<Facts>>,
}

/// A key as it is at one time.
pub(super) struct Seen {
    pub key: String,
    pub value: Bytes,
    /// For how long it lives after it was written; `None`: for ever.
    pub life: Option<Duration>,
    /// How long ago it was last written; `None`: before this server started.
    pub last: Option<Duration>,
    /// How long ago it appeared; `None`: before this server started.
    pub first: Option<Duration>,
    /// What the value says, if somebody has looked.
    pub facts: Option<Arc<Facts>>,
}

/// A key that was not renewed within its life.
#[derive(Clone)]
pub(super) struct Gone {
    pub key: String,
    /// How long it was to live after it was written.
    pub life: Duration,
    /// When that was over.
    pub at: Instant,
    /// What the value said, if it is known.
    pub facts: Option<Arc<Facts>>,
}

/// Everything that there is.
pub(super) struct Snapshot {
    pub seen: Vec<Seen>,
    /// What expired lately, the last one last.
    pub gone: Vec<Gone>,
    /// Bytes that count against the limit, and the limit.
    pub used: (usize, usize),
}

/// All keys.
pub(super) struct Table {
    entries: HashMap<String, Entry>,
    gone: VecDeque<Gone>,
    budget: Arc<Budget>,
    journal: Option<Journal>,
}

impl Table {
    /// What `path` keeps, or nothing; `max_total` bytes of memory at most.
    pub(super) fn open(path: Option<PathBuf>, max_total: usize) -> Result<Self> {
        let mut table = Table {
            entries: HashMap::new(),
            gone: VecDeque::new(),
            budget: Budget::new(max_total),
            journal: None,
        };
        let Some(path) = path else { return Ok(table) };
        let mut is_full = false;
        Journal::read(&path, |(key, value)| {
            // The value before gives its share back first.
            table.entries.remove(&key);
            let Some(value) = value else { return };
            match table.budget.take(ENTRY_BYTES + key.len() + value.len()) {
                Some(share) => {
                    let value = share.hold(value.into_bytes());
                    let entry =
                        Entry { value, until: None, life: None, last: None, first: None, facts: None };
                    table.entries.insert(key, entry);
                }
                None => is_full = true,
            }
        })?;
        if is_full {
            let text = format!("{} holds more than --max-total allows", path.display());
            return Err(Error::new(ErrorKind::InvalidData, text));
        }
        table.journal = Some(Journal::rewrite(&path, kept(&table.entries))?);
        Ok(table)
    }

    /// Memory for a new value of `key`, yet without the value's bytes.
    pub(super) fn share(&mut self, key: &str) -> Option<Share> {
        let bytes = ENTRY_BYTES + key.len();
        let share = self.budget.take(bytes);
        share.or_else(|| {
            self.sweep();
            self.budget.take(bytes)
        })
    }

    /// Adds memory for more bytes to a share.
    pub(super) fn grow(&mut self, share: &mut Share, more: usize) -> bool {
        share.grow(more) || {
            self.sweep();
            share.grow(more)
        }
    }

    /// The value of a key.
    pub(super) fn get(&mut self, key: &str) -> Option<Bytes> {
        self.expire(key);
        self.entries.get(key).map(|entry| entry.value.clone())
    }

    /// Writes a key that lives for `life`, or for ever. As upstream's servers, a key with `rpc_meta` in its name is
    /// not replaced by another value. An error changes nothing.
    pub(super) fn put(&mut self, key: &str, value: Bytes, life: Option<Duration>) -> Result<Wrote> {
        self.expire(key);
        let before = self.entries.get(key);
        let same = before.is_some_and(|before| before.value == value);
        if key.contains("rpc_meta") && before.is_some() && !same {
            return Ok(Wrote::Exists);
        }
        // An expiring key is not worth keeping: its owner writes it again.
        let keep = life.is_none();
        let is_noted = same && before.is_some_and(|before| before.until.is_none() == keep);
        let facts = before.filter(|_| same).and_then(|before| before.facts.clone());
        let now = Instant::now();
        let first = before.map_or(Some(now), |before| before.first);
        if !is_noted {
            self.note(key, keep.then_some(&*value))?;
        }
        let until = life.and_then(|life| now.checked_add(life));
        self.entries.insert(key.to_string(), Entry { value, until, life, last: Some(now), first, facts });
        self.gone.retain(|gone| gone.key != key);
        self.shrink();
        Ok(Wrote::Done)
    }

    /// Removes a key; `false` if there is none. An error changes nothing.
    pub(super) fn remove(&mut self, key: &str) -> Result<bool> {
        self.expire(key);
        if !self.entries.contains_key(key) {
            // Whoever removes it knows that it is gone.
            self.gone.retain(|gone| gone.key != key);
            return Ok(false);
        }
        self.note(key, None)?;
        self.entries.remove(key);
        self.shrink();
        Ok(true)
    }

    fn expire(&mut self, key: &str) {
        if self.entries.get(key).is_some_and(Entry::is_over) {
            // All that is over goes, so that keys nobody asks for do not stay.
            self.sweep();
        }
    }

    /// Everything that there is now.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        self.sweep();
        let now = Instant::now();
        let age = |at: Instant| now.saturating_duration_since(at);
        self.gone.retain(|gone| age(gone.at) < REMEMBERED);
        let seen = self.entries.iter().map(|(key, entry)| Seen {
            key: key.clone(),
            value: entry.value.clone(),
            life: entry.life,
            last: entry.last.map(age),
            first: entry.first.map(age),
            facts: entry.facts.clone(),
        });
        Snapshot {
            seen: seen.collect(),
            gone: self.gone.iter().cloned().collect(),
            used: self.budget.used_of(),
        }
    }

    /// The keys that begin with `prefix`; `None` if there are more than `most`.
    pub(super) fn keys(&mut self, prefix: &str, most: usize) -> Option<Vec<String>> {
        self.sweep();
        let found = self.entries.keys().filter(|key| key.starts_with(prefix));
        let keys: Vec<String> = found.take(most + 1).cloned().collect();
        (keys.len() <= most).then_some(keys)
    }

    /// Keeps what was found in `value`, unless the key has another one by now.
    pub(super) fn learn(&mut self, key: &str, value: &Bytes, facts: &Arc<Facts>) {
        let same =
            |entry: &&mut Entry| entry.value.as_ptr() == value.as_ptr() && entry.value.len() == value.len();
        if let Some(entry) = self.entries.get_mut(key).filter(same) {
            entry.facts = Some(facts.clone());
        }
    }

    fn sweep(&mut self) {
        let mut gone = Vec::new();
        self.entries.retain(|key, entry| {
            let over = entry.is_over();
            if let (true, Some(at), Some(life)) = (over, entry.until, entry.life) {
                if key.len() <= LONGEST_GONE {
                    let facts = entry.facts.take();
                    gone.push((Gone { key: key.clone(), life, at, facts }, entry.value.clone()));
                }
            }
            !over
        });
        gone.sort_by_key(|(gone, _)| gone.at);
        // Only what is remembered is looked into: everybody waits meanwhile.
        let skipped = gone.len().saturating_sub(MOST_GONE);
        self.gone.extend(gone.into_iter().skip(skipped).map(|(mut gone, value)| {
            if gone.facts.is_none() && value.len() <= SMALL {
                gone.facts = Some(Facts::of(&gone.key, &value).into());
            }
            gone
        }));
        self.gone.drain(..self.gone.len().saturating_sub(MOST_GONE));
    }

    fn note(&mut self, key: &str, value: Option<&[u8]>) -> Result<()> {
        self.journal.as_mut().map_or(Ok(()), |journal| journal.note(key, value))
    }

    fn shrink(&mut self) {
        if let Some(journal) = self.journal.as_mut().filter(|journal| journal.has_grown()) {
            journal.shrink(kept(&self.entries));
        }
    }
}

impl Entry {
    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }
}

/// What the file is to hold.
fn kept(entries: &HashMap<String, Entry>) -> impl Iterator<Item = (&str, &[u8])> {
    let lasting = entries.iter().filter(|(_, entry)| entry.until.is_none());
    lasting.map(|(key, entry)| (key.as_str(), &*entry.value))
}

#[cfg(test)]
mod tests;
