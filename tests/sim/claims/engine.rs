//! An engine as the store and other engines see it, and its life.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{sleep, Instant};

use super::shelf::{Door, Shelf};
use super::Fault;
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::host_port::HostPort;
use crate::metadata::keyed::{Keyed, Probe};
use crate::metadata::store::Own;
use crate::runtime::BoxFuture;

/// A process.
pub(super) struct Host {
    pub number: usize,
    pub name: &'static str,
    alive: AtomicBool,
    left: AtomicBool,
    /// Since when it runs; `None` while it is stopped.
    runs: Mutex<Option<Instant>>,
    goes_on: Notify,
    /// The values that it was told are published: of its address, and of its descriptor.
    pub published: Mutex<[Option<Arc<[u8]>>; 2]>,
}

impl Host {
    pub(super) fn new(number: usize, name: &'static str) -> Arc<Self> {
        Arc::new(Host {
            number,
            name,
            alive: AtomicBool::new(true),
            left: AtomicBool::new(false),
            runs: Mutex::new(Some(Instant::now())),
            goes_on: Notify::new(),
            published: Mutex::default(),
        })
    }

    pub(super) fn address(&self) -> HostPort {
        HostPort { host: format!("h{}", self.number), port: 1 }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Relaxed)
    }

    pub(super) fn has_left(&self) -> bool {
        self.left.load(Relaxed)
    }

    pub(super) fn runs_since(&self) -> Option<Instant> {
        *self.runs.lock()
    }

    pub(super) fn kill(&self) {
        self.alive.store(false, Relaxed);
    }

    pub(super) fn stop(&self) {
        *self.runs.lock() = None;
    }

    pub(super) fn go_on(&self) {
        self.runs.lock().get_or_insert_with(Instant::now);
        self.goes_on.notify_waiters();
    }

    /// A stopped process does nothing, and a dead one never again.
    pub(super) async fn until_it_runs(&self) {
        while self.runs_since().is_none() {
            let goes_on = self.goes_on.notified();
            if self.runs_since().is_none() {
                goes_on.await;
            }
        }
    }
}

/// Asks other engines whether they live.
struct Asker(Arc<Mutex<Shelf>>);

impl Probe for Asker {
    fn probe(&self, address: &HostPort) -> BoxFuture<'_, Result<()>> {
        let number: usize = address.host[1..].parse().unwrap_or(usize::MAX);
        Box::pin(async move {
            let (host, delay_ms, is_mute) = {
                let shelf = &mut *self.0.lock();
                let delay_ms = shelf.choices.pick(&[1, 20]);
                (shelf.hosts.get(number).cloned(), delay_ms, shelf.fault == Some(Fault::NobodyAnswers))
            };
            sleep(Duration::from_millis(delay_ms)).await;
            let refused = || {
                let refused = std::io::Error::from_raw_os_error(libc::ECONNREFUSED);
                Err(Error::io(Code::Socket, "cannot connect", &refused))
            };
            let Some(host) = host.filter(|host| host.is_alive() && !is_mute) else { return refused() };
            host.until_it_runs().await;
            if host.is_alive() && !host.has_left() {
                Ok(())
            } else {
                refused()
            }
        })
    }
}

/// The life of an engine: it claims its name, publishes its descriptor a few times, and may leave in order.
pub(super) async fn live(shelf: Arc<Mutex<Shelf>>, host: Arc<Host>, versions: u64, leaves: bool) {
    let config = Config::default();
    let own =
        Own { incarnation: format!("i{}", host.number), descriptor: Arc::new(|| serde_json::Value::Null) };
    let door = Arc::new(Door { shelf: shelf.clone(), host: host.clone() });
    let keyed = Keyed::asking(door, 1, &config, own, Arc::new(Asker(shelf.clone())));
    let [rpc, ram] = keys(host.name);
    let address = json!({"ip_or_host_name": host.address().host, "rpc_port": 1});
    let address: Arc<[u8]> = address.to_string().into_bytes().into();
    let claimed = timed(&shelf, "claim", &config, keyed.claim_name(rpc.clone(), address.clone())).await;
    let is_claimed = claimed.is_ok();
    note(&shelf, &host, &rpc, 0, &address, &claimed);
    if !is_claimed {
        shelf.lock().choices.reach("a name is refused");
        return leave(&shelf, &host, &keyed, &config).await;
    }
    shelf.lock().choices.reach("a name is claimed");
    let upkeep = async {
        let is_looked_after = shelf.lock().fault != Some(Fault::NoUpkeep);
        if is_looked_after {
            keyed.look_after_claims().await;
        }
        std::future::pending().await
    };
    let publish = async {
        for version in 0..versions {
            let text = json!({"incarnation": format!("i{}", host.number), "version": version}).to_string();
            let value: Arc<[u8]> = text.into_bytes().into();
            let published =
                timed(&shelf, "publish", &config, keyed.publish_descriptor(ram.clone(), value.clone())).await;
            note(&shelf, &host, &ram, 1, &value, &published);
            let pause_ms = shelf.lock().choices.pick(&[10, 3_000, 20_000]);
            sleep(Duration::from_millis(pause_ms)).await;
        }
        if !leaves {
            std::future::pending::<()>().await;
        }
        host.until_it_runs().await;
        leave(&shelf, &host, &keyed, &config).await;
    };
    tokio::select! { biased; () = publish => {}, () = upkeep => {} }
}

/// As `destroy` does it: nothing of the engine stays in the store, if that answers.
async fn leave(shelf: &Arc<Mutex<Shelf>>, host: &Host, keyed: &Keyed, config: &Config) {
    for key in keys(host.name) {
        let withdrawn = timed(shelf, "withdraw", config, keyed.withdraw(key.clone())).await;
        let is_there = {
            let shelf = &mut *shelf.lock();
            shelf.writer(&key) == Some(host.number) && !shelf.came_late(&key)
        };
        if withdrawn.is_ok() && is_there && host.runs_since().is_some() {
            shelf.lock().breaks(format!("engine {} has withdrawn {key}, which is there", host.number));
        }
    }
    host.left.store(true, Relaxed);
}

/// The key of the address, and that of the descriptor.
pub(super) fn keys(name: &str) -> [String; 2] {
    [format!("mooncake/rpc_meta/{name}"), format!("mooncake/ram/{name}")]
}

/// No call takes longer than it may.
async fn timed<T>(
    shelf: &Arc<Mutex<Shelf>>,
    what: &str,
    config: &Config,
    call: impl std::future::Future<Output = Result<T>>,
) -> Result<T> {
    let start = Instant::now();
    let outcome = call.await;
    // The upkeep may hold the claims for as long as its own operations take.
    let most = config.metadata_timeout * 8;
    if start.elapsed() > most {
        shelf.lock().breaks(format!("{what} took {:?}", start.elapsed()));
    }
    outcome
}

/// What is called published was written.
fn note(
    shelf: &Arc<Mutex<Shelf>>,
    host: &Host,
    key: &str,
    place: usize,
    value: &Arc<[u8]>,
    outcome: &Result<()>,
) {
    let shelf = &mut *shelf.lock();
    shelf.tell(|| {
        format!("{:?} engine {} published {key}: {:?}", Instant::now(), host.number, outcome.as_ref().err())
    });
    if outcome.is_ok() {
        host.published.lock()[place] = Some(value.clone());
        if !shelf.was_written(key, value) {
            shelf.breaks(format!(
                "engine {} was told that {key} is published, and it never was there",
                host.number
            ));
        }
    }
}
