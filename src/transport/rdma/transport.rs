//! The installed transport: its NICs, its threads, and what the engine asks of it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;

use super::super::host;
use super::super::incarnation;
use super::super::report::{NicReport, QueueReport, RailReport};
use super::super::{Link, Transport};
use super::affinity::Affinity;
use super::errors::destroyed;
use super::flight::{fail_revoked, Flight, Keys, Loss};
use super::inbox::Inbox;
use super::link::RdmaLink;
use super::memory::Memory;
use super::nic::Nic;
use super::origin::Origin;
use super::rails::Rails;
use super::recover::recover;
use super::report::{Identity, Publication};
use super::shared::{Shared, ACCEPT_AT_ONCE};
use super::stats::Stats;
use super::{accept, nic, offer, outside, progress, reap, verbs};
use crate::config::Config;
use crate::error::{Class, Code, Error, Result};
use crate::handshake::ConnectionMessage;
use crate::memory::{Region, Registry};
use crate::observe::log::RateLimit;
use crate::runtime::BoxFuture;
use crate::segment_desc::SegmentDesc;
use crate::topology::order::hca_order;
use crate::topology::select::Selector;
use crate::topology::Matrix;

/// How long `stop` waits until queue pairs are destroyed and what waited has failed. Chosen: half of what a host may wait for the end of an engine.
const DESTROY_LIMIT: Duration = Duration::from_secs(1);

/// The installed transport.
pub(super) struct Rdma {
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    affinity: Affinity,
    /// Guards the join handles; `stop` takes them.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Rdma {
    /// Opens every NIC that the matrix names and starts a thread per NIC. -6 if none can be used.
    pub(super) fn install(engine: Arc<dyn host::Host>, matrix: Matrix) -> Result<Arc<Self>> {
        verbs::load()?;
        let config = engine.config();
        let nics = open_all(&matrix, config)?;
        let names: Vec<String> = nics.iter().map(|nic| nic.name.clone()).collect();
        let limit = nics.iter().map(|nic| nic.limits.max_mr_size).min().unwrap_or(0);
        let (affinity, warnings) = Affinity::new(config);
        for warning in warnings {
            tracing::warn!("MC_NIC_PEER_AFFINITY: {warning}");
        }
        let host = Arc::new(outside::Engine(engine.clone()));
        let identity =
            Identity { server: host.server(), incarnation: incarnation::hex(engine.incarnation()) };
        let destroyer = Arc::default();
        let shared = Arc::new(Shared {
            selector: Selector::new(&matrix, &names),
            memory: Memory::new(config, limit),
            config: config.clone(),
            control: engine.control().clone(),
            identity,
            rails: nics.iter().map(|nic| Rails::new(nic.most_connections, config.evict_fifo)).collect(),
            host,
            inboxes: nics.iter().map(|nic| Inbox::new(config, &destroyer, nic)).collect(),
            nics,
            matrix,
            destroyer,
            links: RwLock::default(),
            stats: Stats::default(),
            accepting: Semaphore::new(ACCEPT_AT_ONCE),
            log: RateLimit::default(),
            stopped: AtomicBool::new(false),
            me: OnceLock::new(),
            seed: AtomicU32::new(std::process::id()),
        });
        let _ = shared.me.set(Arc::downgrade(&shared));
        let rdma = Arc::new(Rdma {
            shared,
            registry: engine.registry().clone(),
            affinity,
            threads: Mutex::default(),
        });
        for nic in &rdma.shared.nics {
            rdma.threads.lock().push(progress::start(&rdma.shared, nic)?);
        }
        Ok(rdma)
    }

    /// Whether a device could be used: its port is active and has a GID.
    pub(super) fn usable(name: &str, config: &Config) -> bool {
        verbs::load().is_ok() && nic::usable(name, config)
    }

    /// What peers are told.
    fn publication(&self) -> Publication {
        let shared = &self.shared;
        let dead = shared.nics.iter().filter(|nic| !nic.is_active()).map(|nic| nic.name.clone());
        let matrix = shared.matrix.without(&dead.collect::<Vec<_>>());
        let live: Vec<&Arc<Nic>> = hca_order(&matrix)
            .iter()
            .filter_map(|name| shared.nics.iter().find(|nic| nic.name == *name && nic.is_active()))
            .collect();
        let indices: Vec<usize> = live.iter().map(|nic| nic.index).collect();
        Publication {
            nics: live.iter().map(|nic| nic.state()).collect(),
            matrix,
            buffers: shared.memory.published(&indices),
        }
    }
}

/// How long a call with that many bytes may take.
fn task_limit(config: &Config, bytes: u64) -> Duration {
    config.rdma_task_timeout + Duration::from_secs(bytes / config.rdma_min_rate)
}

/// Opens what can be opened; the others are logged and left out.
fn open_all(matrix: &Matrix, config: &Config) -> Result<Vec<Arc<Nic>>> {
    let mut nics: Vec<Arc<Nic>> = Vec::new();
    let mut failures = Vec::new();
    for name in hca_order(matrix) {
        match Nic::open(nics.len(), &name, config) {
            Ok(nic) => nics.push(nic),
            Err(error) => {
                tracing::warn!("NIC {name} is left out: {error}");
                failures.push(error.text().to_string());
            }
        }
    }
    if nics.is_empty() {
        let why = match failures.as_slice() {
            [] => "the NIC priority matrix names no NIC, or discovery found none".to_string(),
            failures => failures.join("; "),
        };
        let text = format!("no usable RDMA device: {why}; use tcp, or see `ibv_devinfo`");
        return Err(Error::new(Code::DeviceNotFound, text));
    }
    Ok(nics)
}

