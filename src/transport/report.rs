//! What transports tell of their NICs: plain data for `showLinks`, `getNicLoadStats` and metrics.

/// A local NIC that a transport uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NicReport {
    /// Device name.
    pub name: String,
    /// Which transport uses it, in upstream's words: `<name>_transport`.
    pub source: &'static str,
    /// LID of its port.
    pub lid: u16,
    /// GID that peers reach it by: 16 hex bytes joined by `:`.
    pub gid: String,
    /// Its place in the port's table.
    pub gid_index: u8,
    /// Port number.
    pub port: u8,
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

/// What waits for one peer at one local end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueReport {
    /// The peer's segment name, as the transport knows it.
    pub peer: String,
    /// The local end: a NIC, or the number of a connection.
    pub queue: String,
    /// Requests, or pieces of them, that were handed to the NIC or the connection and have not ended.
    pub under_way: usize,
    /// Those that wait for room there, or for a connection.
    pub waiting: usize,
}

/// A pair of a local NIC and a peer's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RailReport {
    /// Local device name.
    pub local: String,
    /// The peer's NIC path.
    pub peer: String,
    /// `idle`, `connecting`, `up`, `paused`.
    pub state: &'static str,
    /// Bytes posted and not completed.
    pub inflight_bytes: u64,
    /// Slices that wait for room or for the connection.
    pub waiting: usize,
    /// Slices completed.
    pub completed: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// The last failure; "" if there was none.
    pub last_error: String,
}
