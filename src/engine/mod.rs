//! The engine: the only module that knows all below. One instance per
//! `createTransferEngine`; every method may be called from any thread.

pub mod batch;
mod creation;
pub mod deliveries;
mod described;
pub mod glance;
pub mod grid;
pub mod handles;
mod host;
mod install;
mod known;
mod label;
pub mod local;
mod membership;
pub mod metrics;
mod name;
mod notifications;
pub mod peers;
mod place;
mod publish;
mod publisher;
mod regions;
mod reports;
mod route;
mod segment;
mod segments;
pub mod shared;
mod status;
pub mod submit;
pub mod tally;
pub mod topology;
pub mod traffic;
mod transports;
mod way;
pub mod whole;

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::cluster_key;
use crate::config::Config;
use crate::error::{Class, Code, Error, Result};
use crate::handshake::{self, Client, Limits};
use crate::host_port::{self, HostPort};
use crate::metadata::{self, Own, Store};
use crate::observe::log::{self, RateLimit};
use crate::runtime::clock;
use crate::runtime::control::Control;
use crate::runtime::descriptors;
use crate::runtime::fork;
use crate::runtime::ports::BoundPort;
use crate::runtime::slots::{Slots, KEY_BITS};
use crate::tls;
use crate::topology::{Filter, Matrix};
use crate::transport::incarnation;
use batch::Batch;
pub use creation::Wanted;
use deliveries::Deliveries;
use local::Local;
use place::Bound;
use publisher::Publisher;
use segment::table::Segments;
use transports::Transports;

/// How long `destroy` waits for calls of other threads. Chosen: its three limits (this one, that of `membership` and
/// that of `runtime::control`) add up to two seconds.
const CALLS_LIMIT: Duration = Duration::from_secs(1);

/// How long `destroy` waits for notifications that are on their way, while it leaves the store. Chosen: a peer that lives
/// takes one within milliseconds.
const DELIVERIES_LIMIT: Duration = Duration::from_millis(500);

/// One engine.
pub struct Engine {
    config: Arc<Config>,
    control: Arc<Control>,
    store: Arc<dyn Store>,
    client: Client,
    local: Arc<Local>,
    segments: Arc<Segments>,
    batches: Slots<Batch>,
    log: Arc<RateLimit>,
    /// In the top bits of this engine's batch ids.
    tag: u16,
    /// The NICs that discovery may find.
    devices: Filter,
    /// The NIC priority matrix in use, if there is one, and where it comes from.
    topology: Mutex<Option<(Matrix, &'static str)>>,
    publisher: Arc<Publisher>,
    deliveries: Arc<Deliveries>,
    /// Guards the state of the handshake port: whether it is bound, and whether it listens.
    bound: Mutex<Bound>,
    calls: Calls,
    /// The process it was created in, as fork counts them.
    epoch: u32,
    /// `enableGracefulShutdown` was called.
    release_at_shutdown: AtomicBool,
    /// A call panicked: nothing can be relied on any more.
    broken: AtomicBool,
    /// Its name in metrics, which is another one than that of every other engine of the process; set once it has a handle.
    label: OnceLock<String>,
    /// What is dropped at the end of `destroy`.
    attached: Mutex<Option<Box<dyn Send>>>,
}

/// Calls inside the engine; `destroy` waits for them.
#[derive(Default)]
struct Calls {
    inside: AtomicUsize,
    closing: AtomicBool,
    /// `destroy` sleeps here.
    none: (Mutex<()>, Condvar),
}

impl Engine {
    /// Opens the store, the handshake port and, if asked for, a transport.
    pub fn create(connection: &str, server_name: &str, auto_discover: bool) -> Result<Arc<Self>> {
        let wanted = if auto_discover { Wanted::Suitable } else { Wanted::None };
        Self::create_with(connection, server_name, wanted, "")
    }

