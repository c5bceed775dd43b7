//! The transports of an engine: which ones this build has, in order of preference, and which are installed.
//! A new transport is a folder below `transport`, a file below `engine/transports` and a row of [`PROTOCOLS`].

#[cfg(feature = "rdma")]
mod rdma;
mod tcp;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{RwLock, RwLockReadGuard};

use super::links::{Nic, Rail};
use super::segment::{Known, Segment};
use super::{Engine, Local};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::handshake::{Answer, ConnectionMessage};
use crate::metadata::SegmentDesc;
use crate::topology::Matrix;
use crate::transport::{Link, Transport};

/// Every transport of this build; the first one that a peer offers and that works here is used.
pub const PROTOCOLS: &[&dyn Protocol] = &[
    #[cfg(feature = "rdma")]
    &rdma::Rdma,
    &tcp::Tcp,
];

/// Protocols that upstream knows in some build and no build of this project has, or this one lacks.
const FOREIGN: &[&str] = &[
    #[cfg(not(feature = "rdma"))]
    "rdma",
    "ub",
    "barex",
    "nvmeof",
    "nvmeof_generic",
    "nccl",
    "ascend",
    "nvlink_intra",
    "hip",
    "maca",
    "musa",
    "nvlink",
    "cxl",
    "ubshmem",
    "efa",
    "cxi",
    "sunrise_link",
];

/// What the engine has to know of a transport besides [`Transport`] and [`Link`].
pub trait Protocol: Sync {
    /// The name in C and in descriptors.
    fn name(&self) -> &'static str;

    /// The transport, if it is installed.
    fn installed(&self, transports: &Transports) -> Option<Arc<dyn Transport>>;

    /// Makes the transport, has it prepare every open region and installs it. On failure the engine stays as it was.
    fn install(&self, engine: &Arc<Engine>, matrix: Option<Matrix>) -> Result<()>;

    /// Adds the installed transport to the descriptor. The first one that can work names the protocol and lists the
    /// buffers in its form; the others add members of their own.
    fn describe(&self, local: &Local, desc: &mut SegmentDesc);

    /// Whether a peer with this descriptor can be reached so.
    fn is_offered(&self, desc: &SegmentDesc) -> bool;

    /// A link over the installed transport.
    fn link(&self, engine: &Engine, segment: &Arc<Segment>) -> Option<Arc<dyn Link>>;

    /// The peer's incarnation as far as links of this transport can prove it; 0: not at all.
    fn incarnation(&self, known: &Known) -> u64;

    /// How long a submit call of that many bytes may take when the caller has set no limit; `None`: the transport
    /// has limits of its own.
    fn task_limit(&self, config: &Config, bytes: u64) -> Option<Duration> {
        let _ = (config, bytes);
        None
    }

    /// Whether local memory may be used that was never registered.
    fn takes_any_source(&self, config: &Config) -> bool {
        let _ = config;
        false
    }

    /// Answers a connection request (type 0), if the transport is installed and has connections.
    fn accept(&self, transports: &Transports, request: &ConnectionMessage) -> Option<Answer<'static>> {
        let _ = (transports, request);
        None
    }

    /// NICs of the installed transport.
    fn nics(&self, engine: &Engine) -> Vec<Nic> {
        let _ = engine;
        Vec::new()
    }

    /// Rails of the installed transport.
    fn rails(&self, transports: &Transports) -> Vec<Rail> {
        let _ = transports;
        Vec::new()
    }
}

/// The installed transports.
#[derive(Default)]
pub struct Transports {
    tcp: OnceLock<Arc<crate::transport::tcp::Tcp>>,
    #[cfg(feature = "rdma")]
    rdma: OnceLock<Arc<crate::transport::rdma::Rdma>>,
    /// Held shared while regions come and go, exclusively by an installation: so every transport gets every region,
    /// although neither the registry's lock nor any other is held while it prepares them.
    installing: RwLock<()>,
    /// Submit calls that had to use a transport although the peer offers a better one, which is installed too.
    fallbacks: AtomicU64,
}

impl Transports {
    /// Every installed transport, in order of preference.
    pub fn all(&self) -> Vec<Arc<dyn Transport>> {
        PROTOCOLS.iter().filter_map(|protocol| protocol.installed(self)).collect()
    }

    /// No transport is installed.
    pub fn is_empty(&self) -> bool {
        !PROTOCOLS.iter().any(|protocol| protocol.installed(self).is_some())
    }

