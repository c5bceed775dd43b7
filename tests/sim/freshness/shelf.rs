//! The truth: peers, what they say of themselves, and what of that is in the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::door::Door;
use super::Fault;
use crate::metadata::Change;
use crate::sim::Choices;

/// Where descriptors come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The peers themselves.
    Peers,
    /// A store that only answers.
    Plain,
    /// A store that counts revisions and tells of changes.
    Telling,
}

/// Life of a key whose owner is dead.
const LIFE: Duration = Duration::from_secs(30);

/// A text that a peer has published.
pub(super) struct Edition {
    pub process: usize,
    /// Since when it is not true any more: whoever asks gets something else, or nothing.
    pub until: Option<Instant>,
}

/// Who has a name.
#[derive(Default)]
pub(super) struct Peer {
    /// Whose name it is now.
    pub process: Option<usize>,
    pub is_stopped: bool,
    /// What it says now.
    pub edition: usize,
    /// In the store: an edition, its revision.
    key: Option<(usize, i64)>,
    /// Since when its process is dead, and has left its key behind.
    dead: Option<Instant>,
    /// The key before the one that is there.
    before: Option<(usize, i64)>,
}

/// News that the store has to tell.
struct News {
    revision: i64,
    peer: usize,
    /// An edition; none: it was deleted.
    edition: Option<usize>,
}

struct Watching {
    number: u64,
    door: Arc<Door>,
    peer: usize,
    since: i64,
    /// How often the store had been emptied when this number was its. A number alone does not tell where the new count has reached it:
    /// numbers are small here, and large in a real store.
    emptied: u64,
    changed: Arc<dyn Fn(Change) + Send + Sync>,
}

/// What the store tells one watch.
pub(super) struct Told {
    number: u64,
    pub door: Arc<Door>,
    pub edition: Option<Option<usize>>,
    pub revision: i64,
    pub changed: Arc<dyn Fn(Change) + Send + Sync>,
}

pub(super) struct Shelf {
    pub choices: Choices,
    pub kind: Kind,
    pub fault: Option<Fault>,
    start: Instant,
    pub peers: Vec<Peer>,
    pub editions: Vec<Edition>,
    processes: usize,
    revision: i64,
    history: Vec<News>,
    watching: Vec<Watching>,
    watches: u64,
    /// Nothing gets through.
    pub is_down: bool,
    /// The stream of news has to be opened anew.
    is_broken: bool,
    /// How often the store was emptied.
    pub emptied: u64,
    /// Of a thousand requests, and answers, that are lost.
    pub loses: u32,
    /// Of a thousand answers that are old.
    pub confuses: u32,
    /// Answers take their time.
    pub is_slow: bool,
    /// Readings that have begun.
    pub begun: u64,
    /// Readings that somebody waits for, and those of all doors.
    pub awaited: usize,
    pub under_way: usize,
    /// How long the engine was stopped.
    pub stopped: Duration,
    /// All segments are being read.
    pub syncs: usize,
    /// The first rule that was broken.
    pub broken: Option<String>,
}

impl Shelf {
    pub(super) fn new(mut choices: Choices, fault: Option<Fault>) -> Self {
        let kind = choices.pick(&[Kind::Telling, Kind::Plain, Kind::Peers]);
        let peers = choices.pick(&[1, 2, 12]);
        Shelf {
            choices,
            kind,
            fault,
            start: Instant::now(),
            peers: (0..peers).map(|_| Peer::default()).collect(),
            editions: Vec::new(),
            processes: 0,
            revision: 1,
            history: Vec::new(),
            watching: Vec::new(),
            watches: 0,
            is_down: false,
            is_broken: false,
            emptied: 0,
            loses: 0,
            confuses: 0,
            is_slow: false,
            begun: 0,
            awaited: 0,
            under_way: 0,
            stopped: Duration::ZERO,
            syncs: 0,
            broken: None,
        }
    }

    pub(super) fn breaks(&mut self, text: String) {
        self.tell(|| format!("broken: {text}"));
        self.broken.get_or_insert(text);
    }

