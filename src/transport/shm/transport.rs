//! The installed transport: its socket, its threads, its links.

use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::connect;
use super::inbound::Inbound;
use super::link::ShmLink;
use super::offer;
use super::reactor::Reactor;
use super::shared::Shared;
use crate::error::{Code, Error, Result};
use crate::memory::Region;
use crate::runtime::reactor::threads;
use crate::runtime::tracked::Tracked;
use crate::segment_desc::SegmentDesc;
use crate::transport::host::{Host, Route};
use crate::transport::links::{stopping, Links};
use crate::transport::offer::list_plain;
use crate::transport::report::RailReport;
use crate::transport::{Link, Transport};

/// How long the end waits for the threads, and how often it looks. Chosen: they are at a pull for less than a millisecond, unless the
/// peer serves its own pages and does not.
const JOIN_LIMIT: Duration = Duration::from_secs(1);
const JOIN_PAUSE: Duration = Duration::from_micros(200);

/// The installed transport.
pub(super) struct Shm {
    shared: Arc<Shared>,
    links: Links<ShmLink>,
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
        let count = threads::wanted(shared.config.tcp_threads);
        let reactors: Vec<_> =
            (0..count).map(|_| Reactor::new(shared.config.tcp_busy_poll)).collect::<Result<_>>()?;
        let shm = Arc::new(Shm { shared, links: Links::default() });
        shm.shared.threads.start(reactors, Reactor::run)?;
        if let Some(first) = shm.shared.threads.reactors().first() {
            // Weak: the thread must not keep alive what joins it.
            let shared = Arc::downgrade(&shm.shared);
            let accepted = move |socket| {
                let Some(shared) = shared.upgrade() else { return };
                let reactor = shared.threads.next_reactor();
                if let Some(inbound) = Inbound::new(&shared, &reactor, socket) {
                    reactor.serve(inbound);
                }
            };
            first.listen(listener, Box::new(accepted));
        }
        Ok(shm)
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
        if !self.links.add(&link) {
            link.close(&stopping());
        }
        link
    }

    /// Requests of peers hold regions for the length of a pull only, which is milliseconds.
    fn abort(&self, region: &Arc<Region>) {
        self.links.live().iter().for_each(|link| link.abort(region));
    }

    fn rails(&self) -> Vec<RailReport> {
        self.links.live().iter().map(|link| link.report()).collect()
    }

    fn stop(&self) {
        let links = self.links.stop();
        self.shared.board.wipe();
        for link in links {
            link.close(&stopping());
        }
        self.shared.threads.reactors().iter().for_each(|reactor| reactor.stop());
        let deadline = Instant::now() + JOIN_LIMIT;
        for thread in self.shared.threads.take_running() {
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
