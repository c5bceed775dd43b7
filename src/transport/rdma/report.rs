//! Plain data between the transport and the engine: our identity, and what is published.

use crate::error::Result;
use crate::handshake::Notification;
use crate::runtime::BoxFuture;
use crate::topology::Matrix;
use crate::transport::report::NicReport;

/// This engine's identity, as its peers see it.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// Server part of our NIC paths: the segment name, unless `MC_RDMA_BIND_ADDRESS` says otherwise.
    pub server: String,
    /// Id of this engine start, as in descriptors.
    pub incarnation: String,
}

/// What the engine does for the transport.
pub(super) trait Host: Send + Sync {
    /// NICs, GIDs or keys changed: the descriptor is to be published again. Must not block.
    fn republish(&self);

    /// A peer has notified us over a queue pair. `false`: there is no room. Must not block.
    fn notified(&self, notification: Notification) -> bool;

    /// GID text and LID of a peer's NIC path (`server@nic`), from the peer's descriptor. For peers that do not send them.
    fn look_up_nic(&self, path: &str) -> BoxFuture<'_, Result<(String, u16)>>;
}

/// What goes into the descriptor, consistent in itself: every key list has one entry per NIC.
#[derive(Clone, Debug, Default)]
pub(super) struct Publication {
    /// Live NICs, in the order in which upstream's readers number them.
    pub nics: Vec<NicReport>,
    /// Matrix without dead NICs.
    pub matrix: Matrix,
    /// Regions open to peers, in order of registration; a long region is several entries.
    pub buffers: Vec<PublishedBuffer>,
}

/// One `buffers` entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PublishedBuffer {
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
