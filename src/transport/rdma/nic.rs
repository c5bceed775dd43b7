//! A local NIC: device, port, GID, completion queues, and what was measured on it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;

use super::completions::Completions;
use super::gid::{self, Candidate, LocalGid};
use super::queue::Queue;
use super::verbs::{self, Channel, Context, Pd, PortState, Qp};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::runtime::wakeup::Wakeup;
use crate::transport::meter::Meter;
use crate::transport::report::NicReport;

/// RDMA READs under way per queue pair; upstream's value.
const RD_ATOMIC: u8 = 16;
/// Bytes per second assumed of a port that does not tell its rate. Chosen: nearly 10 Gbit/s, a slow port for RDMA.
const UNKNOWN_RATE: u64 = 1 << 30;

/// A NIC of this host. Any thread.
pub(super) struct Nic {
    /// Position in the transport's list.
    pub index: usize,
    /// Device name.
    pub name: String,
    /// The open device.
    pub context: Arc<Context>,
    /// Protection domain of all its memory regions and queue pairs.
    pub pd: Arc<Pd>,
    /// Where completion queues signal.
    pub channel: Arc<Channel>,
    /// Its completion queues, at least one.
    pub completions: Vec<Completions>,
    /// What the device can do.
    pub limits: verbs::Attributes,
    /// `MC_IB_PORT`.
    pub port_number: u8,
    /// `MC_PKEY_INDEX`.
    pub pkey_index: u16,
    /// READs under way that both the device and upstream's setting allow.
    pub rd_atomic: u8,
    /// Most connections at once.
    pub most_connections: usize,
    /// Ends the NIC thread's sleep.
    pub wakeup: Wakeup,
    /// Bytes under way and bandwidth.
    pub meter: Meter,
    /// When somebody looked for completions last and found none, ns.
    pub looked_ns: AtomicU64,
    /// A caller looked for completions since the NIC thread last asked.
    pub polled: AtomicBool,
    /// A caller sleeps and relies on the NIC thread.
    pub relied_on: AtomicBool,
    /// Completions cause events now.
    pub armed: AtomicBool,
    /// A rail could not post for lack of completion-queue credit.
    pub starved: AtomicBool,
    /// Guards what may change while it is open.
    port: Mutex<PortInfo>,
    /// Usable.
    active: AtomicBool,
    /// The device is dead: it is never used again.
    gone: AtomicBool,
    next_completions: AtomicUsize,
    /// When to look again for a GID that is missing, ms; 0: none is missing.
    pub refresh_at_ms: AtomicU64,
}

/// What the port and its GID table said last.
#[derive(Clone, Debug)]
pub(super) struct PortInfo {
    /// LID.
    pub lid: u16,
    /// Active MTU, bytes.
    pub mtu: u32,
    /// Chosen GID.
    pub gid: LocalGid,
    /// 0 if the driver does not say.
    pub bits_per_second: u64,
    /// InfiniBand, where link-local GIDs are the rule; else Ethernet.
    pub infiniband: bool,
    /// Why it is not usable, or the last failure.
    pub last_error: String,
}

impl PortInfo {
    /// Peers with link-local GIDs may be reached.
    fn takes_link_local(&self) -> bool {
        self.infiniband || gid::is_link_local(&self.gid.bytes)
    }
}

impl Nic {
    /// Opens the device. -6 if it does not exist, its port is not active or has no usable GID; -202 if the driver
    /// refuses.
    pub(super) fn open(index: usize, name: &str, config: &Config) -> Result<Arc<Self>> {
        let context = Context::open(name)?;
        let limits = context.attributes()?;
        let chosen = look(&context, config, |_| true)?;
        let pd = Pd::alloc(&context)?;
        let channel = Channel::create(&context)?;
        let depth = config.max_cqe.min(limits.max_cqe.max(1));
        let count = config.cqs_per_nic.min(limits.max_cq.max(1) as usize);
        let completions = (0..count)
            .map(|vector| Completions::open(&context, depth, &channel, vector as u32))
            .collect::<Result<Vec<_>>>()?;
        let wakeup = Wakeup::new()
            .map_err(|e| Error::io(Code::Context, "cannot create an eventfd (check ulimit -n)", &e))?;
        let most_connections =
            (limits.max_qp as usize / config.qps_per_endpoint).clamp(1, config.max_endpoints);
        Ok(Arc::new(Nic {
            index,
            name: name.to_string(),
            pd,
            channel,
            completions,
            port_number: config.ib_port,
            pkey_index: config.pkey_index,
            rd_atomic: RD_ATOMIC.min(limits.max_qp_rd_atom).min(limits.max_qp_init_rd_atom).max(1),
            limits,
            most_connections,
            wakeup,
            meter: Meter::new(chosen.1),
            looked_ns: AtomicU64::new(0),
            polled: AtomicBool::new(false),
            relied_on: AtomicBool::new(false),
            armed: AtomicBool::new(false),
            starved: AtomicBool::new(false),
            port: Mutex::new(chosen.0),
            active: AtomicBool::new(true),
            gone: AtomicBool::new(false),
            next_completions: AtomicUsize::new(0),
            refresh_at_ms: AtomicU64::new(0),
            context,
        }))
    }

