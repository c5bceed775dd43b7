//! Plain data between the transport and the engine: who we are, what is published, what diagnostics show.

use super::route::BoxFuture;
use crate::topology::Matrix;

/// Who this engine is to its peers.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Server part of our NIC paths: the segment name, unless `MC_RDMA_BIND_ADDRESS` says otherwise.
    pub server: String,
    /// Id of this engine start, as in descriptors.
    pub incarnation: String,
}

/// What the engine does for the transport.
pub trait Host: Send + Sync {
    /// NICs, GIDs or keys changed: the descriptor is to be published again. Must not block.
    fn republish(&self);

    /// GID text and LID of a peer's NIC path (`server@nic`), from the peer's descriptor. For peers that do not send them.
    fn look_up_nic(&self, path: &str) -> BoxFuture<'_, (String, u16)>;
}

/// One NIC as published and as `getNicLoadStats` shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NicState {
    /// Device name.
    pub name: String,
    /// LID of its port.
    pub lid: u16,
    /// GID text: 16 hex bytes joined by `:`.
    pub gid: String,
    /// Its place in the port's table.
    pub gid_index: u8,
    /// Rate of the port, Gbit/s; 0 if the driver does not say.
    pub speed_gbps: u64,
    /// Usable now.
    pub active: bool,
    /// Bytes posted and not completed.
    pub inflight_bytes: u64,
    /// Measured, bytes per second; the port's rate until something was measured.
    pub bandwidth_bps: f64,
    /// Why it is not usable, or the last failure; "" if there was none.
    pub last_error: String,
}

/// One rail as `showLinks` shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RailState {
    /// Local device name.
    pub local: String,
    /// Peer NIC path.
    pub peer: String,
    /// `idle`, `connecting`, `up`, `paused`.
    pub state: &'static str,
    /// Bytes posted and not completed.
    pub inflight_bytes: u64,
    /// Slices that wait for room or for the connection.
    pub waiting: usize,
    /// Slices completed, and failed attempts.
    pub completed: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// The last failure; "" if there was none.
    pub last_error: String,
}

/// What goes into the descriptor, consistent in itself: every key list has one entry per NIC.
#[derive(Clone, Debug, Default)]
pub struct Publication {
    /// Live NICs, in the order in which upstream's readers number them.
    pub nics: Vec<NicState>,
    /// Matrix without dead NICs.
    pub matrix: Matrix,
    /// Regions open to peers, in order of registration; a long region is several entries.
    pub buffers: Vec<PublishedBuffer>,
}

/// One `buffers` entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishedBuffer {
    /// Resolved location.
    pub location: String,
    /// First byte.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// One per NIC.
    pub rkey: Vec<u32>,
    /// One per NIC.
    pub lkey: Vec<u32>,
}