    /// As [`Engine::create`], with the transports to be installed, and the only NICs that discovery may find, separated by
    /// commas.
    pub fn create_with(
        connection: &str,
        server_name: &str,
        wanted: Wanted<'_>,
        devices: &str,
    ) -> Result<Arc<Self>> {
        // Before anything that looks at the time, the log included.
        clock::probe()?;
        let (mut config, warnings) = Config::from_env();
        fork::watch();
        log::init(&config, &warnings);
        cluster_key::settle(&mut config)?;
        if config.cluster_key.is_some() {
            match config.cluster_key_required {
                Some(false) => {
                    tracing::warn!("MC_CLUSTER_KEY_REQUIRED=0: peers without the cluster key are served too")
                }
                _ => tracing::info!("peers have to prove the cluster key"),
            }
        }
        tls::settle(&mut config)?;
        if config.tls_cert_file.is_some() {
            match config.tls_required {
                Some(false) => tracing::warn!("MC_TLS_REQUIRED=0: peers without TLS are served too"),
                _ => tracing::info!("peers have to use TLS and show a certificate"),
            }
        }
        if let Some(lowered) = config.leave_descriptors(descriptors::limit()) {
            tracing::info!("{lowered}");
        }
        let config = Arc::new(config);
        let server = host_port::parse(server_name, config.handshake_port);
        name::check(connection, server_name, &server, &config)?;
        let mut incarnation = [0; 16];
        getrandom::fill(&mut incarnation).map_err(|e| {
            Error::new(Code::Socket, format!("no random numbers: {e}")).transient(Class::Resource)
        })?;
        let control = Arc::new(Control::start()?);
        let (local, bound) = place::find(connection, server_name, server, incarnation, &config)?;
        let described = local.clone();
        let own = Own {
            incarnation: incarnation::hex(&incarnation),
            descriptor: Arc::new(move || described.outline()),
        };
        let store = metadata::open(connection, &config, own)?;
        let engine = Arc::new(Engine {
            client: Client::new(&config),
            segments: Arc::new(Segments::new(&config)),
            publisher: Publisher::new(store.clone(), local.clone()),
            bound: Mutex::new(bound),
            batches: Slots::default(),
            log: Arc::default(),
            tag: next_tag(),
            devices: topology::caller_filter(devices),
            topology: Mutex::default(),
            deliveries: Arc::default(),
            calls: Calls::default(),
            epoch: fork::epoch(),
            release_at_shutdown: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            label: OnceLock::new(),
            attached: Mutex::new(None),
            config,
            control,
            store,
            local,
        });
        if let Err(error) = engine.start(wanted) {
            // Nothing of it stays in the store.
            engine.destroy();
            return Err(error);
        }
        tracing::info!("engine {} is reached at {}", engine.local.name, engine.local.address);
        place::compare(&engine.local, &engine.control, &engine.config);
        Ok(engine)
    }

    fn start(self: &Arc<Self>, wanted: Wanted<'_>) -> Result<()> {
        if self.store.is_peer_to_peer() {
            self.listen()?;
        } else {
            self.join_store()?;
        }
        self.install_wanted(wanted)?;
        self.refresh_in_background();
        Ok(())
    }

