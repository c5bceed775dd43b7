//! Counters of the transport.

use crate::transport::counters::counters;

counters! {
    prefix "";
    /// Bytes that this engine has read from peers, for its own READs and for WRITEs of peers.
    bytes_pulled,
    /// Requests finished as initiator.
    requests,
    /// WRITEs that the peer was told of through memory, without a system call.
    told_by_ring,
    /// Connections whose short messages have to go through the socket: no page could be made, sent or mapped.
    without_ring,
    /// Connections to peers that were proven.
    connected,
    /// Connections to peers that ended with requests on them.
    lost,
    /// Attempts to reach a peer that says that it is on this host, which failed; another transport is used, if there is one.
    fallback_same_host,
    /// Connections of peers that were proven.
    inbound_accepted,
    /// Connections that were refused: of other users, without the proof, or too many.
    inbound_refused,
    /// WRITEs of peers that were pulled.
    inbound_requests,
    /// Requests of peers that were refused because of their address.
    inbound_rejected,
}
