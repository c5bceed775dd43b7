//! Counters of the TCP transport.

use crate::transport::counters::counters;

counters! {
    prefix "";
    /// Bytes sent as initiator, headers included.
    bytes_sent,
    /// Bytes received as initiator, frames included.
    bytes_received,
    /// Requests finished as initiator.
    requests,
    /// Connections made to peers.
    lanes_opened,
    /// Connections that died with requests on them.
    lanes_lost,
    /// Connections over one of several addresses of a peer that failed, or could not be made.
    rails_failed,
    /// Requests sent again after a connection died.
    requests_resent,
    /// Connections accepted from peers.
    inbound_accepted,
    /// Connections refused because the table was full, or descriptors were scarce.
    inbound_refused,
    /// Connections closed so that another one had room.
    inbound_displaced,
    /// Requests served.
    inbound_requests,
    /// Requests refused because of their address.
    inbound_rejected,
    /// Connections refused because their peer is not believed: no TLS, no certificate, no cluster key.
    inbound_distrusted,
    /// Connections that use v1 framing: a WRITE completes before it is applied.
    fallback_v1,
    /// Connections used for one request only.
    fallback_one_shot,
    /// Connections to the address that everybody knows, because none of several others worked.
    fallback_one_address,
}