    pub(super) fn tell(&mut self, text: impl FnOnce() -> String) {
        let number = self.begun << 20 | self.revision as u64;
        let now = self.at(Instant::now());
        self.choices.tell(number, || format!("{now:?} {}", text()));
    }

    /// As long after the beginning.
    pub(super) fn at(&self, then: Instant) -> Duration {
        then.saturating_duration_since(self.start)
    }

    /// The process that has the name and can be asked.
    pub(super) fn answers(&self, peer: usize) -> Option<usize> {
        self.peers[peer].process.filter(|_| !self.peers[peer].is_stopped)
    }

    pub(super) fn is_alive(&self, process: usize) -> bool {
        self.peers.iter().any(|peer| peer.process == Some(process))
    }

    /// Whether an edition was true then, or later.
    pub(super) fn was_true(&self, edition: usize, then: Instant) -> bool {
        self.editions[edition].until.is_none_or(|until| until >= then)
    }

    /// What is published of a peer: an edition, its revision.
    pub(super) fn published(&self, peer: usize) -> Option<(usize, i64)> {
        match self.kind {
            Kind::Peers => self.peers[peer].process.map(|_| (self.peers[peer].edition, 0)),
            Kind::Plain => self.peers[peer].key.map(|(edition, _)| (edition, 0)),
            Kind::Telling => self.peers[peer].key,
        }
    }

    /// What whoever asks is told; now and then what was there before.
    pub(super) fn look(&mut self, peer: usize) -> (Option<(usize, i64)>, bool) {
        let before = self.peers[peer].before.filter(|_| self.kind != Kind::Peers);
        let is_asked = self.confuses > 0 || self.fault == Some(Fault::OldAnswers);
        if let Some((edition, revision)) = before.filter(|_| is_asked && self.choices.chance(300)) {
            self.choices.reach("an old answer is given");
            let revision = if self.kind == Kind::Plain { 0 } else { revision };
            return (Some((edition, revision)), self.fault != Some(Fault::OldAnswers));
        }
        (self.published(peer), false)
    }

    /// A process takes the name, or the one that has it says something new.
    pub(super) fn publish(&mut self, peer: usize) {
        let now = Instant::now();
        let process = match self.peers[peer].process {
            Some(process) => {
                self.choices.reach("a peer changes");
                process
            }
            None => {
                if self.processes > 0 {
                    self.choices.reach("a peer starts anew");
                }
                self.processes += 1;
                self.processes - 1
            }
        };
        let old = self.peers[peer].edition;
        if self.kind == Kind::Peers && self.peers[peer].process.is_some() {
            self.editions[old].until.get_or_insert(now);
        }
        let edition = self.editions.len();
        let until = Some(now).filter(|_| self.kind != Kind::Peers);
        self.editions.push(Edition { process, until });
        let is_stopped = self.peers[peer].is_stopped && self.peers[peer].process.is_some();
        let Peer { key, before, .. } = self.peers[peer];
        self.peers[peer] = Peer { process: Some(process), is_stopped, edition, key, dead: None, before };
        self.tell(|| format!("process {process} says {edition} of peer {peer}"));
    }

    /// The process is gone, and so is what it said, at once or some time later.
    pub(super) fn end(&mut self, peer: usize, in_order: bool) {
        let now = Instant::now();
        let Some(process) = self.peers[peer].process.take() else { return };
        self.tell(|| format!("process {process} ends, in order: {in_order}"));
        self.peers[peer].is_stopped = false;
        self.peers[peer].dead = Some(now);
        if self.kind == Kind::Peers {
            let edition = self.peers[peer].edition;
            self.editions[edition].until.get_or_insert(now);
        } else if in_order && !self.is_down {
            self.write(peer, None);
        }
    }

