//! What the files of this transport share: settings, counters, threads, words for peers, and what is said about peers.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::Arc;

use parking_lot::Mutex;

use super::board::{numbers, Board, Word};
use super::reactor::Reactor;
use super::stats::Stats;
use crate::config::Config;
use crate::error::Result;
use crate::memory::{Region, Registry};
use crate::observe::log::RateLimit;
use crate::runtime::control::Control;
use crate::runtime::reactor::threads::Threads;
use crate::transport::host::Host;
use crate::transport::incarnation;

/// What links, inbound connections and threads share.
pub(super) struct Shared {
    /// Settings.
    pub config: Arc<Config>,
    /// Registered memory.
    pub registry: Arc<Registry>,
    /// Runs the tasks that connect.
    pub control: Arc<Control>,
    /// This engine's incarnation.
    pub incarnation: [u8; incarnation::LEN],
    /// Words that peers read.
    pub board: Board,
    /// Counters.
    pub stats: Stats,
    /// Keeps repeated warnings rare.
    pub log: RateLimit,
    /// Connections of peers that are open.
    pub inbound: AtomicUsize,
    /// The threads, over which links and inbound connections are spread.
    pub threads: Threads<Reactor>,
    /// Guards the words of regions that peers may read, by the order in which the regions were registered.
    regions: Mutex<BTreeMap<u64, Word>>,
}

impl Shared {
    /// What is shared by a transport of which nothing runs yet.
    pub(super) fn new(host: &dyn Host) -> Result<Self> {
        Ok(Shared {
            config: host.config().clone(),
            registry: host.registry().clone(),
            control: host.control().clone(),
            incarnation: *host.incarnation(),
            board: Board::new(host.incarnation())?,
            stats: Stats::default(),
            log: RateLimit::default(),
            inbound: AtomicUsize::new(0),
            threads: Threads::default(),
            regions: Mutex::default(),
        })
    }

    /// The incarnation, as messages carry it.
    pub(super) fn id(&self) -> [u64; 2] {
        numbers(&self.incarnation)
    }

    /// From now on peers may read these regions, if they are open to peers: all of them or none.
    pub(super) fn open_regions(&self, regions: &[Arc<Region>]) -> Result<()> {
        for (index, region) in regions.iter().enumerate() {
            let word = self.board.open().inspect_err(|_| {
                regions[..index].iter().for_each(|opened| self.close_region(opened));
            })?;
            self.regions.lock().insert(region.order, word);
        }
        Ok(())
    }

    /// What peers read of the region from now on does not count.
    pub(super) fn close_region(&self, region: &Region) {
        let word = self.regions.lock().remove(&region.order);
        word.into_iter().for_each(|word| self.board.close(word));
    }

    /// The word of a region.
    pub(super) fn word_of(&self, region: &Region) -> Option<Word> {
        self.regions.lock().get(&region.order).copied()
    }
}
