//! What the transport knows of a peer, and how it asks for more. Implemented by the engine's segments.

use std::sync::Arc;

use crate::error::Result;
use crate::handshake::ConnectionMessage;
use crate::runtime::BoxFuture;
use crate::topology::Matrix;

/// A NIC of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PeerNic {
    /// Device name at the peer.
    pub name: String,
    /// LID of its port.
    pub lid: u16,
    /// GID text.
    pub gid: String,
}

/// A buffer that a peer publishes, with keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PeerBuffer {
    /// Location at the peer.
    pub location: String,
    /// First byte.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// One per NIC of the peer.
    pub rkey: Vec<u32>,
}

/// A peer's descriptor, as far as RDMA is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PeerDesc {
    /// Server part of its NIC paths.
    pub server: String,
    /// Its NICs.
    pub nics: Vec<PeerNic>,
    /// Its buffers that have keys, in any order.
    pub buffers: Vec<PeerBuffer>,
    /// Its priority matrix; empty if it was malformed.
    pub matrix: Matrix,
    /// Id of its start, if it is an engine of this project.
    pub incarnation: Option<String>,
    /// It may send notifications over a queue pair: its release is one that can.
    pub notifies: bool,
}

/// The way to one peer. Methods may be called from any thread.
pub(super) trait Route: Send + Sync {
    /// The peer's name, for messages.
    fn peer(&self) -> String;

    /// The descriptor as last read, and its version, which changes whenever a reading differs from the one before.
    fn desc(&self) -> Result<(Arc<PeerDesc>, u64)>;

    /// Reads the descriptor again.
    fn refresh(&self) -> BoxFuture<'_, Result<()>>;

    /// Sends a type-0 message to the peer's handshake port and returns the reply.
    fn exchange(&self, message: ConnectionMessage) -> BoxFuture<'_, Result<ConnectionMessage>>;
}