    /// Refreshes all cached descriptors from time to time, if asked for.
    fn refresh_in_background(self: &Arc<Self>) {
        let Some(interval) = self.config.refresh_interval.filter(|_| !self.config.disable_metacache) else {
            return;
        };
        let engine = Arc::downgrade(self);
        self.control.spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                let Some(engine) = engine.upgrade() else { return };
                let refreshed = engine.refresh_all();
                drop(engine);
                refreshed.await;
            }
        });
    }

    /// Serves the handshake port from now on, if it does not yet.
    fn listen(&self) -> Result<()> {
        let mut place = self.bound.lock();
        let bound = match &*place {
            Bound::Listens => return Ok(()),
            Bound::Waits(bound) => bound,
            Bound::Later(port) => &BoundPort::fixed(&self.config, *port)?,
        };
        let listener = bound.listen(self.config.listen_backlog)?;
        let listener = self.control.enter(|| listener.map(tokio::net::TcpListener::from_std));
        let listener = listener.map_err(|e| Error::io(Code::Socket, "cannot serve handshakes", &e))?;
        let limits = Limits::new(&self.config);
        self.control.spawn(handshake::serve(listener, self.local.clone(), limits));
        *place = Bound::Listens;
        Ok(())
    }

    /// The handshake address, which in P2P mode is the segment name.
    pub fn address(&self) -> &HostPort {
        &self.local.address
    }

    /// The transports.
    fn transports(&self) -> &Transports {
        &self.local.transports
    }

    /// Makes a batch for `capacity` tasks and returns its id, never 0 or `u64::MAX`.
    #[inline]
    pub fn allocate_batch(&self, capacity: usize) -> Result<u64> {
        let key = self.batches.insert(Arc::new(Batch::new(capacity)?))?;
        Ok(u64::from(self.tag) << KEY_BITS | key)
    }

    /// The batch with this id; -1 if it was freed, never existed, or belongs to another engine.
    #[inline]
    pub fn batch(&self, id: u64) -> Result<Arc<Batch>> {
        let key = id & ((1 << KEY_BITS) - 1);
        let known = if id >> KEY_BITS == u64::from(self.tag) { self.batches.get(key) } else { None };
        known.ok_or_else(|| no_such_batch(id))
    }

    /// Frees a batch whose tasks are all terminal; -4 while some run.
    #[inline]
    pub fn free_batch(&self, id: u64) -> Result<()> {
        let batch = self.batch(id)?;
        tally::freed(|last| batch.free(last))?;
        glance::forget(&batch);
        let freed = self.batches.remove(id & ((1 << KEY_BITS) - 1));
        freed.map(drop).ok_or_else(|| no_such_batch(id))
    }

    /// From now on a graceful shutdown destroys this engine.
    pub fn release_at_shutdown(&self) {
        self.release_at_shutdown.store(true, Ordering::SeqCst);
    }

    /// Whether a graceful shutdown destroys this engine: not in a forked child, where its
    /// threads are not.
    pub fn is_released_at_shutdown(&self) -> bool {
        self.release_at_shutdown.load(Ordering::SeqCst) && self.epoch == fork::epoch()
    }

    /// Counts a call in; an error once the engine is being destroyed or is broken.
    pub fn enter(self: &Arc<Self>) -> Result<Inside> {
        if self.is_broken() {
            let text = "an earlier call failed inside the library; destroy this engine and report the log";
            return Err(Error::invalid(text).permanent(Class::Internal));
        }
        self.calls.inside.fetch_add(1, Ordering::SeqCst);
        let inside = Inside(self.clone());
        if self.calls.closing.load(Ordering::SeqCst) {
            return Err(Error::invalid("the engine is being destroyed").permanent(Class::Canceled));
        }
        Ok(inside)
    }

    /// Fails what is in flight, ends the calls of other threads, joins every thread.
    pub fn destroy(&self) {
        self.calls.closing.store(true, Ordering::SeqCst);
        let deliveries_end = Instant::now() + DELIVERIES_LIMIT;
        let left = self.leave_store();
        self.transports().all().iter().for_each(|transport| transport.stop());
        left.wait();
        self.deliveries.wait(deliveries_end);
        self.control.stop();
        self.abandon_batches();
        let deadline = Instant::now() + CALLS_LIMIT;
        let mut guard = self.calls.none.0.lock();
        let mut is_late = false;
        while self.calls.inside.load(Ordering::SeqCst) != 0 && !is_late {
            is_late = self.calls.none.1.wait_until(&mut guard, deadline).timed_out();
        }
        // Before a line is written: calls that end take it.
        drop(guard);
        if is_late {
            tracing::warn!("engine {} destroyed while another thread is inside a call", self.local.name);
        }
        // Those that the last calls made.
        self.abandon_batches();
        drop(self.attached.lock().take());
    }

    /// Drops `what` at the end of [`Engine::destroy`].
    pub fn attach(&self, what: Box<dyn Send>) {
        *self.attached.lock() = Some(what);
    }

    /// A call panicked, so that the engine refuses all others.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    fn abandon_batches(&self) {
        self.batches.for_each(|batch| tally::abandoned(|last| batch.abandon(last)));
    }
}

/// A call inside an engine.
pub struct Inside(Arc<Engine>);

impl std::ops::Deref for Inside {
    type Target = Arc<Engine>;

    fn deref(&self) -> &Arc<Engine> {
        &self.0
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.store(true, Ordering::Relaxed);
        }
        let calls = &self.0.calls;
        if calls.inside.fetch_sub(1, Ordering::SeqCst) == 1 && calls.closing.load(Ordering::SeqCst) {
            let _guard = calls.none.0.lock();
            calls.none.1.notify_all();
        }
    }
}

/// Differs between the engines of a process, so that ids of one mean nothing to another.
fn next_tag() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // 0 and 0xffff are left out: an id is never 0 or u64::MAX.
    NEXT.fetch_add(1, Ordering::Relaxed) % (u16::MAX - 1) + 1
}

fn no_such_batch(id: u64) -> Error {
    Error::invalid(format!("batch id {id:#x} is unknown here: freed already, or of another engine"))
}

#[cfg(test)]
mod tests;