impl Transport for Rdma {
    fn name(&self) -> &'static str {
        offer::NAME
    }

    fn list_buffers(&self, desc: &mut SegmentDesc) -> Result<bool> {
        let is_published = |addr| self.registry.is_published(addr);
        Ok(offer::list(self.publication(), is_published, self.shared.identity.server.clone(), desc))
    }

    fn link(&self, route: Arc<dyn host::Route>) -> Arc<dyn Link> {
        let mut links = self.shared.links.write();
        let route = Arc::new(outside::Peer(route));
        let link = RdmaLink::new(&self.shared, route, links.len() as u32, self.affinity.clone());
        let origin: Arc<dyn Origin> = link.clone();
        links.push(Arc::downgrade(&origin));
        link
    }

    fn is_asked(&self, request: &ConnectionMessage) -> bool {
        let name = request.peer_nic_path.split_once('@').map(|(_, name)| name);
        self.shared.nics.iter().any(|nic| Some(nic.name.as_str()) == name)
    }

    /// A refusal is a reply too.
    fn answer(&self, request: &ConnectionMessage) -> Option<BoxFuture<'static, ConnectionMessage>> {
        Some(Box::pin(accept::accept(self.shared.clone(), request.clone())))
    }

    fn task_limit(&self, bytes: u64) -> Option<Duration> {
        Some(task_limit(&self.shared.config, bytes))
    }

    fn nics(&self) -> Vec<NicReport> {
        let port = self.shared.config.ib_port;
        let report = |nic: &Arc<Nic>| NicReport { source: "rdma_transport", port, ..nic.state() };
        self.shared.nics.iter().map(report).collect()
    }

    fn rails(&self) -> Vec<RailReport> {
        let rails = self.shared.rails.iter().flat_map(|rails| rails.all());
        let mut states: Vec<_> = rails.map(|rail| rail.describe()).collect();
        states.sort_by(|a, b| (&a.local, &a.peer).cmp(&(&b.local, &b.peer)));
        states
    }

    fn queues(&self) -> Vec<QueueReport> {
        self.shared.rails.iter().flat_map(|rails| rails.all()).map(|rail| rail.queue()).collect()
    }

    fn register(&self, regions: &[Arc<Region>]) -> Result<()> {
        self.shared.memory.register(&self.shared.nics, &self.shared.selector, regions)
    }

    fn unregister(&self, region: &Arc<Region>) {
        self.shared.memory.unregister(region);
    }

    fn abort(&self, region: &Arc<Region>) {
        let inside = |flight: &Flight| flight.slice.as_ref().is_some_and(|slice| slice.is_in(region));
        for rail in self.shared.rails.iter().flat_map(|rails| rails.all()) {
            let waiting = rail.take_waiting(inside);
            let lost = waiting.into_iter().map(|flight| (flight, Loss::Flushed)).collect();
            recover(&self.shared, &rail, lost, None, Keys::Good);
            if let Some(connection) = rail.connection() {
                if connection.queues.iter().any(|queue| queue.any(inside)) {
                    let text = format!("{}: memory was unregistered under running requests", rail.name());
                    let error = Error::new(Code::AddressNotRegistered, text).transient(Class::Canceled);
                    rail.interrupt(&connection, error);
                }
            }
        }
        self.shared.links().iter().for_each(|link| fail_revoked(link.take_kept(&inside)));
        for nic in &self.shared.nics {
            reap::poll(&self.shared, nic);
        }
    }

    fn stop(&self) {
        let shared = &self.shared;
        if shared.stopped.swap(true, Ordering::AcqRel) {
            return;
        }
        shared.nics.iter().for_each(|nic| nic.wakeup.set());
        for thread in std::mem::take(&mut *self.threads.lock()) {
            let _ = thread.join();
        }
        let error = destroyed();
        shared.links().iter().for_each(|link| link.close(&error));
        for nic in &shared.nics {
            // Forgotten first: each rail that ends would be looked for in the table.
            progress::abandon(shared, nic, shared.rails(nic).take_all(), &error);
            shared.inbox(nic).clear();
        }
        if !shared.destroyer.wait(DESTROY_LIMIT) {
            tracing::warn!(
                "the driver still destroys queue pairs; a thread is left behind that waits for it"
            );
        }
        // Nothing reaches the host's memory any more, over queue pairs that are left neither.
        shared.memory.clear();
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        self.shared.stats.snapshot()
    }
}

impl Drop for Rdma {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_a_task_grows_with_its_bytes() {
        let config = Config::default();
        assert_eq!(task_limit(&config, 0), config.rdma_task_timeout);
        let ten = config.rdma_task_timeout + Duration::from_secs(10);
        assert_eq!(task_limit(&config, 10 * config.rdma_min_rate), ten);
    }
}