    /// Keeps transports from being installed while regions are prepared or released.
    pub fn keep(&self) -> RwLockReadGuard<'_, ()> {
        self.installing.read()
    }

    /// The descriptor that peers get; `None` before a transport is installed.
    pub fn describe(&self, local: &Local, mut desc: SegmentDesc) -> Option<SegmentDesc> {
        let installed = || PROTOCOLS.iter().filter(|protocol| protocol.installed(self).is_some());
        let first = installed().next()?;
        desc.protocol.clear();
        installed().for_each(|protocol| protocol.describe(local, &mut desc));
        if desc.protocol.is_empty() {
            desc.protocol = first.name().into();
        }
        Some(desc)
    }

    /// Named counters, as [`Transport::stats`].
    pub fn stats(&self) -> [(&'static str, u64); 1] {
        [("fallback_transport", self.fallbacks.load(Relaxed))]
    }

    /// Answers a connection request (type 0); `None` before a transport is installed.
    pub async fn accept(&self, request: ConnectionMessage) -> Option<ConnectionMessage> {
        if let Some(answer) = PROTOCOLS.iter().find_map(|protocol| protocol.accept(self, &request)) {
            return answer.await;
        }
        (!self.is_empty()).then(|| ConnectionMessage::rejection("no RDMA transport on this node"))
    }
}

impl Engine {
    /// Installs `protocol`, once; `matrix` is the NIC priority matrix as JSON text. -1 for an
    /// unknown protocol, -303 for one this build lacks, -103 for a malformed matrix, -6 without a usable NIC: then the
    /// engine stays as it was. -200 if the store does not take the descriptor: the transport is installed, and the
    /// background or the same call again publishes it.
    pub fn install_transport(self: &Arc<Self>, protocol: &str, matrix: Option<&str>) -> Result<&'static str> {
        let matrix = matrix.map(Matrix::parse).transpose()?;
        let Some(protocol) = PROTOCOLS.iter().find(|known| known.name() == protocol) else {
            return Err(not_here(protocol));
        };
        let name = protocol.name();
        let _alone = self.transports().installing.write();
        if protocol.installed(self.transports()).is_some() {
            if matrix.is_some() {
                tracing::warn!(
                    "transport '{name}' is installed already; the new NIC priority matrix is not used"
                );
            }
            if self.is_behind() {
                self.publish()?;
            }
            return Ok(name);
        }
        self.listen()?;
        protocol.install(self, matrix).map_err(|e| e.context(format!("install {name}")))?;
        self.publish().inspect_err(|_| self.publish_soon())?;
        Ok(name)
    }
}

impl Engine {
    /// Counts and logs that a peer is reached by `used` although `better` is installed; an error in strict mode.
    pub fn note_fallback(&self, peer: &str, better: &str, used: &str) -> Result<()> {
        self.transports().fallbacks.fetch_add(1, Relaxed);
        if self.config.strict {
            let text =
                format!("no NIC for {better} works, and MC_STRICT refuses {used} instead; see showLinks");
            return Err(Error::new(Code::DeviceNotFound, text).peer(peer));
        }
        if self.log.admit("transport", peer) {
            tracing::warn!("fall-back: {peer} is reached by {used}, because no NIC for {better} works");
        }
        Ok(())
    }
}

fn not_here(protocol: &str) -> Error {
    let names: Vec<_> = PROTOCOLS.iter().map(|known| known.name()).collect();
    let names = names.join(" or ");
    if FOREIGN.contains(&protocol) {
        let text = format!("transport '{protocol}' is not in this build; use {names}");
        return Error::new(Code::NotImplemented, text);
    }
    Error::invalid(format!("unknown transport '{protocol}'; this build has {names}"))
}

/// Installs `made` in `place` once it has prepared every region that is registered already.
fn adopt<T: Transport>(engine: &Engine, made: Arc<T>, place: &OnceLock<Arc<T>>) -> Result<()> {
    let regions = engine.local.registry.all();
    if let Err(error) = made.register(&regions) {
        made.stop();
        return Err(error.context(format!("{} regions were registered before", regions.len())));
    }
    let _ = place.set(made);
    Ok(())
}

/// Whether discovery may list this NIC.
#[cfg(feature = "rdma")]
pub fn is_usable_nic(name: &str, config: &Config) -> bool {
    crate::transport::rdma::Rdma::usable(name, config)
}

/// Whether discovery may list this NIC: not without the transport.
#[cfg(not(feature = "rdma"))]
pub fn is_usable_nic(_: &str, _: &Config) -> bool {
    false
}

#[cfg(test)]
mod tests;