    fn write(&mut self, peer: usize, edition: Option<usize>) {
        let now = Instant::now();
        let old = self.peers[peer].key;
        if let Some((old, _)) = old {
            self.editions[old].until.get_or_insert(now);
        }
        self.revision += 1;
        let revision = self.revision;
        self.peers[peer].before = old.or(self.peers[peer].before);
        self.peers[peer].key = edition.map(|edition| (edition, revision));
        if let Some(edition) = edition {
            self.editions[edition].until = None;
        }
        self.tell(|| format!("the store has {edition:?} of peer {peer}, revision {revision}"));
        if self.fault != Some(Fault::NewsLost) || !self.choices.chance(300) {
            self.history.push(News { revision, peer, edition });
        }
    }

    /// Owners look after their keys, and the store after those of the dead.
    pub(super) fn look_after(&mut self) {
        if self.kind == Kind::Peers || self.is_down {
            return;
        }
        for number in 0..self.peers.len() {
            let peer = &self.peers[number];
            let there = peer.key.map(|(edition, _)| edition);
            if peer.process.is_some() && !peer.is_stopped && there != Some(peer.edition) {
                self.write(number, Some(peer.edition));
            } else if there.is_some() && peer.dead.is_some_and(|since| since.elapsed() > LIFE) {
                self.write(number, None);
            }
        }
    }

    /// All that it had is gone, and it counts from the beginning.
    pub(super) fn empty(&mut self) {
        let now = Instant::now();
        if self.kind == Kind::Peers {
            return;
        }
        self.choices.reach("the store is emptied");
        self.tell(|| "the store is emptied".into());
        for peer in &mut self.peers {
            peer.before = peer.key.take().or(peer.before);
            if let Some((edition, _)) = peer.before {
                self.editions[edition].until.get_or_insert(now);
            }
            if self.kind == Kind::Telling {
                // A server that counts anew cannot answer with what was there before.
                peer.before = None;
            }
        }
        self.emptied += 1;
        (self.revision, self.is_broken) = (1, true);
        self.history.clear();
    }

    /// The stream of news breaks; what it has not told may be forgotten.
    pub(super) fn break_stream(&mut self, forgets: bool) {
        if self.kind != Kind::Telling {
            return;
        }
        self.is_broken = true;
        if forgets {
            self.choices.reach("the history is forgotten");
            self.history.clear();
        }
        self.tell(|| format!("the stream breaks; its history is forgotten: {forgets}"));
    }

    pub(super) fn add_watch(
        &mut self,
        door: Arc<Door>,
        since: i64,
        changed: Box<dyn Fn(Change) + Send + Sync>,
    ) -> u64 {
        self.watches += 1;
        let (number, peer, changed) = (self.watches, door.peer, Arc::from(changed));
        let emptied = door.seen.lock().emptied;
        self.watching.push(Watching { number, door, peer, since, emptied, changed });
        number
    }

    pub(super) fn end_watch(&mut self, number: u64) -> Option<Arc<Door>> {
        let place = self.watching.iter().position(|watching| watching.number == number)?;
        Some(self.watching.remove(place).door)
    }

    pub(super) fn watches(&self) -> usize {
        self.watching.len()
    }

    pub(super) fn is_watched(&self, told: &Told) -> bool {
        self.watching.iter().any(|watching| watching.number == told.number)
    }

    /// The stream has to wait before it is opened again.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken || self.is_down
    }

    /// The stream is open again; all that is to be told on it by now.
    pub(super) fn news(&mut self) -> Vec<Told> {
        self.is_broken = false;
        let mut all = Vec::new();
        for watching in &mut self.watching {
            let Watching { number, door, peer, since, emptied, changed } = watching;
            let is_emptied = std::mem::replace(emptied, self.emptied) != self.emptied;
            let mut tell = |edition, revision| {
                let (door, changed) = (door.clone(), changed.clone());
                all.push(Told { number: *number, door, edition, revision, changed });
            };
            let first = self.history.first().map_or(self.revision + 1, |news| news.revision);
            if is_emptied || *since + 1 < first {
                tell(None, 0);
                *since = self.revision;
                continue;
            }
            for news in self.history.iter().filter(|news| news.revision > *since && news.peer == *peer) {
                tell(Some(news.edition), news.revision);
            }
            *since = self.revision.max(*since);
        }
        all
    }
}
