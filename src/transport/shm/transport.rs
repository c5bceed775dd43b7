//! The installed transport: its socket, its threads, its links.

use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};

use super::connect;
use super::inbound::Inbound;
use super::link::ShmLink;
use super::offer;
use super::reactor::Reactor;
use super::shared::{stopping, Shared};
use crate::error::{Code, Error, Result};
use crate::memory::Region;
use crate::runtime::tracked::Tracked;
use crate::segment_desc::SegmentDesc;
use crate::transport::host::{Host, Route};
use crate::transport::offer::list_plain;
use crate::transport::report::RailReport;
use crate::transport::{Link, Transport};

/// Threads: one for two processors, up to so many. Chosen: callers pull too, and need the other processors; more threads than
/// that meet at the memory's bandwidth.
const MOST_THREADS: usize = 4;

/// How long the end waits for the threads, and how often it looks. Chosen: they are at a pull for less than a millisecond, unless the
/// peer serves its own pages and does not.
const JOIN_LIMIT: Duration = Duration::from_secs(1);
const JOIN_PAUSE: Duration = Duration::from_micros(200);

/// The installed transport.
pub(super) struct Shm {
    shared: Arc<Shared>,
    /// Guards the links for `abort` and `stop`; dead ones are swept when one is added.
    links: Mutex<Links>,
    /// Guards the join handles; `stop` takes them.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Links {
    stopped: bool,
    live: Vec<Weak<ShmLink>>,
}

impl Shm {
    /// Listens and starts the threads.
    pub(super) fn install(host: Arc<dyn Host>) -> Result<Arc<Self>> {
        let failed =
            |e: std::io::Error| Error::io(Code::Socket, "cannot listen for engines on this host", &e);
        let shared = Arc::new(Shared::new(&*host)?);
        let listener = Tracked::open(|| Socket::new(Domain::UNIX, Type::SEQPACKET.nonblocking(), None))
            .map_err(failed)?;
        listener.bind(&connect::address(&shared.incarnation)?).map_err(failed)?;
        listener.listen(shared.config.listen_backlog).map_err(failed)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from) / 2;
        let reactors: Vec<_> = (0..threads.clamp(1, MOST_THREADS))
            .map(|_| Reactor::new(shared.config.tcp_busy_poll))
            .collect::<Result<_>>()?;
        shared.set_reactors(reactors);
        let shm = Arc::new(Shm { shared, links: Mutex::default(), threads: Mutex::default() });
        for (index, reactor) in shm.shared.reactors().iter().enumerate() {
            shm.threads.lock().push(reactor.run(index)?);
        }
        if let Some(first) = shm.shared.reactors().first() {
            // Weak: the thread must not keep alive what joins it.
            let shared = Arc::downgrade(&shm.shared);
            let accepted = move |socket| {
                let Some(shared) = shared.upgrade() else { return };
                let reactor = shared.next_reactor();
                if let Some(inbound) = Inbound::new(&shared, &reactor, socket) {
                    reactor.serve(inbound);
                }
            };
            first.listen(listener, Box::new(accepted));
        }
        Ok(shm)
    }

    fn live_links(&self) -> Vec<Arc<ShmLink>> {
        self.links.lock().live.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Transport for Shm {
    fn name(&self) -> &'static str {
        offer::NAME
    }

    fn register(&self, regions: &[Arc<Region>]) -> Result<()> {
        self.shared.open_regions(regions)
    }

    fn unregister(&self, region: &Arc<Region>) {
        self.shared.close_region(region);
    }

    fn describe(&self, desc: &mut SegmentDesc) {
        offer::describe(desc);
    }

    fn list_buffers(&self, desc: &mut SegmentDesc) -> Result<bool> {
        list_plain(&self.shared.registry.published()?, desc)?;
        Ok(true)
    }

    fn link(&self, route: Arc<dyn Route>) -> Arc<dyn Link> {
        let link = ShmLink::new(&self.shared, route);
        let mut links = self.links.lock();
        links.live.retain(|link| link.strong_count() > 0);
        links.live.push(Arc::downgrade(&link));
        if links.stopped {
            link.close(&stopping());
        }
        link
    }

    /// Requests of peers hold regions for the length of a pull only, which is milliseconds.
    fn abort(&self, region: &Arc<Region>) {
        self.live_links().iter().for_each(|link| link.abort(region));
    }

    fn rails(&self) -> Vec<RailReport> {
        self.live_links().iter().map(|link| link.report()).collect()
    }

    fn stop(&self) {
        self.links.lock().stopped = true;
        self.shared.board.wipe();
        for link in self.live_links() {
            link.close(&stopping());
        }
        self.shared.reactors().iter().for_each(|reactor| reactor.stop());
        let deadline = Instant::now() + JOIN_LIMIT;
        for thread in std::mem::take(&mut *self.threads.lock()) {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(JOIN_PAUSE);
            }
            match thread.is_finished() {
                true => drop(thread.join()),
                // What it uses it holds.
                false => {
                    tracing::error!("a thread that reads a peer's memory does not return, and is left behind")
                }
            }
        }
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        self.shared.stats.snapshot()
    }
}

impl Drop for Shm {
    fn drop(&mut self) {
        self.stop();
    }
}