    /// A queue pair in state INIT, on the completion queues in turn.
    pub(super) fn open_queue(&self, caps: &verbs::Caps) -> Result<Arc<Queue>> {
        let turn = self.next_completions.fetch_add(1, Ordering::Relaxed) % self.completions.len();
        let completions = &self.completions[turn];
        let qp = Qp::create(&self.pd, completions.cq(), caps)?;
        qp.init(self.port_number, self.pkey_index)?;
        completions.attach(qp, caps.max_wr as usize)
    }

    /// Port and GID as last read.
    pub(super) fn port(&self) -> PortInfo {
        self.port.lock().clone()
    }

    /// Path MTU towards a peer that says `peer` (if it does), bytes.
    pub(super) fn path_mtu(&self, config: &Config, peer: Option<u32>) -> u32 {
        let own = self.port.lock().mtu.min(config.mtu);
        own.min(peer.unwrap_or(own)).max(256)
    }

    /// Usable now.
    pub(super) fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// Dead for good.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Takes it out of use; true if it was in use.
    pub(super) fn deactivate(&self, why: &str, for_good: bool) -> bool {
        self.note(why);
        if for_good {
            self.gone.store(true, Ordering::Release);
        }
        self.active.swap(false, Ordering::AcqRel)
    }

    /// Keeps a failure for `showLinks`.
    pub(super) fn note(&self, why: &str) {
        self.port.lock().last_error = why.to_string();
    }

    /// Reads port and GID again. Returns whether anything changed that peers have to know.
    pub(super) fn refresh(&self, config: &Config) -> Result<bool> {
        if self.is_gone() {
            return Err(Error::new(Code::DeviceNotFound, format!("NIC {} failed for good", self.name)));
        }
        let (fresh, _) = look(&self.context, config, |_| true)?;
        let mut port = self.port.lock();
        let changed = (fresh.gid, fresh.lid) != (port.gid, port.lid);
        let last_error = std::mem::take(&mut port.last_error);
        *port = PortInfo { last_error, ..fresh };
        drop(port);
        Ok(!self.active.swap(true, Ordering::AcqRel) || changed)
    }

    /// The best GID that is at none of the indices `except`. Blocks on the driver.
    pub(super) fn other_gid(&self, config: &Config, except: &[u8]) -> Option<LocalGid> {
        // What `check_reach` of the peer would refuse is not tried.
        let narrow = self.port().takes_link_local();
        let suits = |candidate: &Candidate| {
            !except.contains(&candidate.index) && (narrow || !gid::is_link_local(&candidate.gid))
        };
        let (found, _) = look(&self.context, config, suits).ok()?;
        Some(found.gid)
    }

    /// The best GID of the peer's family that is at none of the indices `except`. Blocks on the driver.
    pub(super) fn gid_for(&self, config: &Config, peer: &[u8; 16], except: &[u8]) -> Option<LocalGid> {
        let suits =
            |candidate: &Candidate| !except.contains(&candidate.index) && gid::are_akin(&candidate.gid, peer);
        let (found, _) = look(&self.context, config, suits).ok()?;
        Some(found.gid)
    }

