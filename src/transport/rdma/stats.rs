//! Counters of the RDMA transport.

use crate::transport::counters::counters;

counters! {
    prefix "rdma_";
    /// Slices put on another rail, or on the same one again.
    reposted,
    /// Connections set up.
    connections,
    /// Queue pairs destroyed because no completions came.
    destroyed_without_completion,
    /// Connection requests refused.
    rejected,
    /// Connections evicted for lack of room.
    evicted,
}