    /// Whether packets can get from the own GID `own` to a peer's GID; if not, why. On Ethernet a link-local GID is good
    /// on one link only, and two hosts are taken to be on one link if both use link-local GIDs.
    pub(super) fn check_reach(&self, own: &LocalGid, peer: &[u8; 16]) -> std::result::Result<(), String> {
        if !gid::is_link_local(peer) || gid::is_link_local(&own.bytes) || self.port.lock().infiniband {
            return Ok(());
        }
        let text = format!(
            "peer GID {} is link-local, and ours is {}: give the peer's NIC an address, or set MC_GID_INDEX there",
            gid::text(peer),
            gid::text(&own.bytes)
        );
        Err(text)
    }

    /// Uses another GID from now on; true if it is another.
    pub(super) fn adopt_gid(&self, gid: LocalGid) -> bool {
        let mut port = self.port.lock();
        std::mem::replace(&mut port.gid, gid) != gid
    }

    /// Work requests under way.
    pub(super) fn outstanding(&self) -> usize {
        self.completions.iter().map(|completions| completions.credit().outstanding()).sum()
    }

    /// Some completion queue has room for work requests.
    pub(super) fn has_credit(&self) -> bool {
        self.completions.iter().any(|completions| completions.credit().is_left())
    }

    /// For descriptors and `getNicLoadStats`.
    pub(super) fn state(&self) -> NicReport {
        let port = self.port();
        NicReport {
            name: self.name.clone(),
            lid: port.lid,
            gid: gid::text(&port.gid.bytes),
            gid_index: port.gid.index,
            speed_gbps: port.bits_per_second / 1_000_000_000,
            active: self.is_active(),
            inflight_bytes: self.meter.inflight(),
            bandwidth_bps: self.meter.bytes_per_second() as f64,
            last_error: port.last_error,
            ..NicReport::default()
        }
    }
}

/// Whether a device could be used: some port of it is active and has a GID.
pub(super) fn usable(name: &str, config: &Config) -> bool {
    Context::open(name).and_then(|context| look(&context, config, |_| true)).is_ok()
}

/// Reads the port and chooses a GID; the second value is the port's rate, bytes per second.
fn look(
    context: &Arc<Context>,
    config: &Config,
    suits: impl Fn(&Candidate) -> bool,
) -> Result<(PortInfo, u64)> {
    let (name, number) = (context.name(), config.ib_port);
    let port = context.port(number)?;
    if port.state != PortState::Active {
        let text = format!("port {number} of NIC {name} is not active ({:?}); check its link", port.state);
        return Err(Error::new(Code::DeviceNotFound, text));
    }
    let candidates = candidates(context, config, port.gid_table_len)?;
    let chosen = candidates.into_iter().find(suits);
    let chosen = chosen.ok_or_else(|| {
        let hint = match config.gid_index {
            Some(index) => format!("MC_GID_INDEX={index} names an empty entry"),
            None => "its network device may have no address".into(),
        };
        Error::new(Code::DeviceNotFound, format!("port {number} of NIC {name} has no usable GID: {hint}"))
    })?;
    let rate = if port.bits_per_second == 0 { UNKNOWN_RATE } else { port.bits_per_second / 8 };
    let info = PortInfo {
        lid: port.lid,
        mtu: port.active_mtu,
        gid: LocalGid { bytes: chosen.gid, index: chosen.index },
        bits_per_second: port.bits_per_second,
        infiniband: port.is_infiniband,
        last_error: String::new(),
    };
    Ok((info, rate))
}

fn candidates(context: &Arc<Context>, config: &Config, table_len: u32) -> Result<Vec<Candidate>> {
    let port = config.ib_port;
    let mut found = Vec::new();
    let last = config.gid_index.map_or(table_len.min(256), |index| u32::from(index) + 1);
    for index in config.gid_index.map_or(0, u32::from)..last {
        let Some(entry) = context.gid(port, index)? else { continue };
        let netdev = net_device(context.name(), port, index);
        let rank = gid::rank(&entry, netdev.as_deref());
        found.push(Candidate { index: index as u8, gid: entry.gid, rank });
    }
    Ok(gid::sorted(found))
}

/// Name of the network device behind a GID.
fn net_device(device: &str, port: u8, index: u32) -> Option<String> {
    let path = format!("/sys/class/infiniband/{device}/ports/{port}/gid_attrs/ndevs/{index}");
    let name = std::fs::read_to_string(path).ok()?;
    Some(name.trim().to_string()).filter(|name| !name.is_empty())
}
